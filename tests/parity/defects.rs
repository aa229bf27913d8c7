//! Defects of the Python side that are not copied, each by its name.
//!
//! What they are: `peft` 0.21.2 and Sentence Transformers 6.2.0, seen by running them.

use std::fs;

use sentence_burn::adapter::{Bias, InitLoraWeights, InitScheme};
use sentence_burn::error::AdapterError;
use sentence_burn::state_dict::StateDict;
use sentence_burn::{
    AdapterChoice, EncodeOptions, Error, LoadAdapterOptions, LoadOptions, LoraConfig, ModuleNames,
    Prompts, SentenceTransformer,
};
use serde_json::json;

use crate::backend_under_test::{TestBackend, device};
use crate::fixture::{self, Expected, assert_close, assert_far, load, path, strings, values};

type Model = SentenceTransformer<TestBackend>;

fn base() -> Model {
    load("tiny_bert/v6")
}

fn texts() -> Vec<String> {
    strings(&fixture::json("tiny_bert/expected.json")["texts"])
}

fn encode(model: &Model) -> Vec<f32> {
    values(model.encode(&texts()).unwrap())
}

fn options(name: &str, is_trainable: bool) -> LoadAdapterOptions {
    LoadAdapterOptions {
        name: name.to_owned(),
        is_trainable,
        ..LoadAdapterOptions::default()
    }
}

fn tensors(model: &Model, name: &str) -> StateDict {
    model.get_adapter_state_dict(Some(name)).unwrap()
}

/// A fresh adapter that already changes the embeddings.
fn eager() -> LoraConfig {
    LoraConfig {
        init_lora_weights: InitLoraWeights::Flag(false),
        lora_alpha: 24.0,
        ..LoraConfig::default()
    }
}

#[test]
fn dora_s_magnitudes_are_there_after_a_reload() {
    let saved = tempfile::tempdir().unwrap();
    let mut model = base();
    model.load_adapter(path("peft_options/dora")).unwrap();
    model.save(saved.path()).unwrap();
    let again = Model::load(saved.path(), &device()).unwrap();
    let expected = Expected::read("peft_options/expected.safetensors");
    let texts = strings(&fixture::json("peft_options/expected.json")["texts"]);
    let found = values(again.encode(&texts).unwrap());
    assert_close(&found, &expected.get("dora"), "dora");
    assert_far(
        &found,
        &expected.get("control.dora.initial_magnitude"),
        "dora",
    );
}

#[test]
fn a_model_saved_after_its_last_adapter_was_deleted_loads() {
    let mut model = base();
    model.add_adapter(eager()).unwrap();
    model.delete_adapter(&["default"]).unwrap();
    let saved = tempfile::tempdir().unwrap();
    model.save(saved.path()).unwrap();
    let again = Model::load(saved.path(), &device()).unwrap();
    assert_eq!(encode(&again), encode(&base()));
}

#[test]
fn enabling_brings_back_modules_that_were_saved_too() {
    let mut model = base();
    model
        .load_adapter(path("peft_options/modules_to_save"))
        .unwrap();
    let before = encode(&model);
    model.disable_adapters().unwrap();
    assert_eq!(encode(&model), encode(&base()));
    model.enable_adapters().unwrap();
    assert_eq!(encode(&model), before);
}

#[test]
fn a_failed_add_adapter_leaves_no_trace() {
    let mut model = base();
    let error = model.add_adapter(LoraConfig {
        target_modules: Some(ModuleNames::list(["no_such_layer"])),
        ..eager()
    });
    assert!(matches!(
        error,
        Err(Error::Adapter(AdapterError::NoMatchingTarget { .. }))
    ));
    assert!(model.adapters().is_empty());
    assert_eq!(encode(&model), encode(&base()));
    model.add_adapter(eager()).unwrap();
    assert_eq!(model.active_adapters().unwrap(), ["default"]);
}

#[test]
fn a_second_load_reports_nothing_of_the_first_adapter() {
    let mut model = base();
    for name in ["default", "bare"] {
        let report = model
            .load_adapter_with(path("tiny_lora").join(name), &options(name, false))
            .unwrap();
        assert!(report.is_complete() && report.unexpected.is_empty());
        assert_eq!(model.adapter_report(name).unwrap(), Some(&report));
        let tensors = tensors(&model, name);
        assert_eq!(report.loaded.len(), tensors.len());
    }
}

