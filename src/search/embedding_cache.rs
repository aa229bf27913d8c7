//! Embeddings of texts that are encoded again and again, kept in a folder as NumPy's
//! `.npy` files.

use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::path::{Path, PathBuf};

use burn::tensor::{Tensor, TensorData, backend::Backend};

use crate::error::{RepoError, Result};
use crate::model::EncodeOptions;

/// How far a kept embedding may be from what the model says now: rounding differs with the
/// texts that are encoded together, another model differs by more.
const SAME: f32 = 1e-4;

const MAGIC: &[u8] = b"\x93NUMPY\x01\x00";

/// Encodes texts to unit length, unless the folder has their embeddings.
///
/// # Shapes
/// - output: `[texts, dim]`
///
/// # Errors
/// Those of `encode`, and [`RepoError::Io`] if the folder cannot be written to.
pub(super) fn encode<B: Backend>(
    folder: Option<&Path>,
    kind: &str,
    texts: &[&str],
    options: &EncodeOptions,
    encode: impl Fn(&[&str], &EncodeOptions) -> Result<Tensor<B, 2>>,
) -> Result<Tensor<B, 2>> {
    let options = EncodeOptions {
        normalize: true,
        ..options.clone()
    };
    let (Some(folder), [first, ..]) = (folder, texts) else {
        return encode(texts, &options);
    };
    if options.adapters.is_some() {
        log::warn!(
            "embeddings by adapters of a call are not kept in {}",
            folder.display()
        );
        return encode(texts, &options);
    }
    let path = folder.join(format!(
        "{kind}_embeddings_{:016x}.npy",
        key(texts, &options)
    ));
    if let Some((dim, values)) = read(&path, texts.len()) {
        let now = encode(&[first], &options)?;
        let device = now.device();
        let now = now.into_data();
        let same = now.num_elements() == dim
            && now
                .iter::<f32>()
                .zip(&values)
                .all(|(now, kept)| (now - kept).abs() <= SAME);
        if same {
            log::info!("{}: taken from the cache", path.display());
            let values = TensorData::new(values, [texts.len(), dim]);
            return Ok(Tensor::from_data(values, &device));
        }
        log::info!(
            "{}: the embeddings of another model, made anew",
            path.display()
        );
    }
    let embeddings = encode(texts, &options)?;
    write(&path, &embeddings).map_err(|source| RepoError::Io {
        path,
        action: "write",
        source,
    })?;
    Ok(embeddings)
}

fn key(texts: &[&str], options: &EncodeOptions) -> u64 {
    let mut hasher = DefaultHasher::new();
    format!("{:?} {:?}", options.prompt, options.truncate_dim).hash(&mut hasher);
    texts.hash(&mut hasher);
    hasher.finish()
}

/// The dimension and the values of a file with so many rows; `None` if it is not there, or
/// is not such a file.
fn read(path: &PathBuf, rows: usize) -> Option<(usize, Vec<f32>)> {
    let bytes = fs::read(path).ok()?;
    let parsed = parse(&bytes, rows);
    if parsed.is_none() {
        log::warn!(
            "{}: no file of {rows} embeddings, made anew",
            path.display()
        );
    }
    parsed
}

fn parse(bytes: &[u8], rows: usize) -> Option<(usize, Vec<f32>)> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (length, rest) = rest.split_first_chunk::<2>()?;
    let (header, data) = rest.split_at_checked(u16::from_le_bytes(*length).into())?;
    let header = std::str::from_utf8(header).ok()?;
    let compact: String = header.split_whitespace().collect();
    let shape = compact
        .strip_prefix("{'descr':'<f4','fortran_order':False,'shape':(")?
        .split(')')
        .next()?;
    let (found, dim) = shape.split_once(',')?;
    let (found, dim): (usize, usize) = (found.parse().ok()?, dim.parse().ok()?);
    let whole = found == rows && data.len() == found.checked_mul(dim)?.checked_mul(4)?;
    let number = |bytes: &[u8]| Some(f32::from_le_bytes(bytes.try_into().ok()?));
    let values: Option<Vec<f32>> = data.chunks_exact(4).map(number).collect();
    values.filter(|_| whole).map(|values| (dim, values))
}

