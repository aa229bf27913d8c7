//! From the names of a checkpoint to those of the encoder.

use burn::tensor::backend::Backend;

use super::Params;
use crate::error::Result;
use crate::state_dict::{LoadTensors, StateDict};

/// A checkpoint's key as today's `transformers` would write it: without the prefix that it
/// has where there is a head on the encoder, and with norms' `gamma` and `beta` as weight
/// and bias. `None` for what holds no weight.
pub(super) fn canonical_key(key: &str, head_prefixes: &[&str]) -> Option<String> {
    let stripped = head_prefixes
        .iter()
        .find_map(|prefix| key.strip_prefix(prefix));
    let key = stripped.unwrap_or(key);
    match key.rsplit_once('.') {
        Some((_, "position_ids" | "token_type_ids" | "inv_freq")) => None,
        Some((layer, "gamma")) => Some(format!("{layer}.weight")),
        Some((layer, "beta")) => Some(format!("{layer}.bias")),
        _ => Some(key.to_owned()),
    }
}

/// Fills a freshly made encoder from a state dict.
pub(super) fn load_layers<B: Backend>(
    tensors: &mut StateDict,
    device: &B::Device,
    visit_layers: impl FnOnce(&mut Params<LoadTensors<'_, B>>) -> Result<()>,
) -> Result<()> {
    let mut visitor = Params(LoadTensors::new(tensors, device));
    visit_layers(&mut visitor)?;
    visitor.0.finish().map(|_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_and_headed_names_are_read_as_today_s() {
        for (found, expected) in [
            (
                "bert.embeddings.LayerNorm.gamma",
                Some("embeddings.LayerNorm.weight"),
            ),
            (
                "embeddings.LayerNorm.beta",
                Some("embeddings.LayerNorm.bias"),
            ),
            ("bert.pooler.dense.weight", Some("pooler.dense.weight")),
            ("cls.predictions.bias", Some("cls.predictions.bias")),
            ("bert.embeddings.position_ids", None),
            ("rotary_emb.inv_freq", None),
        ] {
            assert_eq!(canonical_key(found, &["bert."]).as_deref(), expected);
        }
    }
}
