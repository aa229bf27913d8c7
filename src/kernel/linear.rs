use std::ops::Range;

use burn::tensor::{Tensor, backend::Backend};

use super::precision::in_type;
use super::{Activation, Mode, PackedWeight, dropout};

/// The parameters of a linear layer.
#[derive(Debug)]
pub struct LinearParams<'a, B: Backend> {
    /// `[d_output, d_input]`, as Hugging Face's files hold it.
    pub weight: Tensor<B, 2>,
    /// `[d_output]`
    pub bias: Option<Tensor<B, 1>>,
    /// Where the weight's packed copies are kept.
    pub packed: &'a PackedWeight,
}

/// A low-rank update of a linear layer (<https://arxiv.org/abs/2106.09685>).
#[derive(Debug)]
pub struct LowRankParams<'a, B: Backend> {
    /// `[r, d_input]`
    pub a: Tensor<B, 2>,
    /// `[d_output, r]`
    pub b: Tensor<B, 2>,
    /// Where the packed copies of `a` and `b` are kept.
    pub packed: &'a [PackedWeight; 2],
    /// The scale of the update.
    pub scaling: f64,
    /// The dropout on its input.
    pub dropout: f64,
    /// The rows of the input that it updates, where it does not update all.
    pub rows: Option<Range<usize>>,
}

/// A linear layer with low-rank updates and an activation:
/// `f(x · Wᵀ + b + Σ s · B(A(dropout(x))))`.
///
/// # Shapes
/// - input: `[tokens, d_input]`
/// - output: `[tokens, d_output]`
pub fn linear<B: Backend>(
    input: Tensor<B, 2>,
    params: LinearParams<'_, B>,
    mut updates: Vec<LowRankParams<'_, B>>,
    activation: Activation,
    mode: Mode,
) -> Tensor<B, 2> {
    updates.retain(|update| !update.rows.as_ref().is_some_and(Range::is_empty));
    #[cfg(feature = "ndarray")]
    if let Some(route) = super::cpu::route(&input) {
        return super::cpu::linear(route, input, params, updates, activation, mode);
    }
    super::composed::linear(input, params, updates, activation, mode)
}

/// A low-rank update alone, of the rows that it updates: `s · B(A(dropout(x)))`.
///
/// # Shapes
/// - input: `[tokens, d_input]`
/// - output: `[rows, d_output]`
pub fn low_rank<B: Backend>(
    input: Tensor<B, 2>,
    params: LowRankParams<'_, B>,
    mode: Mode,
) -> Tensor<B, 2> {
    let input = match params.rows {
        Some(rows) => input.narrow(0, rows.start, rows.len()),
        None => input,
    };
    let input = dropout(input, params.dropout, mode);
    // An adapter may be loaded into a model of another precision.
    let [a, b] = [params.a, params.b].map(|factor| in_type(factor, input.dtype()));
    let thin = input.matmul(a.transpose());
    thin.matmul(b.transpose()) * params.scaling
}

/// Adds an update to the rows of a layer's output that it is for.
pub(super) fn add_to_rows<B: Backend>(
    output: Tensor<B, 2>,
    rows: Option<Range<usize>>,
    update: Tensor<B, 2>,
) -> Tensor<B, 2> {
    match rows {
        None => output + update,
        Some(rows) => {
            let place = [rows, 0..output.dims()[1]];
            let updated = output.clone().slice(place.clone()) + update;
            output.slice_assign(place, updated)
        }
    }
}
