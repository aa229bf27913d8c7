use burn::tensor::{Tensor, backend::Backend};

/// Layer normalisation over the last dimension, with the biased variance
/// (<https://arxiv.org/abs/1607.06450>).
///
/// # Shapes
/// - input: `[tokens, hidden]`
/// - weight, bias: `[hidden]`
/// - output: `[tokens, hidden]`
pub fn layer_norm<B: Backend>(
    input: Tensor<B, 2>,
    weight: Tensor<B, 1>,
    bias: Tensor<B, 1>,
    epsilon: f64,
) -> Tensor<B, 2> {
    let centred = input.clone() - input.mean_dim(1);
    let variance = (centred.clone() * centred.clone()).mean_dim(1);
    let normed = centred / (variance + epsilon).sqrt();
    normed * weight.unsqueeze() + bias.unsqueeze()
}
