use burn::module::{Initializer, Module, Param};
use burn::tensor::{Tensor, backend::Backend};

use super::lycoris::{LycorisDropout, torch_uniform};
use super::{LokrInit, LokrScheme};
use crate::error::Result;
use crate::kernel::Mode;
use crate::state_dict::ParamVisitor;

/// How a linear layer is updated by LoKr.
#[derive(Debug, Clone, PartialEq)]
pub struct KroneckerConfig {
    /// The rank of a factor that is itself a product.
    pub r: usize,
    /// The scale of the update.
    pub scaling: f64,
    /// What is dropped while training.
    pub dropout: LycorisDropout,
    /// Whether dropping rows keeps the update's mean.
    pub rank_dropout_scale: bool,
    /// Whether the first factor is a product too.
    pub decompose_both: bool,
    /// The first factor's size; the squarest one where it is none.
    pub decompose_factor: Option<usize>,
    /// How the weights are drawn.
    pub init_weights: LokrInit,
}

impl KroneckerConfig {
    /// A fresh update for a layer of these dimensions, drawn when it is first used.
    pub fn init<B: Backend>(
        &self,
        [d_output, d_input]: [usize; 2],
        device: &B::Device,
    ) -> KroneckerUpdate<B> {
        let (in_m, in_n) = factorization(d_input, self.decompose_factor);
        let (out_l, out_k) = factorization(d_output, self.decompose_factor);
        let is_product = |a: usize, b: usize| 2 * self.r < a.max(b);
        let zero_first = self.init_weights == LokrInit::Flag(true);
        let zero_second = self.init_weights == LokrInit::Scheme(LokrScheme::Lycoris);
        let first = [out_l, in_m];
        let second = [out_k, in_n];
        let init = |shape: [usize; 2], zero: bool| match zero {
            true => Initializer::Zeros.init(shape, device),
            false => torch_uniform(shape).init(shape, device),
        };
        KroneckerUpdate {
            first: if self.decompose_both && is_product(out_l, in_m) {
                KroneckerFactor::product(
                    init([out_l, self.r], zero_first),
                    init([self.r, in_m], false),
                )
            } else {
                KroneckerFactor::whole(init(first, zero_first))
            },
            second: if is_product(out_k, in_n) {
                KroneckerFactor::product(
                    init([out_k, self.r], false),
                    init([self.r, in_n], zero_second),
                )
            } else {
                KroneckerFactor::whole(init(second, zero_second))
            },
            scaling: self.scaling,
            dropout: self.dropout,
            rank_dropout_scale: self.rank_dropout_scale,
        }
    }
}

/// Splits a dimension into two factors: `factor` and the rest where it divides the
/// dimension, else the two whose sum is smallest, with the first at most `factor`.
fn factorization(dimension: usize, factor: Option<usize>) -> (usize, usize) {
    if let Some(factor) = factor
        && dimension.is_multiple_of(factor)
    {
        return (factor, dimension / factor);
    }
    let most = factor.unwrap_or(dimension);
    let (mut m, mut n) = (1, dimension);
    let mut length = m + n;
    while m < n {
        let mut next = m + 1;
        while !dimension.is_multiple_of(next) {
            next += 1;
        }
        let rest = dimension / next;
        if next + rest > length || next > most {
            break;
        }
        (m, n) = (next, rest);
        length = m + n;
    }
    (m.min(n), m.max(n))
}

/// One factor of a Kronecker product: a matrix, or the product of two thin ones.
#[derive(Module, Debug)]
pub struct KroneckerFactor<B: Backend> {
    /// The matrix, or the left one of two.
    left: Param<Tensor<B, 2>>,
    /// The right one of two.
    right: Option<Param<Tensor<B, 2>>>,
}

impl<B: Backend> KroneckerFactor<B> {
    fn whole(matrix: Param<Tensor<B, 2>>) -> Self {
        Self {
            left: matrix,
            right: None,
        }
    }

    fn product(left: Param<Tensor<B, 2>>, right: Param<Tensor<B, 2>>) -> Self {
        Self {
            left,
            right: Some(right),
        }
    }

    fn matrix(&self) -> Tensor<B, 2> {
        match &self.right {
            Some(right) => self.left.val().matmul(right.val()),
            None => self.left.val(),
        }
    }

    fn visit_params<V: ParamVisitor<B>>(&mut self, key: &str, visitor: &mut V) -> Result<()> {
        match &mut self.right {
            Some(right) => {
                visitor.visit(format!("{key}_a"), &mut self.left)?;
                visitor.visit(format!("{key}_b"), right)
            }
            None => visitor.visit(key.to_owned(), &mut self.left),
        }
    }
}

/// The update `s · W₁ ⊗ W₂` of one linear layer (LoKr, <https://arxiv.org/abs/2309.14859>).
#[derive(Module, Debug)]
pub struct KroneckerUpdate<B: Backend> {
    first: KroneckerFactor<B>,
    second: KroneckerFactor<B>,
    #[module(skip)]
    scaling: f64,
    #[module(skip)]
    dropout: LycorisDropout,
    #[module(skip)]
    rank_dropout_scale: bool,
}

impl<B: Backend> KroneckerUpdate<B> {
    /// What is added to the weight, `[d_output, d_input]`.
    pub(super) fn delta(&self) -> Tensor<B, 2> {
        let (first, second) = (self.first.matrix(), self.second.matrix());
        let ([a, b], [c, d]) = (first.dims(), second.dims());
        let product = first.reshape([a, 1, b, 1]) * second.reshape([1, c, 1, d]);
        product.reshape([a * c, b * d]) * self.scaling
    }

    /// As [`delta`](Self::delta), with what training drops; none where it drops it all.
    pub(super) fn dropped_delta(&self, mode: Mode) -> Option<Tensor<B, 2>> {
        self.dropout
            .apply(self.delta(), self.rank_dropout_scale, mode)
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
        self.first
            .visit_params(&format!("{path}.lokr_w1"), visitor)?;
        self.second
            .visit_params(&format!("{path}.lokr_w2"), visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dimensions_are_split_as_in_lycoris() {
        for (dimension, factor, expected) in [
            (250, None, (10, 25)),
            (250, Some(2), (2, 125)),
            (250, Some(4), (2, 125)),
            (384, None, (16, 24)),
            (384, Some(8), (8, 48)),
            (127, None, (1, 127)),
            (20, Some(10), (10, 2)),
        ] {
            assert_eq!(
                factorization(dimension, factor),
                expected,
                "{dimension} {factor:?}"
            );
        }
    }
}
