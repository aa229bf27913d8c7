use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use burn::tensor::{Bytes, DType, TensorData};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensorError, SafeTensors};

use super::file::io_error;
use super::load::LoadOptions;
use super::names;
use super::pytorch::read_pytorch;
use super::shards::read_shards;
use crate::error::{RepoError, Result};
use crate::kernel::MappedFile;
use crate::state_dict::StateDict;

/// Reads a safetensors file. Its tensors are parts of the mapped file: what is never used is
/// never read.
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
    let malformed = |reason: String| RepoError::Safetensors {
        path: path.to_owned(),
        reason,
    };
    let (header, metadata) =
        SafeTensors::read_metadata(&file).map_err(|e| malformed(e.to_string()))?;
    // The header stands behind its own length.
    let start = size_of::<u64>() + header;
    let mut state = StateDict::new(path.display().to_string());
    for (key, info) in metadata.tensors() {
        let dtype = burn_dtype(info.dtype).ok_or_else(|| RepoError::UnsupportedDtype {
            path: path.to_owned(),
            key: key.clone(),
            found: format!("{:?}", info.dtype),
        })?;
        let (from, to) = info.data_offsets;
        let bytes = tensor_bytes(&file, start + from..start + to, dtype)
            .ok_or_else(|| malformed(format!("tensor `{key}` ends behind the file")))?;
        state.insert(
            key,
            TensorData::from_bytes(bytes, info.shape.clone(), dtype),
        );
    }
    Ok(state)
}

/// The weights that only other frameworks read.
const FOREIGN: [&str; 3] = ["tf_model.h5", "flax_model.msgpack", "model.ckpt.index"];

/// Reads the weights of a folder: one safetensors file or several, or what `torch.save` wrote,
/// in this order.
///
/// # Errors
/// [`RepoError::MissingFile`] where there are none of these, [`RepoError::UnreadableWeights`]
/// where there are others, and what is wrong with a file.
pub(super) fn read_weights(folder: &Path, options: &LoadOptions) -> Result<StateDict> {
    let tensors = read_any_weights(folder)?;
    match options.allow_non_finite {
        true => Ok(tensors),
        false => Ok(tensors.finite()),
    }
}

fn read_any_weights(folder: &Path) -> Result<StateDict> {
    let whole = folder.join(names::WEIGHTS);
    let index = folder.join(names::WEIGHTS_INDEX);
    let pickled = folder.join(names::PYTORCH_WEIGHTS);
    let pickled_index = folder.join(names::PYTORCH_INDEX);
    let foreign = FOREIGN.iter().map(|name| folder.join(name));
    let foreign = foreign.into_iter().find(|path| path.exists());
    match foreign {
        _ if whole.exists() => read_safetensors(&whole),
        _ if index.exists() => read_shards(&index, read_safetensors),
        _ if pickled.exists() => read_pytorch(&pickled),
        _ if pickled_index.exists() => read_shards(&pickled_index, read_pytorch),
        Some(path) => Err(RepoError::UnreadableWeights { path }.into()),
        // Says that it is missing.
        None => read_safetensors(&whole),
    }
}

/// Reads the weights of an adapter's folder.
///
/// # Errors
/// As [`read_weights`].
pub(super) fn read_adapter_weights(folder: &Path) -> Result<StateDict> {
    let weights = folder.join(names::ADAPTER_WEIGHTS);
    let pickled = folder.join(names::PYTORCH_ADAPTER);
    match !weights.exists() && pickled.exists() {
        true => read_pytorch(&pickled),
        false => read_safetensors(&weights),
    }
}

/// The bytes of a tensor: the mapped ones where the tensor lies as its elements must.
fn tensor_bytes(file: &MappedFile, range: Range<usize>, dtype: DType) -> Option<Bytes> {
    let mapped = file.share(range)?;
    let is_aligned = mapped.as_ptr().addr().is_multiple_of(dtype.size());
    // Windows refuses to replace a file that is mapped: a model could not be saved over the
    // one it was loaded from.
    if is_aligned && !cfg!(windows) {
        Some(mapped)
    } else {
        Some(Bytes::from_bytes_vec(mapped.to_vec()))
    }
}

/// Writes a safetensors file, with the metadata that Python's readers look for.
///
/// # Errors
/// [`RepoError::UnsupportedDtype`] or [`RepoError::Safetensors`], naming `path`.
pub(super) fn write_safetensors(tensors: &StateDict, path: &Path) -> Result<()> {
    write_tensors(tensors.iter(), path)
}

/// Writes a safetensors file of some tensors; see [`write_safetensors`].
///
/// # Errors
/// As [`write_safetensors`].
pub(super) fn write_tensors<'a>(
    tensors: impl IntoIterator<Item = (&'a str, &'a TensorData)>,
    path: &Path,
) -> Result<()> {
    let malformed = |e: SafeTensorError| match e {
        SafeTensorError::IoError(source) => RepoError::Io {
            path: path.to_owned(),
            action: "write",
            source,
        },
        other => RepoError::Safetensors {
            path: path.to_owned(),
            reason: other.to_string(),
        },
    };
    let mut views = Vec::new();
    for (key, data) in tensors {
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
    use burn::backend::NdArray;
    use burn::tensor::{AllocationProperty, Tensor};
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
    fn what_does_not_lie_as_its_elements_must_is_copied() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let mut header = r#"{"w":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]}}"#.to_owned();
        let mut properties = Vec::new();
        for _ in 0..4 {
            let mut file = (header.len() as u64).to_le_bytes().to_vec();
            file.extend(header.bytes());
            file.extend([1.5f32, -2.0].map(f32::to_le_bytes).concat());
            fs::write(&path, file).unwrap();
            let mut read = read_safetensors(&path).unwrap();
            properties.push(read.get("w").unwrap().bytes.property());
            let tensor = read.take::<TestBackend, 2>("w", [1, 2], &device()).unwrap();
            assert_eq!(tensor.into_data().to_vec::<f32>().unwrap(), [1.5, -2.0]);
            header.push(' ');
        }
        let mapped = properties
            .iter()
            .filter(|p| **p == AllocationProperty::File);
        assert_eq!(mapped.count(), if cfg!(windows) { 0 } else { 1 });
    }

    #[cfg(not(windows))]
    #[test]
    fn matrices_stay_in_the_file_until_they_are_changed() {
        type Matrix = Tensor<NdArray, 2>;
        let is_borrowed = |tensor: &Matrix| {
            let primitive = tensor.clone().into_primitive().tensor();
            primitive.is_borrowed()
        };
        let values = |tensor: &Matrix| tensor.to_data().to_vec::<f32>().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        write_safetensors(&state(), &path).unwrap();
        let take = || -> Matrix {
            let mut state = read_safetensors(&path).unwrap();
            state.take("b", [2, 1], &Default::default()).unwrap()
        };
        let (kept, changed) = (take(), take());
        assert!(is_borrowed(&kept) && is_borrowed(&changed));
        let changed =
            changed.slice_assign([0..1, 0..1], Matrix::from_data([[9.0]], &kept.device()));
        let added = kept.clone().add_scalar(1.0).exp().log();
        assert!(!is_borrowed(&changed) && !is_borrowed(&added));
        assert_eq!(values(&changed), [9.0, 2.0]);
        assert_eq!(values(&take()), [1.0, 2.0]);
        fs::remove_file(&path).unwrap();
        assert_eq!(values(&kept), [1.0, 2.0]);
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
