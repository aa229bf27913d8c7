use burn::module::{Initializer, Module, Param};
use burn::tensor::{Tensor, backend::Backend};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{ModuleError, Result};
use crate::state_dict::{LoadTensors, ParamVisitor, StateDict};

/// `1_WeightedLayerPooling/config.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WeightedLayerPoolingConfig {
    /// The size of a token embedding.
    #[serde(rename = "word_embedding_dimension", alias = "embedding_dimension")]
    pub embedding_dimension: usize,
    /// The first of the encoder's outputs that counts; its input is 0.
    #[serde(default = "four")]
    pub layer_start: usize,
    /// The number of the encoder's layers.
    #[serde(default = "twelve")]
    pub num_hidden_layers: usize,
}

fn four() -> usize {
    4
}

fn twelve() -> usize {
    12
}

impl WeightedLayerPoolingConfig {
    /// The mean of the outputs from `layer_start` on of an encoder of that many layers.
    pub fn new(embedding_dimension: usize, num_hidden_layers: usize, layer_start: usize) -> Self {
        Self {
            embedding_dimension,
            layer_start,
            num_hidden_layers,
        }
    }

    /// Reads and checks a `config.json` of either generation.
    ///
    /// # Errors
    /// [`ModuleError::Malformed`] or [`ModuleError::UnsupportedField`].
    pub fn from_json(fields: &Map<String, Value>) -> Result<Self> {
        let config: Self =
            serde_json::from_value(Value::Object(fields.clone())).map_err(|source| {
                ModuleError::Malformed {
                    module: "WeightedLayerPooling",
                    source,
                }
            })?;
        if config.layer_start <= config.num_hidden_layers && config.num_hidden_layers < 1 << 16 {
            return Ok(config);
        }
        Err(ModuleError::UnsupportedField {
            module: "WeightedLayerPooling",
            field: "layer_start",
            found: format!(
                "{} of {} layers",
                config.layer_start, config.num_hidden_layers
            ),
        }
        .into())
    }

    /// The number of outputs that count.
    fn weights(&self) -> usize {
        (self.num_hidden_layers + 1).saturating_sub(self.layer_start)
    }

    /// A module whose layers all weigh the same.
    pub fn init<B: Backend>(&self, device: &B::Device) -> WeightedLayerPooling<B> {
        WeightedLayerPooling {
            layer_weights: Initializer::Ones.init([self.weights()], device),
            config: self.clone(),
        }
    }

    /// A module with the weights of a state dict.
    ///
    /// # Errors
    /// [`StateDictError`](crate::error::StateDictError) naming what is missing or of
    /// another shape.
    pub fn load<B: Backend>(
        &self,
        tensors: &mut StateDict,
        device: &B::Device,
    ) -> Result<WeightedLayerPooling<B>> {
        let mut pooling = self.init(device);
        let mut visitor = LoadTensors::new(tensors, device);
        pooling.visit_params("", &mut visitor)?;
        visitor.finish()?;
        Ok(pooling)
    }
}

/// Token embeddings that are the weighted mean of several of the encoder's outputs.
#[derive(Module, Debug)]
pub struct WeightedLayerPooling<B: Backend> {
    /// `[layers]`
    layer_weights: Param<Tensor<B, 1>>,
    #[module(skip)]
    config: WeightedLayerPoolingConfig,
}

impl<B: Backend> WeightedLayerPooling<B> {
    /// The configuration.
    pub fn config(&self) -> &WeightedLayerPoolingConfig {
        &self.config
    }

    /// The weighted mean of the outputs from `layer_start` on: `Σ wₗ·xₗ / Σ wₗ`; `None` where
    /// there are none.
    ///
    /// # Shapes
    /// - layers: `[tokens, hidden]` each, the encoder's input first
    /// - output: `[tokens, hidden]`
    pub fn forward(&self, layers: &[Tensor<B, 2>]) -> Option<Tensor<B, 2>> {
        let weights = self.layer_weights.val();
        let weighted = layers.iter().skip(self.config.layer_start).enumerate();
        let weighted = weighted.map(|(index, layer)| {
            let weight = weights.clone().narrow(0, index, 1).unsqueeze::<2>();
            layer.clone() * weight
        });
        let sum = weighted.reduce(|sum, layer| sum + layer)?;
        Some(sum / weights.sum().unsqueeze::<2>())
    }

    /// Visits the parameters, keyed behind `path`.
    ///
    /// # Errors
    /// The visitor's.
    pub fn visit_params<V: ParamVisitor<B>>(&mut self, path: &str, visitor: &mut V) -> Result<()> {
        visitor.visit(format!("{path}layer_weights"), &mut self.layer_weights)
    }
}
