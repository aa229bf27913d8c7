use burn::module::{Initializer, Module, Param};
use burn::tensor::{Tensor, backend::Backend};

use super::lycoris::{LycorisDropout, torch_uniform};
use crate::error::Result;
use crate::kernel::Mode;
use crate::state_dict::ParamVisitor;

/// How a linear layer is updated by LoHa.
#[derive(Debug, Clone, PartialEq)]
pub struct HadamardConfig {
    /// The rank of each of the two products.
    pub r: usize,
    /// The scale of the update.
    pub scaling: f64,
    /// What is dropped while training.
    pub dropout: LycorisDropout,
    /// Whether the fresh update changes nothing.
    pub init_weights: bool,
}

impl HadamardConfig {
    /// A fresh update for a layer of these dimensions, drawn when it is first used.
    pub fn init<B: Backend>(
        &self,
        [d_output, d_input]: [usize; 2],
        device: &B::Device,
    ) -> HadamardUpdate<B> {
        let uniform = |shape: [usize; 2]| torch_uniform(shape).init(shape, device);
        let (tall, wide) = ([d_output, self.r], [self.r, d_input]);
        HadamardUpdate {
            w1_a: uniform(tall),
            w1_b: uniform(wide),
            w2_a: uniform(tall),
            w2_b: match self.init_weights {
                true => Initializer::Zeros.init(wide, device),
                false => uniform(wide),
            },
            scaling: self.scaling,
            dropout: self.dropout,
        }
    }
}

/// The update `s · (W₁ₐ W₁ᵦ) ⊙ (W₂ₐ W₂ᵦ)` of one linear layer (LoHa, FedPara,
/// <https://arxiv.org/abs/2108.06098>).
#[derive(Module, Debug)]
pub struct HadamardUpdate<B: Backend> {
    /// `[d_output, r]`
    w1_a: Param<Tensor<B, 2>>,
    /// `[r, d_input]`
    w1_b: Param<Tensor<B, 2>>,
    /// `[d_output, r]`
    w2_a: Param<Tensor<B, 2>>,
    /// `[r, d_input]`
    w2_b: Param<Tensor<B, 2>>,
    #[module(skip)]
    scaling: f64,
    #[module(skip)]
    dropout: LycorisDropout,
}

impl<B: Backend> HadamardUpdate<B> {
    /// What is added to the weight, `[d_output, d_input]`.
    pub(super) fn delta(&self) -> Tensor<B, 2> {
        let first = self.w1_a.val().matmul(self.w1_b.val());
        let second = self.w2_a.val().matmul(self.w2_b.val());
        first * second * self.scaling
    }

    /// As [`delta`](Self::delta), with what training drops; none where it drops it all.
    pub(super) fn dropped_delta(&self, mode: Mode) -> Option<Tensor<B, 2>> {
        // PEFT's LoHa always keeps the mean.
        self.dropout.apply(self.delta(), true, mode)
    }

    /// Sets what is dropped while training.
    pub(super) fn set_dropout(&mut self, dropout: f64) {
        self.dropout = LycorisDropout::both(dropout);
    }

    /// Visits the parameters, keyed behind the layer's path as in PEFT's files.
    pub(super) fn visit_params<V: ParamVisitor<B>>(
        &mut self,
        path: &str,
        visitor: &mut V,
    ) -> Result<()> {
        for (name, param) in [
            ("hada_w1_a", &mut self.w1_a),
            ("hada_w1_b", &mut self.w1_b),
            ("hada_w2_a", &mut self.w2_a),
            ("hada_w2_b", &mut self.w2_b),
        ] {
            visitor.visit(format!("{path}.{name}"), param)?;
        }
        Ok(())
    }
}
