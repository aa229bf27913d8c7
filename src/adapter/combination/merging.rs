use serde::{Deserialize, Serialize};

/// How tensors elect the sign of a value in `ties` and `dare_ties`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MajoritySignMethod {
    /// The sign of the values' sum.
    #[default]
    Total,
    /// The sign that more of them have.
    Frequency,
}

/// The weighted sum: task arithmetic.
pub(super) fn weighted_sum(tensors: &[Vec<f32>], weights: &[f32]) -> Vec<f32> {
    let values = places(tensors).map(|place| {
        let weighted = tensors.iter().zip(weights);
        weighted
            .map(|(tensor, weight)| tensor[place] * weight)
            .sum()
    });
    values.collect()
}

/// The weighted mean, value for value, of the tensors that have the sign elected there;
/// the count is theirs, whatever their weights (<https://arxiv.org/abs/2306.01708>).
pub(super) fn disjoint_mean(
    tensors: &[Vec<f32>],
    weights: &[f32],
    method: MajoritySignMethod,
) -> Vec<f32> {
    let values = places(tensors).map(|place| {
        let column = || tensors.iter().map(|tensor| tensor[place]);
        let total: f32 = match method {
            MajoritySignMethod::Total => column().sum(),
            MajoritySignMethod::Frequency => column().map(sign).sum(),
        };
        let elected = if total >= 0.0 { 1.0 } else { -1.0 };
        let mut sum = 0.0;
        let mut count = 0.0_f32;
        for (value, weight) in column().zip(weights) {
            if sign(value) == elected {
                sum += value * weight;
                count += 1.0;
            }
        }
        sum / count.max(1.0)
    });
    values.collect()
}

fn places(tensors: &[Vec<f32>]) -> std::ops::Range<usize> {
    0..tensors.first().map_or(0, Vec::len)
}

/// 1, −1, or 0 for zero.
fn sign(value: f32) -> f32 {
    if value == 0.0 { 0.0 } else { value.signum() }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Columns: all agree; the sum elects minus, the count plus; a zero has no vote; a tie
    /// elects plus; all zero.
    const TENSORS: [[f32; 5]; 3] = [
        [1.0, 1.0, 0.0, 2.0, 0.0],
        [2.0, 1.0, -2.0, -2.0, 0.0],
        [3.0, -4.0, -4.0, 0.0, 0.0],
    ];
    const WEIGHTS: [f32; 3] = [1.0, 0.5, 2.0];

    fn tensors() -> Vec<Vec<f32>> {
        TENSORS.map(|tensor| tensor.to_vec()).to_vec()
    }

    #[test]
    fn signs_are_elected_and_the_others_left_out() {
        let total = disjoint_mean(&tensors(), &WEIGHTS, MajoritySignMethod::Total);
        assert_eq!(total, [8.0 / 3.0, -8.0, -4.5, 2.0, 0.0]);
        let frequency = disjoint_mean(&tensors(), &WEIGHTS, MajoritySignMethod::Frequency);
        assert_eq!(frequency, [8.0 / 3.0, 0.75, -4.5, 2.0, 0.0]);
    }

    #[test]
    fn the_sum_takes_all() {
        let sum = weighted_sum(&tensors(), &WEIGHTS);
        assert_eq!(sum, [8.0, -6.5, -9.0, 1.0, 0.0]);
    }
}
