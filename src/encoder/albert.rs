use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::checkpoint::{canonical_key, load_layers};
use super::fields::{
    activation, invalid, read_fields, require_absolute_positions, require_epsilon, require_layers,
    require_multiple, require_probabilities, require_sizes,
};
use super::{
    Architecture, FeedForwardNames, LayerVisitor, PostNormLayer, PostNormLayerConfig,
    PostNormLayerNames, SelfAttentionNames, TokenEmbeddings, TokenEmbeddingsConfig,
};
use crate::adapter::{AdaptedLinear, AdaptedLinearConfig, Pass};
use crate::error::Result;
use crate::kernel::{Activation, Packing};
use crate::state_dict::StateDict;
use crate::text::TokenBatch;

/// What the encoder's names begin with in checkpoints of an ALBERT with a head.
const HEAD_PREFIXES: &[&str] = &["albert."];

/// The fields of an ALBERT's `config.json` that its forward pass needs
/// (<https://arxiv.org/abs/1909.11942>).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the names are config.json's own")]
pub struct AlbertConfig {
    pub vocab_size: usize,
    pub embedding_size: usize,
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_hidden_groups: usize,
    pub inner_group_num: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    pub hidden_act: String,
    pub hidden_dropout_prob: f64,
    pub attention_probs_dropout_prob: f64,
    pub max_position_embeddings: usize,
    pub type_vocab_size: usize,
    pub initializer_range: f64,
    pub layer_norm_eps: f64,
    pub position_embedding_type: Option<String>,
}

impl Default for AlbertConfig {
    /// The defaults of `transformers`: albert-xxlarge-v2.
    fn default() -> Self {
        Self {
            vocab_size: 30000,
            embedding_size: 128,
            hidden_size: 4096,
            num_hidden_layers: 12,
            num_hidden_groups: 1,
            inner_group_num: 1,
            num_attention_heads: 64,
            intermediate_size: 16384,
            hidden_act: "gelu_new".to_owned(),
            hidden_dropout_prob: 0.0,
            attention_probs_dropout_prob: 0.0,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            initializer_range: 0.02,
            layer_norm_eps: 1e-12,
            position_embedding_type: None,
        }
    }
}

impl AlbertConfig {
    /// Reads and checks the fields of a `config.json`.
    ///
    /// # Errors
    /// [`EncoderError::Malformed`](crate::error::EncoderError) or
    /// [`EncoderError::InvalidField`](crate::error::EncoderError).
    pub fn from_json(fields: &Map<String, Value>) -> Result<Self> {
        let config: Self = read_fields(fields)?;
        config.validate()?;
        Ok(config)
    }

    fn validate(&self) -> Result<()> {
        require_epsilon("layer_norm_eps", self.layer_norm_eps)?;
        require_layers(&[
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_hidden_groups", self.num_hidden_groups),
            (
                "inner_group_num",
                self.inner_group_num.saturating_mul(self.num_hidden_groups),
            ),
        ])?;
        require_sizes(&[
            ("vocab_size", self.vocab_size),
            ("embedding_size", self.embedding_size),
            ("hidden_size", self.hidden_size),
            ("num_attention_heads", self.num_attention_heads),
            ("num_hidden_groups", self.num_hidden_groups),
            ("inner_group_num", self.inner_group_num),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("type_vocab_size", self.type_vocab_size),
        ])?;
        require_multiple("hidden_size", self.hidden_size, self.num_attention_heads)?;
        if self.num_hidden_groups > self.num_hidden_layers {
            let expected = format!("at most {} layers", self.num_hidden_layers);
            return Err(invalid(
                "num_hidden_groups",
                expected,
                self.num_hidden_groups,
            ));
        }
        require_probabilities(&[
            ("hidden_dropout_prob", self.hidden_dropout_prob),
            (
                "attention_probs_dropout_prob",
                self.attention_probs_dropout_prob,
            ),
        ])?;
        require_absolute_positions(self.position_embedding_type.as_deref())?;
        activation("hidden_act", &self.hidden_act).map(|_| ())
    }

