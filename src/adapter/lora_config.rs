use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::eva::EvaConfig;
use super::peft_config::{
    PEFT_VERSION, as_python_number, as_python_numbers, check_targeting, invalid, sorted_json,
    unsupported,
};
use super::{InitLoraWeights, InitScheme, LayerIndices, ModuleNames, Targeting, TokenIndices};
use crate::error::Result;

/// What the adapted model is for, as PEFT names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs, reason = "the names are PEFT's own")]
pub enum TaskType {
    SeqCls,
    #[serde(rename = "SEQ_2_SEQ_LM")]
    Seq2SeqLm,
    CausalLm,
    TokenCls,
    QuestionAns,
    FeatureExtraction,
}

/// Which bias vectors train along with the adapter.
///
/// They are the adapter's own: the base keeps its biases, and has them back when the adapter
/// is not active.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bias {
    /// None: the base model stays as it is.
    #[default]
    None,
    /// Every bias of the encoder.
    All,
    /// The biases of the adapted layers.
    LoraOnly,
}

/// A LoRA adapter's configuration: `adapter_config.json` as peft 0.21.2 reads and
/// writes it.
///
/// ```
/// use sentence_burn::{LoraConfig, TaskType};
///
/// let config = LoraConfig {
///     task_type: Some(TaskType::FeatureExtraction),
///     r: 64,
///     lora_alpha: 128.0,
///     lora_dropout: 0.1,
///     ..LoraConfig::default()
/// };
/// assert_eq!(config.scaling(config.r, config.lora_alpha), 2.0);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoraConfig {
    /// The rank: the inner dimension of the two thin matrices.
    pub r: usize,
    /// The numerator of the scale `lora_alpha / r`.
    #[serde(serialize_with = "as_python_number")]
    pub lora_alpha: f64,
    /// The dropout on an adapted layer's input while training.
    pub lora_dropout: f64,
    /// The layers to adapt; `None` means the architecture's default ones.
    pub target_modules: Option<ModuleNames>,
    /// Layers not to adapt, even where `target_modules` names them.
    pub exclude_modules: Option<ModuleNames>,
    /// The layer indices to adapt; `None` means all.
    pub layers_to_transform: Option<LayerIndices>,
    /// The name in front of a layer's index, where it is not the usual one.
    pub layers_pattern: Option<ModuleNames>,
    /// Ranks by regular expression on the layer's name, instead of `r`; the first that
    /// matches counts. PEFT's files hold them sorted.
    pub rank_pattern: IndexMap<String, usize>,
    /// Numerators by regular expression on the layer's name, instead of `lora_alpha`.
    #[serde(serialize_with = "as_python_numbers")]
    pub alpha_pattern: IndexMap<String, f64>,
    /// Rank-stabilised LoRA: the scale is `lora_alpha / √r`
    /// (<https://arxiv.org/abs/2312.03732>).
    pub use_rslora: bool,
    /// How a fresh adapter's weights are drawn.
    pub init_lora_weights: InitLoraWeights,
    /// Which bias vectors train along.
    pub bias: Bias,
    /// Weight-decomposed LoRA (<https://arxiv.org/abs/2402.09353>).
    pub use_dora: bool,
    /// Whether B has a bias.
    pub lora_bias: bool,
    /// Whether the base layer stores its weight transposed; linear layers do not, and PEFT
    /// ignores it there.
    pub fan_in_fan_out: bool,
    /// Modules trained and saved in full beside the adapter, by the endings of their names.
    pub modules_to_save: Option<Vec<String>>,
    /// Tokens whose embeddings are trained and saved by themselves.
    pub trainable_token_indices: Option<TokenIndices>,
    /// How EVA finds a fresh adapter's weights, with `init_lora_weights` `eva`.
    pub eva_config: Option<EvaConfig>,
    /// What the adapted model is for.
    pub task_type: Option<TaskType>,
    /// Whether the adapter was saved frozen; does not change the output.
    pub inference_mode: bool,
    /// The base model: a folder, or a hub id.
    pub base_model_name_or_path: Option<String>,
    /// The base model's revision on the hub.
    pub revision: Option<String>,
    /// Every other field, kept and written back.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Default for LoraConfig {
    fn default() -> Self {
        Self {
            r: 8,
            lora_alpha: 8.0,
            lora_dropout: 0.0,
            target_modules: None,
            exclude_modules: None,
            layers_to_transform: None,
            layers_pattern: None,
            rank_pattern: IndexMap::new(),
            alpha_pattern: IndexMap::new(),
            use_rslora: false,
            init_lora_weights: InitLoraWeights::default(),
            bias: Bias::default(),
            use_dora: false,
            lora_bias: false,
            fan_in_fan_out: false,
            modules_to_save: None,
            trainable_token_indices: None,
            eva_config: None,
            task_type: None,
            inference_mode: false,
            base_model_name_or_path: None,
            revision: None,
            other: Map::new(),
        }
    }
}

