use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::SENTENCE_EMBEDDING;
use crate::error::{ModuleError, Result};
use crate::kernel::normalize;

/// `3_Normalize/config.json`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct NormalizeConfig {
    /// What the module reads.
    pub module_input_name: String,
    /// What the module writes; by default what it reads.
    pub module_output_name: Option<String>,
}

impl Default for NormalizeConfig {
    fn default() -> Self {
        Self {
            module_input_name: SENTENCE_EMBEDDING.to_owned(),
            module_output_name: None,
        }
    }
}

impl NormalizeConfig {
    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`ModuleError::Malformed`].
    pub fn from_json(fields: &Map<String, Value>) -> Result<Self> {
        let config = serde_json::from_value(Value::Object(fields.clone()));
        Ok(config.map_err(|source| ModuleError::Malformed {
            module: "Normalize",
            source,
        })?)
    }

    /// The content of `config.json`: nothing where nothing is out of the ordinary, which every
    /// reader knows.
    pub fn to_json(&self) -> Value {
        if self.module_input_name == SENTENCE_EMBEDDING && self.output_name() == SENTENCE_EMBEDDING
        {
            return json!({});
        }
        json!({
            "module_input_name": self.module_input_name,
            "module_output_name": self.output_name(),
        })
    }

    /// What the module writes.
    pub fn output_name(&self) -> &str {
        let output = self.module_output_name.as_deref();
        output.unwrap_or(&self.module_input_name)
    }

    /// The module.
    pub fn init(&self) -> Normalize {
        Normalize {
            config: self.clone(),
        }
    }
}

/// Scales embeddings to unit length.
#[derive(Module, Clone, Debug, Default)]
pub struct Normalize {
    #[module(skip)]
    config: NormalizeConfig,
}

impl Normalize {
    /// The configuration.
    pub fn config(&self) -> &NormalizeConfig {
        &self.config
    }

    /// Scales each embedding to unit length.
    ///
    /// # Shapes
    /// - input: `[rows, dim]`
    /// - output: `[rows, dim]`
    pub fn forward<B: Backend>(&self, rows: Tensor<B, 2>) -> Tensor<B, 2> {
        normalize(rows)
    }
}
