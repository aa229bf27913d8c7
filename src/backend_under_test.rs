//! The backend that unit tests run on: NdArray, unless `--features test-…` picks another, or
//! `ddp` one that trains with it.

use burn::backend::Autodiff;

#[cfg(any(feature = "test-wgpu", all(feature = "ddp", feature = "wgpu")))]
pub(crate) type TestBackend = burn::backend::Wgpu;
#[cfg(all(
    any(feature = "test-cuda", all(feature = "ddp", feature = "cuda")),
    not(any(feature = "test-wgpu", all(feature = "ddp", feature = "wgpu")))
))]
pub(crate) type TestBackend = burn::backend::Cuda;
#[cfg(all(
    feature = "test-rocm",
    not(any(feature = "test-wgpu", feature = "test-cuda"))
))]
pub(crate) type TestBackend = burn::backend::Rocm;
#[cfg(all(
    feature = "test-flex",
    not(any(feature = "test-wgpu", feature = "test-cuda", feature = "test-rocm"))
))]
pub(crate) type TestBackend = burn::backend::Flex;
#[cfg(not(any(
    feature = "ddp",
    feature = "test-wgpu",
    feature = "test-cuda",
    feature = "test-rocm",
    feature = "test-flex"
)))]
pub(crate) type TestBackend = burn::backend::NdArray;

/// The same with gradients.
pub(crate) type TestAutodiffBackend = Autodiff<TestBackend>;

/// The device they run on.
pub(crate) fn device() -> burn::tensor::Device<TestBackend> {
    Default::default()
}
