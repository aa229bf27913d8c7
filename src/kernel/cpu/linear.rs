#![allow(unsafe_code, reason = "outputs are written in parts; see SAFETY")]

use std::ops::Range;
use std::sync::Arc;

use rten_simd::Isa;
use rten_simd::ops::{BitOps, NumOps};

use super::destination::{Destination, filled};
use super::matrix::{LARGEST_TILE, MatrixView, PackedMatrix};
use super::product::{Epilogue, Term, VECTORS, Vectors, product};
use super::random::Dropout;
use super::tensor::Floats;
use super::vector::activate;
use super::{elementwise, packed_weight::PackedWeight};
use crate::kernel::Activation;

/// A linear layer with its low-rank updates, ready to run.
#[derive(Debug, Clone)]
pub(super) struct Linear {
    /// `[d_output, d_input]`
    pub(super) weight: Floats,
    pub(super) packed: PackedWeight,
    pub(super) bias: Option<Floats>,
    pub(super) updates: Vec<LowRank>,
    pub(super) activation: Activation,
}

/// A low-rank update: `s · B(A(dropout(x)))`.
#[derive(Debug, Clone)]
pub(super) struct LowRank {
    /// `[r, d_input]`
    pub(super) a: Floats,
    /// `[d_output, r]`
    pub(super) b: Floats,
    pub(super) packed: [PackedWeight; 2],
    pub(super) scaling: f32,
    pub(super) dropout: Option<Dropout>,
    /// The rows of the input that it updates; none where it updates all.
    pub(super) rows: Option<Range<usize>>,
}

/// What a forward pass leaves for the backward one.
#[derive(Debug, Clone, Default)]
pub(super) struct Kept {
    /// The values before the activation; none where there is no activation.
    pub(super) before: Option<Floats>,
    /// `s · A(dropout(x))` of each update.
    pub(super) thin: Vec<Arc<Vec<f32>>>,
}

impl Linear {
    /// The layer's output, and what the backward pass needs if it is to be kept.
    pub(super) fn forward(&self, input: &Floats, keep: bool) -> (Floats, Kept) {
        let [rows, _] = input.dims();
        let [d_output, _] = self.weight.dims();
        let input = view(input);
        let thin: Vec<Arc<Vec<f32>>> = self
            .updates
            .iter()
            .map(|update| Arc::new(update.thin(input)))
            .collect();
        let weight = self.packed.transposed(&self.weight);
        let wide: Vec<Arc<PackedMatrix>> = self
            .updates
            .iter()
            .map(|update| update.packed[1].transposed(&update.b))
            .collect();
        let mut terms = vec![Term::new(input, &weight)];
        for ((thin, wide), update) in thin.iter().zip(&wide).zip(&self.updates) {
            let updated = update.rows.clone().unwrap_or(0..rows);
            let left = MatrixView::new(thin, [updated.len(), wide.rows()]);
            terms.push(Term::new(left, wide).at_row(updated.start));
        }
        let keep_before = keep && self.activation != Activation::Identity;
        let shape = [rows, d_output];
        let run = |before: Option<&Destination<'_>>| {
            // SAFETY: the product hands each value of the output to the epilogue once,
            // and the epilogue writes it.
            let (output, ()) = unsafe {
                filled(shape, |output| {
                    let epilogue = Activate {
                        output,
                        before,
                        bias: self.padded_bias(),
                        activation: self.activation,
                    };
                    product(&terms, &epilogue);
                })
            };
            output
        };
        let (output, before) = if keep_before {
            // SAFETY: as above; the epilogue writes each value here too.
            let (before, output) = unsafe { filled(shape, |before| run(Some(before))) };
            (output, Some(Floats::from_vec(before, &shape)))
        } else {
            (run(None), None)
        };
        let kept = match keep {
            true => Kept { before, thin },
            false => Kept::default(),
        };
        (Floats::from_vec(output, &shape), kept)
    }

    /// The bias, with zeros behind for the last panel's unused columns.
    fn padded_bias(&self) -> Option<Vec<f32>> {
        self.bias.as_ref().map(|bias| {
            let mut padded = Vec::with_capacity(bias.len() + LARGEST_TILE.columns);
            padded.extend_from_slice(bias.values());
            padded.resize(bias.len() + LARGEST_TILE.columns, 0.0);
            padded
        })
    }
}

