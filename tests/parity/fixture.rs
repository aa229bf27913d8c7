//! Reading fixtures, and comparing with them.

use std::fs;
use std::path::{Path, PathBuf};

use burn::tensor::{Tensor, TensorData};
use safetensors::SafeTensors;
use sentence_burn::SentenceTransformer;
use serde_json::Value;

use crate::backend_under_test::{TestBackend, device};

/// Whether the tests run on a GPU's backend.
pub(crate) const ON_A_GPU: bool = cfg!(any(
    feature = "ddp",
    feature = "test-wgpu",
    feature = "test-cuda",
    feature = "test-rocm"
));

/// The tolerance of embeddings: 1e-5 on a CPU, more where a GPU's own functions round.
pub(crate) const TOLERANCE: f32 = if ON_A_GPU { 1e-4 } else { 1e-5 };

pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(name)
}

pub(crate) fn json(name: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(path(name)).unwrap()).unwrap()
}

pub(crate) fn strings(value: &Value) -> Vec<String> {
    serde_json::from_value(value.clone()).unwrap()
}

/// A file of expected tensors.
pub(crate) struct Expected(Vec<u8>);

impl Expected {
    pub(crate) fn read(name: &str) -> Self {
        Self(fs::read(path(name)).unwrap())
    }

    /// The names of the tensors.
    pub(crate) fn keys(&self) -> Vec<String> {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        tensors
            .names()
            .into_iter()
            .map(|name| name.to_string())
            .collect()
    }

    /// The values of a tensor, row-major.
    pub(crate) fn get(&self, key: &str) -> Vec<f32> {
        self.data(key).to_vec().unwrap()
    }

    /// A tensor: its values and shape.
    pub(crate) fn data(&self, key: &str) -> TensorData {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let view = tensors.tensor(key).unwrap_or_else(|e| panic!("{key}: {e}"));
        let bytes = view.data().chunks_exact(4);
        let values: Vec<f32> = bytes
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect();
        TensorData::new(values, view.shape().to_vec())
    }
}

pub(crate) fn load(name: &str) -> SentenceTransformer<TestBackend> {
    SentenceTransformer::load(path(name), &device()).unwrap()
}

pub(crate) fn values<const D: usize>(tensor: Tensor<TestBackend, D>) -> Vec<f32> {
    tensor.into_data().iter().collect()
}

/// The largest absolute difference; infinite where the lengths differ.
pub(crate) fn max_difference(a: &[f32], b: &[f32]) -> f32 {
    if a.len() != b.len() {
        return f32::INFINITY;
    }
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

pub(crate) fn assert_close(found: &[f32], expected: &[f32], what: &str) {
    let difference = max_difference(found, expected);
    assert!(difference <= TOLERANCE, "{what}: off by {difference:e}");
}

/// A negative control: the test would notice.
pub(crate) fn assert_far(found: &[f32], control: &[f32], what: &str) {
    let difference = max_difference(found, control);
    assert!(
        difference > 1e-3,
        "control {what}: off by only {difference:e}"
    );
}
