use std::collections::BTreeMap;

use super::hadamard::HadamardConfig;
use super::kronecker::KroneckerConfig;
use super::low_rank_update::LowRankConfig;
use super::peft_config::invalid;
use super::rescale::RescaleConfig;
use super::table_update::TableUpdateConfig;
use super::target::{Target, names_module, resolve_targets};
use super::{Bias, InitLoraWeights, InitScheme, ModuleNames, PeftConfig, TokenIndices};
use crate::error::{AdapterError, Result};

/// A layer's kind, as far as adapters tell them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LayerKind {
    /// A linear layer.
    Linear,
    /// An embedding table of that many entries.
    Embedding {
        /// The number of entries.
        entries: usize,
    },
    /// A layer norm.
    LayerNorm,
    /// A root-mean-square norm, which has no bias.
    RmsNorm,
}

impl LayerKind {
    fn name(self) -> &'static str {
        match self {
            Self::Linear => "a linear layer",
            Self::Embedding { .. } => "an embedding table",
            Self::LayerNorm => "a layer norm",
            Self::RmsNorm => "a root-mean-square norm",
        }
    }
}

/// A layer that an adapter may be put on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerSite {
    /// Its path in the encoder.
    pub path: String,
    /// Its kind.
    pub kind: LayerKind,
}

/// What an adapter does to one layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerPlan {
    /// What it adds to the layer.
    pub update: Option<UpdateConfig>,
    /// The entries of a table that it trains by themselves.
    pub tokens: Option<Vec<usize>>,
    /// Which of the layer's own parameters it has in their place.
    pub replaced: Replaced,
}

/// Which of a layer's own parameters an adapter has in their place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Replaced {
    /// None.
    #[default]
    Nothing,
    /// The bias (`bias`).
    Bias,
    /// All of them (`modules_to_save`).
    Everything,
}

/// How an adapter updates a layer.
#[derive(Debug, Clone, PartialEq)]
pub enum UpdateConfig {
    /// A linear layer, by LoRA or AdaLoRA.
    LowRank(LowRankConfig),
    /// An embedding table, by LoRA.
    Table(TableUpdateConfig),
    /// A linear layer, by IA³.
    Rescale(RescaleConfig),
    /// A linear layer, by LoHa.
    Hadamard(HadamardConfig),
    /// A linear layer, by LoKr.
    Kronecker(KroneckerConfig),
}

/// An adapter's plan: by the paths of the layers, what it does to each.
pub type AdapterPlan = BTreeMap<String, LayerPlan>;

/// What an encoder says of itself to whoever plans an adapter for it.
#[derive(Debug, Clone, Copy)]
pub struct EncoderSites<'a> {
    /// Its layers, in order; the first embedding table is that of the words.
    pub layers: &'a [LayerSite],
    /// Its `model_type`.
    pub model_type: &'a str,
    /// The name endings of the layers that are adapted where a configuration names none.
    pub default_targets: Option<&'a [&'a str]>,
}

/// Plans an adapter: checks its configuration, finds its layers, and writes the target
/// modules that were resolved back into the configuration.
///
/// # Errors
/// [`AdapterError`] naming the field or the layer that is wrong; the configuration is then
/// as it was.
pub fn plan_adapter(config: &mut PeftConfig, encoder: &EncoderSites<'_>) -> Result<AdapterPlan> {
    config.validate()?;
    let mut filled = config.clone();
    if let PeftConfig::Ia3(config) = &mut filled {
        config.fill_defaults(encoder.model_type);
    }
    let default_targets = match &filled {
        PeftConfig::Ia3(_) => None,
        _ => encoder.default_targets,
    };
    let is_linear = |site: &&LayerSite| site.kind == LayerKind::Linear;
    let path = |site: &LayerSite| site.path.clone();
    let linear: Vec<String> = encoder.layers.iter().filter(is_linear).map(path).collect();
    let others = encoder.layers.iter().filter(|site| !is_linear(site));
    let others: Vec<String> = others.map(path).collect();
    let targets = resolve_targets(
        &filled.targeting(),
        &linear,
        &others,
        default_targets,
        encoder.model_type,
    )?;
    let targeted: BTreeMap<&str, &Target> = targets
        .layers
        .iter()
        .map(|t| (t.path.as_str(), t))
        .collect();
    let tokens = tokens_by_table(&filled, encoder)?;
    let saved = filled.targeting().modules_to_save;
    let saved = ModuleNames::list(saved.iter().cloned());
    let bias = match &filled {
        PeftConfig::Lora(config) => config.bias,
        PeftConfig::AdaLora(config) => config.bias,
        _ => Bias::None,
    };
    let mut plan = AdapterPlan::new();
    for site in encoder.layers {
        let update = match targeted.get(site.path.as_str()) {
            Some(target) => Some(update(&filled, site, target)?),
            None => None,
        };
        let is_saved = prefixes(&site.path)
            .map(|module| names_module("modules_to_save", &saved, module))
            .collect::<Result<Vec<bool>>>()?
            .contains(&true);
        let has_bias = matches!(site.kind, LayerKind::Linear | LayerKind::LayerNorm);
        let replaced = match bias {
            _ if is_saved => Replaced::Everything,
            Bias::All if has_bias => Replaced::Bias,
            Bias::LoraOnly if has_bias && update.is_some() => Replaced::Bias,
            _ => Replaced::Nothing,
        };
        let tokens = tokens.get(&site.path).cloned();
        if update.is_some() || tokens.is_some() || replaced != Replaced::Nothing {
            let layer = LayerPlan {
                update,
                tokens,
                replaced,
            };
            plan.insert(site.path.clone(), layer);
        }
    }
    filled.set_target_modules(targets.names);
    *config = filled;
    Ok(plan)
}

