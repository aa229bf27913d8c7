use burn::module::{Initializer, Module, Param};
use burn::tensor::{Tensor, backend::Backend};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{ModuleError, Result};
use crate::kernel::{LayerNormParams, layer_norm};
use crate::state_dict::{LoadTensors, ParamVisitor, StateDict};

/// The epsilon of `torch.nn.LayerNorm`, which no field says.
const EPSILON: f64 = 1e-5;

/// `3_LayerNorm/config.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayerNormConfig {
    /// The size of the embedding.
    pub dimension: usize,
}

impl LayerNormConfig {
    /// A norm of embeddings of that size.
    pub fn new(dimension: usize) -> Self {
        Self { dimension }
    }

    /// Reads a `config.json`.
    ///
    /// # Errors
    /// [`ModuleError::Malformed`].
    pub fn from_json(fields: &Map<String, Value>) -> Result<Self> {
        let config = serde_json::from_value(Value::Object(fields.clone()));
        Ok(config.map_err(|source| ModuleError::Malformed {
            module: "LayerNorm",
            source,
        })?)
    }

    /// A fresh norm: weight 1, bias 0.
    pub fn init<B: Backend>(&self, device: &B::Device) -> LayerNorm<B> {
        LayerNorm {
            weight: Initializer::Ones.init([self.dimension], device),
            bias: Initializer::Zeros.init([self.dimension], device),
        }
    }

    /// A norm with the weights of a state dict.
    ///
    /// # Errors
    /// [`StateDictError`](crate::error::StateDictError) naming what is missing or of
    /// another shape.
    pub fn load<B: Backend>(
        &self,
        tensors: &mut StateDict,
        device: &B::Device,
    ) -> Result<LayerNorm<B>> {
        let mut norm = self.init(device);
        let mut visitor = LoadTensors::new(tensors, device);
        norm.visit_params("", &mut visitor)?;
        visitor.finish()?;
        Ok(norm)
    }
}

/// Layer normalisation of the sentence embedding.
#[derive(Module, Debug)]
pub struct LayerNorm<B: Backend> {
    /// `[dimension]`
    weight: Param<Tensor<B, 1>>,
    /// `[dimension]`
    bias: Param<Tensor<B, 1>>,
}

impl<B: Backend> LayerNorm<B> {
    /// The configuration.
    pub fn config(&self) -> LayerNormConfig {
        let [dimension] = self.weight.lazy_shape().dims();
        LayerNormConfig { dimension }
    }

    /// Normalises each embedding.
    ///
    /// # Shapes
    /// - input: `[texts, dim]`
    /// - output: `[texts, dim]`
    pub fn forward(&self, sentences: Tensor<B, 2>) -> Tensor<B, 2> {
        let params = LayerNormParams {
            weight: self.weight.val(),
            bias: self.bias.val(),
            epsilon: EPSILON,
        };
        layer_norm(sentences, params)
    }

    /// Visits the parameters, keyed behind `path`.
    ///
    /// # Errors
    /// The visitor's.
    pub fn visit_params<V: ParamVisitor<B>>(&mut self, path: &str, visitor: &mut V) -> Result<()> {
        visitor.visit(format!("{path}norm.weight"), &mut self.weight)?;
        visitor.visit(format!("{path}norm.bias"), &mut self.bias)
    }
}
