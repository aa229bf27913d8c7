//! LoRA adapters against peft, on a tiny BERT.

use std::fs;

use sentence_burn::adapter::InitLoraWeights;
use sentence_burn::error::{AdapterError, RepoError, StateDictError};
use sentence_burn::{
    Error, LoadAdapterOptions, LoadOptions, LoraConfig, ModuleNames, SentenceTransformer, TaskType,
};
use serde_json::{Value, json};

use crate::backend_under_test::{TestBackend, device};
use crate::fixture::{self, Expected, assert_close, assert_far, load, path, strings, values};

const ADAPTERS: [&str; 8] = [
    "default",
    "bare",
    "all_linear",
    "regex",
    "rslora",
    "patterns",
    "bert_prefix",
    "no_prefix",
];

fn texts() -> Vec<String> {
    strings(&fixture::json("tiny_bert/expected.json")["texts"])
}

fn expected() -> Expected {
    Expected::read("tiny_lora/expected.safetensors")
}

fn base() -> SentenceTransformer<TestBackend> {
    load("tiny_bert/v6")
}

fn encode(model: &SentenceTransformer<TestBackend>) -> Vec<f32> {
    values(model.encode(&texts()).unwrap())
}

fn named(name: &str) -> LoadAdapterOptions {
    LoadAdapterOptions {
        name: name.to_owned(),
        ..LoadAdapterOptions::default()
    }
}

/// A base with the adapters `default` and `bare`, the latter active.
fn with_two() -> SentenceTransformer<TestBackend> {
    let mut model = base();
    for name in ["default", "bare"] {
        model
            .load_adapter_with(path("tiny_lora").join(name), &named(name))
            .unwrap();
    }
    model
}

#[test]
fn every_adapter_embeds_as_peft_loaded_into_its_base_and_directly() {
    let base_values = encode(&base());
    assert_close(&base_values, &expected().get("base"), "base");
    for name in ADAPTERS {
        let folder = path("tiny_lora").join(name);
        let mut model = base();
        let report = model.load_adapter(&folder).unwrap();
        assert!(
            report.unexpected.is_empty(),
            "{name}: {:?}",
            report.unexpected
        );
        let found = encode(&model);
        assert_close(&found, &expected().get(name), name);
        assert_far(&found, &base_values, name);
        let direct = SentenceTransformer::<TestBackend>::load(&folder, &device()).unwrap();
        assert_close(&encode(&direct), &expected().get(name), name);
        assert_eq!(direct.active_adapters().unwrap(), ["default"]);
    }
}

#[test]
fn a_wrong_scale_would_be_noticed() {
    for name in ADAPTERS.iter().filter(|name| !name.ends_with("_prefix")) {
        let control = expected().get(&format!("control.{name}.scale_1"));
        let mut model = base();
        model.load_adapter(path("tiny_lora").join(name)).unwrap();
        assert_far(&encode(&model), &control, name);
    }
}

#[test]
fn active_adapters_add_up_as_in_peft() {
    let mut model = with_two();
    assert_eq!(model.active_adapters().unwrap(), ["bare"]);
    assert_close(&encode(&model), &expected().get("bare"), "bare");
    model.set_adapter(&["default", "bare"]).unwrap();
    assert_close(&encode(&model), &expected().get("default+bare"), "both");
    assert_far(&encode(&model), &expected().get("bare"), "one of two");
    model.set_adapter(&["default"]).unwrap();
    assert_close(&encode(&model), &expected().get("default"), "default");
    model.set_adapter::<&str>(&[]).unwrap();
    assert_close(&encode(&model), &expected().get("base"), "none");
}

#[test]
fn disabling_is_the_base_and_enabling_brings_them_back() {
    let mut model = with_two();
    model.disable_adapters().unwrap();
    assert_eq!(encode(&model), encode(&base()));
    assert_eq!(model.active_adapters().unwrap(), ["bare"]);
    model.enable_adapters().unwrap();
    assert_close(&encode(&model), &expected().get("bare"), "enabled");
}

