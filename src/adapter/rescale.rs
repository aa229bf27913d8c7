use burn::module::{Initializer, Module, Param};
use burn::tensor::{Tensor, backend::Backend};

use crate::error::Result;
use crate::state_dict::ParamVisitor;

/// How a linear layer is rescaled by IA³.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RescaleConfig {
    /// Whether the input is scaled, as in feed-forward layers, and not the output.
    pub feedforward: bool,
    /// Whether the vector begins as ones, which change nothing.
    pub init_ia3_weights: bool,
}

impl RescaleConfig {
    /// A fresh vector for a layer of these dimensions, drawn when it is first used.
    pub fn init<B: Backend>(
        &self,
        [d_output, d_input]: [usize; 2],
        device: &B::Device,
    ) -> Rescale<B> {
        let shape = match self.feedforward {
            true => [1, d_input],
            false => [d_output, 1],
        };
        let initializer = match self.init_ia3_weights {
            true => Initializer::Ones,
            false => Initializer::Normal {
                mean: 0.0,
                std: 1.0,
            },
        };
        Rescale {
            scale: initializer.init(shape, device),
            feedforward: self.feedforward,
        }
    }
}

/// A learned scale on a linear layer's input or output (IA³,
/// <https://arxiv.org/abs/2205.05638>): `W(x ⊙ l) + b` or `(Wx + b) ⊙ l`.
#[derive(Module, Debug)]
pub struct Rescale<B: Backend> {
    /// `[1, d_input]` or `[d_output, 1]`
    scale: Param<Tensor<B, 2>>,
    #[module(skip)]
    feedforward: bool,
}

impl<B: Backend> Rescale<B> {
    /// The layer's input, scaled where this scales inputs.
    ///
    /// # Shapes
    /// - input, output: `[tokens, d_input]`
    pub(super) fn scale_input(&self, input: Tensor<B, 2>) -> Tensor<B, 2> {
        match self.feedforward {
            true => input * self.scale.val(),
            false => input,
        }
    }

    /// The layer's output, scaled where this scales outputs.
    ///
    /// # Shapes
    /// - output: `[tokens, d_output]`
    pub(super) fn scale_output(&self, output: Tensor<B, 2>) -> Tensor<B, 2> {
        match self.feedforward {
            true => output,
            false => output * self.scale.val().transpose(),
        }
    }

    /// The weight and bias with the scale folded in.
    pub(super) fn merge(
        &self,
        weight: Tensor<B, 2>,
        bias: Option<Tensor<B, 1>>,
    ) -> (Tensor<B, 2>, Option<Tensor<B, 1>>) {
        let scale = self.scale.val();
        let bias = match self.feedforward {
            true => bias,
            false => bias.map(|bias| bias * scale.clone().squeeze_dim(1)),
        };
        (weight * scale, bias)
    }

    /// Visits the vector, keyed behind the layer's path as in PEFT's files.
    pub(super) fn visit_params<V: ParamVisitor<B>>(
        &mut self,
        path: &str,
        visitor: &mut V,
    ) -> Result<()> {
        visitor.visit(format!("{path}.ia3_l"), &mut self.scale)
    }
}
