//! An encoder's weights in one file, or in several with an index of them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use burn::tensor::TensorData;
use serde_json::json;

use super::file::{FolderWriter, io_error};
use super::names;
use super::weights::write_tensors;
use crate::error::Result;
use crate::state_dict::StateDict;

type Shard<'a> = Vec<(&'a str, &'a TensorData)>;

/// Stages an encoder's weights, their names behind `within`: `model.safetensors`, or as many files as it takes of at most
/// `limit` bytes of tensors, and an index. What an earlier save wrote the other way is
/// removed, or it would be read instead.
///
/// # Errors
/// As [`write_tensors`], and [`RepoError::Io`](crate::error::RepoError::Io).
pub(super) fn stage_weights(
    tensors: &StateDict,
    within: &str,
    limit: u64,
    writer: &mut FolderWriter,
) -> Result<()> {
    let at = |name: &str| format!("{within}{name}");
    let shards = split(tensors, limit);
    let mut files = BTreeMap::new();
    if shards.len() < 2 {
        let write = |path: &Path| write_tensors(tensors.iter(), path);
        writer.stage_with(&at(names::WEIGHTS), write)?;
        writer.remove(&at(names::WEIGHTS_INDEX));
    } else {
        for (index, shard) in shards.iter().enumerate() {
            let file = format!("model-{:05}-of-{:05}.safetensors", index + 1, shards.len());
            writer.stage_with(&at(&file), |path| {
                write_tensors(shard.iter().copied(), path)
            })?;
            files.extend(shard.iter().map(|(key, _)| (*key, file.clone())));
        }
        let sum = |size: fn(&TensorData) -> usize| -> usize {
            tensors.iter().map(|(_, data)| size(data)).sum()
        };
        let index = json!({
            "metadata": {
                "total_parameters": sum(TensorData::num_elements),
                "total_size": sum(|data| data.bytes.len()),
            },
            "weight_map": files,
        });
        writer.stage(&at(names::WEIGHTS_INDEX), format!("{index:#}\n").as_bytes())?;
        writer.remove(&at(names::WEIGHTS));
    }
    let folder = writer.folder().join(within);
    let entries = fs::read_dir(&folder).map_err(|e| io_error(&folder, "read", e))?;
    for entry in entries {
        let name = entry.map_err(|e| io_error(&folder, "read", e))?.file_name();
        if let Some(name) = name.to_str()
            && is_shard(name)
            && !files.values().any(|file| file == name)
        {
            writer.remove(&at(name));
        }
    }
    Ok(())
}

/// Splits tensors in the order of their keys, as `huggingface_hub` does
/// (`split_state_dict_into_shards_factory`): one that is over the limit has a shard of its
/// own, any other goes into the current shard or begins the next.
fn split(tensors: &StateDict, limit: u64) -> Vec<Shard<'_>> {
    let mut shards = Vec::new();
    let mut current = Shard::new();
    let mut current_size = 0;
    for (key, data) in tensors.iter() {
        let size = data.bytes.len() as u64;
        if size > limit {
            shards.push(vec![(key, data)]);
            continue;
        }
        if current_size + size > limit {
            shards.push(std::mem::take(&mut current));
            current_size = 0;
        }
        current.push((key, data));
        current_size += size;
    }
    if !current.is_empty() {
        shards.push(current);
    }
    shards
}

/// Whether a file holds an encoder's weights, or the index of such files.
#[cfg(feature = "hub")]
pub(super) fn is_weights(name: &str) -> bool {
    name == names::WEIGHTS || name == names::WEIGHTS_INDEX || is_shard(name)
}

