use rten_simd::ops::{BitOps, FloatOps, NumOps};
use rten_simd::{Isa, SimdOp};

use super::elementwise::{PARALLEL_VALUES, map_vectors};
use super::random::Dropout;
use super::tensor::Floats;
use super::threads;

/// The parameters of a norm.
#[derive(Debug, Clone)]
pub(super) struct Norm {
    pub(super) weight: Floats,
    pub(super) bias: Floats,
    pub(super) epsilon: f32,
}

/// `dropout(x) + residual`, in the place of `x`.
pub(super) fn add_residual(
    input: Floats,
    residual: Option<&Floats>,
    dropout: Option<Dropout>,
) -> Floats {
    if residual.is_none() && dropout.is_none() {
        return input;
    }
    let [_, columns] = input.dims();
    input.map(|values| {
        in_parts(values, columns, |first, part| {
            let residual = residual.map(|r| &r.values()[first * columns..]);
            Add(part, residual, dropout, first * columns).dispatch();
        });
    })
}

struct Add<'a>(&'a mut [f32], Option<&'a [f32]>, Option<Dropout>, usize);

impl SimdOp for Add<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let ops = isa.f32();
        let Self(values, residual, dropout, first) = self;
        map_vectors(
            isa,
            values,
            #[inline(always)]
            |place, value| {
                let value = match dropout {
                    Some(dropout) => ops.mul(value, dropout.factors(isa, first + place)),
                    None => value,
                };
                match residual {
                    Some(residual) => ops.add(value, ops.load_pad(&residual[place..]).0),
                    None => value,
                }
            },
        );
    }
}

impl Norm {
    /// The norm of every row, in the place of the input.
    pub(super) fn forward(&self, input: Floats) -> Floats {
        let [_, columns] = input.dims();
        input.map(|values| {
            in_parts(values, columns, |_, part| {
                let forward = Forward {
                    values: part,
                    columns,
                    weight: self.weight.values(),
                    bias: self.bias.values(),
                    epsilon: self.epsilon,
                };
                forward.dispatch();
            });
        })
    }

    /// The gradient of the norm's input, in the place of its output's; and that of weight
    /// and bias if asked for.
    pub(super) fn backward(
        &self,
        input: &Floats,
        gradient: Floats,
        parameters: bool,
    ) -> (Floats, Option<[Vec<f32>; 2]>) {
        let [_, columns] = input.dims();
        let sums = parameters.then(|| self.parameter_gradients(input, &gradient));
        let gradient = gradient.map(|values| {
            in_parts(values, columns, |first, part| {
                let backward = Backward {
                    gradient: part,
                    input: &input.values()[first * columns..],
                    columns,
                    weight: self.weight.values(),
                    epsilon: self.epsilon,
                };
                backward.dispatch();
            });
        });
        (gradient, sums)
    }

    fn parameter_gradients(&self, input: &Floats, gradient: &Floats) -> [Vec<f32>; 2] {
        let [_, columns] = input.dims();
        let mut sums = [vec![0.0; columns], vec![0.0; columns]];
        let rows = input.values().chunks_exact(columns);
        for (row, gradient) in rows.zip(gradient.values().chunks_exact(columns)) {
            let (mean, scale) = statistics(row, self.epsilon);
            for (i, (&value, &gradient)) in row.iter().zip(gradient).enumerate() {
                sums[0][i] += gradient * (value - mean) * scale;
                sums[1][i] += gradient;
            }
        }
        sums
    }
}

/// The mean of a row and the inverse of its deviation.
fn statistics(row: &[f32], epsilon: f32) -> (f32, f32) {
    struct Statistics<'a>(&'a [f32], f32);

    impl SimdOp for Statistics<'_> {
        type Output = (f32, f32);

        #[inline(always)]
        fn eval<I: Isa>(self, isa: I) -> (f32, f32) {
            mean_and_scale(isa, self.0, self.1)
        }
    }
    Statistics(row, epsilon).dispatch()
}

#[inline(always)]
fn mean_and_scale<I: Isa>(isa: I, row: &[f32], epsilon: f32) -> (f32, f32) {
    let ops = isa.f32();
    let count = row.len() as f32;
    let sum = fold(
        isa,
        row,
        #[inline(always)]
        |sum, value| ops.add(sum, value),
        |value| value,
    );
    let mean = sum / count;
    let centre = ops.splat(mean);
    let squares = fold(
        isa,
        row,
        #[inline(always)]
        |sum, value| {
            let centred = ops.sub(value, centre);
            ops.mul_add(centred, centred, sum)
        },
        |value| (value - mean) * (value - mean),
    );
    (mean, (squares / count + epsilon).sqrt().recip())
}