/// Writes a file beside its place and renames it: one that is there is whole.
fn write<B: Backend>(path: &Path, embeddings: &Tensor<B, 2>) -> std::io::Result<()> {
    let [rows, dim] = embeddings.dims();
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut header =
        format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dim}), }}");
    // NumPy wants the values to begin at a multiple of 64 bytes, behind a line end.
    let unpadded = MAGIC.len() + 2 + header.len() + 1;
    header.push_str(&" ".repeat(unpadded.next_multiple_of(64) - unpadded));
    header.push('\n');
    let mut bytes = MAGIC.to_vec();
    bytes.extend((header.len() as u16).to_le_bytes());
    bytes.extend(header.as_bytes());
    let values = embeddings.to_data();
    bytes.extend(values.iter::<f32>().flat_map(f32::to_le_bytes));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(&bytes)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::backend_under_test::{TestBackend, device};
    use crate::text::Prompt;

    /// A model whose embeddings are the texts' lengths, `by` more; it counts what it encodes.
    fn encode_with(
        folder: Option<&Path>,
        texts: &[&str],
        prompt: Option<&str>,
        by: f32,
    ) -> (Vec<f32>, usize) {
        let encoded = Cell::new(0);
        let options = EncodeOptions {
            prompt: prompt.map(Prompt::text),
            ..EncodeOptions::default()
        };
        let embeddings = encode(folder, "query", texts, &options, |texts, options| {
            assert!(options.normalize);
            encoded.set(encoded.get() + texts.len());
            let values: Vec<f32> = texts
                .iter()
                .flat_map(|text| [text.len() as f32 + by, 1.0])
                .collect();
            let data = TensorData::new(values, [texts.len(), 2]);
            Ok(Tensor::<TestBackend, 2>::from_data(data, &device()))
        });
        let values = embeddings.unwrap().into_data().iter::<f32>().collect();
        (values, encoded.get())
    }

    #[test]
    fn texts_are_encoded_once_for_a_model_and_a_prompt() {
        let cache = tempfile::tempdir().unwrap();
        let folder = cache.path().join("kept");
        let folder = Some(folder.as_path());
        let texts = ["a", "bc", "def"];
        let first = encode_with(folder, &texts, None, 0.0);
        assert_eq!(first, (vec![1.0, 1.0, 2.0, 1.0, 3.0, 1.0], 3));
        // One text says that it is still the same model.
        assert_eq!(encode_with(folder, &texts, None, 0.0), (first.0.clone(), 1));
        assert_eq!(encode_with(folder, &texts[..2], None, 0.0).1, 2);
        assert_eq!(encode_with(folder, &texts, Some("query: "), 0.0).1, 3);
        // Another model's embeddings replace them.
        let other = encode_with(folder, &texts, None, 0.5);
        assert_eq!((other.0[0], other.1), (1.5, 4));
        assert_eq!(encode_with(folder, &texts, None, 0.5), (other.0, 1));
        assert_eq!(encode_with(None, &texts, None, 0.0).1, 3);
    }

    #[test]
    fn a_damaged_file_is_made_anew() {
        let cache = tempfile::tempdir().unwrap();
        let texts = ["a", "bc"];
        encode_with(Some(cache.path()), &texts, None, 0.0);
        let path = fs::read_dir(cache.path())
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        let whole = fs::read(&path).unwrap();
        assert_eq!((whole.len() - 16) % 64, 0);
        for bytes in [&whole[..whole.len() - 4], &whole[..5], b"", b"{}"] {
            fs::write(&path, bytes).unwrap();
            assert_eq!(encode_with(Some(cache.path()), &texts, None, 0.0).1, 2);
            assert_eq!(fs::read(&path).unwrap(), whole);
        }
    }
}
