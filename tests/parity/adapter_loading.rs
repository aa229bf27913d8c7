//! Swapping an adapter in place, the prompts that come with one, and files with gaps.

use std::fs;
use std::path::Path;

use sentence_burn::error::{AdapterError, StateDictError};
use sentence_burn::{AdapterChoice, EncodeOptions, Error, LoadAdapterOptions, SentenceTransformer};
use serde_json::{Value, json};

use crate::backend_under_test::TestBackend;
use crate::fixture::{self, Expected, assert_close, assert_far, load, path, strings, values};

type Model = SentenceTransformer<TestBackend>;

fn base() -> Model {
    load("tiny_bert/v6")
}

fn encode(model: &Model) -> Vec<f32> {
    let texts = strings(&fixture::json("tiny_bert/expected.json")["texts"]);
    values(model.encode(&texts).unwrap())
}

fn named(name: &str) -> LoadAdapterOptions {
    LoadAdapterOptions {
        name: name.to_owned(),
        ..LoadAdapterOptions::default()
    }
}

fn swap(name: &str) -> LoadAdapterOptions {
    LoadAdapterOptions {
        hotswap: true,
        ..named(name)
    }
}

/// A copy of an adapter folder with fields of a file replaced.
fn changed(case: &str, file: &str, fields: &Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(path("tiny_lora").join(case)).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), folder.path().join(entry.file_name())).unwrap();
        }
    }
    let file = folder.path().join(file);
    let mut content: Value = match fs::read(&file) {
        Ok(bytes) => serde_json::from_slice(&bytes).unwrap(),
        Err(_) => json!({}),
    };
    for (key, value) in fields.as_object().unwrap() {
        content[key] = value.clone();
    }
    fs::write(file, content.to_string()).unwrap();
    folder
}

#[test]
fn an_adapter_is_swapped_in_place_and_others_stay() {
    let expected = Expected::read("tiny_lora/expected.safetensors");
    let mut model = base();
    let folder = |name: &str| path("tiny_lora").join(name);
    for name in ["a", "b"] {
        model
            .load_adapter_with(folder("default"), &named(name))
            .unwrap();
    }
    model.set_adapter(&["a"]).unwrap();
    assert_close(&encode(&model), &expected.get("default"), "before");
    // Of other layers and other ranks.
    model.load_adapter_with(folder("bare"), &swap("a")).unwrap();
    assert_eq!(model.active_adapters().unwrap(), ["a"]);
    assert_close(&encode(&model), &expected.get("bare"), "swapped");
    model
        .load_adapter_with(folder("regex"), &swap("a"))
        .unwrap();
    assert_close(&encode(&model), &expected.get("regex"), "swapped again");
    model.set_adapter(&["b"]).unwrap();
    assert_close(&encode(&model), &expected.get("default"), "the other");
    assert_far(&encode(&model), &expected.get("bare"), "the other");

    let unknown = model.load_adapter_with(folder("bare"), &swap("x"));
    assert!(matches!(
        unknown,
        Err(Error::Adapter(AdapterError::UnknownName { .. }))
    ));
    // One that cannot be loaded leaves the old one.
    let broken = changed("bare", "adapter_config.json", &json!({ "r": 9 }));
    assert!(model.load_adapter_with(broken.path(), &swap("b")).is_err());
    assert_close(&encode(&model), &expected.get("default"), "after a failure");
}

#[test]
fn an_adapter_s_prompts_come_with_it_and_go_with_it() {
    let prompts = json!({ "prompts": { "query": "query: ", "document": "" } });
    let file = "config_sentence_transformers.json";
    let folder = changed("default", file, &prompts);
    let mut model = base();
    model
        .load_adapter_with(folder.path(), &named("asked"))
        .unwrap();
    model
        .load_adapter_with(path("tiny_lora/bare"), &named("plain"))
        .unwrap();
    let query = |model: &Model| values(model.encode_query(&["the fox"]).unwrap());
    let text = |model: &Model, text: &str| values(model.encode(&[text]).unwrap());
    // The active one has none.
    assert_eq!(query(&model), text(&model, "the fox"));
    model.set_adapter(&["asked"]).unwrap();
    assert_eq!(query(&model), text(&model, "query: the fox"));
    assert_far(&query(&model), &text(&model, "the fox"), "prompt");
    // Each text has the prompt of its own adapter.
    let options = EncodeOptions {
        adapters: Some(AdapterChoice::by_text(["asked", "plain", "__base__"])),
        ..EncodeOptions::default()
    };
    let mixed = model.encode_query_with(&["the fox"; 3], &options).unwrap();
    let mixed = values(mixed);
    let rows: Vec<&[f32]> = mixed.chunks(mixed.len() / 3).collect();
    assert_close(rows[0], &text(&model, "query: the fox"), "asked");
    model.set_adapter(&["plain"]).unwrap();
    assert_close(rows[1], &text(&model, "the fox"), "plain");
    assert_close(rows[2], &text(&base(), "the fox"), "base");
    model.delete_adapter(&["asked"]).unwrap();
    assert!(model.config().adapters.prompts.is_empty());
}

#[test]
fn a_file_with_gaps_is_refused_or_reported() {
    let load = |model: &mut Model, folder: &Path, strict| {
        let options = LoadAdapterOptions {
            strict,
            ..LoadAdapterOptions::default()
        };
        model.load_adapter_with(folder, &options)
    };
    let missing = json!({ "target_modules": ["query", "value", "key"] });
    let missing = changed("default", "adapter_config.json", &missing);
    let mut model = base();
    assert!(matches!(
        load(&mut model, missing.path(), true),
        Err(Error::StateDict(StateDictError::Missing { keys, .. })) if keys.len() == 4
    ));
    let report = load(&mut model, missing.path(), false).unwrap();
    assert_eq!((report.missing.len(), report.loaded.len()), (4, 8));
    assert!(!report.is_complete());
    assert_eq!(model.adapter_report("default").unwrap(), Some(&report));
    // What is missing is fresh, and a fresh update changes nothing.
    let expected = Expected::read("tiny_lora/expected.safetensors");
    assert_close(&encode(&model), &expected.get("default"), "with a gap");

    let wider = changed("default", "adapter_config.json", &json!({ "r": 5 }));
    let mut model = base();
    assert!(matches!(
        load(&mut model, wider.path(), true),
        Err(Error::StateDict(StateDictError::ShapeMismatch { .. }))
    ));
    let report = load(&mut model, wider.path(), false).unwrap();
    assert_eq!(report.mismatched.len(), 8);
    assert!(report.unexpected.is_empty());
    assert_close(&encode(&model), &encode(&base()), "nothing fits");

    let narrower = changed(
        "default",
        "adapter_config.json",
        &json!({ "target_modules": ["query"] }),
    );
    let report = load(&mut base(), narrower.path(), true).unwrap();
    assert_eq!(report.unexpected.len(), 4);
}
