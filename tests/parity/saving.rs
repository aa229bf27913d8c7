//! What `save` writes, and what it leaves.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use safetensors::SafeTensors;
use sentence_burn::error::RepoError;
use sentence_burn::{Error, LoraConfig, SaveOptions, SentenceTransformer};
use serde_json::Value;

use crate::backend_under_test::{TestBackend, device};
use crate::fixture::path;

type Model = SentenceTransformer<TestBackend>;

fn tiny(name: &str) -> Model {
    Model::load(path(name), &device()).unwrap()
}

/// The files below a folder, by path.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap() {
            let entry = entry.unwrap().path();
            if entry.is_dir() {
                folders.push(entry);
            } else {
                let name = entry.strip_prefix(folder).unwrap();
                let name = name.to_str().unwrap().replace('\\', "/");
                found.insert(name, fs::read(&entry).unwrap());
            }
        }
    }
    found
}

/// The tensors of a safetensors file: element type, shape and bytes by name.
fn tensors(bytes: &[u8]) -> BTreeMap<String, (String, Vec<usize>, Vec<u8>)> {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let tensor = |(name, view): (String, safetensors::tensor::TensorView<'_>)| {
        let dtype = format!("{:?}", view.dtype());
        (name, (dtype, view.shape().to_vec(), view.data().to_vec()))
    };
    file.tensors().into_iter().map(tensor).collect()
}

#[test]
fn shards_hold_what_one_file_holds_and_the_other_files_are_the_same() {
    let model = tiny("tiny_bert/v6");
    let (whole, sharded) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    model.save(whole.path()).unwrap();
    let options = SaveOptions {
        max_shard_size: 20_000,
        ..SaveOptions::default()
    };
    model.save_with(sharded.path(), &options).unwrap();
    let (mut whole, mut sharded) = (files(whole.path()), files(sharded.path()));
    let expected = tensors(&whole.remove("model.safetensors").unwrap());
    let index = sharded.remove("model.safetensors.index.json").unwrap();
    let index: Value = serde_json::from_slice(&index).unwrap();
    let mut found = BTreeMap::new();
    let mut shards: Vec<String> = sharded.keys().cloned().collect();
    shards.retain(|name| name.starts_with("model-"));
    assert!(shards.len() > 2, "{shards:?}");
    for shard in shards {
        let bytes = sharded.remove(&shard).unwrap();
        let held = tensors(&bytes);
        let size: usize = held.values().map(|(_, _, data)| data.len()).sum();
        assert!(size <= 20_000 || held.len() == 1, "{shard}: {size}");
        for (key, tensor) in held {
            assert_eq!(index["weight_map"][&key], shard, "{key}");
            assert!(found.insert(key, tensor).is_none());
        }
    }
    assert_eq!(found, expected);
    assert_eq!(
        index["weight_map"].as_object().unwrap().len(),
        expected.len()
    );
    assert_eq!(sharded, whole);
}

#[test]
fn a_save_that_fails_leaves_the_old_model() {
    let folder = tempfile::tempdir().unwrap();
    tiny("tiny_bert/dense").save(folder.path()).unwrap();
    let card = folder.path().join("README.md");
    fs::remove_file(&card).unwrap();
    let old = files(folder.path());
    // The card comes last, and no file can take a folder's place.
    fs::create_dir(&card).unwrap();
    let mut other = tiny("tiny_bert/v6");
    other.add_adapter(LoraConfig::default()).unwrap();
    other.merge_and_unload().unwrap();
    let error = other.save(folder.path()).unwrap_err();
    assert!(
        matches!(&error, Error::Repo(RepoError::Io { path, .. }) if *path == card),
        "{error}"
    );
    assert_eq!(files(folder.path()), old);
    fs::remove_dir(&card).unwrap();
    other.save(folder.path()).unwrap();
    assert_ne!(files(folder.path()), old);
}

#[test]
fn a_card_that_is_there_can_stay() {
    let folder = tempfile::tempdir().unwrap();
    let card = folder.path().join("README.md");
    fs::write(&card, "written by hand").unwrap();
    let keep = SaveOptions {
        model_card: false,
        ..SaveOptions::default()
    };
    tiny("tiny_bert/v6")
        .save_with(folder.path(), &keep)
        .unwrap();
    assert_eq!(fs::read_to_string(&card).unwrap(), "written by hand");
    tiny("tiny_bert/v6").save(folder.path()).unwrap();
    assert_ne!(fs::read_to_string(&card).unwrap(), "written by hand");
}

/// Writes folders for `tests/python/check_saved.py` to load, where the environment says
/// where; elsewhere this crate loads them.
#[test]
fn what_is_saved_embeds_the_same_when_it_is_loaded() {
    let kept = std::env::var_os("SENTENCE_BURN_SAVED");
    let scratch = tempfile::tempdir().unwrap();
    let folder = kept.as_deref().map_or(scratch.path(), Path::new);
    let texts = ["a quick dog", "", "where is the lazy train?"];
    let mut adapted = tiny("tiny_bert/v6");
    adapted.load_adapter(path("tiny_lora/default")).unwrap();
    let mut merged = adapted.clone();
    merged.merge_and_unload().unwrap();
    let mut expected = serde_json::Map::new();
    for (name, model, max_shard_size) in [
        ("whole", &tiny("tiny_bert/v6"), u64::MAX),
        ("sharded", &tiny("tiny_bert/v6"), 20_000),
        ("dense", &tiny("tiny_bert/dense"), u64::MAX),
        ("adapter", &adapted, u64::MAX),
        ("merged", &merged, u64::MAX),
    ] {
        let options = SaveOptions {
            max_shard_size,
            ..SaveOptions::default()
        };
        model.save_with(folder.join(name), &options).unwrap();
        let embeddings = model.encode(&texts).unwrap();
        let dim = embeddings.dims()[1];
        let values: Vec<f32> = embeddings.into_data().iter::<f32>().collect();
        if name != "sharded" {
            let again = Model::load(folder.join(name), &device()).unwrap();
            let found = again.encode(&texts).unwrap().into_data();
            let worst = found.iter::<f32>().zip(&values).map(|(a, b)| (a - b).abs());
            assert!(worst.fold(0.0, f32::max) <= 1e-6, "{name}");
        }
        let rows: Vec<&[f32]> = values.chunks(dim).collect();
        expected.insert(name.to_owned(), serde_json::json!(rows));
    }
    let expected = serde_json::json!({ "texts": texts, "embeddings": expected });
    fs::write(folder.join("expected.json"), expected.to_string()).unwrap();
}
