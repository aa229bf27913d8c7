/// Pearson's correlation of the pairs' two sides: how well a straight line maps one to
/// the other, from -1 to 1.
///
/// NaN where it is undefined: for fewer than two pairs, or if one side never varies.
pub fn pearson(pairs: &[(f64, f64)]) -> f64 {
    let (x, y): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    correlate(&x, &y)
}

/// Spearman's correlation of the pairs' two sides: Pearson's, of the values' ranks. It
/// asks only whether both sides sort the pairs alike. Equal values share the average of
/// their ranks.
///
/// NaN where it is undefined: for fewer than two pairs, or if one side never varies.
pub fn spearman(pairs: &[(f64, f64)]) -> f64 {
    let (x, y): (Vec<f64>, Vec<f64>) = pairs.iter().copied().unzip();
    correlate(&average_ranks(&x), &average_ranks(&y))
}

fn correlate(x: &[f64], y: &[f64]) -> f64 {
    // Rounding leaves a constant side with a tiny spread around its mean, so that its
    // norm does not tell.
    let constant = |v: &[f64]| v.windows(2).all(|w| w[0] == w[1]);
    if constant(x) || constant(y) {
        return f64::NAN;
    }
    let cosine: f64 = unit_deviations(x)
        .zip(unit_deviations(y))
        .map(|(a, b)| a * b)
        .sum();
    cosine.clamp(-1.0, 1.0)
}

/// The values' deviations from their mean, scaled to length 1.
fn unit_deviations(values: &[f64]) -> impl Iterator<Item = f64> {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    let norm = values
        .iter()
        .map(|v| (v - mean).powi(2))
        .sum::<f64>()
        .sqrt();
    values.iter().map(move |v| (v - mean) / norm)
}

/// The rank of each value, from 1; equal values share the average of their ranks.
fn average_ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut before = 0;
    for equal in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = before as f64 + (equal.len() + 1) as f64 / 2.0;
        for &index in equal {
            ranks[index] = rank;
        }
        before += equal.len();
    }
    ranks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn close(found: f64, expected: f64) {
        assert!(
            (found - expected).abs() < 1e-12,
            "{found} is not {expected}"
        );
    }

    #[test]
    fn pearson_of_a_hand_computed_sample() {
        // Deviations (-1.5, -0.5, 0.5, 1.5) and (-2, 0, -1, 3): products 3+0-0.5+4.5 = 7,
        // squares 5 and 14.
        let pairs = [(1.0, 0.0), (2.0, 2.0), (3.0, 1.0), (4.0, 5.0)];
        close(pearson(&pairs), 7.0 / (5.0_f64 * 14.0).sqrt());
    }

    #[test]
    fn spearman_sees_order_alone() {
        let pairs = [(1.0, 0.1), (2.0, 0.2), (3.0, 90.0), (4.0, 1e6)];
        close(spearman(&pairs), 1.0);
        assert!(pearson(&pairs) < 0.8);
        let falling = pairs.map(|(x, y)| (x, -y));
        close(spearman(&falling), -1.0);
    }

    #[test]
    fn tied_values_share_the_average_of_their_ranks() {
        assert_eq!(
            average_ranks(&[7.0, 3.0, 7.0, 7.0, -0.0, 0.0]),
            [5.0, 3.0, 5.0, 5.0, 1.5, 1.5]
        );
        // Ranks (1, 2.5, 2.5, 4) and (1, 3, 2, 4): deviations (-1.5, 0, 0, 1.5) and
        // (-1.5, 0.5, -0.5, 1.5), products 4.5, squares 4.5 and 5.
        let pairs = [(1.0, 0.0), (2.0, 8.0), (2.0, 4.0), (3.0, 9.0)];
        close(spearman(&pairs), 4.5 / (4.5_f64 * 5.0).sqrt());
    }

    #[test]
    fn undefined_correlations_are_nan() {
        for pairs in [
            vec![],
            vec![(1.0, 2.0)],
            vec![(0.1, 1.0), (0.1, 2.0), (0.1, 3.0)],
        ] {
            assert!(
                pearson(&pairs).is_nan() && spearman(&pairs).is_nan(),
                "{pairs:?}"
            );
        }
    }
}