#[test]
fn deleting_the_last_adapter_truly_unwraps() {
    let mut model = with_two();
    model.delete_adapter(&["bare"]).unwrap();
    assert_eq!(model.active_adapters().unwrap(), ["default"]);
    model.delete_adapter(&["default"]).unwrap();
    assert_eq!(encode(&model), encode(&base()));
    assert!(matches!(
        model.active_adapters(),
        Err(Error::Adapter(AdapterError::NoAdapter))
    ));
    // What is saved then is a whole, plain model.
    let saved = tempfile::tempdir().unwrap();
    model.save(saved.path()).unwrap();
    assert!(!saved.path().join("adapter_config.json").exists());
    let again = SentenceTransformer::<TestBackend>::load(saved.path(), &device()).unwrap();
    assert_eq!(encode(&again), encode(&base()));
}

#[test]
fn merging_embeds_the_same_as_a_plain_model() {
    for name in ADAPTERS {
        let mut model = base();
        model.load_adapter(path("tiny_lora").join(name)).unwrap();
        model.merge_and_unload().unwrap();
        let saved = tempfile::tempdir().unwrap();
        model.save(saved.path()).unwrap();
        let merged = SentenceTransformer::<TestBackend>::load(saved.path(), &device()).unwrap();
        assert!(merged.adapters().is_empty());
        assert_close(&encode(&merged), &expected().get(name), name);
    }
}

