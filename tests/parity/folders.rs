//! What is wrong with a folder is named, and nothing panics.

use std::fs;
use std::path::Path;

use sentence_burn::error::{EncoderError, RepoError, StateDictError, TextError};
use sentence_burn::{Error, SentenceTransformer};
use serde_json::{Value, json};

use crate::backend_under_test::{TestBackend, device};
use crate::fixture::path;

fn load(folder: &Path) -> Error {
    SentenceTransformer::<TestBackend>::load(folder, &device()).unwrap_err()
}

/// A copy of the tiny BERT that a test may spoil.
fn copy() -> tempfile::TempDir {
    fn copy_folder(from: &Path, to: &Path) {
        fs::create_dir_all(to).unwrap();
        for entry in fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            if entry.path().is_dir() {
                copy_folder(&entry.path(), &target);
            } else {
                fs::copy(entry.path(), target).unwrap();
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    copy_folder(&path("tiny_bert/v6"), folder.path());
    folder
}

fn edit(folder: &Path, file: &str, field: &str, value: Value) {
    let path = folder.join(file);
    let mut json: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    json[field] = value;
    fs::write(path, json.to_string()).unwrap();
}

#[test]
fn missing_files_are_named_with_what_they_are_for() {
    for file in [
        "config.json",
        "tokenizer.json",
        "model.safetensors",
        "1_Pooling/config.json",
    ] {
        let folder = copy();
        fs::remove_file(folder.path().join(file)).unwrap();
        let error = load(folder.path());
        assert!(
            matches!(&error, Error::Repo(RepoError::MissingFile { path, .. }) if path.ends_with(file)),
            "{file}: {error}"
        );
    }
    assert!(matches!(
        load(Path::new("./no/such/folder")),
        Error::Repo(RepoError::NotFound { .. })
    ));
}

#[test]
fn an_unknown_architecture_is_named() {
    let folder = copy();
    edit(folder.path(), "config.json", "model_type", json!("mamba"));
    let error = load(folder.path());
    assert!(
        matches!(&error, Error::Encoder(EncoderError::UnknownModelType { found, .. }) if found == "mamba")
    );
}

#[test]
fn weights_that_do_not_fit_the_config_are_named() {
    let folder = copy();
    edit(folder.path(), "config.json", "intermediate_size", json!(40));
    let error = load(folder.path());
    assert!(
        matches!(&error, Error::StateDict(StateDictError::ShapeMismatch { expected, found, .. })
            if expected == &[40, 20] && found == &[36, 20]),
        "{error}"
    );
    let folder = copy();
    edit(folder.path(), "config.json", "num_hidden_layers", json!(3));
    let error = load(folder.path());
    assert!(
        matches!(&error, Error::StateDict(StateDictError::Missing { keys, .. })
            if keys.len() == 16 && keys.iter().all(|key| key.starts_with("encoder.layer.2."))),
        "{error}"
    );
    let folder = copy();
    edit(folder.path(), "config.json", "num_hidden_layers", json!(1));
    let model = SentenceTransformer::<TestBackend>::load(folder.path(), &device()).unwrap();
    assert_eq!(model.weights_report().unused.len(), 16);
}

#[test]
fn truncated_and_foreign_files_are_named() {
    for (file, content) in [
        ("model.safetensors", None),
        ("config.json", Some(b"{\"model_type\": \xff}".to_vec())),
        ("modules.json", Some(b"{}".to_vec())),
        ("tokenizer.json", Some(b"[1, 2".to_vec())),
    ] {
        let folder = copy();
        let path = folder.path().join(file);
        let bytes = fs::read(&path).unwrap();
        let content = content.unwrap_or_else(|| bytes[..bytes.len() / 2].to_vec());
        fs::write(&path, content).unwrap();
        let error = load(folder.path());
        let named = match &error {
            Error::Repo(
                RepoError::Safetensors { path, .. }
                | RepoError::NotUtf8 { path, .. }
                | RepoError::Json { path, .. },
            )
            | Error::Text(TextError::InvalidTokenizer { path, .. }) => path.ends_with(file),
            _ => false,
        };
        assert!(named, "{file}: {error}");
    }
}

#[test]
fn a_vocabulary_larger_than_the_encoder_s_is_an_error_and_no_panic() {
    let folder = copy();
    let path = folder.path().join("tokenizer.json");
    let text = fs::read_to_string(&path).unwrap();
    let mut tokenizer: Value = serde_json::from_str(&text).unwrap();
    let vocab = tokenizer["model"]["vocab"].as_object_mut().unwrap();
    let word = vocab
        .iter()
        .find(|(word, _)| word.len() > 2 && word.is_ascii() && !word.starts_with(['[', '#']));
    let word = word.unwrap().0.clone();
    vocab.insert(word.clone(), json!(5000));
    fs::write(&path, tokenizer.to_string()).unwrap();
    let model = SentenceTransformer::<TestBackend>::load(folder.path(), &device()).unwrap();
    let error = model.encode(&[word]).unwrap_err();
    assert!(
        matches!(
            error,
            Error::Text(TextError::TokenOutOfRange { id: 5000, .. })
        ),
        "{error}"
    );
}

#[test]
fn a_base_that_is_gone_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        fs::copy(path("tiny_lora/bare").join(file), folder.path().join(file)).unwrap();
    }
    let error = load(folder.path());
    assert!(
        matches!(&error, Error::Repo(RepoError::NotFound { source_name, .. })
        if source_name == "../../tiny_bert/v6"),
        "{error}"
    );
    edit(
        folder.path(),
        "adapter_config.json",
        "base_model_name_or_path",
        json!(null),
    );
    let error = load(folder.path());
    assert!(
        matches!(&error, Error::Repo(RepoError::InvalidField { field, .. })
        if field == "base_model_name_or_path"),
        "{error}"
    );
}

#[test]
fn an_adapter_on_an_adapter_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        fs::copy(path("tiny_lora/bare").join(file), folder.path().join(file)).unwrap();
    }
    let base = path("tiny_lora/default");
    edit(
        folder.path(),
        "adapter_config.json",
        "base_model_name_or_path",
        json!(base),
    );
    assert!(matches!(
        load(folder.path()),
        Error::Repo(RepoError::NestedAdapters { .. })
    ));
}
