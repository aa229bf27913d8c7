//! Every option of peft's adapters, on a tiny BERT: loaded, summed, merged, saved, mixed.

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use sentence_burn::{AdapterChoice, EncodeOptions, LoadAdapterOptions, SentenceTransformer};
use serde_json::Value;

use crate::backend_under_test::{TestBackend, device};
use crate::fixture::{self, Expected, assert_close, assert_far, load, path, strings, values};

type Model = SentenceTransformer<TestBackend>;

/// Cases that are known not to be comparable.
const LEFT_OUT: [&str; 4] = [
    // PEFT draws another projection each time it loads it.
    "pissa_niter_4",
    // Adapters of a type that this crate does not have.
    "oft",
    "oft_cayley",
    "oft_shared",
];

fn expected() -> Expected {
    Expected::read("peft_options/expected.safetensors")
}

fn summary() -> Value {
    fixture::json("peft_options/expected.json")
}

/// What a case embeds to: by peft, or where peft's own single-precision decomposition is less
/// exact than the tolerance, by peft with an exact one.
fn embeddings(expected: &Expected, case: &str) -> Vec<f32> {
    let exact = format!("exact.{case}");
    match expected.keys().contains(&exact) {
        true => expected.get(&exact),
        false => expected.get(case),
    }
}

/// The names of the adapter folders.
fn cases() -> Vec<String> {
    let summary = summary();
    let cases = summary["cases"].as_object().unwrap().keys().cloned();
    cases
        .filter(|case| !LEFT_OUT.contains(&case.as_str()))
        .collect()
}

fn folder(case: &str) -> PathBuf {
    path("peft_options").join(case)
}

fn base() -> Model {
    load("tiny_bert/v6")
}

fn with(cases: &[&str]) -> Model {
    let mut model = base();
    for case in cases {
        let options = LoadAdapterOptions {
            name: (*case).to_owned(),
            ..LoadAdapterOptions::default()
        };
        let report = model.load_adapter_with(folder(case), &options).unwrap();
        assert!(report.is_complete(), "{case}: {report:?}");
        assert!(report.unexpected.is_empty(), "{case}: {report:?}");
    }
    model
}

fn encode(model: &Model) -> Vec<f32> {
    values(model.encode(&strings(&summary()["texts"])).unwrap())
}

#[test]
fn every_option_embeds_as_in_peft() {
    let expected = expected();
    let base = encode(&base());
    assert_close(&base, &expected.get("base"), "base");
    for case in cases() {
        let found = encode(&with(&[&case]));
        assert_close(&found, &embeddings(&expected, &case), &case);
        assert_far(&found, &base, &case);
        let control = format!("control.{case}.");
        for control in expected
            .keys()
            .iter()
            .filter(|key| key.starts_with(&control))
        {
            assert_far(&found, &expected.get(control), control);
        }
        let direct = Model::load(folder(&case), &device()).unwrap();
        assert_close(&encode(&direct), &embeddings(&expected, &case), &case);
    }
}

#[test]
fn a_type_that_is_not_computed_is_named() {
    for case in ["oft", "oft_cayley", "oft_shared"] {
        let mut model = base();
        let before = encode(&model);
        let error = model.load_adapter(folder(case)).unwrap_err().to_string();
        assert!(
            error.contains("peft_type") && error.contains("OFT"),
            "{error}"
        );
        assert_eq!(encode(&model), before, "{case}");
    }
}

#[test]
fn active_adapters_are_applied_in_order_as_in_peft() {
    let (expected, summary) = (expected(), summary());
    for sum in summary["sums"].as_object().unwrap().keys() {
        let names: Vec<&str> = sum.split('+').collect();
        if names.iter().any(|name| LEFT_OUT.contains(name)) {
            continue;
        }
        let mut model = with(&names);
        model.set_adapter(&names).unwrap();
        let found = encode(&model);
        assert_close(&found, &expected.get(&format!("sum.{sum}")), sum);
        for alone in &names {
            assert_far(&found, &expected.get(alone), sum);
        }
        let swapped: Vec<&str> = names.iter().rev().copied().collect();
        let swapped = format!("sum.{}", swapped.join("+"));
        let differs = &summary["sums"][sum]["difference_from_swapped"];
        if differs.as_f64().is_some_and(|difference| difference > 1e-2) {
            assert_far(&found, &expected.get(&swapped), sum);
        }
        // Where PEFT's own merge gives something else, this one does not.
        model.merge_adapter().unwrap();
        assert_close(&encode(&model), &found, sum);
    }
}

#[test]
fn merging_changes_no_embedding_and_unmerging_no_bit() {
    for case in cases() {
        let mut model = with(&[&case]);
        let before = encode(&model);
        model.merge_adapter().unwrap();
        assert_close(&encode(&model), &before, &case);
        model.unmerge_adapter().unwrap();
        assert_eq!(encode(&model), before, "{case}");
        model.merge_and_unload().unwrap();
        let saved = tempfile::tempdir().unwrap();
        model.save(saved.path()).unwrap();
        let merged = Model::load(saved.path(), &device()).unwrap();
        assert!(merged.adapters().is_empty());
        assert_close(&encode(&merged), &before, &case);
    }
}

fn config(folder: &Path) -> Value {
    serde_json::from_slice(&fs::read(folder.join("adapter_config.json")).unwrap()).unwrap()
}

