use burn::tensor::{Tensor, backend::Backend};

/// The parameters of a root-mean-square norm.
#[derive(Debug)]
pub struct RmsNormParams<B: Backend> {
    /// `[hidden]`
    pub weight: Tensor<B, 1>,
    /// What is added to the weight: 0, or 1 where the weight says how far the factor is
    /// from 1, as Gemma's does.
    pub offset: f64,
    /// What is added to the mean square.
    pub epsilon: f64,
}

/// Root-mean-square normalisation over the last dimension:
/// `x / √(mean(x²) + ε) · (weight + offset)` (<https://arxiv.org/abs/1910.07467>).
///
/// # Shapes
/// - input: `[rows, hidden]`
/// - output: `[rows, hidden]`
pub fn rms_norm<B: Backend>(input: Tensor<B, 2>, params: RmsNormParams<B>) -> Tensor<B, 2> {
    #[cfg(feature = "ndarray")]
    if super::cpu::route(&input) == Some(super::cpu::Route::Plain) {
        return super::cpu::rms_norm(input, params);
    }
    super::composed::rms_norm(input, params)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};
    use burn::tensor::Distribution;

    #[test]
    fn each_row_is_divided_by_its_root_mean_square() {
        let (rows, hidden, epsilon) = (5, 7, 1e-3);
        let random = |shape: [usize; 2]| {
            Tensor::<TestBackend, 2>::random(shape, Distribution::Default, &device())
        };
        let (input, weight) = (random([rows, hidden]) - 0.3, random([1, hidden]));
        let values = |tensor: Tensor<TestBackend, 2>| -> Vec<f64> {
            let values = tensor.into_data();
            values.iter::<f32>().map(f64::from).collect()
        };
        let (x, w) = (values(input.clone()), values(weight.clone()));
        for offset in [0.0, 1.0] {
            let params = RmsNormParams {
                weight: weight.clone().reshape([hidden]),
                offset,
                epsilon,
            };
            let found = values(rms_norm(input.clone(), params));
            for (row, found) in x.chunks_exact(hidden).zip(found.chunks_exact(hidden)) {
                let squares: f64 = row.iter().map(|x| x * x).sum();
                let scale = (squares / hidden as f64 + epsilon).sqrt();
                for ((x, w), found) in row.iter().zip(&w).zip(found) {
                    assert!((x / scale * (w + offset) - found).abs() < 1e-5);
                }
                // Negative control: the mean is not taken off, and epsilon counts.
                let without = (squares / hidden as f64).sqrt();
                assert!((scale / without - 1.0).abs() > 1e-4);
            }
        }
    }
}
