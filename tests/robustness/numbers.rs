//! Numbers that are none, and sizes that no one trains with.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use sentence_burn::error::{AdapterError, Error, StateDictError, TextError};
use sentence_burn::{LoadAdapterOptions, LoadOptions};
use serde_json::{Value, json};

use crate::{Model, alone, base, copy_of, fixture, load, values};

const TEXTS: [&str; 2] = ["the quick brown fox", "a lazy dog sleeps"];

/// A tensor of a file: its type, shape and bytes.
type Tensor = (Dtype, Vec<usize>, Vec<u8>);

/// Changes the tensors of a safetensors file.
fn change(file: &Path, change: impl FnOnce(&mut HashMap<String, Tensor>)) {
    let bytes = fs::read(file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors: HashMap<String, Tensor> = tensors
        .iter()
        .map(|(name, view)| {
            let tensor = (view.dtype(), view.shape().to_vec(), view.data().to_vec());
            (name.to_owned(), tensor)
        })
        .collect();
    change(&mut tensors);
    let views = tensors.iter().map(|(name, (dtype, shape, data))| {
        (name, TensorView::new(*dtype, shape.clone(), data).unwrap())
    });
    fs::write(file, safetensors::serialize(views, None).unwrap()).unwrap();
}

fn floats(tensor: &Tensor) -> Vec<f32> {
    let (values, _) = tensor.2.as_chunks();
    values
        .iter()
        .map(|&value| f32::from_le_bytes(value))
        .collect()
}

fn bytes(values: impl IntoIterator<Item = f32>) -> Vec<u8> {
    values.into_iter().flat_map(f32::to_le_bytes).collect()
}

fn set(file: &Path, key: &str, place: usize, value: f32) {
    change(file, |tensors| {
        let tensor = tensors.get_mut(key).unwrap();
        let mut values = floats(tensor);
        values[place] = value;
        tensor.2 = bytes(values);
    });
}

/// What an error says of a tensor that is not finite: its key and place.
fn not_finite<T>(result: sentence_burn::Result<T>) -> (String, usize) {
    match result.map(drop).unwrap_err() {
        Error::StateDict(StateDictError::NotFinite { key, place, .. }) => (key, place),
        other => panic!("{other}"),
    }
}

#[test]
fn weights_that_are_no_numbers_are_named_and_load_where_that_is_asked_for() {
    let _alone = alone();
    for (name, file, key, place) in [
        (
            "tiny_bert/v6",
            "model.safetensors",
            "encoder.layer.1.output.dense.weight",
            77,
        ),
        (
            "tiny_bert/v6",
            "model.safetensors",
            "embeddings.LayerNorm.bias",
            0,
        ),
        (
            "tiny_bert/dense",
            "2_Dense/model.safetensors",
            "linear.weight",
            5,
        ),
        ("modules/static", "model.safetensors", "embedding.weight", 3),
        (
            "modules/model2vec",
            "model.safetensors",
            "embedding.weight",
            0,
        ),
    ] {
        for wrong in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let folder = copy_of(name);
            let path = folder.path().join(file);
            let in_file = match name {
                "modules/model2vec" => "embeddings",
                _ => key,
            };
            change(&path, |tensors| {
                assert!(tensors.contains_key(in_file), "{:?}", tensors.keys());
                let tensor = tensors.get_mut(in_file).unwrap();
                if tensor.0 == Dtype::F32 {
                    let mut values = floats(tensor);
                    values[place] = wrong;
                    tensor.2 = bytes(values);
                } else {
                    panic!("{:?}", tensor.0);
                }
            });
            let (found, at) = not_finite(load(folder.path()));
            assert_eq!(
                found.trim_start_matches("linear."),
                key.trim_start_matches("linear.")
            );
            // Of model2vec's rows, another one may be the first that a token has.
            assert!(at == place || in_file != key, "{name}: {at}");
            let options = LoadOptions {
                allow_non_finite: true,
                ..LoadOptions::default()
            };
            let model = Model::load_with(folder.path(), &options, &Default::default());
            model.unwrap();
        }
    }
}

#[test]
fn an_adapter_that_is_no_number_is_named_and_the_model_is_as_it_was() {
    let _alone = alone();
    let mut model = base();
    let before = values(&model, &TEXTS);
    let folder = copy_of("tiny_lora/bare");
    let file = folder.path().join("adapter_model.safetensors");
    let mut key = String::new();
    change(&file, |tensors| {
        let mut keys: Vec<_> = tensors
            .keys()
            .filter(|key| key.contains("lora_B"))
            .collect();
        keys.sort();
        key = keys[0].clone();
    });
    set(&file, &key, 1, f32::NAN);
    let (found, place) = not_finite(model.load_adapter(folder.path()));
    assert!(key.ends_with(&found) && place == 1, "{found} of {key}");
    assert!(model.adapters().is_empty());
    assert_eq!(values(&model, &TEXTS), before);
    let options = LoadAdapterOptions {
        allow_non_finite: true,
        ..LoadAdapterOptions::default()
    };
    model.load_adapter_with(folder.path(), &options).unwrap();
    assert!(values(&model, &TEXTS).iter().any(|value| value.is_nan()));
}

#[test]
fn numbers_too_large_for_the_backend_are_named_and_unused_ones_are_not_looked_at() {
    let _alone = alone();
    let folder = copy_of("tiny_bert/v6");
    let file = folder.path().join("model.safetensors");
    change(&file, |tensors| {
        let unused = (Dtype::F32, vec![1], bytes([f32::NAN]));
        tensors.insert("cls.predictions.bias".to_owned(), unused);
    });
    load(folder.path()).unwrap();
    let key = "encoder.layer.0.output.dense.bias";
    change(&file, |tensors| {
        let tensor = tensors.get_mut(key).unwrap();
        let mut values: Vec<f64> = floats(tensor).into_iter().map(f64::from).collect();
        values[2] = 1e300;
        tensor.0 = Dtype::F64;
        tensor.2 = values.into_iter().flat_map(f64::to_le_bytes).collect();
    });
    assert_eq!(not_finite(load(folder.path())), (key.to_owned(), 2));
}

