use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::lycoris::LycorisDropout;
use super::peft_config::{
    as_python_number, as_python_numbers, check_targeting, common_fields, invalid, sorted_json,
    unsupported,
};
use super::{LayerIndices, ModuleNames, Targeting, TaskType};
use crate::error::Result;

/// The configuration of a LoHa adapter (<https://arxiv.org/abs/2108.06098>), as peft 0.21.2
/// reads and writes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LohaConfig {
    /// The rank.
    pub r: usize,
    /// The numerator of the scale `alpha / r`.
    #[serde(serialize_with = "as_python_number")]
    pub alpha: f64,
    /// The share of the update's rows that is dropped while training.
    pub rank_dropout: f64,
    /// How often a layer's whole update is dropped while training.
    pub module_dropout: f64,
    /// Of convolutions; has no meaning for linear layers.
    pub use_effective_conv2d: bool,
    /// The layers to adapt; `None` means the architecture's default ones.
    pub target_modules: Option<ModuleNames>,
    /// Layers not to adapt, even where `target_modules` names them.
    pub exclude_modules: Option<ModuleNames>,
    /// Whether a fresh adapter changes nothing.
    pub init_weights: bool,
    /// The layer indices to adapt; `None` means all.
    pub layers_to_transform: Option<LayerIndices>,
    /// The name in front of a layer's index, where it is not the usual one.
    pub layers_pattern: Option<ModuleNames>,
    /// Ranks by regular expression on the layer's name, instead of `r`.
    pub rank_pattern: IndexMap<String, usize>,
    /// Numerators by regular expression on the layer's name, instead of `alpha`.
    #[serde(serialize_with = "as_python_numbers")]
    pub alpha_pattern: IndexMap<String, f64>,
    /// Modules trained and saved in full beside the adapter, by the endings of their names.
    pub modules_to_save: Option<Vec<String>>,
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

/// How a fresh LoKr adapter's weights are drawn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LokrInit {
    /// `true`: the first factor zero. `false`: neither, so that the fresh adapter already
    /// changes the output.
    Flag(bool),
    /// By a scheme's name.
    Scheme(LokrScheme),
}

/// A scheme by which a fresh LoKr adapter's weights are drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LokrScheme {
    /// The second factor zero, as LyCORIS has it.
    Lycoris,
}

/// The configuration of a LoKr adapter (<https://arxiv.org/abs/2309.14859>), as peft 0.21.2
/// reads and writes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LokrConfig {
    /// The rank of a factor that is itself a product.
    pub r: usize,
    /// The numerator of the scale `alpha / r`.
    #[serde(serialize_with = "as_python_number")]
    pub alpha: f64,
    /// The share of the update's rows that is dropped while training.
    pub rank_dropout: f64,
    /// How often a layer's whole update is dropped while training.
    pub module_dropout: f64,
    /// Of convolutions; has no meaning for linear layers.
    pub use_effective_conv2d: bool,
    /// Whether the first factor is a product too.
    pub decompose_both: bool,
    /// The first factor's size; −1 is the squarest one.
    pub decompose_factor: i64,
    /// Whether dropping rows keeps the update's mean.
    pub rank_dropout_scale: bool,
    /// The layers to adapt; `None` means the architecture's default ones.
    pub target_modules: Option<ModuleNames>,
    /// Layers not to adapt, even where `target_modules` names them.
    pub exclude_modules: Option<ModuleNames>,
    /// How a fresh adapter's weights are drawn.
    pub init_weights: LokrInit,
    /// The layer indices to adapt; `None` means all.
    pub layers_to_transform: Option<LayerIndices>,
    /// The name in front of a layer's index, where it is not the usual one.
    pub layers_pattern: Option<ModuleNames>,
    /// Ranks by regular expression on the layer's name, instead of `r`.
    pub rank_pattern: IndexMap<String, usize>,
    /// Numerators by regular expression on the layer's name, instead of `alpha`.
    #[serde(serialize_with = "as_python_numbers")]
    pub alpha_pattern: IndexMap<String, f64>,
    /// Modules trained and saved in full beside the adapter, by the endings of their names.
    pub modules_to_save: Option<Vec<String>>,
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

impl Default for LohaConfig {
    fn default() -> Self {
        Self {
            r: 8,
            alpha: 8.0,
            rank_dropout: 0.0,
            module_dropout: 0.0,
            use_effective_conv2d: false,
            target_modules: None,
            exclude_modules: None,
            init_weights: true,
            layers_to_transform: None,
            layers_pattern: None,
            rank_pattern: IndexMap::new(),
            alpha_pattern: IndexMap::new(),
            modules_to_save: None,
            task_type: None,
            inference_mode: false,
            base_model_name_or_path: None,
            revision: None,
            other: Map::new(),
        }
    }
}

