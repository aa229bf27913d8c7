use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::peft_config::{common_fields, invalid, sorted_json};
use super::{ModuleNames, Targeting, TaskType};
use crate::error::Result;

/// The configuration of an IA³ adapter (<https://arxiv.org/abs/2205.05638>), as peft 0.21.2
/// reads and writes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Ia3Config {
    /// The layers to adapt; `None` means the architecture's default ones.
    pub target_modules: Option<ModuleNames>,
    /// Layers not to adapt, even where `target_modules` names them.
    pub exclude_modules: Option<ModuleNames>,
    /// Of the adapted layers, those whose input is scaled and not their output, by the
    /// endings of their names.
    pub feedforward_modules: Option<ModuleNames>,
    /// Modules trained and saved in full beside the adapter, by the endings of their names.
    pub modules_to_save: Option<Vec<String>>,
    /// Whether a fresh adapter changes nothing.
    pub init_ia3_weights: bool,
    /// Whether the base layer stores its weight transposed; linear layers do not.
    pub fan_in_fan_out: bool,
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

impl Default for Ia3Config {
    fn default() -> Self {
        Self {
            target_modules: None,
            exclude_modules: None,
            feedforward_modules: None,
            modules_to_save: None,
            init_ia3_weights: true,
            fan_in_fan_out: false,
            task_type: None,
            inference_mode: false,
            base_model_name_or_path: None,
            revision: None,
            other: Map::new(),
        }
    }
}

/// The layers that peft adapts by IA³ where a configuration names none, and which of them
/// are feed-forward, by the encoder's `model_type`.
const DEFAULT_TARGETS: [(&str, &[&str], &[&str]); 5] = [
    ("bert", &["key", "value", "output.dense"], &["output.dense"]),
    (
        "roberta",
        &["key", "value", "output.dense"],
        &["output.dense"],
    ),
    (
        "gemma3_text",
        &["q_proj", "v_proj", "down_proj"],
        &["down_proj"],
    ),
    ("qwen2", &["q_proj", "v_proj", "down_proj"], &["down_proj"]),
    ("qwen3", &["q_proj", "v_proj", "down_proj"], &["down_proj"]),
];

impl Ia3Config {
    /// The content of `adapter_config.json`.
    ///
    /// # Errors
    /// What the serialiser says.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        sorted_json(common_fields("IA3"), self)
    }

    /// Checks that the feed-forward modules are among the adapted ones.
    ///
    /// # Errors
    /// [`AdapterError::InvalidField`](crate::error::AdapterError).
    pub fn validate(&self) -> Result<()> {
        use ModuleNames::List;
        if let (Some(List(feedforward)), Some(List(targets))) =
            (&self.feedforward_modules, &self.target_modules)
            && let Some(other) = feedforward.iter().find(|name| !targets.contains(name))
        {
            let expected = format!("a part of target_modules, {}", json!(targets));
            return Err(invalid("feedforward_modules", &expected, json!([other])));
        }
        Ok(())
    }

    /// Fills in the architecture's default layers where none are named.
    pub(super) fn fill_defaults(&mut self, model_type: &str) {
        let defaults = DEFAULT_TARGETS
            .iter()
            .find(|(name, ..)| *name == model_type);
        let Some((_, targets, feedforward)) = defaults else {
            return;
        };
        if self.target_modules.is_none() {
            self.target_modules = Some(ModuleNames::list(targets.iter().copied()));
        }
        if self.feedforward_modules.is_none() {
            self.feedforward_modules = Some(ModuleNames::list(feedforward.iter().copied()));
        }
    }

    pub(super) fn targeting(&self) -> Targeting<'_> {
        Targeting {
            target_modules: self.target_modules.as_ref(),
            exclude_modules: self.exclude_modules.as_ref(),
            modules_to_save: self.modules_to_save.as_deref().unwrap_or_default(),
            ..Targeting::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{AdapterError, Error};

    #[test]
    fn feed_forward_modules_must_be_adapted_ones() {
        let config = |feedforward: &str| Ia3Config {
            target_modules: Some(ModuleNames::list(["key", "output.dense"])),
            feedforward_modules: Some(ModuleNames::list([feedforward])),
            ..Ia3Config::default()
        };
        config("output.dense").validate().unwrap();
        let error = config("dense").validate().unwrap_err();
        assert!(
            matches!(&error, Error::Adapter(AdapterError::InvalidField { field, .. }) if field == "feedforward_modules")
        );
    }

    #[test]
    fn defaults_are_filled_in_by_architecture() {
        let mut config = Ia3Config::default();
        config.fill_defaults("unknown");
        assert_eq!(config, Ia3Config::default());
        config.fill_defaults("bert");
        let feedforward = Some(ModuleNames::list(["output.dense"]));
        assert_eq!(config.feedforward_modules, feedforward);
    }
}
