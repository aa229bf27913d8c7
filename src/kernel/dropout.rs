use burn::tensor::{Tensor, backend::Backend};

/// Whether a forward pass drops out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// No dropout: the same input gives the same output.
    #[default]
    Inference,
    /// Dropout, drawn from the backend's generator (`B::seed` replays it).
    Training,
}

/// Zeroes each element with that probability and scales the others by `1 / (1 - p)`;
/// the identity in [`Mode::Inference`].
pub fn dropout<B: Backend, const D: usize>(
    input: Tensor<B, D>,
    probability: f64,
    mode: Mode,
) -> Tensor<B, D> {
    if mode == Mode::Inference || probability == 0.0 {
        return input;
    }
    #[cfg(feature = "ndarray")]
    if let Some(route) = super::cpu::route(&input) {
        return super::cpu::dropout(route, input, probability, mode);
    }
    super::composed::dropout(input, probability, mode)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};

    #[test]
    fn drops_the_share_it_is_told_and_keeps_the_mean() {
        let ones = Tensor::<TestBackend, 2>::ones([100, 100], &device());
        let dropped: Vec<f32> = dropout(ones, 0.25, Mode::Training)
            .into_data()
            .iter()
            .collect();
        let zeros = dropped.iter().filter(|&&v| v == 0.0).count();
        assert!((2000..3000).contains(&zeros), "{zeros} of 10000 dropped");
        assert!(
            dropped
                .iter()
                .all(|&v| v == 0.0 || (v - 4.0 / 3.0).abs() < 1e-6)
        );
    }

    #[test]
    fn does_nothing_at_inference() {
        let ones = Tensor::<TestBackend, 1>::ones([64], &device());
        let kept: Vec<f32> = dropout(ones, 0.9, Mode::Inference)
            .into_data()
            .iter()
            .collect();
        assert_eq!(kept, [1.0; 64]);
    }
}
