//! What happens to the scores of attention between its two products.

use std::ops::Range;

use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};

use super::attention::Attention;
use super::matrix::MatrixView;
use super::random::Dropout;
use super::vector::exp_negative;

/// Some of a text's queries, and the keys that any of them sees.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Block {
    pub(super) queries: Range<usize>,
    pub(super) keys: Range<usize>,
}

/// The places of a block's probabilities among all of a layer's.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places {
    pub(super) first: usize,
    pub(super) step: usize,
}

impl Block {
    /// How far the rows of scores lie apart: room for a whole vector behind the last one.
    pub(super) fn stride(&self) -> usize {
        self.keys.len().next_multiple_of(LANES) + LANES
    }

    pub(super) fn fit(&self, scores: &mut Vec<f32>) {
        let size = self.queries.len() * self.stride();
        if scores.len() < size {
            scores.resize(size, 0.0);
        }
        scores.truncate(size);
    }

    pub(super) fn view<'a>(&self, scores: &'a [f32]) -> MatrixView<'a> {
        let shape = [self.queries.len(), self.keys.len()];
        MatrixView::strided(scores, shape, self.stride())
    }
}

/// The lanes of the widest vector.
const LANES: usize = 16;

/// Turns scores into their exponentials, in place.
pub(super) struct Softmax<'a> {
    pub(super) attention: &'a Attention,
    pub(super) block: &'a Block,
    pub(super) length: usize,
    pub(super) bias: Option<MatrixView<'a>>,
    pub(super) scores: &'a mut [f32],
    pub(super) scales: &'a mut [f32],
}

impl SimdOp for Softmax<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let ops = isa.f32();
        let lanes = ops.len();
        let keys = &self.block.keys;
        let rows = self.scores.chunks_exact_mut(self.block.stride());
        for ((row, scale), query) in rows.zip(self.scales).zip(self.block.queries.clone()) {
            let visible = self.attention.visible(query, self.length);
            let (first, last) = (visible.start - keys.start, visible.end - keys.start);
            let end = first + (last - first).next_multiple_of(lanes);
            row[..first].fill(0.0);
            row[last..end].fill(f32::NEG_INFINITY);
            if end < keys.len() {
                row[end..keys.len()].fill(0.0);
            }
            if let Some(bias) = self.bias {
                let bias = &bias.data[query * bias.row_stride + visible.start..];
                for (score, bias) in row[first..last].iter_mut().zip(bias) {
                    *score += bias;
                }
            }
            let seen = &mut row[first..end];
            let mut most = ops.splat(f32::NEG_INFINITY);
            for scores in seen.chunks_exact(lanes) {
                most = ops.max(most, ops.load(scores));
            }
            let most = ops.fold_splat(most, f32::NEG_INFINITY, f32::max);
            let mut sum = ops.zero();
            for scores in seen.chunks_exact_mut(lanes) {
                let weight = exp_negative(isa, ops.sub(ops.load(scores), most));
                sum = ops.add(sum, weight);
                ops.store(weight, scores);
            }
            *scale = ops.sum(sum).recip();
        }
    }
}

/// Multiplies probabilities with the mask of a dropout.
pub(super) fn drop_out(scores: &mut [f32], block: &Block, dropout: Dropout, places: Places) {
    struct DropOut<'a>(&'a mut [f32], &'a Block, Dropout, Places);

    impl SimdOp for DropOut<'_> {
        type Output = ();

        #[inline(always)]
        fn eval<I: Isa>(self, isa: I) {
            let ops = isa.f32();
            let Self(scores, block, dropout, places) = self;
            let used = block.keys.len().next_multiple_of(ops.len());
            for (row, scores) in scores.chunks_exact_mut(block.stride()).enumerate() {
                let first = places.first + row * places.step;
                let vectors = scores[..used].chunks_exact_mut(ops.len());
                for (index, scores) in vectors.enumerate() {
                    let factors = dropout.factors(isa, first + index * ops.len());
                    ops.store(ops.mul(ops.load(scores), factors), scores);
                }
            }
        }
    }
    DropOut(scores, block, dropout, places).dispatch();
}

/// Turns the gradients of probabilities into those of scores, and exponentials into
/// probabilities, both in place.
pub(super) struct ScoreSlopes<'a> {
    pub(super) block: &'a Block,
    pub(super) probabilities: &'a mut [f32],
    pub(super) slopes: &'a mut [f32],
    /// The probabilities after dropout, if there is one.
    pub(super) dropped: &'a mut Vec<f32>,
    pub(super) scales: &'a [f32],
    pub(super) scale: f32,
    pub(super) dropout: Option<(Dropout, Places)>,
}

impl SimdOp for ScoreSlopes<'_> {
    type Output = ();

    /// `p (m g - Σ p m g)` times the scale of the scores, with the mask `m` of the dropout
    /// and the gradient `g` behind it.
    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let ops = isa.f32();
        let lanes = ops.len();
        let stride = self.block.stride();
        let used = self.block.keys.len().next_multiple_of(lanes);
        if self.dropout.is_some() {
            self.dropped.clear();
            self.dropped.resize(self.probabilities.len(), 0.0);
        }
        for row in 0..self.block.queries.len() {
            let place = row * stride..row * stride + used;
            let probabilities = &mut self.probabilities[place.clone()];
            let slopes = &mut self.slopes[place.clone()];
            // Behind the last key the product has written nothing.
            slopes[self.block.keys.len()..].fill(0.0);
            probabilities[self.block.keys.len()..].fill(0.0);
            let normalise = ops.splat(self.scales[row]);
            let mut sum = ops.zero();
            for index in (0..used).step_by(lanes) {
                let probability = ops.mul(ops.load(&probabilities[index..]), normalise);
                let mut slope = ops.load(&slopes[index..]);
                if let Some((dropout, places)) = self.dropout {
                    let first = places.first + row * places.step;
                    let factors = dropout.factors(isa, first + index);
                    slope = ops.mul(slope, factors);
                    let dropped = &mut self.dropped[place.start + index..];
                    ops.store(ops.mul(probability, factors), dropped);
                    ops.store(slope, &mut slopes[index..]);
                }
                ops.store(probability, &mut probabilities[index..]);
                sum = ops.mul_add(probability, slope, sum);
            }
            let mean = ops.splat(ops.sum(sum));
            let scale = ops.splat(self.scale);
            for index in (0..used).step_by(lanes) {
                let probability = ops.load(&probabilities[index..]);
                let centred = ops.sub(ops.load(&slopes[index..]), mean);
                let slope = ops.mul(ops.mul(probability, scale), centred);
                ops.store(slope, &mut slopes[index..]);
            }
        }
    }
}
