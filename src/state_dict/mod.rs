//! Named tensors on their way from a file into layers, and back.

mod finite;
mod fold;
mod visitor;

pub use visitor::{
    CollectTensors, DrawParams, FindNotFinite, LoadTensors, LoadedKeys, ParamVisitor, SetTrainable,
    ShapeMismatch, TrainableNames, WithPrefix,
};

use std::collections::BTreeMap;

use burn::tensor::{AllocationProperty, Bytes, Tensor, TensorData, backend::Backend};

use crate::error::{Result, StateDictError};

/// Named tensors on the host, as Hugging Face's files name and shape them.
///
/// Layers take what is theirs with [`take`](Self::take); what is left at the end was
/// unexpected and is reported.
#[derive(Debug, Clone, Default)]
pub struct StateDict {
    /// Whose tensors these are, for errors: a file or a module.
    owner: String,
    tensors: BTreeMap<String, TensorData>,
    /// Whether what is taken out must be finite.
    finite: bool,
}

impl StateDict {
    /// An empty state dict; `owner` names it in errors.
    pub fn new(owner: impl Into<String>) -> Self {
        Self {
            owner: owner.into(),
            tensors: BTreeMap::new(),
            finite: false,
        }
    }

    /// Has [`take`](Self::take) refuse tensors that hold NaN or infinity. What is never taken
    /// is never looked at.
    #[must_use]
    pub fn finite(self) -> Self {
        Self {
            finite: true,
            ..self
        }
    }

    /// Adds a tensor, replacing one of the same key.
    pub fn insert(&mut self, key: impl Into<String>, data: TensorData) {
        self.tensors.insert(key.into(), data);
    }

    /// Adds a tensor that lives on a device.
    pub fn insert_tensor<B: Backend, const D: usize>(
        &mut self,
        key: impl Into<String>,
        tensor: Tensor<B, D>,
    ) {
        self.insert(key, tensor.into_data());
    }

    /// The tensor of that key.
    pub fn get(&self, key: &str) -> Option<&TensorData> {
        self.tensors.get(key)
    }

    /// Takes the tensor of that key out.
    pub fn remove(&mut self, key: &str) -> Option<TensorData> {
        self.tensors.remove(key)
    }

    /// Whether there is a tensor of that key.
    pub fn contains(&self, key: &str) -> bool {
        self.tensors.contains_key(key)
    }