    /// An encoder with fresh weights and a pooler.
    pub fn init<B: Backend>(&self, device: &B::Device) -> Albert<B> {
        let embeddings = TokenEmbeddingsConfig {
            vocab_size: self.vocab_size,
            positions: Some(self.max_position_embeddings),
            token_types: Some(self.type_vocab_size),
            embedding_size: self.embedding_size,
            dropout: self.hidden_dropout_prob,
            layer_norm_eps: self.layer_norm_eps,
            initializer_range: self.initializer_range,
        };
        let linear = |d_input| {
            let config = AdaptedLinearConfig {
                d_input,
                d_output: self.hidden_size,
                bias: true,
                initializer_range: self.initializer_range,
            };
            config.init(device)
        };
        let layer = PostNormLayerConfig {
            hidden_size: self.hidden_size,
            heads: self.num_attention_heads,
            intermediate_size: self.intermediate_size,
            // `from_json` has checked the name; one set by hand falls back to ALBERT's own.
            activation: activation("hidden_act", &self.hidden_act).unwrap_or(Activation::GeluTanh),
            attention_dropout: self.attention_probs_dropout_prob,
            attention_output_dropout: Some(self.hidden_dropout_prob),
            feed_forward_dropout: None,
            layer_norm_eps: self.layer_norm_eps,
            initializer_range: self.initializer_range,
        };
        let group = || AlbertLayerGroup {
            layers: (0..self.inner_group_num)
                .map(|_| layer.init(device))
                .collect(),
        };
        Albert {
            embeddings: embeddings.init(device),
            embedding_hidden_mapping_in: linear(self.embedding_size),
            groups: (0..self.num_hidden_groups).map(|_| group()).collect(),
            pooler: Some(linear(self.hidden_size)),
            num_hidden_layers: self.num_hidden_layers,
        }
    }

    /// An encoder with the weights of a state dict; what it does not use stays there.
    ///
    /// # Errors
    /// [`StateDictError`](crate::error::StateDictError) naming what is missing or of
    /// another shape.
    pub fn load<B: Backend>(
        &self,
        tensors: &mut StateDict,
        device: &B::Device,
    ) -> Result<Albert<B>> {
        *tensors = std::mem::take(tensors).rename(|key| canonical_key(key, HEAD_PREFIXES));
        let mut albert = self.init(device);
        if !tensors.contains(&format!("{POOLER}.weight")) {
            albert.pooler = None;
        }
        load_layers(tensors, device, |visitor| albert.visit_layers(visitor))?;
        Ok(albert)
    }
}

impl Architecture for AlbertConfig {
    fn model_type(&self) -> &str {
        "albert"
    }

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    fn max_tokens(&self) -> usize {
        self.max_position_embeddings
    }

    fn type_vocab_size(&self) -> usize {
        self.type_vocab_size
    }

    fn default_lora_targets(&self) -> &'static [&'static str] {
        &["query", "value"]
    }

    fn head_prefixes(&self) -> &'static [&'static str] {
        HEAD_PREFIXES
    }
}

const LAYER: PostNormLayerNames = PostNormLayerNames {
    attention: SelfAttentionNames {
        query: "attention.query",
        key: "attention.key",
        value: "attention.value",
        output: "attention.dense",
        norm: "attention.LayerNorm",
    },
    feed_forward: FeedForwardNames {
        intermediate: "ffn",
        output: "ffn_output",
        norm: "full_layer_layer_norm",
    },
};

const POOLER: &str = "pooler";

/// ALBERT's encoder: BERT's, with small embeddings that are mapped to the layers' size, and
/// with few groups of layers, each run several times over.
///
/// A layer is there once, and an adapter on it works each time it runs.
#[derive(Module, Debug)]
pub struct Albert<B: Backend> {
    embeddings: TokenEmbeddings<B>,
    embedding_hidden_mapping_in: AdaptedLinear<B>,
    groups: Vec<AlbertLayerGroup<B>>,
    /// Takes no part in token embeddings, as BERT's.
    pooler: Option<AdaptedLinear<B>>,
    #[module(skip)]
    num_hidden_layers: usize,
}

