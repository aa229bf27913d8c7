use burn::tensor::{Tensor, backend::Backend};

/// A linear layer: `x · Wᵀ + b`, the weight as Hugging Face's files hold it.
///
/// # Shapes
/// - input: `[tokens, d_input]`
/// - weight: `[d_output, d_input]`
/// - bias: `[d_output]`
/// - output: `[tokens, d_output]`
pub fn linear<B: Backend>(
    input: Tensor<B, 2>,
    weight: Tensor<B, 2>,
    bias: Option<Tensor<B, 1>>,
) -> Tensor<B, 2> {
    let output = input.matmul(weight.transpose());
    match bias {
        Some(bias) => output + bias.unsqueeze(),
        None => output,
    }
}
