use burn::tensor::{Tensor, backend::Backend};

/// Scales each row to unit length; a row shorter than 1e-12 is divided by 1e-12, as
/// PyTorch's `F.normalize` does.
///
/// # Shapes
/// - input: `[rows, dim]`
/// - output: `[rows, dim]`
pub fn normalize<B: Backend>(input: Tensor<B, 2>) -> Tensor<B, 2> {
    #[cfg(feature = "ndarray")]
    if super::cpu::route(&input) == Some(super::cpu::Route::Plain) {
        return super::cpu::normalize(input);
    }
    super::composed::normalize(input)
}