#[test]
fn what_is_loaded_is_saved_the_same() {
    for case in cases() {
        if case.starts_with("pissa_niter") {
            // Nobody could find its part of the weights again: it is saved as a plain LoRA.
            continue;
        }
        let model = with(&[&case]);
        let saved = tempfile::tempdir().unwrap();
        model.save_adapter(saved.path()).unwrap();
        let (mut found, mut given) = (config(saved.path()), config(&folder(&case)));
        for config in [&mut found, &mut given] {
            // The one field that differs: a relative base means nothing in another folder.
            config["base_model_name_or_path"].take();
        }
        assert_eq!(found, given, "{case}");
        let read = |folder: &Path| fs::read(folder.join("adapter_model.safetensors")).unwrap();
        let (found, given) = (read(saved.path()), read(&folder(&case)));
        let found = SafeTensors::deserialize(&found).unwrap();
        let given = SafeTensors::deserialize(&given).unwrap();
        for (key, tensor) in given.tensors() {
            // One of the two spellings is written.
            let key = key.replace("lora_magnitude_vector.weight", "lora_magnitude_vector");
            assert_eq!(
                found.tensor(&key).unwrap().data(),
                tensor.data(),
                "{case}: {key}"
            );
        }
        assert_eq!(found.len(), given.len(), "{case}");
    }
}

#[test]
fn each_text_of_a_call_goes_through_its_own_adapter() {
    let (expected, summary) = (expected(), summary());
    let names = strings(&summary["mixed"]["adapter_names"]);
    let mut loaded: Vec<&str> = names.iter().map(String::as_str).collect();
    loaded.retain(|&name| name != "__base__");
    loaded.sort_unstable();
    loaded.dedup();
    let model = with(&loaded);
    let texts = strings(&summary["texts"]);
    let options = |choice| EncodeOptions {
        adapters: Some(choice),
        ..EncodeOptions::default()
    };
    let by_text = options(AdapterChoice::by_text(names.clone()));
    let mixed = values(model.encode_with(&texts, &by_text).unwrap());
    assert_close(&mixed, &expected.get("mixed"), "mixed");
    assert_far(&mixed, &expected.get("control.mixed"), "mixed");
    for (name, text) in names.iter().zip(&texts) {
        let alone = match name.as_str() {
            "__base__" => options(AdapterChoice::all::<&str>([])),
            name => options(AdapterChoice::all([name])),
        };
        let alone = values(model.encode_with(&[text], &alone).unwrap());
        let dim = alone.len();
        let place = texts.iter().position(|t| t == text).unwrap();
        let difference = fixture::max_difference(&mixed[place * dim..][..dim], &alone);
        assert!(difference <= 1e-6, "{name}: {difference:e}");
    }
}

#[test]
fn any_two_options_can_be_mixed_in_one_call() {
    let texts = strings(&summary()["texts"]);
    let all: Vec<String> = cases();
    let names: Vec<&str> = all.iter().map(String::as_str).collect();
    let model = with(&names);
    for (first, second) in names.iter().zip(names.iter().rev()) {
        let chosen = texts.iter().enumerate();
        let chosen = chosen.map(|(i, _)| if i % 2 == 0 { *first } else { *second });
        let options = EncodeOptions {
            adapters: Some(AdapterChoice::by_text(chosen)),
            ..EncodeOptions::default()
        };
        let mixed = values(model.encode_with(&texts, &options).unwrap());
        let expected = expected();
        let [first_alone, second_alone] = [first, second].map(|case| embeddings(&expected, case));
        let dim = mixed.len() / texts.len();
        for (text, row) in mixed.chunks(dim).enumerate() {
            let alone = if text % 2 == 0 {
                &first_alone
            } else {
                &second_alone
            };
            assert_close(
                row,
                &alone[text * dim..][..dim],
                &format!("{first} beside {second}"),
            );
        }
    }
}

/// `tests/python/check_peft_options.py` reads what this writes into the folder that
/// `SENTENCE_BURN_PEFT_FOLDERS` names.
#[test]
fn every_option_is_written_as_it_embeds() {
    let scratch = tempfile::tempdir().unwrap();
    let folders = std::env::var("SENTENCE_BURN_PEFT_FOLDERS");
    let folders = folders.map_or(scratch.path().to_owned(), PathBuf::from);
    let texts = strings(&summary()["texts"]);
    fs::create_dir_all(&folders).unwrap();
    fs::write(
        folders.join("texts.json"),
        serde_json::to_vec(&texts).unwrap(),
    )
    .unwrap();
    for case in cases() {
        if case.starts_with("pissa_niter") {
            continue;
        }
        let model = with(&[&case]);
        let target = folders.join(&case);
        model.save_adapter(&target).unwrap();
        let rows = encode(&model);
        fs::write(target.join("embeddings.npy"), npy(&rows, texts.len())).unwrap();
        let mut again = base();
        again.load_adapter(&target).unwrap();
        assert_eq!(encode(&again), rows, "{case}");
    }
}

/// A matrix in NumPy's format, version 1.
fn npy(values: &[f32], rows: usize) -> Vec<u8> {
    let shape = format!("({rows}, {})", values.len() / rows);
    let header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
    let header = format!("{header:<117}\n");
    let mut file = b"\x93NUMPY\x01\x00".to_vec();
    file.extend((header.len() as u16).to_le_bytes());
    file.extend(header.bytes());
    file.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    file
}