#[test]
fn the_seed_s_config_is_written_to_the_letter() {
    let mut model = base();
    model
        .add_adapter(LoraConfig {
            task_type: Some(TaskType::FeatureExtraction),
            inference_mode: false,
            r: 64,
            lora_alpha: 128.0,
            lora_dropout: 0.1,
            ..LoraConfig::default()
        })
        .unwrap();
    let saved = tempfile::tempdir().unwrap();
    model.save(saved.path()).unwrap();
    let mut written: Value =
        serde_json::from_slice(&fs::read(saved.path().join("adapter_config.json")).unwrap())
            .unwrap();
    let expected = fs::read_to_string(path("tiny_lora/expected_adapter_config.json")).unwrap();
    let base = written["base_model_name_or_path"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(
        fs::canonicalize(base).unwrap(),
        fs::canonicalize(path("tiny_bert/v6")).unwrap()
    );
    let golden: Value = serde_json::from_str(&expected).unwrap();
    written["base_model_name_or_path"] = golden["base_model_name_or_path"].clone();
    assert_eq!(format!("{written:#}"), expected);
}

#[test]
fn state_dict_keys_and_sizes_are_peft_s() {
    let expected = &fixture::json("tiny_lora/expected.json")["seed_config"];
    let mut model = base();
    model
        .add_adapter(LoraConfig {
            r: 64,
            lora_alpha: 128.0,
            ..LoraConfig::default()
        })
        .unwrap();
    let tensors = model.get_adapter_state_dict(None).unwrap();
    let found: Value = tensors
        .iter()
        .map(|(key, data)| (key.to_owned(), json!(data.shape.to_vec())))
        .collect::<serde_json::Map<_, _>>()
        .into();
    assert_eq!(found, expected["get_adapter_state_dict"]);
}

#[test]
fn an_adapter_folder_holds_what_python_s_holds() {
    let saved = tempfile::tempdir().unwrap();
    let mut model = base();
    model.load_adapter(path("tiny_lora/default")).unwrap();
    model.save(saved.path()).unwrap();
    let mut found: Vec<String> = fs::read_dir(saved.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    found.sort();
    let expected = [
        "1_Pooling",
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
        "config_sentence_transformers.json",
        "modules.json",
        "sentence_bert_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    assert_eq!(found, expected);
}

#[test]
fn saving_what_was_loaded_gives_the_same_tensors_and_config() {
    for name in ADAPTERS {
        let folder = path("tiny_lora").join(name);
        let mut model = base();
        model.load_adapter(&folder).unwrap();
        let saved = tempfile::tempdir().unwrap();
        model.save_adapter(saved.path()).unwrap();
        let config = |folder: &std::path::Path| -> Value {
            serde_json::from_slice(&fs::read(folder.join("adapter_config.json")).unwrap()).unwrap()
        };
        let (mut found, expected) = (config(saved.path()), config(&folder));
        // The one field that differs: a relative base means nothing in another folder.
        let written = found["base_model_name_or_path"].take();
        assert!(std::path::Path::new(written.as_str().unwrap()).is_absolute());
        found["base_model_name_or_path"] = expected["base_model_name_or_path"].clone();
        assert_eq!(found, expected, "{name}");
        let mut again = base();
        again.load_adapter(saved.path()).unwrap();
        let tensors = |model: &SentenceTransformer<TestBackend>| {
            let tensors = model.get_adapter_state_dict(None).unwrap();
            tensors
                .iter()
                .map(|(k, v)| (k.to_owned(), v.clone()))
                .collect::<Vec<_>>()
        };
        assert_eq!(tensors(&model), tensors(&again), "{name}");
    }
}

#[test]
fn a_failed_change_leaves_the_model_as_it_was() {
    let mut model = with_two();
    let before = encode(&model);
    let config = |targets: &str| LoraConfig {
        target_modules: Some(ModuleNames::list([targets])),
        ..LoraConfig::default()
    };
    assert!(matches!(
        model.add_adapter(config("query")),
        Err(Error::Adapter(AdapterError::NameTaken { name })) if name == "default"
    ));
    assert!(matches!(
        model.add_named_adapter("x", config("q_proj")),
        Err(Error::Adapter(AdapterError::NoMatchingTarget { .. }))
    ));
    assert!(matches!(
        model.add_named_adapter("x", LoraConfig { r: 0, ..LoraConfig::default() }),
        Err(Error::Adapter(AdapterError::InvalidField { field, .. })) if field == "r"
    ));
    assert!(matches!(
        model.set_adapter(&["bare", "x"]),
        Err(Error::Adapter(AdapterError::UnknownName { name, .. })) if name == "x"
    ));
    assert!(matches!(
        model.delete_adapter(&["x"]),
        Err(Error::Adapter(AdapterError::UnknownName { .. }))
    ));
    assert!(matches!(
        model.load_adapter_with(path("tiny_bert/v6"), &named("x")),
        Err(Error::Repo(RepoError::MissingFile { .. }))
    ));
    assert_eq!(model.active_adapters().unwrap(), ["bare"]);
    assert_eq!(encode(&model), before);
    // A correct call works afterwards.
    model.add_named_adapter("x", config("query")).unwrap();
    assert_eq!(model.active_adapters().unwrap(), ["x"]);
}

#[test]
fn adapters_of_another_shape_or_with_missing_tensors_are_refused_by_key() {
    let folder = tempfile::tempdir().unwrap();
    let tiny = path("tiny_lora/default");
    let copy = |file: &str| fs::copy(tiny.join(file), folder.path().join(file)).unwrap();
    copy("adapter_model.safetensors");
    let write = |field: &str, value: Value| {
        let text = fs::read_to_string(tiny.join("adapter_config.json")).unwrap();
        let mut config: Value = serde_json::from_str(&text).unwrap();
        config[field] = value;
        fs::write(
            folder.path().join("adapter_config.json"),
            config.to_string(),
        )
        .unwrap();
    };
    let mut model = base();
    write("r", json!(5));
    let error = model.load_adapter(folder.path()).unwrap_err();
    assert!(
        matches!(&error, Error::StateDict(StateDictError::ShapeMismatch { expected, found, .. })
            if expected == &[5, 20] && found == &[4, 20]),
        "{error}"
    );
    write("target_modules", json!(["query", "value", "key"]));
    let error = model.load_adapter(folder.path()).unwrap_err();
    assert!(
        matches!(&error, Error::StateDict(StateDictError::Missing { keys, .. })
            if keys.len() == 4 && keys[0].contains("layer.0.attention.self.key.lora_A")),
        "{error}"
    );
    write("target_modules", json!(["query"]));
    let report = model.load_adapter(folder.path()).unwrap();
    assert_eq!(report.unexpected.len(), 4);
    write(
        "target_modules",
        json!(["query", "value", "word_embeddings"]),
    );
    let error = model
        .load_adapter_with(folder.path(), &named("x"))
        .unwrap_err();
    assert!(
        matches!(&error, Error::StateDict(StateDictError::Missing { keys, .. })
            if keys == &["embeddings.word_embeddings.lora_embedding_A", "embeddings.word_embeddings.lora_embedding_B"]),
        "{error}"
    );
    write("target_modules", json!(["query", "LayerNorm"]));
    let error = model
        .load_adapter_with(folder.path(), &named("x"))
        .unwrap_err();
    assert!(
        matches!(&error, Error::Adapter(AdapterError::NotAdaptable { path, .. }) if path == "embeddings.LayerNorm"),
        "{error}"
    );
    write("peft_type", json!("VERA"));
    let error = model
        .load_adapter_with(folder.path(), &named("x"))
        .unwrap_err();
    assert!(
        matches!(&error, Error::Adapter(AdapterError::UnknownType { found, .. }) if found == "\"VERA\"")
    );
}

#[test]
fn several_active_adapters_are_not_saved_and_leave_no_partial_folder() {
    let mut model = with_two();
    model.set_adapter(&["default", "bare"]).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("new");
    assert!(matches!(
        model.save(&target),
        Err(Error::Adapter(AdapterError::NotOneActive { .. }))
    ));
    assert!(!target.exists());
}

#[test]
fn a_base_that_was_moved_can_be_named() {
    let moved = tempfile::tempdir().unwrap();
    base().save(moved.path()).unwrap();
    let adapter = tempfile::tempdir().unwrap();
    for file in ["adapter_config.json", "adapter_model.safetensors"] {
        fs::copy(path("tiny_lora/bare").join(file), adapter.path().join(file)).unwrap();
    }
    let options = LoadOptions {
        base: Some(moved.path().display().to_string()),
        ..LoadOptions::default()
    };
    let model =
        SentenceTransformer::<TestBackend>::load_with(adapter.path(), &options, &device()).unwrap();
    assert_close(&encode(&model), &expected().get("bare"), "bare");
}

#[test]
fn any_adapter_name_is_legal() {
    for name in ["a.b", "train", "keys", "../x", "ünï", ""] {
        let mut model = base();
        model
            .load_adapter_with(path("tiny_lora/default"), &named(name))
            .unwrap();
        assert_close(&encode(&model), &expected().get("default"), name);
        let saved = tempfile::tempdir().unwrap();
        model.save(saved.path()).unwrap();
        let again = SentenceTransformer::<TestBackend>::load(saved.path(), &device()).unwrap();
        assert_close(&encode(&again), &expected().get("default"), name);
    }
}

#[test]
fn fresh_adapters_change_nothing_unless_initialised_to() {
    let before = encode(&base());
    let mut model = base();
    model.add_adapter(LoraConfig::default()).unwrap();
    assert_eq!(encode(&model), before);
    let mut model = base();
    let config = LoraConfig {
        init_lora_weights: InitLoraWeights::Flag(false),
        ..LoraConfig::default()
    };
    model.add_adapter(config).unwrap();
    assert_far(&encode(&model), &before, "init_lora_weights false");
}

#[test]
fn an_adapter_is_not_saved_beside_a_whole_model() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = base();
    model.save(folder.path()).unwrap();
    model.add_adapter(LoraConfig::default()).unwrap();
    let error = model.save(folder.path()).unwrap_err();
    assert!(
        matches!(error, Error::Repo(RepoError::Occupied { .. })),
        "{error}"
    );
}