impl Default for LokrConfig {
    fn default() -> Self {
        Self {
            r: 8,
            alpha: 8.0,
            rank_dropout: 0.0,
            module_dropout: 0.0,
            use_effective_conv2d: false,
            decompose_both: false,
            decompose_factor: -1,
            rank_dropout_scale: false,
            target_modules: None,
            exclude_modules: None,
            init_weights: LokrInit::Flag(true),
            layers_to_transform: None,
            layers_pattern: None,
            rank_pattern: IndexMap::new(),
            alpha_pattern: IndexMap::new(),
            modules_to_save: None,
            task_type: None,
            inference_mode: false,
            base_model_name_or_path: None,
            revision: None,
            other: Map::new(),
        }
    }
}

/// What the two types' configurations do alike.
macro_rules! lycoris {
    ($config:ident, $peft_type:literal) => {
        impl $config {
            /// The content of `adapter_config.json`.
            ///
            /// # Errors
            /// What the serialiser says.
            pub fn to_json(&self) -> Result<String, serde_json::Error> {
                sorted_json(common_fields($peft_type), self)
            }

            pub(super) fn dropout(&self) -> LycorisDropout {
                LycorisDropout {
                    rank: self.rank_dropout,
                    module: self.module_dropout,
                }
            }

            pub(super) fn targeting(&self) -> Targeting<'_> {
                Targeting {
                    target_modules: self.target_modules.as_ref(),
                    exclude_modules: self.exclude_modules.as_ref(),
                    layers_to_transform: self.layers_to_transform.as_ref(),
                    layers_pattern: self.layers_pattern.as_ref(),
                    modules_to_save: self.modules_to_save.as_deref().unwrap_or_default(),
                    r: self.r,
                    rank_pattern: Some(&self.rank_pattern),
                    alpha: self.alpha,
                    alpha_pattern: Some(&self.alpha_pattern),
                }
            }

            fn validate_common(&self) -> Result<()> {
                check_targeting(&self.targeting(), "alpha")?;
                for (field, share) in [
                    ("rank_dropout", self.rank_dropout),
                    ("module_dropout", self.module_dropout),
                ] {
                    if !(0.0..1.0).contains(&share) {
                        return Err(invalid(field, "a probability in [0, 1)", share));
                    }
                }
                match self.other.get("peft_type").and_then(Value::as_str) {
                    None | Some($peft_type) => Ok(()),
                    Some(other) => Err(unsupported("peft_type", other)),
                }
            }
        }
    };
}
lycoris!(LohaConfig, "LOHA");
lycoris!(LokrConfig, "LOKR");

impl LohaConfig {
    /// Checks every field that changes the output.
    ///
    /// # Errors
    /// [`AdapterError::InvalidField`](crate::error::AdapterError), naming the field.
    pub fn validate(&self) -> Result<()> {
        self.validate_common()
    }
}

impl LokrConfig {
    /// Checks every field that changes the output.
    ///
    /// # Errors
    /// [`AdapterError::InvalidField`](crate::error::AdapterError), naming the field.
    pub fn validate(&self) -> Result<()> {
        self.validate_common()?;
        if self.decompose_factor == 0 || self.decompose_factor < -1 {
            let expected = "-1 or a positive number";
            return Err(invalid("decompose_factor", expected, self.decompose_factor));
        }
        Ok(())
    }

    pub(super) fn factor(&self) -> Option<usize> {
        usize::try_from(self.decompose_factor).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{AdapterError, Error};
    use serde_json::json;

    #[test]
    fn init_weights_are_flags_or_lycoris() {
        for (json, expected) in [
            (json!(true), LokrInit::Flag(true)),
            (json!("lycoris"), LokrInit::Scheme(LokrScheme::Lycoris)),
        ] {
            let config: LokrConfig =
                serde_json::from_value(json!({ "init_weights": json })).unwrap();
            assert_eq!(config.init_weights, expected);
            assert_eq!(serde_json::to_value(config).unwrap()["init_weights"], json);
        }
    }

    #[test]
    fn fields_out_of_range_are_named() {
        for (field, json) in [
            ("r", json!({ "r": 0 })),
            ("r", json!({ "r": 1u64 << 40 })),
            ("rank_dropout", json!({ "rank_dropout": 1.0 })),
            ("module_dropout", json!({ "module_dropout": -0.5 })),
            ("decompose_factor", json!({ "decompose_factor": 0 })),
        ] {
            let config: LokrConfig = serde_json::from_value(json).unwrap();
            let error = config.validate().unwrap_err();
            assert!(
                matches!(&error, Error::Adapter(AdapterError::InvalidField { field: f, .. }) if f == field),
                "{field}: {error}"
            );
        }
    }
}
