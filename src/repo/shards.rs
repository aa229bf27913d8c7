use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use super::file::read_json;
use super::named_path::path_inside;
use crate::error::{RepoError, Result};
use crate::state_dict::StateDict;

/// `model.safetensors.index.json`: which file each tensor lies in.
#[derive(Debug, Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Reads weights that lie in several files, each by `read_file`.
///
/// # Errors
/// [`RepoError::MissingFile`] where a file is not there, [`RepoError::MisplacedTensor`] where a
/// tensor does not lie where the index says, or in more than one file, and what `read_file`
/// says.
pub(super) fn read_shards(
    index: &Path,
    read_file: impl Fn(&Path) -> Result<StateDict>,
) -> Result<StateDict> {
    let Index { weight_map } = read_json(index, "it says which file each tensor lies in")?;
    let mut files: BTreeMap<&str, StateDict> = BTreeMap::new();
    for name in weight_map.values() {
        if !files.contains_key(name.as_str()) {
            let file = path_inside(index, name)?;
            files.insert(name, read_file(&file)?);
        }
    }
    let files_with = |key: &str| -> Vec<String> {
        let with = files.iter().filter(|(_, tensors)| tensors.contains(key));
        with.map(|(name, _)| (*name).to_owned()).collect()
    };
    let misplaced = |key: &str, expected: Option<&String>| RepoError::MisplacedTensor {
        path: index.to_owned(),
        key: key.to_owned(),
        expected: expected.cloned().unwrap_or_else(|| "one file".to_owned()),
        found: files_with(key),
    };
    for (key, name) in &weight_map {
        if files_with(key) != [name.as_str()] {
            return Err(misplaced(key, Some(name)).into());
        }
    }
    let keys = files.values().flat_map(StateDict::keys);
    if let Some(key) = keys.into_iter().find(|key| files_with(key).len() > 1) {
        return Err(misplaced(key, None).into());
    }
    let mut state = StateDict::new(index.display().to_string());
    for tensors in files.into_values() {
        state.append(tensors);
    }
    Ok(state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::repo::weights::{read_safetensors, write_safetensors};
    use burn::tensor::TensorData;
    use serde_json::json;
    use std::fs;

    /// A folder of two files, and the keys of each.
    fn folder(files: [&[&str]; 2]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (number, keys) in files.iter().enumerate() {
            let mut state = StateDict::new("test");
            for key in *keys {
                state.insert(*key, TensorData::new(vec![number as f32], [1]));
            }
            let path = folder.path().join(format!("{number}.safetensors"));
            write_safetensors(&state, &path).unwrap();
        }
        folder
    }

    fn read(folder: &Path, map: &[(&str, &str)]) -> Result<StateDict> {
        let map: BTreeMap<_, _> = map.iter().copied().collect();
        let index = folder.join("index.json");
        fs::write(&index, json!({ "weight_map": map }).to_string()).unwrap();
        read_shards(&index, read_safetensors)
    }

    #[test]
    fn tensors_are_gathered_from_all_files() {
        let folder = folder([&["a", "b"], &["c"]]);
        let map = [
            ("a", "0.safetensors"),
            ("b", "0.safetensors"),
            ("c", "1.safetensors"),
        ];
        let state = read(folder.path(), &map).unwrap();
        assert_eq!(state.keys().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(state.get("c"), Some(&TensorData::new(vec![1f32], [1])));
    }

    #[test]
    fn what_lies_elsewhere_twice_or_nowhere_is_named() {
        let misplaced = |files: [&[&str]; 2], map: &[(&str, &str)]| {
            let folder = folder(files);
            match read(folder.path(), map).unwrap_err() {
                Error::Repo(RepoError::MisplacedTensor { key, found, .. }) => (key, found.len()),
                other => panic!("{other}"),
            }
        };
        let both = [("a", "0.safetensors"), ("c", "1.safetensors")];
        assert_eq!(misplaced([&["c"], &["a"]], &both), ("a".to_owned(), 1));
        assert_eq!(misplaced([&["b"], &["c"]], &both), ("a".to_owned(), 0));
        assert_eq!(misplaced([&["a"], &["a", "c"]], &both), ("a".to_owned(), 2));
        assert_eq!(
            misplaced([&["a", "x"], &["c", "x"]], &both),
            ("x".to_owned(), 2)
        );
        let folder = folder([&["a"], &["c"]]);
        let error = read(folder.path(), &[("a", "2.safetensors")]).unwrap_err();
        assert!(
            matches!(&error, Error::Repo(RepoError::MissingFile { path, .. }) if path.ends_with("2.safetensors"))
        );
        let error = read(folder.path(), &[("a", "../0.safetensors")]).unwrap_err();
        assert!(matches!(error, Error::Repo(RepoError::UnsafePath { .. })));
    }
}