impl LowRank {
    /// `s · A(dropout(x))` of the rows that are updated, `[rows, r]`
    fn thin(&self, input: MatrixView<'_>) -> Vec<f32> {
        let input = match &self.rows {
            Some(rows) => input.select_rows(rows.clone()),
            None => input,
        };
        let narrow = self.packed[0].transposed(&self.a);
        let dropped = self.dropped(input);
        let left = match &dropped {
            Some(values) => MatrixView::new(values, [input.rows, input.columns]),
            None => input,
        };
        multiply(&[Term::new(left, &narrow)], self.scaling)
    }

    /// `dropout(x)`; none where nothing is dropped.
    pub(super) fn dropped(&self, input: MatrixView<'_>) -> Option<Vec<f32>> {
        self.dropout
            .map(|dropout| elementwise::dropped_out(input.data, dropout))
    }
}

/// A tensor as the left operand of a product.
pub(super) fn view(floats: &Floats) -> MatrixView<'_> {
    MatrixView::new(floats.values(), floats.dims())
}

/// `s · Σ left · right`
pub(super) fn multiply(terms: &[Term<'_>], scale: f32) -> Vec<f32> {
    let shape = terms.first().map_or([0, 0], Term::shape);
    // SAFETY: the product hands each value to the epilogue once, which writes it.
    let (values, ()) =
        unsafe { filled(shape, |output| product(terms, &Store::new(output, scale))) };
    values
}

/// Stores values times a factor, from a row and a column on.
pub(super) struct Store<'a> {
    pub(super) output: &'a Destination<'a>,
    pub(super) scale: f32,
    pub(super) row: usize,
    pub(super) column: usize,
}

impl<'a> Store<'a> {
    /// Stores values times a factor, from the first row and column on.
    pub(super) fn new(output: &'a Destination<'a>, scale: f32) -> Self {
        Self {
            output,
            scale,
            row: 0,
            column: 0,
        }
    }
}

impl Epilogue for Store<'_> {
    #[inline(always)]
    fn row<I: Isa>(&self, isa: I, row: usize, column: usize, values: Vectors<I>, used: usize) {
        let ops = isa.f32();
        let mut values = values;
        if self.scale != 1.0 {
            let scale = ops.splat(self.scale);
            for value in &mut values {
                *value = ops.mul(*value, scale);
            }
        }
        let (row, column) = (self.row + row, self.column + column);
        // SAFETY: the product hands each place to one thread, once.
        unsafe { self.output.write_vectors(isa, row, column, values, used) }
    }
}

/// Adds the bias and applies the activation.
struct Activate<'a> {
    output: &'a Destination<'a>,
    /// Where the values before the activation go.
    before: Option<&'a Destination<'a>>,
    bias: Option<Vec<f32>>,
    activation: Activation,
}

impl Epilogue for Activate<'_> {
    #[inline(always)]
    fn row<I: Isa>(&self, isa: I, row: usize, column: usize, values: Vectors<I>, used: usize) {
        let ops = isa.f32();
        let mut values = values;
        if let Some(bias) = &self.bias {
            let bias = ops.load_many::<VECTORS>(&bias[column..]);
            for (value, bias) in values.iter_mut().zip(bias) {
                *value = ops.add(*value, bias);
            }
        }
        if let Some(before) = self.before {
            // SAFETY: the product hands each place to one thread, once.
            unsafe { before.write_vectors(isa, row, column, values, used) }
        }
        if self.activation != Activation::Identity {
            // Not a loop: one that is not unrolled keeps its vectors in memory.
            let [first, second] = values;
            values = [
                activate(isa, self.activation, first),
                activate(isa, self.activation, second),
            ];
        }
        // SAFETY: as above.
        unsafe { self.output.write_vectors(isa, row, column, values, used) }
    }
}
