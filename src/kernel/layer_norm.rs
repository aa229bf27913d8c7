use burn::tensor::{Tensor, backend::Backend};

use super::Mode;

/// The parameters of a layer norm.
#[derive(Debug)]
pub struct LayerNormParams<B: Backend> {
    /// `[hidden]`
    pub weight: Tensor<B, 1>,
    /// `[hidden]`
    pub bias: Tensor<B, 1>,
    /// What is added to the variance.
    pub epsilon: f64,
}

/// Layer normalisation over the last dimension, with the biased variance
/// (<https://arxiv.org/abs/1607.06450>).
///
/// # Shapes
/// - input: `[tokens, hidden]`
/// - output: `[tokens, hidden]`
pub fn layer_norm<B: Backend>(input: Tensor<B, 2>, params: LayerNormParams<B>) -> Tensor<B, 2> {
    add_layer_norm(input, None, params, 0.0, Mode::Inference)
}

/// The norm of a residual connection: `norm(dropout(input) + residual)`.
///
/// # Shapes
/// - input, residual: `[tokens, hidden]`
/// - output: `[tokens, hidden]`
pub fn add_layer_norm<B: Backend>(
    input: Tensor<B, 2>,
    residual: Option<Tensor<B, 2>>,
    params: LayerNormParams<B>,
    dropout: f64,
    mode: Mode,
) -> Tensor<B, 2> {
    #[cfg(feature = "ndarray")]
    if let Some(route) = super::cpu::route(&input) {
        return super::cpu::add_layer_norm(route, input, residual, params, dropout, mode);
    }
    super::composed::add_layer_norm(input, residual, params, dropout, mode)
}
