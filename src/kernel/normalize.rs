use burn::tensor::{Tensor, backend::Backend};

/// Scales each row to unit length; a row shorter than 1e-12 is divided by 1e-12, as
/// PyTorch's `F.normalize` does.
///
/// # Shapes
/// - input: `[rows, dim]`
/// - output: `[rows, dim]`
pub fn normalize<B: Backend>(input: Tensor<B, 2>) -> Tensor<B, 2> {
    // The clamp stands under the root: at a zero row the root's own gradient is infinite.
    let squared = (input.clone() * input.clone()).sum_dim(1).clamp_min(1e-24);
    input / squared.sqrt()
}