/// The layers of an ALBERT that follow each other wherever they run.
#[derive(Module, Debug)]
pub struct AlbertLayerGroup<B: Backend> {
    layers: Vec<PostNormLayer<B>>,
}

impl<B: Backend> Albert<B> {
    /// Turns token ids into token embeddings.
    ///
    /// # Shapes
    /// - batch: `[tokens]`
    /// - output: `[tokens, hidden]`
    pub(super) fn fold_layers(
        &self,
        batch: &TokenBatch<B>,
        packing: &Packing<B>,
        pass: Pass<'_>,
        see: &mut dyn FnMut(&Tensor<B, 2>),
    ) -> Tensor<B, 2> {
        let positions = packing.positions();
        let embeddings = self.embeddings.forward(batch, Some(positions), pass);
        let hidden = self.embedding_hidden_mapping_in.forward(embeddings, pass);
        let groups = (0..self.num_hidden_layers).map(|index| &self.groups[self.group_of(index)]);
        let layers = groups.flat_map(|group| &group.layers);
        see(&hidden);
        layers.fold(hidden, |hidden, layer| {
            let hidden = layer.forward(hidden, None, packing, pass);
            see(&hidden);
            hidden
        })
    }

    /// The group that runs in the place of a layer: each of them in as many layers in a row.
    fn group_of(&self, layer: usize) -> usize {
        let each = self.num_hidden_layers as f64 / self.groups.len() as f64;
        (layer as f64 / each) as usize
    }

    /// Sets the dropout of every layer but the adapters'.
    pub fn set_dropout(&mut self, dropout: f64) {
        self.embeddings.set_dropout(dropout);
        for layer in self.groups.iter_mut().flat_map(|group| &mut group.layers) {
            layer.set_dropout(dropout);
        }
    }

    /// Walks a visitor over the layers under their Hugging Face paths, each once.
    ///
    /// # Errors
    /// The visitor's.
    pub fn visit_layers<V: LayerVisitor<B>>(&mut self, visitor: &mut V) -> Result<()> {
        self.embeddings.visit_layers(visitor)?;
        visitor.linear(
            "encoder.embedding_hidden_mapping_in",
            &mut self.embedding_hidden_mapping_in,
        )?;
        for (group_index, group) in self.groups.iter_mut().enumerate() {
            let path = format!("encoder.albert_layer_groups.{group_index}.albert_layers");
            for (index, layer) in group.layers.iter_mut().enumerate() {
                layer.visit_layers(&format!("{path}.{index}"), &LAYER, visitor)?;
            }
        }
        match &mut self.pooler {
            Some(pooler) => visitor.linear(POOLER, pooler),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};
    use crate::error::{EncoderError, Error};
    use serde_json::json;

    fn config(layers: usize, groups: usize) -> Result<AlbertConfig> {
        let fields = json!({
            "vocab_size": 5, "embedding_size": 2, "hidden_size": 4, "num_attention_heads": 2,
            "intermediate_size": 3, "num_hidden_layers": layers, "num_hidden_groups": groups,
        });
        AlbertConfig::from_json(fields.as_object().unwrap())
    }

    #[test]
    fn groups_are_shared_out_to_layers_in_order() {
        let groups = |layers: usize, groups: usize| -> Vec<usize> {
            let albert = config(layers, groups)
                .unwrap()
                .init::<TestBackend>(&device());
            (0..layers).map(|layer| albert.group_of(layer)).collect()
        };
        assert_eq!(groups(4, 1), [0; 4]);
        assert_eq!(groups(4, 2), [0, 0, 1, 1]);
        assert_eq!(groups(5, 2), [0, 0, 0, 1, 1]);
        let error = config(1, 2).unwrap_err();
        assert!(
            matches!(&error, Error::Encoder(EncoderError::InvalidField { field, .. })
                if *field == "num_hidden_groups"),
            "{error}"
        );
    }
}
