use burn::module::{Initializer, Module, Param};
use burn::tensor::{Tensor, backend::Backend};

use crate::error::Result;
use crate::kernel::{RmsNormParams, rms_norm};
use crate::state_dict::ParamVisitor;

/// What a model's root-mean-square norms have in common.
#[derive(Debug, Clone, Copy)]
pub struct RmsNormConfig {
    /// What is added to the mean square.
    pub epsilon: f64,
    /// What is added to the weight: 0, or 1 in Gemma's, whose weights begin at 0.
    pub offset: f64,
}

impl RmsNormConfig {
    /// A fresh norm: its factors are 1.
    pub fn init<B: Backend>(&self, hidden: usize, device: &B::Device) -> RmsNorm<B> {
        let weight = Initializer::Constant {
            value: 1.0 - self.offset,
        };
        RmsNorm {
            weight: weight.init([hidden], device),
            epsilon: self.epsilon,
            offset: self.offset,
        }
    }
}

/// Root-mean-square normalisation.
#[derive(Module, Debug)]
pub struct RmsNorm<B: Backend> {
    /// `[hidden]`
    weight: Param<Tensor<B, 1>>,
    #[module(skip)]
    epsilon: f64,
    #[module(skip)]
    offset: f64,
}

impl<B: Backend> RmsNorm<B> {
    /// Normalises each row.
    ///
    /// # Shapes
    /// - input: `[rows, hidden]`
    /// - output: `[rows, hidden]`
    pub fn forward(&self, input: Tensor<B, 2>) -> Tensor<B, 2> {
        let params = RmsNormParams {
            weight: self.weight.val(),
            offset: self.offset,
            epsilon: self.epsilon,
        };
        rms_norm(input, params)
    }

    /// Visits the parameter under the layer's path.
    ///
    /// # Errors
    /// The visitor's.
    pub fn visit_params<V: ParamVisitor<B>>(&mut self, path: &str, visitor: &mut V) -> Result<()> {
        visitor.visit(format!("{path}.weight"), &mut self.weight)
    }
}
