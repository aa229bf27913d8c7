//! Half precision: what sums many values does it in single precision.

use burn::tensor::{DType, FloatDType, Tensor, backend::Backend};

/// In single precision what is in half precision; anything else as it is.
pub(super) fn widen<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Tensor<B, D> {
    match tensor.dtype() {
        DType::F16 | DType::BF16 => tensor.cast(FloatDType::F32),
        _ => tensor,
    }
}

/// In a float type.
pub(super) fn in_type<B: Backend, const D: usize>(
    tensor: Tensor<B, D>,
    dtype: DType,
) -> Tensor<B, D> {
    match tensor.dtype() == dtype {
        true => tensor,
        false => tensor.cast(FloatDType::from(dtype)),
    }
}