#[test]
fn what_is_merged_can_be_unloaded_from_the_model_itself() {
    let mut model = base();
    model.load_adapter(path("tiny_lora/default")).unwrap();
    let before = encode(&model);
    model.merge_and_unload().unwrap();
    assert!(model.adapters().is_empty());
    assert_close(&encode(&model), &before, "merged");
}

#[test]
fn the_active_adapters_can_be_asked_for() {
    let mut model = base();
    assert!(matches!(
        model.active_adapters(),
        Err(Error::Adapter(AdapterError::NoAdapter))
    ));
    model.add_adapter(eager()).unwrap();
    assert_eq!(model.active_adapters().unwrap(), ["default"]);
}

#[test]
fn any_adapter_name_is_legal_and_comes_back_from_disk() {
    let names = ["default", "a.b", "train", "keys", "", "../x", "ä b/c"];
    let mut model = base();
    for name in names {
        model.add_named_adapter(name, eager()).unwrap();
    }
    let saved = tempfile::tempdir().unwrap();
    model.save_adapters(saved.path()).unwrap();
    let mut folders: Vec<_> = fs::read_dir(saved.path())
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.is_dir())
        .collect();
    folders.push(saved.path().to_owned());
    assert_eq!(folders.len(), names.len());
    let mut found = Vec::new();
    for folder in &folders {
        let mut again = base();
        again.load_adapter(folder).unwrap();
        found.push(encode(&again));
    }
    for name in names {
        model.set_adapter(&[name]).unwrap();
        assert!(found.contains(&encode(&model)), "{name}");
    }
}

#[test]
fn each_text_can_go_through_its_own_adapter() {
    let mut model = base();
    for name in ["default", "bare"] {
        model
            .load_adapter_with(path("tiny_lora").join(name), &options(name, false))
            .unwrap();
    }
    let options = |names: &[&str]| EncodeOptions {
        adapters: Some(AdapterChoice::by_text(names.iter().copied())),
        ..EncodeOptions::default()
    };
    let mixed = model.encode_with(&["a dog", "a dog"], &options(&["default", "bare"]));
    let rows = values(mixed.unwrap());
    let (first, second) = rows.split_at(rows.len() / 2);
    assert_far(first, second, "two adapters");
    let error = model.encode_with(&["a dog"], &options(&["other"]));
    assert!(matches!(
        error,
        Err(Error::Adapter(AdapterError::UnknownName { .. }))
    ));
}

#[test]
fn a_relative_base_does_not_depend_on_the_working_directory() {
    // Its `base_model_name_or_path` is relative to the folder, which is not the working one.
    let model = Model::load(path("tiny_lora/default"), &device()).unwrap();
    assert!(
        model
            .config()
            .name_or_path
            .as_deref()
            .unwrap()
            .ends_with("tiny_bert/v6")
    );
}

#[test]
fn a_passage_prompt_is_used_for_documents() {
    let prompts = json!({ "prompts": { "passage": "passage: ", "document": "" } });
    let options = LoadOptions {
        prompts: Some(serde_json::from_value::<Prompts>(prompts).unwrap()),
        ..LoadOptions::default()
    };
    let model = Model::load_with(path("tiny_bert/v6"), &options, &device()).unwrap();
    let document = values(model.encode_document(&["the fox"]).unwrap());
    let prompted = values(model.encode(&["passage: the fox"]).unwrap());
    let plain = values(model.encode(&["the fox"]).unwrap());
    assert_close(&document, &prompted, "passage");
    assert_far(&document, &plain, "passage");
}

#[test]
fn a_truncated_embedding_can_be_of_unit_length() {
    let model = load("tiny_bert/dense");
    let norm = |normalize| {
        let options = EncodeOptions {
            truncate_dim: Some(4),
            normalize,
            ..EncodeOptions::default()
        };
        let row = values(model.encode_with(&["a dog"], &options).unwrap());
        row.iter().map(|v| v * v).sum::<f32>().sqrt()
    };
    assert!((norm(true) - 1.0).abs() < 1e-5);
    assert!(norm(false) < 0.999);
}

