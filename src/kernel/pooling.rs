use burn::tensor::{Tensor, backend::Backend};

use super::Packing;

/// The mean of each text's tokens; of a text without tokens, zeros.
///
/// # Shapes
/// - tokens: `[tokens, hidden]`
/// - output: `[texts, hidden]`
pub fn mean_pool<B: Backend>(tokens: Tensor<B, 2>, packing: &Packing<B>) -> Tensor<B, 2> {
    if packing.tokens() == 0 {
        return Tensor::zeros([packing.texts(), tokens.dims()[1]], packing.device());
    }
    #[cfg(feature = "ndarray")]
    if let Some(route) = super::cpu::route(&tokens) {
        let lengths = packing.lengths().iter();
        let weights = lengths.flat_map(|&length| std::iter::repeat_n(1.0 / length as f32, length));
        return super::cpu::weighted_sum_pool(route, tokens, weights.collect(), packing);
    }
    super::composed::mean_pool(tokens, packing)
}

/// Sums each text's tokens, each times its weight: first-token, last-token and
/// position-weighted pooling are this with the weights of their formula, and the mean without
/// a prompt's tokens. A text without tokens sums to zeros.
///
/// # Shapes
/// - tokens: `[tokens, hidden]`
/// - weights: one for each token
/// - output: `[texts, hidden]`
pub fn weighted_sum_pool<B: Backend>(
    tokens: Tensor<B, 2>,
    weights: Vec<f32>,
    packing: &Packing<B>,
) -> Tensor<B, 2> {
    if packing.tokens() == 0 {
        return Tensor::zeros([packing.texts(), tokens.dims()[1]], packing.device());
    }
    #[cfg(feature = "ndarray")]
    if let Some(route) = super::cpu::route(&tokens) {
        return super::cpu::weighted_sum_pool(route, tokens, weights, packing);
    }
    super::composed::weighted_sum_pool(tokens, weights, packing)
}

/// The largest value of each dimension over each text's tokens from `first` on.
///
/// A text without such a token gives the lowest finite number, as the reference's
/// masked maximum gives its mask value.
///
/// # Shapes
/// - tokens: `[tokens, hidden]`
/// - output: `[texts, hidden]`
pub fn max_pool<B: Backend>(
    tokens: Tensor<B, 2>,
    first: usize,
    packing: &Packing<B>,
) -> Tensor<B, 2> {
    #[cfg(feature = "ndarray")]
    if super::cpu::route(&tokens) == Some(super::cpu::Route::Plain) {
        return super::cpu::max_pool(tokens, first, packing);
    }
    super::composed::max_pool(tokens, first, packing)
}
