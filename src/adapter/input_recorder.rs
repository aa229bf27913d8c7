use std::sync::{Arc, Mutex};

use burn::tensor::{Tensor, backend::Backend};

use super::Matrix;

/// Writes a layer's inputs down as they pass.
#[derive(Debug, Clone, Default)]
pub struct InputRecorder(Arc<Mutex<Option<Matrix>>>);

impl InputRecorder {
    /// Keeps the inputs, in place of those before.
    pub(super) fn record<B: Backend>(&self, inputs: &Tensor<B, 2>) {
        let inputs = Matrix::from_tensor(inputs.clone());
        *self.0.lock().unwrap_or_else(|e| e.into_inner()) = Some(inputs);
    }

    /// Takes the last inputs, `[tokens, d_input]`, if there were any.
    pub fn take(&self) -> Option<Matrix> {
        self.0.lock().unwrap_or_else(|e| e.into_inner()).take()
    }
}
