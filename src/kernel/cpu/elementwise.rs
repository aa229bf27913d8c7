#![allow(unsafe_code, reason = "sums are updated in parts; see SAFETY")]

use rten_simd::ops::{BitOps, NumOps};
use rten_simd::{Isa, SimdOp};

use super::destination::{Destination, filled};
use super::product::{Epilogue, Vectors};
use super::random::Dropout;
use super::tensor::Floats;
use super::threads;
use super::vector::{activate, activate_slope};
use crate::kernel::Activation;

/// Below this many values, passing over them is not worth a second thread.
pub(super) const PARALLEL_VALUES: usize = 1 << 16;

/// Multiplies values with the mask of a dropout.
pub(super) fn drop_out(values: &mut [f32], dropout: Dropout) {
    in_parts(values, |first, part| {
        struct DropOut<'a>(&'a mut [f32], usize, Dropout);

        impl SimdOp for DropOut<'_> {
            type Output = ();

            #[inline(always)]
            fn eval<I: Isa>(self, isa: I) {
                let (ops, first) = (isa.f32(), self.1);
                map_vectors(
                    isa,
                    self.0,
                    #[inline(always)]
                    |place, value| ops.mul(value, self.2.factors(isa, first + place)),
                );
            }
        }
        DropOut(part, first, dropout).dispatch();
    });
}

/// A copy of values, multiplied with the mask of a dropout.
pub(super) fn dropped_out(values: &[f32], dropout: Dropout) -> Vec<f32> {
    struct DroppedOut<'a>(
        &'a Destination<'a>,
        &'a [f32],
        std::ops::Range<usize>,
        Dropout,
    );

    impl SimdOp for DroppedOut<'_> {
        type Output = ();

        #[inline(always)]
        fn eval<I: Isa>(self, isa: I) {
            let ops = isa.f32();
            let Self(output, values, range, dropout) = self;
            for place in range.clone().step_by(ops.len()) {
                let (value, _) = ops.load_pad(&values[place..range.end]);
                let value = ops.mul(value, dropout.factors(isa, place));
                let used = ops.len().min(range.end - place);
                // SAFETY: the ranges of the threads are disjoint.
                unsafe { output.write_vectors(isa, 0, place, [value], used) }
            }
        }
    }

    let threads = match values.len() < PARALLEL_VALUES {
        true => 1,
        false => threads::available(),
    };
    // SAFETY: the ranges together are all places.
    let (dropped, ()) = unsafe {
        filled([1, values.len()], |output| {
            threads::split(values.len(), threads, |range| {
                DroppedOut(output, values, range, dropout).dispatch();
            });
        })
    };
    dropped
}

/// Multiplies the gradient behind an activation with its slope: the gradient before it.
pub(super) fn multiply_by_slope(gradient: &mut [f32], before: &[f32], activation: Activation) {
    in_parts(gradient, |first, part| {
        struct Slope<'a>(&'a mut [f32], &'a [f32], Activation);

        impl SimdOp for Slope<'_> {
            type Output = ();

            #[inline(always)]
            fn eval<I: Isa>(self, isa: I) {
                let ops = isa.f32();
                map_vectors(
                    isa,
                    self.0,
                    #[inline(always)]
                    |place, value| {
                        let (before, _) = ops.load_pad(&self.1[place..]);
                        ops.mul(value, activate_slope(isa, self.2, before))
                    },
                );
            }
        }
        Slope(part, &before[first..], activation).dispatch();
    });
}

