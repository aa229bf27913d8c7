//! Every encoder architecture against transformers, on tiny models: token embeddings,
//! embeddings, adapters, gradients, and the files both ways.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use sentence_burn::encoder::EncoderConfig;
use sentence_burn::error::EncoderError;
use sentence_burn::{EncodeOptions, Error, LoraConfig, SentenceTransformer};
use serde_json::{Value, json};

use crate::backend_under_test::{TestBackend, device};
use crate::fixture::{self, Expected, assert_close, assert_far, path, strings, values};

/// The fixtures, each of a model type.
const ARCHITECTURES: [&str; 9] = [
    "roberta",
    "distilbert",
    "mpnet",
    "electra",
    "albert",
    "modernbert",
    "nomic_bert",
    "qwen3",
    "gemma3_text",
];

type Model = SentenceTransformer<TestBackend>;

fn texts() -> Vec<String> {
    strings(&fixture::json("architectures/expected.json")["texts"])
}

/// What the generator says of an architecture.
fn about(name: &str) -> Value {
    fixture::json("architectures/expected.json")["architectures"][name].clone()
}

fn expected(name: &str) -> Expected {
    Expected::read(&format!("architectures/{name}/expected.safetensors"))
}

/// A whole model folder: the model's files with the tokenizer that all share, and with
/// other `fields` in its `config.json`.
fn folder(name: &str, fields: &Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let copy = |from: &str| {
        let from = path("architectures").join(from);
        fs::copy(&from, folder.path().join(from.file_name().unwrap())).unwrap();
    };
    copy("tokenizer.json");
    copy("tokenizer_config.json");
    copy(&format!("{name}/model.safetensors"));
    let mut config = fixture::json(&format!("architectures/{name}/config.json"));
    for (field, value) in fields.as_object().into_iter().flatten() {
        config[field] = value.clone();
    }
    fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
    folder
}

fn load(folder: &Path) -> Model {
    Model::load(folder, &device()).unwrap()
}

fn model_with(name: &str, fields: &Value) -> Model {
    load(folder(name, fields).path())
}

fn model(name: &str) -> Model {
    model_with(name, &Value::Null)
}

fn encode(model: &Model) -> Vec<f32> {
    values(model.encode(&texts()).unwrap())
}