    /// The keys in order.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// The keys and tensors in key order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &TensorData)> {
        self.tensors.iter().map(|(key, data)| (key.as_str(), data))
    }

    /// The number of tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }

    /// Whether there is no tensor.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Adds all tensors of another state dict.
    pub fn append(&mut self, other: Self) {
        self.tensors.extend(other.tensors);
    }

    /// Renames every tensor; one whose new name is `None` is dropped.
    #[must_use]
    pub fn rename(self, name: impl Fn(&str) -> Option<String>) -> Self {
        let tensors = self
            .tensors
            .into_iter()
            .filter_map(|(key, data)| Some((name(&key)?, data)))
            .collect();
        Self { tensors, ..self }
    }

    /// Replaces a matrix, if it is there, by its rows in parts of `[rows, columns]`, each
    /// under a key of its own.
    ///
    /// # Errors
    /// [`StateDictError::ShapeMismatch`] where it is not as many rows as all parts have.
    pub fn split_rows(
        &mut self,
        key: &str,
        parts: &[String],
        [rows, columns]: [usize; 2],
    ) -> Result<()> {
        if !self.contains(key) {
            return Ok(());
        }
        self.expect_shape(key, &[parts.len() * rows, columns])?;
        if let Some(data) = self.tensors.remove(key) {
            let size = rows * columns * data.dtype.size();
            let bytes = data.as_bytes().chunks(size.max(1));
            for (part, bytes) in parts.iter().zip(bytes) {
                let bytes = Bytes::from_bytes_vec(bytes.to_vec());
                self.insert(
                    part,
                    TensorData::from_bytes(bytes, [rows, columns], data.dtype),
                );
            }
        }
        Ok(())
    }

    /// Replaces matrices by one of all their rows, in that order; does nothing where one is
    /// not there or they do not fit each other. The reverse of
    /// [`split_rows`](Self::split_rows).
    pub fn join_rows(&mut self, parts: &[String], key: &str) {
        let found: Vec<&TensorData> = parts.iter().flat_map(|part| self.get(part)).collect();
        let Some(first) = found.first().filter(|_| found.len() == parts.len()) else {
            return;
        };
        let fits = |part: &&TensorData| {
            part.shape.len() == 2 && part.shape[1] == first.shape[1] && part.dtype == first.dtype
        };
        if !found.iter().all(fits) {
            return;
        }
        let shape = [found.iter().map(|part| part.shape[0]).sum(), first.shape[1]];
        let bytes = found.iter().flat_map(|part| part.as_bytes()).copied();
        let bytes = Bytes::from_bytes_vec(bytes.collect());
        let joined = TensorData::from_bytes(bytes, shape, first.dtype);
        for part in parts {
            self.tensors.remove(part);
        }
        self.insert(key, joined);
    }

    /// Checks that the tensor of that key has that shape, without taking it.
    ///
    /// # Errors
    /// [`StateDictError::Missing`] or [`StateDictError::ShapeMismatch`].
    pub fn expect_shape(&self, key: &str, expected: &[usize]) -> Result<()> {
        let data = self.tensors.get(key).ok_or_else(|| self.missing(key))?;
        if data.shape[..] == *expected {
            return Ok(());
        }
        Err(StateDictError::ShapeMismatch {
            owner: self.owner.clone(),
            key: key.to_owned(),
            expected: expected.to_vec(),
            found: data.shape.to_vec(),
        }
        .into())
    }

    /// Moves the tensor of that key to a device, as the backend's float type.
    ///
    /// A matrix of a mapped file stays there on a CPU backend: the tensor borrows it, and is
    /// copied when it is changed. `NdArray`'s own operations copy what is borrowed each time,
    /// this crate's kernels do not; so vectors, which are small and meet both, are copied
    /// here.
    ///
    /// # Errors
    /// [`StateDictError::Missing`] or [`StateDictError::ShapeMismatch`]; the state dict
    /// is then as it was. [`StateDictError::NotFinite`] where it is to be [`finite`](Self::finite)
    /// and is not, be it that a number is too large for the backend's float type.
    pub fn take<B: Backend, const D: usize>(
        &mut self,
        key: &str,
        shape: [usize; D],
        device: &B::Device,
    ) -> Result<Tensor<B, D>> {
        self.expect_shape(key, &shape)?;
        let data = self.tensors.remove(key).ok_or_else(|| self.missing(key))?;
        let mut data = data.convert::<B::FloatElem>();
        if self.finite
            && let Some((place, found)) = finite::first_not_finite(&data)
        {
            return Err(StateDictError::NotFinite {
                owner: self.owner.clone(),
                key: key.to_owned(),
                place,
                found,
            }
            .into());
        }
        let is_mapped = data.bytes.property() == AllocationProperty::File;
        if is_mapped
            && D < 2
            && let Ok(values) = data.to_vec::<B::FloatElem>()
        {
            data = TensorData::new(values, data.shape);
        }
        Ok(Tensor::from_data(data, device))
    }

    /// Checks that there are tensors of all these keys.
    ///
    /// # Errors
    /// [`StateDictError::Missing`] naming every one that is not there.
    pub fn require(&self, keys: &[&str]) -> Result<()> {
        let absent = keys.iter().filter(|key| !self.contains(key));
        let keys: Vec<String> = absent.map(|key| (*key).to_owned()).collect();
        if keys.is_empty() {
            return Ok(());
        }
        let owner = self.owner.clone();
        Err(StateDictError::Missing { owner, keys }.into())
    }

    fn missing(&self, key: &str) -> StateDictError {
        StateDictError::Missing {
            owner: self.owner.clone(),
            keys: vec![key.to_owned()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn rows_are_split_in_order_and_what_does_not_fit_is_named() {
        let mut state = StateDict::new("test");
        let values: Vec<f32> = (0..12u8).map(f32::from).collect();
        state.insert("ab", TensorData::new(values, [4, 3]));
        let parts = ["a", "b"].map(str::to_owned);
        let error = state.split_rows("ab", &parts, [3, 2]).unwrap_err();
        assert!(
            matches!(&error, Error::StateDict(StateDictError::ShapeMismatch { expected, found, .. })
                if expected == &[6, 2] && found == &[4, 3]),
            "{error}"
        );
        state.split_rows("ab", &parts, [2, 3]).unwrap();
        state.split_rows("absent", &parts, [2, 3]).unwrap();
        assert_eq!(state.keys().collect::<Vec<_>>(), ["a", "b"]);
        let b = state.get("b").unwrap().clone();
        let expected: Vec<f32> = (6..12u8).map(f32::from).collect();
        assert_eq!(b, TensorData::new(expected, [2, 3]));
        state.join_rows(&["b", "absent"].map(str::to_owned), "c");
        assert_eq!(state.len(), 2);
        state.join_rows(&parts, "ab");
        let values: Vec<f32> = (0..12u8).map(f32::from).collect();
        assert_eq!(state.keys().collect::<Vec<_>>(), ["ab"]);
        assert_eq!(state.get("ab"), Some(&TensorData::new(values, [4, 3])));
    }
}