#[test]
fn a_disabled_or_deleted_adapter_takes_its_biases_with_it() {
    let mut model = base();
    model.load_adapter(path("peft_options/bias_all")).unwrap();
    assert_far(&encode(&model), &encode(&base()), "biases");
    model.disable_adapters().unwrap();
    assert_eq!(encode(&model), encode(&base()));
    model.enable_adapters().unwrap();
    model.delete_adapter(&["default"]).unwrap();
    assert_eq!(encode(&model), encode(&base()));
}

#[test]
fn two_adapters_with_biases_stand_beside_each_other() {
    let mut model = base();
    for name in ["bias_all", "bias_lora_only"] {
        let folder = path("peft_options").join(name);
        model
            .load_adapter_with(folder, &options(name, false))
            .unwrap();
    }
    let expected = Expected::read("peft_options/expected.safetensors");
    let texts = strings(&fixture::json("peft_options/expected.json")["texts"]);
    for name in ["bias_all", "bias_lora_only"] {
        model.set_adapter(&[name]).unwrap();
        assert_close(
            &values(model.encode(&texts).unwrap()),
            &expected.get(name),
            name,
        );
    }
}

#[test]
fn a_part_of_the_weights_that_pissa_replaces_is_back_when_it_is_gone() {
    for init in [
        InitScheme::Pissa,
        InitScheme::PissaNiter(4),
        InitScheme::Olora,
    ] {
        let mut model = base();
        let config = LoraConfig {
            r: 3,
            init_lora_weights: InitLoraWeights::Scheme(init.clone()),
            ..LoraConfig::default()
        };
        model.add_named_adapter("a", config.clone()).unwrap();
        assert_close(
            &encode(&model),
            &encode(&base()),
            "a fresh one changes nothing",
        );
        // A second one begins from the base, not from what the first one left of it.
        model.add_named_adapter("b", config).unwrap();
        assert_close(&encode(&model), &encode(&base()), "nor does a second one");
        model.disable_adapters().unwrap();
        assert_eq!(encode(&model), encode(&base()));
        model.enable_adapters().unwrap();
        model.delete_adapter(&["a", "b"]).unwrap();
        assert_eq!(encode(&model), encode(&base()));
    }
}

#[test]
fn pissa_niter_is_reproducible_and_saved_so_that_anyone_can_load_it() {
    let config = LoraConfig {
        r: 3,
        lora_alpha: 7.0,
        init_lora_weights: InitLoraWeights::Scheme(InitScheme::PissaNiter(2)),
        ..LoraConfig::default()
    };
    let fresh = || {
        let mut model = base();
        model.add_adapter(config.clone()).unwrap();
        model
    };
    let (first, second) = (fresh(), fresh());
    for ((key, a), (_, b)) in tensors(&first, "default")
        .iter()
        .zip(tensors(&second, "default").iter())
    {
        assert_eq!(a, b, "{key}");
    }
    let saved = tempfile::tempdir().unwrap();
    first.save_adapter(saved.path()).unwrap();
    let mut again = base();
    again.load_adapter(saved.path()).unwrap();
    assert_close(&encode(&again), &encode(&first), "reloaded");
    let config = again
        .adapters()
        .get("default")
        .unwrap()
        .config
        .as_lora()
        .unwrap();
    assert_eq!(config.init_lora_weights, InitLoraWeights::Flag(true));
    assert_eq!((config.r, config.lora_alpha), (6, 14.0));
}

#[test]
fn a_merged_sum_of_dora_and_biases_is_the_sum() {
    // PEFT's own merge is 0.39 away from its forward pass here.
    let mut model = base();
    for name in ["lora_bias", "dora_rslora_patterns"] {
        let folder = path("peft_options").join(name);
        model
            .load_adapter_with(folder, &options(name, false))
            .unwrap();
    }
    model
        .set_adapter(&["lora_bias", "dora_rslora_patterns"])
        .unwrap();
    let before = encode(&model);
    model.merge_adapter().unwrap();
    assert_close(&encode(&model), &before, "merged");
}

