use burn::module::{Initializer, Module, Param};
use burn::tensor::{Tensor, backend::Backend};

use crate::kernel::{Activation, LinearParams, Mode, PackedWeight, linear};

/// A linear layer that a loss puts behind the embeddings: trained with them, and of no
/// use to the model afterwards.
#[derive(Module, Debug)]
pub struct LinearHead<B: Backend> {
    /// `[out_features, in_features]`
    pub weight: Param<Tensor<B, 2>>,
    /// `[out_features]`
    pub bias: Param<Tensor<B, 1>>,
    #[module(skip)]
    packed: PackedWeight,
}

impl<B: Backend> LinearHead<B> {
    /// A layer with fresh weights, drawn as PyTorch draws those of its `Linear`.
    pub(super) fn init(in_features: usize, out_features: usize, device: &B::Device) -> Self {
        let bound = (in_features as f64).sqrt().recip();
        let uniform = Initializer::Uniform {
            min: -bound,
            max: bound,
        };
        Self::from_weights(
            uniform.init([out_features, in_features], device),
            uniform.init([out_features], device),
        )
    }

    /// A layer with these weights.
    ///
    /// # Shapes
    /// - weight: `[out_features, in_features]`
    /// - bias: `[out_features]`
    pub fn from_weights(weight: Param<Tensor<B, 2>>, bias: Param<Tensor<B, 1>>) -> Self {
        Self {
            weight,
            bias,
            packed: PackedWeight::default(),
        }
    }

    /// Applies the layer.
    ///
    /// # Shapes
    /// - input: `[texts, in_features]`
    /// - output: `[texts, out_features]`
    pub fn forward(&self, input: Tensor<B, 2>) -> Tensor<B, 2> {
        let params = LinearParams {
            weight: self.weight.val(),
            bias: Some(self.bias.val()),
            packed: &self.packed,
        };
        linear(
            input,
            params,
            Vec::new(),
            Activation::Identity,
            Mode::Inference,
        )
    }

    /// The size of what comes out.
    pub fn out_features(&self) -> usize {
        self.weight.val().dims()[0]
    }

    /// The size of what goes in.
    pub fn in_features(&self) -> usize {
        self.weight.val().dims()[1]
    }
}