/// Whether a file is named as a shard of any number of them.
fn is_shard(name: &str) -> bool {
    let is_number = |text: &str| text.len() == 5 && text.bytes().all(|b| b.is_ascii_digit());
    let numbers = name
        .strip_prefix("model-")
        .and_then(|name| name.strip_suffix(".safetensors"))
        .and_then(|name| name.split_once("-of-"));
    numbers.is_some_and(|(index, count)| is_number(index) && is_number(count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::weights::read_safetensors;
    use serde_json::Value;

    /// Tensors of `sizes` bytes, named in alphabetical order.
    fn tensors(sizes: &[usize]) -> StateDict {
        let mut state = StateDict::new("test");
        for (name, size) in ('a'..).zip(sizes) {
            let values: Vec<f32> = (0..size / 4).map(|i| i as f32).collect();
            state.insert(name, TensorData::new(values, [size / 4]));
        }
        state
    }

    fn names(shards: &[Shard<'_>]) -> Vec<String> {
        let joined = |shard: &Shard<'_>| shard.iter().map(|(key, _)| *key).collect();
        shards.iter().map(joined).collect()
    }

    fn save(folder: &Path, tensors: &StateDict, limit: u64) {
        let mut writer = FolderWriter::new(folder).unwrap();
        stage_weights(tensors, "", limit, &mut writer).unwrap();
        writer.commit().unwrap();
    }

    fn files(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut files: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        files.sort();
        files
    }

    #[test]
    fn tensors_are_split_as_python_splits_them() {
        // The case of the reference's own documentation, a limit of 10.
        let sizes = [24, 24, 8, 24, 8, 8];
        assert_eq!(names(&split(&tensors(&sizes), 40)), ["a", "bc", "def"]);
        // One over the limit neither ends the current shard nor joins it.
        assert_eq!(names(&split(&tensors(&[8, 48, 8]), 40)), ["b", "ac"]);
        assert_eq!(
            names(&split(&tensors(&sizes), 0)),
            ["a", "b", "c", "d", "e", "f"]
        );
        assert_eq!(names(&split(&tensors(&sizes), 96)), ["abcdef"]);
    }

    #[test]
    fn shards_and_their_index_hold_every_tensor_once() {
        let folder = tempfile::tempdir().unwrap();
        let state = tensors(&[24, 24, 8, 24, 8, 8]);
        save(folder.path(), &state, 40);
        let index = fs::read_to_string(folder.path().join(names::WEIGHTS_INDEX)).unwrap();
        let index: Value = serde_json::from_str(&index).unwrap();
        assert_eq!(
            index["metadata"],
            json!({ "total_parameters": 24, "total_size": 96 })
        );
        let map = index["weight_map"].as_object().unwrap();
        assert_eq!(
            map.keys().collect::<Vec<_>>(),
            ["a", "b", "c", "d", "e", "f"]
        );
        for (key, file) in map {
            let shard = read_safetensors(&folder.path().join(file.as_str().unwrap())).unwrap();
            assert_eq!(shard.get(key), state.get(key));
        }
        assert_eq!(map["c"], "model-00002-of-00003.safetensors");
    }

    #[test]
    fn an_earlier_save_of_another_number_of_files_does_not_stay() {
        let folder = tempfile::tempdir().unwrap();
        let state = tensors(&[24, 24, 8]);
        fs::write(folder.path().join("model-of-mine.safetensors"), "mine").unwrap();
        let own = "model-of-mine.safetensors";
        let index = names::WEIGHTS_INDEX;
        save(folder.path(), &state, 100);
        assert_eq!(files(folder.path()), [own, names::WEIGHTS]);
        save(folder.path(), &state, 0);
        let three = ["1", "2", "3"].map(|i| format!("model-0000{i}-of-00003.safetensors"));
        let expected: Vec<&str> = three
            .iter()
            .map(String::as_str)
            .chain([own, index])
            .collect();
        assert_eq!(files(folder.path()), expected);
        save(folder.path(), &state, 40);
        let two = ["1", "2"].map(|i| format!("model-0000{i}-of-00002.safetensors"));
        let expected: Vec<&str> = two.iter().map(String::as_str).chain([own, index]).collect();
        assert_eq!(files(folder.path()), expected);
        save(folder.path(), &state, 100);
        assert_eq!(files(folder.path()), [own, names::WEIGHTS]);
    }
}
