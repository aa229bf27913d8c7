use super::tensor::Floats;

/// The sum of each text's tokens, each times its weight.
pub(super) fn weighted_sum_pool(tokens: &Floats, weights: &[f32], lengths: &[usize]) -> Floats {
    let [_, columns] = tokens.dims();
    let mut sums = vec![0.0; lengths.len() * columns];
    let mut rows = tokens.values().chunks_exact(columns.max(1)).zip(weights);
    for (sum, &length) in sums.chunks_exact_mut(columns.max(1)).zip(lengths) {
        for (row, &weight) in rows.by_ref().take(length) {
            // A token that does not count adds nothing, whatever it is.
            if weight != 0.0 {
                for (sum, value) in sum.iter_mut().zip(row) {
                    *sum += weight * value;
                }
            }
        }
    }
    Floats::from_vec(sums, &[lengths.len(), columns])
}

/// The gradient of the tokens: their text's, each times its weight.
pub(super) fn weighted_sum_pool_backward(
    gradient: &Floats,
    weights: &[f32],
    lengths: &[usize],
) -> Floats {
    let [_, columns] = gradient.dims();
    let mut tokens = Vec::with_capacity(weights.len() * columns);
    let mut weights = weights.iter();
    for (gradient, &length) in gradient.values().chunks_exact(columns.max(1)).zip(lengths) {
        for &weight in weights.by_ref().take(length) {
            tokens.extend(gradient.iter().map(|value| weight * value));
        }
    }
    let rows = lengths.iter().sum();
    Floats::from_vec(tokens, &[rows, columns])
}

/// The largest value of each dimension over each text's tokens from `first` on.
pub(super) fn max_pool(tokens: &Floats, first: usize, lengths: &[usize]) -> Floats {
    let [_, columns] = tokens.dims();
    let mut most = vec![f32::MIN; lengths.len() * columns];
    let mut rows = tokens.values().chunks_exact(columns.max(1));
    for (most, &length) in most.chunks_exact_mut(columns.max(1)).zip(lengths) {
        for row in rows.by_ref().take(length).skip(first) {
            for (most, &value) in most.iter_mut().zip(row) {
                *most = most.max(value);
            }
        }
    }
    Floats::from_vec(most, &[lengths.len(), columns])
}

/// Each row scaled to unit length.
pub(super) fn normalize(rows: Floats) -> Floats {
    let [_, columns] = rows.dims();
    rows.map(|values| {
        for row in values.chunks_exact_mut(columns.max(1)) {
            let squared: f32 = row.iter().map(|value| value * value).sum();
            let length = squared.max(1e-24).sqrt();
            for value in row {
                *value /= length;
            }
        }
    })
}
