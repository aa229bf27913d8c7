use std::collections::HashMap;
use std::path::Path;

use burn::tensor::{DType, TensorData};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::file::io_error;
use crate::error::{RepoError, Result};
use crate::kernel::MappedFile;
use crate::state_dict::StateDict;

/// Reads a safetensors file.
///
/// # Errors
/// [`RepoError::MissingFile`], [`RepoError::Io`], [`RepoError::Safetensors`] where the file
/// is cut short or malformed, and [`RepoError::UnsupportedDtype`].
pub(super) fn read_safetensors(path: &Path) -> Result<StateDict> {
    if !path.exists() {
        return Err(RepoError::MissingFile {
            path: path.to_owned(),
            needed_for: "the weights are read from it",
        }
        .into());
    }
    let file = MappedFile::open(path).map_err(|e| io_error(path, "map", e))?;
    let tensors = SafeTensors::deserialize(&file).map_err(|e| RepoError::Safetensors {
        path: path.to_owned(),
        reason: e.to_string(),
    })?;
    let mut state = StateDict::new(path.display().to_string());
    for (key, view) in tensors.iter() {
        let dtype = burn_dtype(view.dtype()).ok_or_else(|| RepoError::UnsupportedDtype {
            path: path.to_owned(),
            key: key.to_owned(),
            found: format!("{:?}", view.dtype()),
        })?;
        let shape: Vec<usize> = view.shape().to_vec();
        state.insert(
            key,
            TensorData::from_bytes_vec(view.data().to_vec(), shape, dtype),
        );
    }
    Ok(state)
}

/// Writes a safetensors file, with the metadata that Python's readers look for.
///
/// # Errors
/// [`RepoError::UnsupportedDtype`] or [`RepoError::Safetensors`], naming `path`.
pub(super) fn write_safetensors(tensors: &StateDict, path: &Path) -> Result<()> {
    let malformed = |e: safetensors::SafeTensorError| RepoError::Safetensors {
        path: path.to_owned(),
        reason: e.to_string(),
    };
    let mut views = Vec::with_capacity(tensors.len());
    for (key, data) in tensors.iter() {
        let dtype = file_dtype(data.dtype).ok_or_else(|| RepoError::UnsupportedDtype {
            path: path.to_owned(),
            key: key.to_owned(),
            found: format!("{:?}", data.dtype),
        })?;
        let view = TensorView::new(dtype, data.shape.to_vec(), data.as_bytes());
        views.push((key, view.map_err(malformed)?));
    }
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    Ok(safetensors::serialize_to_file(views, Some(metadata), path).map_err(malformed)?)
}

/// The element types that weights come in; whole numbers come as buffers beside them.
const DTYPES: [(Dtype, DType); 10] = [
    (Dtype::F64, DType::F64),
    (Dtype::F32, DType::F32),
    (Dtype::F16, DType::F16),
    (Dtype::BF16, DType::BF16),
    (Dtype::I64, DType::I64),
    (Dtype::I32, DType::I32),
    (Dtype::I16, DType::I16),
    (Dtype::I8, DType::I8),
    (Dtype::U8, DType::U8),
    (Dtype::U32, DType::U32),
];

fn burn_dtype(dtype: Dtype) -> Option<DType> {
    let found = DTYPES.iter().find(|(file, _)| *file == dtype);
    found.map(|&(_, burn)| burn)
}

fn file_dtype(dtype: DType) -> Option<Dtype> {
    let found = DTYPES.iter().find(|(_, burn)| *burn == dtype);
    found.map(|&(file, _)| file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};
    use crate::error::Error;
    use std::fs;

    fn state() -> StateDict {
        let mut state = StateDict::new("test");
        state.insert("b", TensorData::new(vec![1.0f32, 2.0], [2, 1]));
        state.insert("a", TensorData::new(vec![3i64], [1]));
        state
    }

    #[test]
    fn what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        write_safetensors(&state(), &path).unwrap();
        let read = read_safetensors(&path).unwrap();
        assert_eq!(read.keys().collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(read.get("b"), state().get("b"));
        assert_eq!(read.get("a"), state().get("a"));
    }

    #[test]
    fn half_precision_weights_are_read_as_the_backend_s_floats() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        for (dtype, stored) in [(DType::F16, 1.0 / 1024.0), (DType::BF16, 1.0 / 128.0)] {
            // Just above 1: the last bit that each type has.
            let data = TensorData::new(vec![1.0 + stored, -2.5f32], [2]);
            let mut state = StateDict::new("test");
            state.insert("w", data.clone().convert_dtype(dtype));
            write_safetensors(&state, &path).unwrap();
            assert_eq!(fs::metadata(&path).unwrap().len() % 8, 4);
            let mut read = read_safetensors(&path).unwrap();
            let tensor = read.take::<TestBackend, 1>("w", [2], &device()).unwrap();
            assert_eq!(
                tensor.into_data().iter::<f32>().collect::<Vec<_>>(),
                [1.0 + stored, -2.5]
            );
        }
    }

    #[test]
    fn a_file_cut_anywhere_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        write_safetensors(&state(), &path).unwrap();
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            let error = read_safetensors(&path).unwrap_err();
            let named = matches!(
                &error,
                Error::Repo(RepoError::Safetensors { path: p, .. } | RepoError::Io { path: p, .. }) if *p == path
            );
            assert!(named, "{length}: {error}");
        }
    }
}