/// The sum of a function over a row: `vector` adds whole vectors, `scalar` gives what is
/// left behind them.
#[inline(always)]
pub(super) fn fold<I: Isa>(
    isa: I,
    row: &[f32],
    vector: impl Fn(I::F32, I::F32) -> I::F32,
    scalar: impl Fn(f32) -> f32,
) -> f32 {
    let ops = isa.f32();
    let lanes = ops.len();
    // Two sums, so that one addition need not wait for the other.
    let mut sums = [ops.zero(); 2];
    let mut pairs = row.chunks_exact(2 * lanes);
    for pair in pairs.by_ref() {
        sums[0] = vector(sums[0], ops.load(&pair[..lanes]));
        sums[1] = vector(sums[1], ops.load(&pair[lanes..]));
    }
    let mut vectors = pairs.remainder().chunks_exact(lanes);
    for values in vectors.by_ref() {
        sums[0] = vector(sums[0], ops.load(values));
    }
    let rest: f32 = vectors.remainder().iter().map(|&v| scalar(v)).sum();
    ops.sum(ops.add(sums[0], sums[1])) + rest
}

struct Forward<'a> {
    values: &'a mut [f32],
    columns: usize,
    weight: &'a [f32],
    bias: &'a [f32],
    epsilon: f32,
}

impl SimdOp for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let ops = isa.f32();
        for row in self.values.chunks_exact_mut(self.columns) {
            let (mean, scale) = mean_and_scale(isa, row, self.epsilon);
            let (mean, scale) = (ops.splat(mean), ops.splat(scale));
            map_vectors(
                isa,
                row,
                #[inline(always)]
                |place, value| {
                    let (weight, _) = ops.load_pad(&self.weight[place..]);
                    let (bias, _) = ops.load_pad(&self.bias[place..]);
                    let normed = ops.mul(ops.sub(value, mean), scale);
                    ops.mul_add(normed, weight, bias)
                },
            );
        }
    }
}

struct Backward<'a> {
    gradient: &'a mut [f32],
    input: &'a [f32],
    columns: usize,
    weight: &'a [f32],
    epsilon: f32,
}

impl SimdOp for Backward<'_> {
    type Output = ();

    /// With `x̂` the normed input and `g` the gradient times the weight:
    /// `(g - mean(g) - x̂ mean(g x̂)) / σ`.
    #[inline(always)]
    fn eval<I: Isa>(self, isa: I) {
        let ops = isa.f32();
        let count = self.columns as f32;
        let inputs = self.input.chunks_exact(self.columns);
        for (gradient, input) in self.gradient.chunks_exact_mut(self.columns).zip(inputs) {
            let (mean, scale) = mean_and_scale(isa, input, self.epsilon);
            let (mean, scale) = (ops.splat(mean), ops.splat(scale));
            let (mut sum, mut product) = (ops.zero(), ops.zero());
            map_vectors(
                isa,
                gradient,
                #[inline(always)]
                |place, value| {
                    // Behind the last value the gradient and the weight are 0, and with them
                    // what the padded input adds.
                    let weighted = ops.mul(value, ops.load_pad(&self.weight[place..]).0);
                    let input = ops.load_pad(&input[place..]).0;
                    let normed = ops.mul(ops.sub(input, mean), scale);
                    sum = ops.add(sum, weighted);
                    product = ops.mul_add(weighted, normed, product);
                    weighted
                },
            );
            let mean_gradient = ops.splat(ops.sum(sum) / count);
            let mean_product = ops.splat(ops.sum(product) / count);
            map_vectors(
                isa,
                gradient,
                #[inline(always)]
                |place, weighted| {
                    let input = ops.load_pad(&input[place..]).0;
                    let normed = ops.mul(ops.sub(input, mean), scale);
                    let rest = ops.mul_sub_from(normed, mean_product, weighted);
                    ops.mul(ops.sub(rest, mean_gradient), scale)
                },
            );
        }
    }
}

/// Runs over a matrix in parts of whole rows, each on a thread where there are many, given
/// the index of the part's first row.
pub(super) fn in_parts(values: &mut [f32], columns: usize, run: impl Fn(usize, &mut [f32]) + Sync) {
    let threads = match values.len() < PARALLEL_VALUES {
        true => 1,
        false => threads::available(),
    };
    threads::split_rows(values, columns, threads, run);
}