/// Fields that are written back but never computed with, and their defaults.
pub(super) fn informational_fields() -> Value {
    json!({
        "alora_invocation_tokens": null, "arrow_config": null, "auto_mapping": null,
        "corda_config": null, "ensure_weight_tying": false,
        "kasa_config": null, "layer_replication": null, "loftq_config": {},
        "lora_ga_config": null, "megatron_config": null, "megatron_core": "megatron.core",
        "monteclora_config": null, "peft_type": "LORA", "peft_version": PEFT_VERSION,
        "qalora_group_size": 16, "target_parameters": null,
        "use_bdlora": null, "use_qalora": false, "velora_config": null,
    })
}

/// Of those, the ones that change the output when they are set.
const CHANGES_OUTPUT: [&str; 13] = [
    "alora_invocation_tokens",
    "arrow_config",
    "corda_config",
    "kasa_config",
    "layer_replication",
    "loftq_config",
    "lora_ga_config",
    "megatron_config",
    "monteclora_config",
    "target_parameters",
    "use_bdlora",
    "use_qalora",
    "velora_config",
];

impl LoraConfig {
    /// The scale of an adapted layer's update: `alpha / r`, or `alpha / √r` with
    /// [`use_rslora`](Self::use_rslora).
    pub fn scaling(&self, r: usize, alpha: f64) -> f64 {
        let r = r as f64;
        if self.use_rslora {
            alpha / r.sqrt()
        } else {
            alpha / r
        }
    }