#[test]
fn an_adapter_beside_one_with_trained_tokens_or_saved_modules_loads_in_any_order() {
    for first in ["trainable_tokens", "modules_to_save"] {
        let mut model = base();
        for name in [first, "gaussian"] {
            let folder = path("peft_options").join(name);
            model
                .load_adapter_with(folder, &options(name, false))
                .unwrap();
        }
        let expected = Expected::read("peft_options/expected.safetensors");
        let texts = strings(&fixture::json("peft_options/expected.json")["texts"]);
        for name in [first, "gaussian"] {
            model.set_adapter(&[name]).unwrap();
            assert_close(
                &values(model.encode(&texts).unwrap()),
                &expected.get(name),
                name,
            );
        }
    }
}

#[test]
fn merged_adapters_step_aside_when_others_are_set() {
    let mut model = base();
    for name in ["default", "bare"] {
        model
            .load_adapter_with(path("tiny_lora").join(name), &options(name, false))
            .unwrap();
    }
    let bare = encode(&model);
    model.set_adapter(&["default"]).unwrap();
    model.merge_adapter().unwrap();
    let choice = EncodeOptions {
        adapters: Some(AdapterChoice::all(["bare"])),
        ..EncodeOptions::default()
    };
    assert!(matches!(
        model.encode_with(&texts(), &choice),
        Err(Error::Adapter(AdapterError::Merged { .. }))
    ));
    model.set_adapter(&["bare"]).unwrap();
    assert_eq!(encode(&model), bare);
}

#[test]
fn a_broken_adapter_is_not_merged() {
    let mut model = base();
    model
        .add_adapter(LoraConfig {
            bias: Bias::None,
            lora_alpha: 1e300,
            ..eager()
        })
        .unwrap();
    let error = model.merge_adapter();
    assert!(
        matches!(error, Err(Error::Adapter(AdapterError::NotFinite { .. }))),
        "{error:?}"
    );
    assert!(model.adapters().merged().is_empty());
    model.disable_adapters().unwrap();
    assert_eq!(encode(&model), encode(&base()));
}

#[cfg(feature = "train")]
mod trained {
    use super::*;
    use crate::backend_under_test::TestAutodiffBackend;

    type Trained = SentenceTransformer<TestAutodiffBackend>;

    fn trained_base() -> Trained {
        Trained::load(path("tiny_bert/v6"), &device()).unwrap()
    }

    fn trained(model: &Trained) -> Vec<String> {
        let names = model.named_trainable().into_iter();
        names.map(|(name, _)| name).collect()
    }

    #[test]
    fn a_second_frozen_load_does_not_freeze_the_first() {
        let mut model = trained_base();
        model.add_named_adapter("mine", eager()).unwrap();
        let before = trained(&model);
        model
            .load_adapter_with(path("tiny_lora/bare"), &options("theirs", false))
            .unwrap();
        model.set_adapter(&["mine", "theirs"]).unwrap();
        assert_eq!(trained(&model), before);
        assert!(
            before.iter().all(|name| name.starts_with("mine/")),
            "{before:?}"
        );
    }

    #[test]
    fn frozen_adapters_stay_frozen_unless_asked() {
        let mut model = trained_base();
        model
            .load_adapter_with(path("tiny_lora/bare"), &options("frozen", false))
            .unwrap();
        model.set_adapter(&["frozen"]).unwrap();
        model.disable_adapters().unwrap();
        model.enable_adapters().unwrap();
        assert!(trained(&model).is_empty());
        model
            .load_adapter_with(path("tiny_lora/bare"), &options("trained", true))
            .unwrap();
        assert_eq!(trained(&model).len(), tensors_of(&model, "trained"));
    }

    fn tensors_of(model: &Trained, name: &str) -> usize {
        model.get_adapter_state_dict(Some(name)).unwrap().len()
    }

    #[test]
    fn everything_of_an_adapter_trains_and_nothing_else() {
        for case in [
            "dora",
            "bias_all",
            "modules_to_save",
            "trainable_tokens",
            "embedding",
            "ia3_default",
            "loha",
            "lokr_both",
            "pissa",
        ] {
            let mut model = trained_base();
            model
                .load_adapter_with(path("peft_options").join(case), &options("a", true))
                .unwrap();
            let report = model.trainable_parameters();
            assert_eq!(report.names.len(), tensors_of(&model, "a"), "{case}");
            assert!(
                report.trainable < report.all && report.percent() < 60.0,
                "{case}: {report}"
            );
        }
    }
}
