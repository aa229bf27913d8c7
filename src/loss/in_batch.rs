//! What losses do with the scores of a batch's texts against those of the same batch.

use std::ops::Range;

use burn::tensor::{Bool, Int, Tensor, backend::Backend};

/// Each row's own score: `[i, i]`.
///
/// # Shapes
/// - scores: `[batch, candidates]`, at least as wide as high
/// - output: `[batch, 1]`
pub(super) fn own_scores<B: Backend>(scores: Tensor<B, 2>) -> Tensor<B, 2> {
    let rows = 0..scores.dims()[0];
    own_scores_of(scores, rows)
}

/// The own scores of some of a batch's rows.
///
/// # Shapes
/// - scores: `[rows, candidates]`
/// - output: `[rows, 1]`
pub(super) fn own_scores_of<B: Backend>(scores: Tensor<B, 2>, rows: Range<usize>) -> Tensor<B, 2> {
    let places = places::<B>(rows, &scores.device());
    scores.gather(1, places)
}

/// The places of rows in the batch, `[rows, 1]`.
fn places<B: Backend>(rows: Range<usize>, device: &B::Device) -> Tensor<B, 2, Int> {
    Tensor::<B, 1, Int>::arange(rows.start as i64..rows.end as i64, device).unsqueeze_dim(1)
}

/// Where a row meets its own text, in each of so many columns side by side.
///
/// # Shapes
/// - output: `[batch, columns * batch]`
pub(super) fn own_mask<B: Backend>(
    batch: usize,
    columns: usize,
    device: &B::Device,
) -> Tensor<B, 2, Bool> {
    let own = Tensor::<B, 2, Bool>::diag_mask([batch, batch], 0, device).bool_not();
    Tensor::cat(vec![own; columns], 1)
}

/// The same of some of a batch's rows.
///
/// # Shapes
/// - output: `[rows, columns * batch]`
pub(super) fn own_mask_of<B: Backend>(
    rows: Range<usize>,
    batch: usize,
    columns: usize,
    device: &B::Device,
) -> Tensor<B, 2, Bool> {
    let shape = [rows.len(), batch];
    let all = Tensor::<B, 1, Int>::arange(0..batch as i64, device).unsqueeze_dim::<2>(0);
    let own = places::<B>(rows, device)
        .expand(shape)
        .equal(all.expand(shape));
    Tensor::cat(vec![own; columns], 1)
}

/// The logarithm of the sum of each row's exponentials, by way of the largest one.
///
/// # Shapes
/// - scores: `[rows, columns]`, at least one finite in a row
/// - output: `[rows, 1]`
pub(super) fn log_sum_exp<B: Backend>(scores: Tensor<B, 2>) -> Tensor<B, 2> {
    let most = scores.clone().detach().max_dim(1);
    (scores - most.clone()).exp().sum_dim(1).log() + most
}

/// Where two labels are equal.
///
/// # Shapes
/// - labels: `[batch]`
/// - output: `[batch, batch]`
pub(super) fn equal_labels<B: Backend>(labels: Tensor<B, 1>) -> Tensor<B, 2, Bool> {
    let batch = labels.dims()[0];
    let column: Tensor<B, 2> = labels.unsqueeze_dim(1);
    let row = column.clone().transpose();
    column
        .expand([batch, batch])
        .equal(row.expand([batch, batch]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestAutodiffBackend, TestBackend, device};

    #[test]
    fn own_texts_are_on_the_diagonal_of_each_column() {
        let scores =
            Tensor::<TestBackend, 2>::from_floats([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], &device());
        let own: Vec<f32> = own_scores(scores).into_data().iter().collect();
        assert_eq!(own, [1.0, 5.0]);
        let mask = own_mask::<TestBackend>(2, 2, &device());
        let mask: Vec<i32> = mask.int().into_data().iter().collect();
        assert_eq!(mask, [1, 0, 1, 0, 0, 1, 0, 1]);
        let last = own_mask_of::<TestBackend>(1..2, 2, 2, &device());
        let last: Vec<i32> = last.int().into_data().iter().collect();
        assert_eq!(last, mask[4..]);
    }

    #[test]
    fn sums_exponentials_that_would_overflow_or_vanish() {
        let large = [[1000.0, 1000.0], [-1000.0, f32::NEG_INFINITY]];
        let scores = Tensor::<TestAutodiffBackend, 2>::from_floats(large, &device()).require_grad();
        let sums = log_sum_exp(scores.clone());
        let values: Vec<f32> = sums.clone().into_data().iter().collect();
        assert!((values[0] - 1000.6931).abs() < 1e-3 && values[1] == -1000.0);
        let gradient = scores.grad(&sums.sum().backward()).unwrap();
        let gradient: Vec<f32> = gradient.into_data().iter().collect();
        assert_eq!(gradient, [0.5, 0.5, 1.0, 0.0]);
    }

    #[test]
    fn equal_labels_are_told() {
        let labels = Tensor::<TestBackend, 1>::from_floats([3.0, 1.0, 3.0], &device());
        let equal: Vec<i32> = equal_labels(labels).int().into_data().iter().collect();
        assert_eq!(equal, [1, 0, 1, 0, 1, 0, 1, 0, 1]);
    }
}