    /// The content of `adapter_config.json`: every field of peft 0.21.2, sorted.
    ///
    /// # Errors
    /// What the serialiser says.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        sorted_json(informational_fields(), self)
    }

    /// The configuration of the same adapter as a plain LoRA, of twice the ranks and the same
    /// scales, where it began as a part of its layers' weights.
    pub(crate) fn plain(&self) -> Self {
        if !self.init_lora_weights.replaces_a_part() {
            return self.clone();
        }
        // Rank-stabilised scales go by the root of the rank.
        let factor = if self.use_rslora { 2f64.sqrt() } else { 2.0 };
        let doubled = |(name, r): (&String, &usize)| (name.clone(), 2 * r);
        let scaled = |(name, alpha): (&String, &f64)| (name.clone(), factor * alpha);
        Self {
            r: 2 * self.r,
            lora_alpha: factor * self.lora_alpha,
            rank_pattern: self.rank_pattern.iter().map(doubled).collect(),
            alpha_pattern: self.alpha_pattern.iter().map(scaled).collect(),
            init_lora_weights: InitLoraWeights::default(),
            ..self.clone()
        }
    }

    /// What says which layers are adapted.
    pub(super) fn targeting(&self) -> Targeting<'_> {
        Targeting {
            target_modules: self.target_modules.as_ref(),
            exclude_modules: self.exclude_modules.as_ref(),
            layers_to_transform: self.layers_to_transform.as_ref(),
            layers_pattern: self.layers_pattern.as_ref(),
            modules_to_save: self.modules_to_save.as_deref().unwrap_or_default(),
            r: self.r,
            rank_pattern: Some(&self.rank_pattern),
            alpha: self.lora_alpha,
            alpha_pattern: Some(&self.alpha_pattern),
        }
    }

    /// Checks every field that changes the output: its range, and that this version
    /// computes it.
    ///
    /// # Errors
    /// [`AdapterError::InvalidField`](crate::error::AdapterError) or
    /// [`AdapterError::Unsupported`](crate::error::AdapterError), naming the field.
    pub fn validate(&self) -> Result<()> {
        check_targeting(&self.targeting(), "lora_alpha")?;
        if !(0.0..1.0).contains(&self.lora_dropout) {
            let expected = "a probability in [0, 1)";
            return Err(invalid("lora_dropout", expected, self.lora_dropout));
        }
        if self.lora_bias && self.use_dora {
            return Err(invalid("lora_bias", "false where use_dora is true", true));
        }
        if let InitLoraWeights::Scheme(scheme) = &self.init_lora_weights {
            let name = String::from(scheme.clone());
            if self.lora_bias {
                let expected = "true or false where lora_bias is true";
                return Err(invalid("init_lora_weights", expected, name));
            }
            let patterns = self.alpha_pattern.values().copied();
            let alphas = [self.lora_alpha].into_iter().chain(patterns);
            let replaces_a_part = self.init_lora_weights.replaces_a_part();
            if let Some(alpha) = alphas
                .filter(|_| replaces_a_part)
                .find(|alpha| *alpha <= 0.0)
            {
                // The part is divided by the scale, or by its root.
                let expected = format!("above 0 where init_lora_weights is {name}");
                return Err(invalid("lora_alpha", &expected, alpha));
            }
            if let InitScheme::Other(_) = scheme {
                return Err(unsupported("init_lora_weights", name));
            }
        }
        if let Some(config) = &self.eva_config {
            config.validate()?;
        }
        match self.other.get("peft_type") {
            None => {}
            Some(Value::String(peft_type)) if peft_type == "LORA" => {}
            Some(peft_type) => return Err(unsupported("peft_type", peft_type)),
        }
        for field in CHANGES_OUTPUT {
            match self.other.get(field) {
                None | Some(Value::Null | Value::Bool(false)) => {}
                Some(Value::Object(map)) if map.is_empty() => {}
                Some(Value::Array(list)) if list.is_empty() => {}
                Some(value) => return Err(unsupported(field, value)),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{AdapterError, Error};

    fn parse(json: Value) -> LoraConfig {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn missing_fields_have_peft_s_defaults_and_unknown_ones_are_kept() {
        let config = parse(json!({ "peft_type": "LORA", "r": 4, "from_the_future": [1] }));
        assert_eq!(
            (config.r, config.lora_alpha, config.lora_dropout),
            (4, 8.0, 0.0)
        );
        assert_eq!(config.init_lora_weights, InitLoraWeights::Flag(true));
        let written: Value = serde_json::from_str(&config.to_json().unwrap()).unwrap();
        assert_eq!(written["from_the_future"], json!([1]));
        assert_eq!(written.as_object().map(Map::len), Some(42));
    }

    #[test]
    fn whole_numbers_are_written_as_python_writes_integers() {
        let config = LoraConfig {
            lora_alpha: 128.0,
            ..LoraConfig::default()
        };
        assert!(config.to_json().unwrap().contains("\"lora_alpha\": 128,"));
        let config = LoraConfig {
            lora_alpha: 22.5,
            ..config
        };
        assert!(config.to_json().unwrap().contains("\"lora_alpha\": 22.5,"));
    }

    #[test]
    fn rank_stabilised_scale_divides_by_the_root() {
        let config = LoraConfig {
            use_rslora: true,
            ..LoraConfig::default()
        };
        assert_eq!(config.scaling(4, 6.0), 3.0);
        assert_eq!(LoraConfig::default().scaling(4, 6.0), 1.5);
    }

    #[test]
    fn fields_out_of_range_are_named() {
        for (field, json) in [
            ("r", json!({ "r": 0 })),
            ("r", json!({ "r": 1u64 << 60 })),
            ("rank_pattern", json!({ "rank_pattern": { "query": 0 } })),
            (
                "lora_alpha",
                json!({ "lora_alpha": 0, "init_lora_weights": "pissa" }),
            ),
            (
                "lora_alpha",
                json!({ "alpha_pattern": { "query": -1 }, "init_lora_weights": "olora" }),
            ),
            ("lora_dropout", json!({ "lora_dropout": -0.1 })),
            ("lora_dropout", json!({ "lora_dropout": 1.0 })),
            ("layers_pattern", json!({ "layers_pattern": "layer" })),
            ("lora_bias", json!({ "lora_bias": true, "use_dora": true })),
            (
                "init_lora_weights",
                json!({ "lora_bias": true, "init_lora_weights": "gaussian" }),
            ),
            (
                "layers_to_transform",
                json!({ "target_modules": ".*", "layers_to_transform": 1 }),
            ),
        ] {
            let error = parse(json).validate().unwrap_err();
            assert!(
                matches!(&error, Error::Adapter(AdapterError::InvalidField { field: f, .. }) if f == field),
                "{field}: {error}"
            );
        }
    }

    #[test]
    fn any_finite_alpha_is_one_as_in_peft() {
        for alpha in [0.0, -16.0] {
            let json = json!({ "lora_alpha": alpha, "alpha_pattern": { "key": alpha } });
            parse(json).validate().unwrap();
        }
        let config = LoraConfig {
            lora_alpha: f64::INFINITY,
            ..LoraConfig::default()
        };
        assert!(config.validate().is_err());
    }

    #[test]
    fn fields_that_would_change_the_output_are_refused_by_name() {
        for (field, json) in [
            ("peft_type", json!({ "peft_type": "IA3" })),
            ("init_lora_weights", json!({ "init_lora_weights": "loftq" })),
            ("corda_config", json!({ "corda_config": { "x": 1 } })),
            ("use_qalora", json!({ "use_qalora": true })),
            (
                "layer_replication",
                json!({ "layer_replication": [[0, 4]] }),
            ),
        ] {
            let error = parse(json).validate().unwrap_err();
            assert!(
                matches!(&error, Error::Adapter(AdapterError::Unsupported { field: f, .. }) if f == field),
                "{field}: {error}"
            );
        }
        let harmless = json!({ "loftq_config": {}, "eva_config": null, "qalora_group_size": 16 });
        parse(harmless).validate().unwrap();
    }
}
