use crate::adapter::TorchGenerator;

/// Keeps the `density` part of the values that is farthest from zero, of equals the first.
pub(super) fn keep_largest(values: &mut [f32], density: f64) {
    let kept = (density * values.len() as f64) as usize;
    if kept >= values.len() {
        return;
    }
    let mut places: Vec<usize> = (0..values.len()).collect();
    if kept > 0 {
        places.select_nth_unstable_by(kept - 1, |&a, &b| {
            let by_size = values[b].abs().total_cmp(&values[a].abs());
            by_size.then(a.cmp(&b))
        });
    }
    for &place in &places[kept..] {
        values[place] = 0.0;
    }
}

/// Keeps each value with probability `density`, and divides what is kept by it: the mean
/// stays (<https://arxiv.org/abs/2311.03099>).
pub(super) fn keep_at_random(values: &mut [f32], density: f64, generator: &mut TorchGenerator) {
    let kept = generator.bernoulli(density, values.len());
    for (value, kept) in values.iter_mut().zip(kept) {
        *value = if kept { *value / density as f32 } else { 0.0 };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_are_kept_and_of_equals_the_first() {
        let values = [1.0, -3.0, 2.0, -2.0, 0.5];
        for (density, expected) in [
            (0.0, [0.0; 5]),
            (0.39, [0.0, -3.0, 0.0, 0.0, 0.0]),
            (0.4, [0.0, -3.0, 2.0, 0.0, 0.0]),
            (0.79, [0.0, -3.0, 2.0, -2.0, 0.0]),
            (1.0, values),
        ] {
            let mut pruned = values;
            keep_largest(&mut pruned, density);
            assert_eq!(pruned, expected, "{density}");
        }
    }

    #[test]
    fn keeping_at_random_keeps_the_mean() {
        let mut values = vec![1.0; 20_000];
        keep_at_random(&mut values, 0.25, &mut TorchGenerator::new(1));
        assert!(values.iter().all(|&value| value == 0.0 || value == 4.0));
        let mean = values.iter().sum::<f32>() / values.len() as f32;
        assert!((mean - 1.0).abs() < 0.05, "{mean}");
        let mut again = vec![1.0; 20_000];
        keep_at_random(&mut again, 0.25, &mut TorchGenerator::new(1));
        assert_eq!(values, again);
        keep_at_random(&mut again, 0.25, &mut TorchGenerator::new(2));
        assert_ne!(values, again);
    }
}