/// The activated first half of each row times its second half.
pub(super) fn gated(input: &Floats, activation: Activation) -> Floats {
    struct Gate<'a>(&'a mut [f32], &'a [f32], Activation);

    impl SimdOp for Gate<'_> {
        type Output = ();

        #[inline(always)]
        fn eval<I: Isa>(self, isa: I) {
            let ops = isa.f32();
            map_vectors(
                isa,
                self.0,
                #[inline(always)]
                |place, value| {
                    let (factor, _) = ops.load_pad(&self.1[place..]);
                    ops.mul(activate(isa, self.2, value), factor)
                },
            );
        }
    }

    let [rows, width] = input.dims();
    let half = width / 2;
    let row = |index: usize| &input.values()[index * width..][..2 * half];
    let mut gates = Vec::with_capacity(rows * half);
    for index in 0..rows {
        gates.extend_from_slice(&row(index)[..half]);
    }
    let threads = match gates.len() < PARALLEL_VALUES {
        true => 1,
        false => threads::available(),
    };
    threads::split_rows(&mut gates, half, threads, |first, part| {
        for (index, gates) in part.chunks_exact_mut(half.max(1)).enumerate() {
            Gate(gates, &row(first + index)[half..], activation).dispatch();
        }
    });
    Floats::from_vec(gates, &[rows, half])
}

/// The sum of each column.
pub(super) fn column_sums(values: &[f32], columns: usize) -> Vec<f32> {
    let mut sums = vec![0.0; columns];
    for row in values.chunks_exact(columns.max(1)) {
        for (sum, &value) in sums.iter_mut().zip(row) {
            *sum += value;
        }
    }
    sums
}

/// Replaces each vector of values by what `change` makes of it, given its place; behind
/// the last value, vectors are filled up with zeros.
#[inline(always)]
pub(super) fn map_vectors<I: Isa>(
    isa: I,
    values: &mut [f32],
    mut change: impl FnMut(usize, I::F32) -> I::F32,
) {
    let ops = isa.f32();
    let lanes = ops.len();
    let whole = values.len() / lanes * lanes;
    let (vectors, rest) = values.split_at_mut(whole);
    for (index, vector) in vectors.chunks_exact_mut(lanes).enumerate() {
        ops.store(change(index * lanes, ops.load(vector)), vector);
    }
    if !rest.is_empty() {
        let (padded, _) = ops.load_pad(rest);
        let changed = rten_simd::Simd::to_array(change(whole, padded));
        rest.copy_from_slice(&changed.as_ref()[..rest.len()]);
    }
}

/// Runs over values in parts, each on a thread where there are many, given the place of
/// the part's first value.
fn in_parts(values: &mut [f32], run: impl Fn(usize, &mut [f32]) + Sync) {
    let threads = match values.len() < PARALLEL_VALUES {
        true => 1,
        false => threads::available(),
    };
    threads::split_rows(values, 1, threads, run);
}

/// Adds a product's values to what is there, each multiplied with the mask of a dropout.
pub(super) struct AddDropped<'a> {
    pub(super) output: &'a Destination<'a>,
    pub(super) dropout: Dropout,
    pub(super) columns: usize,
}

impl Epilogue for AddDropped<'_> {
    #[inline(always)]
    fn row<I: Isa>(&self, isa: I, row: usize, column: usize, values: Vectors<I>, used: usize) {
        let ops = isa.f32();
        let first = row * self.columns + column;
        let mut values = values;
        for (index, value) in values.iter_mut().enumerate() {
            let factors = self.dropout.factors(isa, first + index * ops.len());
            *value = ops.mul(*value, factors);
        }
        // SAFETY: the product hands each place to one thread, once; the sums are written.
        unsafe { add_vectors(isa, self.output, row, column, values, used) }
    }
}

/// Adds whole vectors of values, of which the first `used` count, to what is there.
///
/// # Safety
/// As of [`Destination::update`].
#[inline(always)]
pub(super) unsafe fn add_vectors<I: Isa>(
    isa: I,
    output: &Destination<'_>,
    row: usize,
    column: usize,
    values: Vectors<I>,
    used: usize,
) {
    let ops = isa.f32();
    // SAFETY: the caller's.
    let sums = unsafe { output.update(row, column, used) };
    for (sums, value) in sums.chunks_mut(ops.len()).zip(values) {
        if sums.len() == ops.len() {
            ops.store(ops.add(ops.load(sums), value), sums);
        } else {
            let value = rten_simd::Simd::to_array(value);
            for (sum, value) in sums.iter_mut().zip(value) {
                *sum += value;
            }
        }
    }
}
