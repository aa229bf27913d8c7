use burn::module::{Initializer, Module, Param};
use burn::tensor::{Tensor, backend::Backend};

use crate::error::Result;
use crate::kernel::{LayerNormParams, Mode, add_layer_norm, layer_norm};
use crate::state_dict::ParamVisitor;

/// Layer normalisation with the epsilon of the model's configuration.
#[derive(Module, Debug)]
pub struct LayerNorm<B: Backend> {
    /// `[hidden]`
    weight: Param<Tensor<B, 1>>,
    /// `[hidden]`
    bias: Option<Param<Tensor<B, 1>>>,
    #[module(skip)]
    epsilon: f64,
}

impl<B: Backend> LayerNorm<B> {
    /// A fresh norm: weight 1, bias 0.
    pub fn init(hidden: usize, epsilon: f64, device: &B::Device) -> Self {
        Self {
            weight: Initializer::Ones.init([hidden], device),
            bias: Some(Initializer::Zeros.init([hidden], device)),
            epsilon,
        }
    }

    /// A fresh norm that adds no bias: weight 1.
    pub fn init_without_bias(hidden: usize, epsilon: f64, device: &B::Device) -> Self {
        Self {
            bias: None,
            ..Self::init(hidden, epsilon, device)
        }
    }

    /// Normalises each token.
    ///
    /// # Shapes
    /// - input: `[tokens, hidden]`
    /// - output: `[tokens, hidden]`
    pub fn forward(&self, input: Tensor<B, 2>) -> Tensor<B, 2> {
        layer_norm(input, self.params())
    }

    /// Normalises the sum of a residual connection: `norm(dropout(input) + residual)`.
    ///
    /// # Shapes
    /// - input, residual: `[tokens, hidden]`
    /// - output: `[tokens, hidden]`
    pub fn forward_residual(
        &self,
        input: Tensor<B, 2>,
        residual: Tensor<B, 2>,
        dropout: f64,
        mode: Mode,
    ) -> Tensor<B, 2> {
        add_layer_norm(input, Some(residual), self.params(), dropout, mode)
    }

    fn params(&self) -> LayerNormParams<B> {
        let weight = self.weight.val();
        LayerNormParams {
            bias: match &self.bias {
                Some(bias) => bias.val(),
                None => weight.zeros_like(),
            },
            weight,
            epsilon: self.epsilon,
        }
    }

    /// Visits the parameters under the layer's path.
    ///
    /// # Errors
    /// The visitor's.
    pub fn visit_params<V: ParamVisitor<B>>(&mut self, path: &str, visitor: &mut V) -> Result<()> {
        visitor.visit(format!("{path}.weight"), &mut self.weight)?;
        match &mut self.bias {
            Some(bias) => visitor.visit(format!("{path}.bias"), bias),
            None => Ok(()),
        }
    }
}