/// The modules that a layer is in, from the outermost to itself.
fn prefixes(path: &str) -> impl Iterator<Item = &str> {
    let ends = path.match_indices('.').map(|(end, _)| end);
    ends.chain([path.len()]).map(|end| &path[..end])
}

fn update(config: &PeftConfig, site: &LayerSite, target: &Target) -> Result<UpdateConfig> {
    let not_adaptable = || AdapterError::NotAdaptable {
        path: site.path.clone(),
        kind: site.kind.name(),
        peft_type: config.peft_type(),
    };
    match (config, site.kind) {
        (PeftConfig::Lora(config), LayerKind::Linear)
            if config.init_lora_weights == InitLoraWeights::Scheme(InitScheme::Orthogonal)
                && target.r % 2 == 1 =>
        {
            let expected = "an even rank where init_lora_weights is orthogonal";
            Err(invalid("r", expected, target.r))
        }
        (PeftConfig::Lora(config), LayerKind::Linear) => Ok(UpdateConfig::LowRank(LowRankConfig {
            r: target.r,
            scaling: config.scaling(target.r, target.alpha),
            dropout: config.lora_dropout,
            init_lora_weights: config.init_lora_weights.clone(),
            use_dora: config.use_dora,
            lora_bias: config.lora_bias,
            adaptive: false,
        })),
        (PeftConfig::Lora(config), LayerKind::Embedding { .. }) if !config.lora_bias => {
            Ok(UpdateConfig::Table(TableUpdateConfig {
                r: target.r,
                scaling: config.scaling(target.r, target.alpha),
                is_no_op: config.init_lora_weights != InitLoraWeights::Flag(false),
                use_dora: config.use_dora,
            }))
        }
        (PeftConfig::AdaLora(config), LayerKind::Linear) => {
            Ok(UpdateConfig::LowRank(LowRankConfig {
                r: config.rank_of(&site.path),
                scaling: config.scaling(),
                dropout: config.lora_dropout,
                init_lora_weights: InitLoraWeights::default(),
                use_dora: false,
                lora_bias: false,
                adaptive: true,
            }))
        }
        (PeftConfig::Ia3(config), LayerKind::Linear) => {
            let feedforward = match &config.feedforward_modules {
                Some(names) => names_module("feedforward_modules", names, &site.path)?,
                None => false,
            };
            Ok(UpdateConfig::Rescale(RescaleConfig {
                feedforward,
                init_ia3_weights: config.init_ia3_weights,
            }))
        }
        (PeftConfig::Loha(config), LayerKind::Linear) => {
            Ok(UpdateConfig::Hadamard(HadamardConfig {
                r: target.r,
                scaling: target.alpha / target.r as f64,
                dropout: config.dropout(),
                init_weights: config.init_weights,
            }))
        }
        (PeftConfig::Lokr(config), LayerKind::Linear) => {
            Ok(UpdateConfig::Kronecker(KroneckerConfig {
                r: target.r,
                scaling: target.alpha / target.r as f64,
                dropout: config.dropout(),
                rank_dropout_scale: config.rank_dropout_scale,
                decompose_both: config.decompose_both,
                decompose_factor: config.factor(),
                init_weights: config.init_weights.clone(),
            }))
        }
        _ => Err(not_adaptable().into()),
    }
}

