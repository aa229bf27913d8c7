//! LoRA initialised from data, against peft's `initialize_lora_eva_weights`.

use std::collections::BTreeMap;
use std::fs;

use safetensors::SafeTensors;
use sentence_burn::adapter::{InitLoraWeights, InitScheme};
use sentence_burn::error::AdapterError;
use sentence_burn::{Error, LoraConfig, SentenceTransformer};
use serde_json::{Value, json};

use crate::backend_under_test::TestBackend;
use crate::fixture::{self, Expected, assert_close, assert_far, load, path, strings, values};

type Model = SentenceTransformer<TestBackend>;

fn summary() -> Value {
    fixture::json("peft_eva/expected.json")
}

fn encode(model: &Model) -> Vec<f32> {
    values(model.encode(&strings(&summary()["texts"])).unwrap())
}

/// A model whose adapter was initialised as the case says.
fn initialised(case: &Value) -> Model {
    let mut config = case["config"].clone();
    config["init_lora_weights"] = json!("eva");
    let config: LoraConfig = serde_json::from_value(config).unwrap();
    let mut model = load("tiny_bert/v6");
    model.add_adapter(config).unwrap();
    let texts = strings(&summary()["texts"]);
    let batches: Vec<Vec<usize>> = serde_json::from_value(case["batches"].clone()).unwrap();
    let chosen: Vec<&String> = batches.iter().flatten().map(|&text| &texts[text]).collect();
    let batch_size = batches.iter().map(Vec::len).max().unwrap();
    model
        .initialize_eva("default", &chosen, batch_size)
        .unwrap();
    model
}

/// The tensors of the folder that peft saved, without its prefix.
fn saved(case: &str) -> BTreeMap<String, Vec<f32>> {
    let file = fs::read(
        path("peft_eva")
            .join(case)
            .join("adapter_model.safetensors"),
    )
    .unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let tensors = tensors.tensors().into_iter().map(|(key, tensor)| {
        let values = tensor.data().chunks_exact(4);
        let values = values.map(|b| f32::from_le_bytes(b.try_into().unwrap()));
        let key = key.trim_start_matches("base_model.model.").to_owned();
        (key, values.collect())
    });
    tensors.collect()
}

#[test]
fn ranks_scales_and_directions_are_peft_s() {
    for (name, case) in summary()["cases"].as_object().unwrap() {
        let model = initialised(case);
        let entry = model.adapters().get("default").unwrap();
        let config = entry.config.as_lora().unwrap();
        let adapted = case["adapted"].as_object().unwrap();
        let tensors = model.get_adapter_state_dict(None).unwrap();
        assert_eq!(tensors.len(), 2 * adapted.len(), "{name}");
        let saved = saved(name);
        for (layer, expected) in adapted {
            let key = format!("{layer}.lora_A.weight");
            let a = tensors.get(&key).unwrap();
            let r = a.shape[0];
            assert_eq!(expected[0], r, "{name}: {layer}");
            let alpha = config
                .alpha_pattern
                .get(layer)
                .unwrap_or(&config.lora_alpha);
            let scaling = config.scaling(r, *alpha);
            assert!(
                (expected[1].as_f64().unwrap() - scaling).abs() < 1e-9,
                "{name}: {layer}"
            );
            let found: Vec<f32> = a.iter().collect();
            let difference = fixture::max_difference(&found, &saved[&key]);
            assert!(
                difference <= fixture::TOLERANCE,
                "{name}: {layer} differs by {difference:e}"
            );
        }
        // B is zero: nothing has changed yet.
        assert_close(&encode(&model), &encode(&load("tiny_bert/v6")), name);
    }
}

#[test]
fn directions_that_are_not_whitened_would_be_noticed() {
    let mut case = summary()["cases"]["whiten"].clone();
    case["config"]["eva_config"]["whiten"] = json!(false);
    let tensors = initialised(&case).get_adapter_state_dict(None).unwrap();
    let saved = saved("whiten");
    for layer in case["adapted"].as_object().unwrap().keys() {
        let key = format!("{layer}.lora_A.weight");
        let found: Vec<f32> = tensors.get(&key).unwrap().iter().collect();
        assert_far(&found, &saved[&key], layer);
    }
}

#[test]
fn what_peft_initialised_loads_and_embeds_the_same() {
    let expected = Expected::read("peft_eva/expected.safetensors");
    for name in summary()["cases"].as_object().unwrap().keys() {
        let mut model = load("tiny_bert/v6");
        let report = model.load_adapter(path("peft_eva").join(name)).unwrap();
        assert!(report.is_complete() && report.unexpected.is_empty());
        let found = encode(&model);
        assert_close(&found, &expected.get(name), name);
        let control = format!("control.{name}.");
        for control in expected
            .keys()
            .iter()
            .filter(|key| key.starts_with(&control))
        {
            assert_far(&found, &expected.get(control), control);
        }
    }
}

#[test]
fn another_adapter_is_not_initialised_from_data() {
    let mut model = load("tiny_bert/v6");
    model.add_adapter(LoraConfig::default()).unwrap();
    let before = model.get_adapter_state_dict(None).unwrap();
    let error = model.initialize_eva("default", &["a dog"], 1).unwrap_err();
    assert!(matches!(
        error,
        Error::Adapter(AdapterError::InvalidField { .. })
    ));
    // Two tokens have fewer directions than are asked for, however often they are looked at.
    let mut model = load("tiny_bert/v6");
    let config = LoraConfig {
        init_lora_weights: InitLoraWeights::Scheme(InitScheme::Eva),
        ..LoraConfig::default()
    };
    model.add_adapter(config).unwrap();
    let keys: Vec<String> = before.keys().map(str::to_owned).collect();
    assert!(model.initialize_eva("default", &[""], 1).is_err());
    let after = model.get_adapter_state_dict(None).unwrap();
    assert!(after.keys().eq(keys.iter().map(String::as_str)));
}
