//! What `torch.save` wrote, read without running anything: a pickle is a program, and only the
//! few steps that make tensors of names are known here. Anything else is an error, as it is to
//! `torch.load(weights_only=True)`.

mod archive;
mod legacy;
mod pickle;
mod storage;
mod tensor;
mod value;

use std::path::Path;

use super::file::io_error;
use crate::error::{RepoError, Result};
use crate::kernel::MappedFile;
use crate::state_dict::StateDict;

/// Reads the tensors of a `pytorch_model.bin`, of today's format, a zip archive, or of that
/// before PyTorch 1.6. On a CPU, they are parts of the mapped file.
///
/// # Errors
/// [`RepoError::MissingFile`], [`RepoError::Io`], and [`RepoError::Pytorch`] where the file is
/// cut short, malformed, or holds more than tensors.
pub(super) fn read_pytorch(path: &Path) -> Result<StateDict> {
    if !path.exists() {
        return Err(RepoError::MissingFile {
            path: path.to_owned(),
            needed_for: "the weights are read from it",
        }
        .into());
    }
    let file = MappedFile::open(path).map_err(|e| io_error(path, "map", e))?;
    let tensors = match archive::is_archive(&file) {
        true => archive::read(&file),
        false => legacy::read(&file),
    };
    let tensors = tensors.map_err(|reason| RepoError::Pytorch {
        path: path.to_owned(),
        reason,
    })?;
    let mut state = StateDict::new(path.display().to_string());
    for (key, tensor) in tensors {
        state.insert(key, tensor);
    }
    Ok(state)
}

/// What is wrong with a file.
type Reason = String;

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::path::PathBuf;

    fn fixture(name: &str) -> PathBuf {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/files/pytorch");
        fixtures.join(name)
    }

    fn expected() -> StateDict {
        super::super::weights::read_safetensors(&fixture("expected.safetensors")).unwrap()
    }

    #[test]
    fn both_formats_hold_the_tensors_that_python_saved() {
        let expected = expected();
        for name in ["zip.bin", "legacy.bin"] {
            let found = read_pytorch(&fixture(name)).unwrap();
            let keys: Vec<&str> = found.keys().collect();
            assert_eq!(keys, expected.keys().collect::<Vec<_>>(), "{name}");
            for (key, data) in expected.iter() {
                assert_eq!(found.get(key), Some(data), "{name} {key}");
            }
        }
        // Negative control: the strides and the offset matter.
        let transposed = expected.get("transposed").unwrap();
        assert_ne!(
            expected.get("plain").unwrap().as_bytes(),
            transposed.as_bytes()
        );
    }

    #[test]
    fn what_would_run_something_is_refused_by_name() {
        for (name, wrong) in [
            ("evil.bin", ".system`"),
            ("evil_legacy.bin", ".system`"),
            ("quantized.bin", "torch._utils._rebuild_qtensor"),
            ("list.bin", "no dictionary"),
        ] {
            let error = read_pytorch(&fixture(name)).unwrap_err().to_string();
            assert!(error.contains(wrong) && error.contains(name), "{error}");
        }
    }

    #[test]
    fn a_file_cut_or_changed_anywhere_is_an_error_or_the_same_names_and_no_panic() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.bin");
        for name in ["zip.bin", "legacy.bin"] {
            let whole = fs::read(fixture(name)).unwrap();
            for length in (0..whole.len()).step_by(7) {
                fs::write(&path, &whole[..length]).unwrap();
                assert!(read_pytorch(&path).is_err(), "{name} cut to {length}");
            }
            for place in (0..whole.len()).step_by(3) {
                let mut changed = whole.clone();
                changed[place] ^= 0xff;
                fs::write(&path, changed).unwrap();
                // Values may change; a wrong structure must end as an error.
                let _ = read_pytorch(&path);
            }
        }
    }
}
