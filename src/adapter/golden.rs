//! The values that PyTorch and PEFT computed for the unit tests of this folder.

use std::path::Path;

use safetensors::SafeTensors;

use super::Matrix;

/// One topic of `tests/fixtures/adapter_maths`.
pub(super) struct Golden {
    file: Vec<u8>,
    topic: &'static str,
}

impl Golden {
    pub(super) fn read(topic: &'static str) -> Self {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/adapter_maths");
        let file = std::fs::read(folder.join("expected.safetensors")).unwrap();
        Self { file, topic }
    }

    /// A tensor's values, row after row.
    pub(super) fn values(&self, key: &str) -> Vec<f32> {
        self.tensor(key).0
    }

    /// A tensor of two dimensions.
    pub(super) fn matrix(&self, key: &str) -> Matrix {
        let (values, shape) = self.tensor(key);
        Matrix::new([shape[0], shape[1]], values).unwrap()
    }

    fn tensor(&self, key: &str) -> (Vec<f32>, Vec<usize>) {
        let key = format!("{}.{key}", self.topic);
        let tensors = SafeTensors::deserialize(&self.file).unwrap();
        let view = tensors
            .tensor(&key)
            .unwrap_or_else(|e| panic!("{key}: {e}"));
        let bytes = view.data().chunks_exact(4);
        let values = bytes.map(|b| f32::from_le_bytes(b.try_into().unwrap()));
        (values.collect(), view.shape().to_vec())
    }
}

/// The largest difference between two values of the same place.
pub(super) fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    // Not `f32::max`, which would lose NaN.
    differences.fold(0.0, |largest, d| if d <= largest { largest } else { d })
}
