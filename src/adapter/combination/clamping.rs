use crate::adapter::{LowRank, Matrix};

/// Limits both factors to ± the quantile of their values, taken together and signed.
///
/// Source: `_svd_generalized_task_arithmetic_weighted_adapter` of PEFT; the quantile is
/// `torch.quantile`'s, between neighbours on a line.
pub(super) fn clamp_to_quantile(factors: &LowRank, quantile: f64) -> LowRank {
    let mut values = [factors.b().values(), factors.a().values()].concat();
    let limit = linear_quantile(&mut values, quantile as f32);
    // A negative limit is the upper one too, as in PyTorch.
    let clamp = |matrix: &Matrix| {
        let values = matrix.values().iter();
        let clamped = values.map(|value| value.max(-limit).min(limit));
        Matrix::filled(matrix.shape(), clamped.collect())
    };
    LowRank::from_factors(clamp(factors.a()), clamp(factors.b()))
}

fn linear_quantile(values: &mut [f32], quantile: f32) -> f32 {
    let rank = quantile * (values.len() - 1) as f32;
    // In single precision the rank may be rounded past the last value.
    let below = (rank as usize).min(values.len() - 1);
    let (_, &mut low, above) = values.select_nth_unstable_by(below, f32::total_cmp);
    match above.iter().copied().min_by(f32::total_cmp) {
        Some(high) => low + (high - low) * rank.fract(),
        None => low,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::golden::{Golden, difference};

    #[test]
    fn quantiles_lie_between_neighbours() {
        let mut values = [4.0, 1.0, 3.0, 2.0];
        assert_eq!(linear_quantile(&mut values, 0.0), 1.0);
        assert_eq!(linear_quantile(&mut values, 0.5), 2.5);
        assert_eq!(linear_quantile(&mut values, 0.75), 3.25);
        assert_eq!(linear_quantile(&mut values, 1.0), 4.0);
        assert_eq!(linear_quantile(&mut [5.0], 0.3), 5.0);
    }

    #[test]
    fn factors_are_limited_as_in_peft() {
        let golden = Golden::read("clamp");
        let factors = LowRank::new(golden.matrix("given.a"), golden.matrix("given.b")).unwrap();
        for (quantile, name) in [(0.8, "80"), (0.2, "20")] {
            let clamped = clamp_to_quantile(&factors, quantile);
            let expected = ["a", "b"].map(|factor| golden.values(&format!("{name}.{factor}")));
            assert!(difference(clamped.a().values(), &expected[0]) < 1e-6);
            assert!(difference(clamped.b().values(), &expected[1]) < 1e-6);
            // Each factor by its own quantile would be another matrix.
            let mut own = factors.a().values().to_vec();
            let limit = linear_quantile(&mut own, quantile as f32);
            let apart: Vec<f32> = factors
                .a()
                .values()
                .iter()
                .map(|value| value.max(-limit).min(limit))
                .collect();
            assert!(difference(&apart, &expected[0]) > 1e-3);
        }
    }
}
