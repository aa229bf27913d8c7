//! Weights in other files than one safetensors, against Python.

use std::fs;
use std::path::Path;

use sentence_burn::SentenceTransformer;

use crate::backend_under_test::{TestBackend, device};
use crate::fixture::{Expected, assert_close, assert_far, json, load, path, strings, values};

type Model = SentenceTransformer<TestBackend>;

/// A copy of a fixture without one of its files.
fn copy_without(name: &str, file: &str) -> tempfile::TempDir {
    fn copy(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            match entry.path().is_dir() {
                true => copy(&entry.path(), &to.join(entry.file_name())),
                false => fs::copy(entry.path(), to.join(entry.file_name()))
                    .map(|_| ())
                    .unwrap(),
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    copy(&path(name), folder.path());
    fs::remove_file(folder.path().join(file)).unwrap();
    folder
}

fn texts() -> Vec<String> {
    strings(&json("tiny_bert/expected.json")["texts"])
}

fn encode(model: &Model) -> Vec<f32> {
    values(model.encode(&texts()).unwrap())
}

#[test]
fn pickled_weights_are_the_same_model() {
    let expected = Expected::read("tiny_bert/expected.safetensors");
    for (name, key, file, pickled, from) in [
        (
            "tiny_bert/v6",
            "pooled.mean",
            "model.safetensors",
            "pytorch_model.bin",
            "encoder.bin",
        ),
        (
            "tiny_bert/dense",
            "dense.encode",
            "2_Dense/model.safetensors",
            "2_Dense/pytorch_model.bin",
            "dense.bin",
        ),
    ] {
        let folder = copy_without(name, file);
        assert!(Model::load(folder.path(), &device()).is_err());
        fs::copy(path("files/bin").join(from), folder.path().join(pickled)).unwrap();
        let model = Model::load(folder.path(), &device()).unwrap();
        assert_close(&encode(&model), &expected.get(key), name);
        // And saved over itself, it is safetensors.
        model.save(folder.path()).unwrap();
        assert!(folder.path().join(file).exists());
    }
}

#[test]
fn a_pickled_adapter_is_the_same_adapter() {
    let mut plain = load("tiny_bert/v6");
    let base = encode(&plain);
    plain.load_adapter(path("tiny_lora/bare")).unwrap();
    let folder = copy_without("tiny_lora/bare", "adapter_model.safetensors");
    let file = folder.path().join("adapter_model.bin");
    fs::copy(path("files/bin/adapter.bin"), file).unwrap();
    let mut pickled = load("tiny_bert/v6");
    pickled.load_adapter(folder.path()).unwrap();
    assert_close(&encode(&pickled), &encode(&plain), "adapter");
    assert_far(&encode(&pickled), &base, "no adapter");
}

#[test]
fn weights_in_several_files_are_gathered() {
    let folder = copy_without("tiny_bert/v6", "model.safetensors");
    let mut files = 0;
    for entry in fs::read_dir(path("files/shards")).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        files += 1;
    }
    assert!(files > 4, "{files}");
    let model = Model::load(folder.path(), &device()).unwrap();
    let expected = Expected::read("files/shards/expected.safetensors").get("embeddings");
    assert_close(&encode(&model), &expected, "shards");
    let whole = Expected::read("tiny_bert/expected.safetensors").get("pooled.mean");
    assert_far(&encode(&model), &whole, "bfloat16");
}