/// The entries that are trained by themselves, by the paths of their tables.
fn tokens_by_table(
    config: &PeftConfig,
    encoder: &EncoderSites<'_>,
) -> Result<BTreeMap<String, Vec<usize>>> {
    let indices = config
        .as_lora()
        .and_then(|c| c.trainable_token_indices.as_ref());
    let mut tables = BTreeMap::new();
    let mut is_first = true;
    if let Some(TokenIndices::Tables(named)) = indices {
        let is_table = |site: &LayerSite| matches!(site.kind, LayerKind::Embedding { .. });
        let paths = || {
            encoder
                .layers
                .iter()
                .filter(|site| is_table(site))
                .map(|s| &s.path)
        };
        for name in named.keys() {
            if !paths().any(|path| path.ends_with(name)) {
                let expected = format!("endings of {:?}", paths().collect::<Vec<_>>());
                return Err(invalid("trainable_token_indices", &expected, name));
            }
        }
    }
    for site in encoder.layers {
        let LayerKind::Embedding { entries } = site.kind else {
            continue;
        };
        let is_words = std::mem::take(&mut is_first);
        let ids = match indices {
            None => None,
            Some(TokenIndices::Words(ids)) if is_words => Some(ids),
            Some(TokenIndices::Words(_)) => None,
            Some(TokenIndices::Tables(tables)) => {
                let named = tables.iter().find(|(name, _)| site.path.ends_with(*name));
                named.map(|(_, ids)| ids)
            }
        };
        let Some(ids) = ids else { continue };
        if let Some(&id) = ids.iter().find(|&&id| id >= entries) {
            let path = site.path.clone();
            return Err(AdapterError::NoSuchToken { path, id, entries }.into());
        }
        tables.insert(site.path.clone(), ids.clone());
    }
    Ok(tables)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::{Ia3Config, LohaConfig, LoraConfig};
    use crate::error::Error;

    fn sites() -> Vec<LayerSite> {
        let site = |path: &str, kind| LayerSite {
            path: path.to_owned(),
            kind,
        };
        let mut sites = vec![
            site(
                "embeddings.word_embeddings",
                LayerKind::Embedding { entries: 10 },
            ),
            site("embeddings.LayerNorm", LayerKind::LayerNorm),
        ];
        for name in ["attention.query", "attention.key", "output.dense"] {
            sites.push(site(&format!("encoder.layer.0.{name}"), LayerKind::Linear));
        }
        sites
    }

    fn plan(config: impl Into<PeftConfig>) -> Result<(AdapterPlan, PeftConfig)> {
        let mut config = config.into();
        let sites = sites();
        let encoder = EncoderSites {
            layers: &sites,
            model_type: "bert",
            default_targets: Some(&["query"]),
        };
        Ok((plan_adapter(&mut config, &encoder)?, config))
    }

    fn list(names: &[&str]) -> Option<ModuleNames> {
        Some(ModuleNames::list(names.iter().copied()))
    }

    #[test]
    fn each_kind_of_layer_gets_its_own_update() {
        let config = LoraConfig {
            target_modules: list(&["query", "word_embeddings"]),
            trainable_token_indices: Some(TokenIndices::Words(vec![3, 1])),
            ..LoraConfig::default()
        };
        let (plan, _) = plan(config).unwrap();
        let table = &plan["embeddings.word_embeddings"];
        assert!(matches!(table.update, Some(UpdateConfig::Table(_))));
        assert_eq!(table.tokens, Some(vec![3, 1]));
        let query = &plan["encoder.layer.0.attention.query"];
        assert!(matches!(query.update, Some(UpdateConfig::LowRank(_))));
        assert_eq!(plan.len(), 2);
    }

    #[test]
    fn biases_and_modules_take_the_place_of_the_layers_own() {
        let replaced = |bias, saved: &[&str]| {
            let config = LoraConfig {
                bias,
                modules_to_save: Some(saved.iter().map(|&s| s.to_owned()).collect()),
                ..LoraConfig::default()
            };
            let (plan, _) = plan(config).unwrap();
            let of = |path: &str| plan.get(path).map_or(Replaced::Nothing, |l| l.replaced);
            [
                of("embeddings.word_embeddings"),
                of("embeddings.LayerNorm"),
                of("encoder.layer.0.attention.query"),
                of("encoder.layer.0.attention.key"),
                of("encoder.layer.0.output.dense"),
            ]
        };
        use Replaced::{Bias as B, Everything as E, Nothing as N};
        assert_eq!(replaced(Bias::None, &[]), [N, N, N, N, N]);
        assert_eq!(replaced(Bias::All, &[]), [N, B, B, B, B]);
        assert_eq!(replaced(Bias::LoraOnly, &[]), [N, N, B, N, N]);
        assert_eq!(replaced(Bias::None, &["embeddings"]), [E, E, N, N, N]);
        // PEFT wraps by the ending of the name, not of its part.
        assert_eq!(replaced(Bias::None, &["utput"]), [N, N, N, N, E]);
    }

    #[test]
    fn ia3_scales_the_inputs_of_feed_forward_layers() {
        let (plan, config) = plan(Ia3Config::default()).unwrap();
        let feedforward = |path: &str| match &plan[path].update {
            Some(UpdateConfig::Rescale(rescale)) => rescale.feedforward,
            other => panic!("{other:?}"),
        };
        assert!(!feedforward("encoder.layer.0.attention.key"));
        assert!(feedforward("encoder.layer.0.output.dense"));
        assert_eq!(
            config.target_modules(),
            list(&["key", "value", "output.dense"]).as_ref()
        );
    }

    #[test]
    fn what_cannot_be_adapted_is_named() {
        let error = plan(LohaConfig {
            target_modules: list(&["query", "word_embeddings"]),
            ..LohaConfig::default()
        });
        let Err(Error::Adapter(AdapterError::NotAdaptable { path, .. })) = error else {
            panic!("an embedding table was adapted")
        };
        assert_eq!(path, "embeddings.word_embeddings");
        let error = plan(LoraConfig {
            trainable_token_indices: Some(TokenIndices::Words(vec![10])),
            ..LoraConfig::default()
        });
        assert!(matches!(
            error,
            Err(Error::Adapter(AdapterError::NoSuchToken {
                id: 10,
                entries: 10,
                ..
            }))
        ));
    }
}