/// The tensors of a safetensors file: their shapes and bytes.
fn tensors(file: &Path) -> BTreeMap<String, (Vec<usize>, Vec<u8>)> {
    let bytes = fs::read(file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let all = tensors.iter().map(|(key, view)| {
        let data = (view.shape().to_vec(), view.data().to_vec());
        (key.to_owned(), data)
    });
    all.collect()
}

/// A key without the prefix that it has where there is a head on the encoder.
fn bare(name: &str, key: &str) -> String {
    let config = fixture::json(&format!("architectures/{name}/config.json"));
    let config = EncoderConfig::from_json(config.as_object().unwrap()).unwrap();
    let prefixes = config.head_prefixes().iter();
    let stripped = prefixes
        .filter_map(|prefix| key.strip_prefix(prefix))
        .next();
    stripped.unwrap_or(key).to_owned()
}

#[test]
fn the_list_is_the_generator_s() {
    let generated = fixture::json("architectures/expected.json")["architectures"].clone();
    let generated: Vec<String> = generated.as_object().unwrap().keys().cloned().collect();
    assert_eq!(generated, ARCHITECTURES);
}

#[test]
fn token_ids_are_python_s_up_to_the_last_position() {
    for name in ARCHITECTURES {
        let (model, about) = (model(name), about(name));
        assert_eq!(json!(model.max_seq_length()), about["max_tokens"], "{name}");
        let encodings = model.tokenizer().encode(&texts(), None).unwrap();
        let ids: Vec<Vec<u32>> = encodings.into_iter().map(|e| e.ids).collect();
        assert_eq!(json!(ids), about["token_ids"], "{name}");
    }
}

#[test]
fn token_embeddings_are_transformers() {
    for name in ARCHITECTURES {
        let options = EncodeOptions::default();
        let found = model(name).encode_tokens(&texts(), &options).unwrap();
        assert_eq!(found.len(), texts().len());
        for (index, tokens) in found.into_iter().enumerate() {
            let key = format!("token_embeddings.{index}");
            let what = format!("{name} {key}");
            assert_close(&values(tokens), &expected(name).get(&key), &what);
        }
    }
}

#[test]
fn embeddings_are_sentence_transformers_and_wrong_formulas_are_noticed() {
    for name in ARCHITECTURES {
        let found = encode(&model(name));
        assert_close(&found, &expected(name).get("pooled"), name);
        let controls = about(name)["controls"].clone();
        for (control, fields) in controls.as_object().unwrap() {
            let what = format!("{name} {control}");
            let wrong = expected(name).get(&format!("control.{control}"));
            assert_far(&found, &wrong, &what);
            // Where fields of config.json ask for it, it is right.
            if fields.is_object() {
                assert_close(&encode(&model_with(name, fields)), &wrong, &what);
            }
        }
        if about(name)["pooling"] == "lasttoken" {
            assert_far(&found, &expected(name).get("control.mean"), name);
        }
    }
}

#[test]
fn only_where_positions_are_angles_a_text_may_be_longer_than_is_usual() {
    for name in ARCHITECTURES {
        let (mut model, about) = (model(name), about(name));
        let Some(beyond) = about["beyond"].as_u64() else {
            assert!(model.set_max_seq_length(64).is_err(), "{name}");
            continue;
        };
        model.set_max_seq_length(beyond as usize).unwrap();
        assert_close(&encode(&model), &expected(name).get("beyond"), name);
        assert_far(&encode(&model), &expected(name).get("pooled"), name);
    }
}

#[test]
fn a_batch_equals_its_texts_one_by_one() {
    for name in ARCHITECTURES {
        let model = model(name);
        let together = encode(&model);
        let apart: Vec<f32> = texts()
            .iter()
            .flat_map(|text| values(model.encode_one(text).unwrap()))
            .collect();
        assert_close(&together, &apart, name);
    }
}

#[test]
fn model_types_of_one_architecture_are_the_same() {
    let mut others = 0;
    for name in ARCHITECTURES {
        for other in strings(&about(name)["same_as"]) {
            let model = model_with(name, &json!({ "model_type": other }));
            assert_eq!(model.config().encoder.model_type(), other);
            assert_close(&encode(&model), &expected(name).get("pooled"), &other);
            others += 1;
        }
    }
    assert_eq!(others, 2);
}

#[test]
fn adapters_are_peft_s() {
    for name in ARCHITECTURES {
        let mut model = model(name);
        let base = encode(&model);
        let adapter = path("architectures").join(name).join("adapter");
        let report = model.load_adapter(&adapter).unwrap();
        assert!(report.unexpected.is_empty(), "{name}: {report:?}");
        let found = encode(&model);
        assert_close(&found, &expected(name).get("adapter"), name);
        assert_far(&found, &base, name);
        let saved = tempfile::tempdir().unwrap();
        model.save_adapter(saved.path()).unwrap();
        let file = "adapter_model.safetensors";
        assert_eq!(
            tensors(&saved.path().join(file)),
            tensors(&adapter.join(file)),
            "{name}"
        );
        model.merge_and_unload().unwrap();
        assert_close(&encode(&model), &expected(name).get("adapter"), name);
    }
}

#[test]
fn an_adapter_that_names_no_layers_gets_peft_s_or_the_query_s_and_value_s() {
    for name in ARCHITECTURES {
        let mut model = model(name);
        model.add_adapter(LoraConfig::default()).unwrap();
        let state = model.get_adapter_state_dict(None).unwrap();
        let found: Vec<&str> = state
            .keys()
            .filter_map(|key| key.strip_suffix(".lora_A.weight"))
            .collect();
        assert_eq!(json!(found), about(name)["default_lora_paths"], "{name}");
    }
}

#[test]
fn a_saved_model_s_tensors_are_those_it_was_loaded_from() {
    for name in ARCHITECTURES {
        let model = model(name);
        assert!(model.weights_report().unused.is_empty(), "{name}");
        let saved = tempfile::tempdir().unwrap();
        model.save(saved.path()).unwrap();
        let file = path("architectures").join(name).join("model.safetensors");
        let loaded: BTreeMap<_, _> = tensors(&file)
            .into_iter()
            .map(|(key, tensor)| (bare(name, &key), tensor))
            .collect();
        let written = tensors(&saved.path().join("model.safetensors"));
        assert!(written == loaded, "{name}: {:?}", written.keys());
        assert_eq!(encode(&load(saved.path())), encode(&model), "{name}");
    }
}

#[test]
fn a_head_s_prefix_is_taken_off_and_what_belongs_to_the_head_is_left() {
    for name in ARCHITECTURES {
        let folder = folder(name, &Value::Null);
        let file = folder.path().join("model.safetensors");
        let all = tensors(&file);
        let config = fixture::json(&format!("architectures/{name}/config.json"));
        let config = EncoderConfig::from_json(config.as_object().unwrap()).unwrap();
        for prefix in config.head_prefixes() {
            let head = ("head.weight".to_owned(), (vec![1], vec![0; 4]));
            let headed: BTreeMap<_, _> = all
                .iter()
                .map(|(key, tensor)| (format!("{prefix}{}", bare(name, key)), tensor.clone()))
                .chain([head])
                .collect();
            let views = headed.iter().map(|(key, (shape, bytes))| {
                let view = TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap();
                (key, view)
            });
            safetensors::serialize_to_file(views, None, &file).unwrap();
            let model = load(folder.path());
            assert_eq!(model.weights_report().unused, ["head.weight"], "{name}");
            assert_close(&encode(&model), &expected(name).get("pooled"), name);
        }
    }
}

#[test]
fn what_an_architecture_cannot_have_is_named() {
    let tiny_bert = fixture::json("tiny_bert/v6/config.json");
    let field = |mut config: Value, name: &str, value: Value| {
        config[name] = value;
        let config = EncoderConfig::from_json(config.as_object().unwrap());
        match config.unwrap_err() {
            Error::Encoder(EncoderError::InvalidField { field, .. }) => field.to_owned(),
            Error::Encoder(EncoderError::Malformed { .. }) => "malformed".to_owned(),
            other => other.to_string(),
        }
    };
    let hidden = json!(1_u64 << 60);
    for name in ARCHITECTURES {
        let config = fixture::json(&format!("architectures/{name}/config.json"));
        let size = if name == "distilbert" {
            "dim"
        } else {
            "hidden_size"
        };
        for value in [json!(0), hidden.clone()] {
            assert_eq!(field(config.clone(), size, value), size, "{name}");
        }
        assert_eq!(field(config.clone(), size, json!("wide")), "malformed");
    }
    assert_eq!(
        field(tiny_bert.clone(), "hidden_size", hidden),
        "hidden_size"
    );
    let unknown = field(tiny_bert, "model_type", json!("mamba"));
    for known in ["bert", "xlm-roberta", "gemma3_text"] {
        assert!(unknown.contains(known), "{unknown}");
    }
}

#[cfg(feature = "train")]
#[test]
fn gradients_of_adapters_are_torch_s() {
    use crate::backend_under_test::TestAutodiffBackend;
    use burn::optim::GradientsParams;
    use burn::tensor::{Tensor, TensorData};
    use sentence_burn::LoadAdapterOptions;
    use sentence_burn::model::Mode;

    for name in ARCHITECTURES {
        let folder = folder(name, &Value::Null);
        let mut model =
            SentenceTransformer::<TestAutodiffBackend>::load(folder.path(), &device()).unwrap();
        let options = LoadAdapterOptions {
            is_trainable: true,
            ..LoadAdapterOptions::default()
        };
        let adapter = path("architectures").join(name).join("adapter");
        model.load_adapter_with(&adapter, &options).unwrap();
        let batch = model.tokenize(&texts(), None, &device()).unwrap();
        let embeddings = model.forward(&batch, Mode::Inference);
        let [rows, columns] = embeddings.dims();
        let sines: Vec<f32> = (0..rows * columns).map(|i| (i as f32).sin()).collect();
        let sines = Tensor::from_data(TensorData::new(sines, [rows, columns]), &device());
        let gradients = (embeddings * sines).sum().backward();
        let gradients = GradientsParams::from_grads(gradients, &model);
        let mut found = 0;
        for (key, id) in model.named_trainable() {
            let Some(gradient) = gradients.get::<TestBackend, 2>(id) else {
                // The pooler takes no part in embeddings.
                assert!(key.contains("pooler"), "{name} {key}");
                continue;
            };
            let path = key.trim_start_matches("default/");
            let expected = expected(name).get(&format!("gradient.{path}"));
            let largest = expected.iter().fold(1f32, |most, v| most.max(v.abs()));
            let scaled = |values: Vec<f32>| -> Vec<f32> {
                values.into_iter().map(|v| v / largest).collect()
            };
            assert!(expected.iter().any(|v| v.abs() > 1e-3), "{name} {path}");
            assert_close(
                &scaled(values(gradient)),
                &scaled(expected),
                &format!("{name} {path}"),
            );
            found += 1;
        }
        assert!(found >= 8, "{name}: {found}");
    }
}
