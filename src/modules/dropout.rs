use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{ModuleError, Result};
use crate::kernel::{Mode, dropout};

/// `2_Dropout/config.json`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DropoutConfig {
    /// The probability that a value is dropped.
    pub dropout: f64,
}

impl Default for DropoutConfig {
    fn default() -> Self {
        Self { dropout: 0.2 }
    }
}

impl DropoutConfig {
    /// Reads and checks a `config.json`.
    ///
    /// # Errors
    /// [`ModuleError::Malformed`] or [`ModuleError::UnsupportedField`].
    pub fn from_json(fields: &Map<String, Value>) -> Result<Self> {
        let config: Self =
            serde_json::from_value(Value::Object(fields.clone())).map_err(|source| {
                ModuleError::Malformed {
                    module: "Dropout",
                    source,
                }
            })?;
        if (0.0..1.0).contains(&config.dropout) {
            return Ok(config);
        }
        Err(ModuleError::UnsupportedField {
            module: "Dropout",
            field: "dropout",
            found: config.dropout.to_string(),
        }
        .into())
    }

    /// The module.
    pub fn init(&self) -> Dropout {
        Dropout { config: *self }
    }
}

/// Drops values of the sentence embedding in training.
#[derive(Module, Clone, Debug)]
pub struct Dropout {
    #[module(skip)]
    config: DropoutConfig,
}

impl Dropout {
    /// The configuration.
    pub fn config(&self) -> &DropoutConfig {
        &self.config
    }

    /// Sets the probability.
    pub fn set_dropout(&mut self, dropout: f64) {
        self.config.dropout = dropout;
    }

    /// Drops values in [`Mode::Training`]; the identity in [`Mode::Inference`].
    ///
    /// # Shapes
    /// - input: `[texts, dim]`
    /// - output: `[texts, dim]`
    pub fn forward<B: Backend>(&self, sentences: Tensor<B, 2>, mode: Mode) -> Tensor<B, 2> {
        dropout(sentences, self.config.dropout, mode)
    }
}
