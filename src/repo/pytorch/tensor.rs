use burn::tensor::{Bytes, TensorData};

use super::Reason;
use super::storage::{Storage, Storages};
use super::value::Value;

/// A view of a storage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TensorView {
    storage: Storage,
    /// The first element.
    offset: usize,
    shape: Vec<usize>,
    /// The elements from one to the next along each dimension.
    strides: Vec<usize>,
}

impl TensorView {
    /// The tensor that `torch._utils._rebuild_tensor_v2` makes of these arguments.
    pub(super) fn rebuild(arguments: &[Value]) -> Result<Self, Reason> {
        let wrong = || "a tensor is not made as PyTorch makes it".to_owned();
        let [Value::Storage(storage), offset, shape, strides, ..] = arguments else {
            return Err(wrong());
        };
        let sizes = |value: &Value| -> Option<Vec<usize>> {
            value.few_items()?.iter().map(Value::size).collect()
        };
        let view = Self {
            storage: storage.clone(),
            offset: offset.size().ok_or_else(wrong)?,
            shape: sizes(shape).ok_or_else(wrong)?,
            strides: sizes(strides).ok_or_else(wrong)?,
        };
        match view.shape.len() == view.strides.len() {
            true => Ok(view),
            false => Err(wrong()),
        }
    }

    fn count(&self) -> Option<usize> {
        self.shape
            .iter()
            .try_fold(1usize, |n, &size| n.checked_mul(size))
    }

    fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        let dims = self.shape.iter().zip(&self.strides).rev();
        dims.into_iter().all(|(&size, &stride)| {
            let fits = size == 1 || stride == expected;
            expected *= size;
            fits
        })
    }

    fn load(&self, storages: &Storages<'_>) -> Result<TensorData, Reason> {
        let beyond = || format!("a tensor is more than storage `{}` holds", self.storage.key);
        let size = self.storage.dtype.size();
        let count = self.count().ok_or_else(beyond)?;
        let bytes = match count == 0 || self.is_contiguous() {
            true => {
                let start = self.offset.checked_mul(size).ok_or_else(beyond)?;
                let length = count.checked_mul(size).ok_or_else(beyond)?;
                let end = start.checked_add(length).ok_or_else(beyond)?;
                storages.share(&self.storage, start..end)?
            }
            false => {
                // Strides of 0 can make much of little.
                storages.allow_copy(count.saturating_mul(size))?;
                Bytes::from_bytes_vec(self.gather(storages.bytes(&self.storage)?)?)
            }
        };
        Ok(TensorData::from_bytes(
            bytes,
            self.shape.clone(),
            self.storage.dtype,
        ))
    }

    /// The elements in order, out of a storage that has them in another.
    fn gather(&self, storage: &[u8]) -> Result<Vec<u8>, Reason> {
        let size = self.storage.dtype.size();
        let beyond = || format!("a tensor is more than storage `{}` holds", self.storage.key);
        let dims = self.shape.iter().zip(&self.strides);
        let last = dims.clone().try_fold(self.offset, |at, (&size, &stride)| {
            at.checked_add(stride.checked_mul(size - 1)?)
        });
        let last = last.and_then(|last| last.checked_add(1)?.checked_mul(size));
        last.filter(|&end| end <= storage.len())
            .ok_or_else(beyond)?;
        // Strides of 0 can make much of little: no more is made than the storage holds.
        let count = self.count().filter(|&count| count <= storage.len() / size);
        let mut gathered = Vec::with_capacity(count.ok_or_else(beyond)? * size);
        let mut places = vec![self.offset];
        for (&size, &stride) in dims {
            places = places
                .iter()
                .flat_map(|&place| (0..size).map(move |index| place + index * stride))
                .collect();
        }
        for place in places {
            gathered.extend_from_slice(&storage[place * size..(place + 1) * size]);
        }
        Ok(gathered)
    }
}

/// The tensors of a dictionary, by their names.
pub(super) fn tensors_of(
    value: &Value,
    storages: &Storages<'_>,
) -> Result<Vec<(String, TensorData)>, Reason> {
    let entries = value.entries().ok_or("it holds no dictionary of tensors")?;
    let mut tensors = Vec::with_capacity(entries.len());
    for (key, value) in entries {
        let key = key.text().ok_or("a tensor's name is no text")?;
        match value {
            Value::Tensor(view) => {
                let tensor = view
                    .load(storages)
                    .map_err(|e| format!("tensor `{key}`: {e}"))?;
                tensors.push((key.to_string(), tensor));
            }
            other => return Err(format!("`{key}` is no tensor but {}", other.kind())),
        }
    }
    Ok(tensors)
}
