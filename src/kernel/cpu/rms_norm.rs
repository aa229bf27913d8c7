use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};

use super::elementwise::map_vectors;
use super::layer_norm::{fold, in_parts};
use super::tensor::Floats;

/// The parameters of a root-mean-square norm.
#[derive(Debug, Clone)]
pub(super) struct RmsNorm {
    pub(super) weight: Floats,
    pub(super) offset: f32,
    pub(super) epsilon: f32,
}

impl RmsNorm {
    /// The norm of every row, in the place of the input.
    pub(super) fn forward(&self, input: Floats) -> Floats {
        let [_, columns] = input.dims();
        input.map(|values| {
            in_parts(values, columns, |_, values| {
                let norm = self;
                Forward {
                    values,
                    columns,
                    norm,
                }
                .dispatch();
            });
        })
    }
}

struct Forward<'a> {
    values: &'a mut [f32],
    columns: usize,
    norm: &'a RmsNorm,
}

impl SimdOp for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let ops = isa.f32();
        let (weights, offset) = (self.norm.weight.values(), ops.splat(self.norm.offset));
        for row in self.values.chunks_exact_mut(self.columns.max(1)) {
            let squares = fold(
                isa,
                row,
                #[inline(always)]
                |sum, value| ops.mul_add(value, value, sum),
                |value| value * value,
            );
            let mean = squares / self.columns as f32;
            let scale = ops.splat((mean + self.norm.epsilon).sqrt().recip());
            map_vectors(
                isa,
                row,
                #[inline(always)]
                |place, value| {
                    let (weight, _) = ops.load_pad(&weights[place..]);
                    ops.mul(ops.mul(value, scale), ops.add(weight, offset))
                },
            );
        }
    }
}
