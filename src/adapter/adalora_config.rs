use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::lora_config::informational_fields;
use super::peft_config::{as_python_number, check_targeting, invalid, sorted_json, unsupported};
use super::{Bias, LayerIndices, ModuleNames, Targeting, TaskType};
use crate::error::Result;

/// The configuration of an AdaLoRA adapter (<https://arxiv.org/abs/2303.10512>), as peft
/// 0.21.2 reads and writes it.
///
/// Such adapters are loaded, run, merged and saved, with the ranks that training left them.
/// Training one further keeps its ranks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AdaLoraConfig {
    /// The rank that every layer begins with.
    pub init_r: usize,
    /// The numerator of the scale `lora_alpha / init_r`.
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
    /// Which of a layer's ranks training kept, by the layer's path and `.lora_E`.
    pub rank_pattern: Option<IndexMap<String, Vec<bool>>>,
    /// Which bias vectors train along.
    pub bias: Bias,
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

impl Default for AdaLoraConfig {
    fn default() -> Self {
        Self {
            init_r: 12,
            lora_alpha: 8.0,
            lora_dropout: 0.0,
            target_modules: None,
            exclude_modules: None,
            layers_to_transform: None,
            layers_pattern: None,
            rank_pattern: None,
            bias: Bias::None,
            modules_to_save: None,
            task_type: None,
            inference_mode: false,
            base_model_name_or_path: None,
            revision: None,
            other: Map::new(),
        }
    }
}

impl AdaLoraConfig {
    /// The content of `adapter_config.json`.
    ///
    /// # Errors
    /// What the serialiser says.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        let mut further = informational_fields();
        if let Value::Object(fields) = &mut further {
            fields.insert("peft_type".to_owned(), "ADALORA".into());
        }
        sorted_json(further, self)
    }

    /// Checks every field that changes the output.
    ///
    /// # Errors
    /// [`AdapterError::InvalidField`](crate::error::AdapterError) or
    /// [`AdapterError::Unsupported`](crate::error::AdapterError), naming the field.
    pub fn validate(&self) -> Result<()> {
        if self.init_r == 0 {
            return Err(invalid("init_r", "a rank of at least 1", 0));
        }
        check_targeting(&self.targeting(), "lora_alpha")?;
        if !(0.0..1.0).contains(&self.lora_dropout) {
            let expected = "a probability in [0, 1)";
            return Err(invalid("lora_dropout", expected, self.lora_dropout));
        }
        for field in ["use_dora", "use_qalora"] {
            if self.other.get(field).and_then(Value::as_bool) == Some(true) {
                return Err(unsupported(field, true));
            }
        }
        Ok(())
    }

    /// The scale of every layer's update. PEFT divides by a little more than the rank.
    pub(super) fn scaling(&self) -> f64 {
        // PEFT takes one that is not above 0 for the rank.
        let alpha = match self.lora_alpha > 0.0 {
            true => self.lora_alpha,
            false => self.init_r as f64,
        };
        alpha / (self.init_r as f64 + 1e-5)
    }

    /// The rank that training left the layer at `path`.
    pub(super) fn rank_of(&self, path: &str) -> usize {
        let pattern = self.rank_pattern.as_ref();
        let kept = pattern.and_then(|pattern| pattern.get(&format!("{path}.lora_E")));
        kept.map_or(self.init_r, |kept| {
            kept.iter().filter(|&&kept| kept).count()
        })
    }

    pub(super) fn targeting(&self) -> Targeting<'_> {
        Targeting {
            target_modules: self.target_modules.as_ref(),
            exclude_modules: self.exclude_modules.as_ref(),
            layers_to_transform: self.layers_to_transform.as_ref(),
            layers_pattern: self.layers_pattern.as_ref(),
            modules_to_save: self.modules_to_save.as_deref().unwrap_or_default(),
            r: self.init_r,
            alpha: self.lora_alpha,
            ..Targeting::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn ranks_are_those_that_training_kept() {
        let pattern = json!({ "layer.0.query.lora_E": [true, false, true] });
        let config = json!({ "init_r": 3, "lora_alpha": 6, "rank_pattern": pattern });
        let config: AdaLoraConfig = serde_json::from_value(config).unwrap();
        config.validate().unwrap();
        assert_eq!(config.rank_of("layer.0.query"), 2);
        assert_eq!(config.rank_of("layer.1.query"), 3);
        assert!((config.scaling() - 2.0).abs() < 1e-5);
        let without = AdaLoraConfig {
            lora_alpha: 0.0,
            ..config.clone()
        };
        assert!((without.scaling() - 1.0).abs() < 1e-5);
        let written: Value = serde_json::from_str(&config.to_json().unwrap()).unwrap();
        assert_eq!(written["rank_pattern"], pattern);
    }
}
