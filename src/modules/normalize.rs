use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};

use crate::kernel::normalize;

/// Scales embeddings to unit length.
#[derive(Module, Clone, Debug, Default)]
pub struct Normalize;

impl Normalize {
    /// Scales each embedding to unit length.
    ///
    /// # Shapes
    /// - input: `[texts, dim]`
    /// - output: `[texts, dim]`
    pub fn forward<B: Backend>(&self, sentences: Tensor<B, 2>) -> Tensor<B, 2> {
        normalize(sentences)
    }
}