/// The adapter `tiny_lora/bare` with another configuration and other tensors.
fn adapter(
    config: impl FnOnce(&mut Value),
    tensors: impl FnMut(&str, &mut Tensor),
) -> tempfile::TempDir {
    let folder = copy_of("tiny_lora/bare");
    let path = folder.path().join("adapter_config.json");
    let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    config(&mut json);
    fs::write(path, json.to_string()).unwrap();
    let mut tensors = tensors;
    change(&folder.path().join("adapter_model.safetensors"), |all| {
        for (key, tensor) in all {
            tensors(key, tensor);
        }
    });
    folder
}

fn with(folder: &Path) -> Vec<f32> {
    let mut model = base();
    model.load_adapter(folder).unwrap();
    values(&model, &TEXTS)
}

fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f32::max)
}

#[test]
fn a_rank_above_a_layer_s_sizes_is_one_like_any_other_and_none_is_an_error() {
    let _alone = alone();
    let plain = with(&fixture("tiny_lora/bare"));
    // Rows and columns of zeros add nothing.
    let r = 300;
    let large = adapter(
        |config| {
            let scale = config["lora_alpha"].as_f64().unwrap() / config["r"].as_f64().unwrap();
            config["r"] = json!(r);
            config["lora_alpha"] = json!(scale * f64::from(r));
        },
        |key, tensor| {
            let [rows, columns] = tensor.1[..] else {
                return;
            };
            let values = floats(tensor);
            let r = r as usize;
            let padded: Vec<f32> = match key.contains("lora_A") {
                true => {
                    tensor.1 = vec![r, columns];
                    (0..r * columns)
                        .map(|place| values.get(place).copied().unwrap_or(0.0))
                        .collect()
                }
                false => {
                    tensor.1 = vec![rows, r];
                    (0..rows * r)
                        .map(|place| match place % r {
                            column if column < columns => values[place / r * columns + column],
                            _ => 0.0,
                        })
                        .collect()
                }
            };
            tensor.2 = bytes(padded);
        },
    );
    let found = with(large.path());
    assert!(
        distance(&found, &plain) < 1e-5,
        "{}",
        distance(&found, &plain)
    );
    assert!(distance(&plain, &values(&base(), &TEXTS)) > 1e-3);
    for r in [json!(0), json!(1u64 << 40)] {
        let none = adapter(|config| config["r"] = r, |_, _| ());
        let error = base().load_adapter(none.path()).unwrap_err();
        assert!(
            matches!(&error, Error::Adapter(AdapterError::InvalidField { field, .. }) if field == "r"),
            "{error}"
        );
    }
}

#[test]
fn an_alpha_of_zero_is_the_base_and_one_below_subtracts() {
    let _alone = alone();
    let zero = adapter(|config| config["lora_alpha"] = json!(0), |_, _| ());
    assert_eq!(with(zero.path()), values(&base(), &TEXTS));
    let below = adapter(
        |config| config["lora_alpha"] = json!(-config["lora_alpha"].as_f64().unwrap()),
        |_, _| (),
    );
    let negated = adapter(
        |_| (),
        |key, tensor| {
            if key.contains("lora_B") {
                tensor.2 = bytes(floats(tensor).into_iter().map(|value| -value));
            }
        },
    );
    let (below, negated) = (with(below.path()), with(negated.path()));
    assert!(distance(&below, &negated) < 1e-6);
    assert!(distance(&below, &with(&fixture("tiny_lora/bare"))) > 1e-3);
}

#[test]
fn a_dropout_that_is_no_probability_is_named() {
    let _alone = alone();
    for dropout in [-0.1, 1.0, 1.5, 1e300] {
        let folder = adapter(|config| config["lora_dropout"] = json!(dropout), |_, _| ());
        let error = base().load_adapter(folder.path()).unwrap_err();
        assert!(
            matches!(&error, Error::Adapter(AdapterError::InvalidField { field, .. })
                if field == "lora_dropout"),
            "{error}"
        );
    }
}

#[test]
fn a_token_that_has_no_embedding_is_named() {
    let _alone = alone();
    for id in [1_000_000u32, u32::MAX] {
        let folder = copy_of("tiny_bert/v6");
        let path = folder.path().join("tokenizer.json");
        let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        json["model"]["vocab"]["fox"] = json!(id);
        fs::write(path, json.to_string()).unwrap();
        let model = load(folder.path()).unwrap();
        let error = model.encode(&["the lazy dog", "the fox"]).unwrap_err();
        assert!(
            matches!(&error, Error::Text(TextError::TokenOutOfRange { id: found, .. }) if *found == id),
            "{error}"
        );
        assert!(model.encode(&["the lazy dog"]).is_ok());
    }
}

#[test]
fn an_epsilon_below_zero_is_named_instead_of_roots_that_are_no_numbers() {
    let _alone = alone();
    let folder = copy_of("tiny_bert/v6");
    let path = folder.path().join("config.json");
    let mut json: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    json["layer_norm_eps"] = json!(-1.0);
    fs::write(&path, json.to_string()).unwrap();
    let error = load(folder.path()).unwrap_err().to_string();
    assert!(
        error.contains("layer_norm_eps") && error.contains("-1"),
        "{error}"
    );
}
