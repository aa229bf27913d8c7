use burn::tensor::{Tensor, backend::Backend};

use super::Activation;

/// A gated activation: the activated first half of each row times its second half
/// (<https://arxiv.org/abs/2002.05202>).
///
/// # Shapes
/// - input: `[tokens, 2 * intermediate]`
/// - output: `[tokens, intermediate]`
pub fn gated<B: Backend>(input: Tensor<B, 2>, activation: Activation) -> Tensor<B, 2> {
    #[cfg(feature = "ndarray")]
    if super::cpu::route(&input) == Some(super::cpu::Route::Plain) {
        return super::cpu::gated(input, activation);
    }
    super::composed::gated(input, activation)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};

    #[test]
    fn the_first_half_is_activated_and_the_second_is_not() {
        let input = Tensor::<TestBackend, 2>::from_floats(
            [[1.0, -2.0, 3.0, 4.0], [0.5, 6.0, -7.0, -8.0]],
            &device(),
        );
        let found = gated(input, Activation::Relu).into_data();
        let found: Vec<f32> = found.iter().collect();
        assert_eq!(found, [3.0, 0.0, -3.5, -48.0]);
    }
}
