//! Every module type, and the routes between them, against Python.

use std::collections::BTreeMap;
use std::fs;

use burn::module::Param;
use burn::optim::GradientsParams;
use burn::tensor::{Tensor, TensorData};
use sentence_burn::error::{AdapterError, ModelError, ModuleError};
use sentence_burn::model::{Mode, Pass};
use sentence_burn::modules::DenseConfig;
use sentence_burn::state_dict::StateDict;
use sentence_burn::{EncodeOptions, Error, LoraConfig, SentenceTransformer};
use serde_json::{Value, json};

use crate::backend_under_test::{TestAutodiffBackend, TestBackend, device};
use crate::fixture::{
    Expected, TOLERANCE, assert_close, assert_far, json, load, max_difference, path, strings,
    values,
};

type Model = SentenceTransformer<TestBackend>;

fn texts() -> Vec<String> {
    strings(&json("modules/expected.json")["texts"])
}

fn expected() -> Expected {
    Expected::read("modules/expected.safetensors")
}

fn with_task(task: &str) -> EncodeOptions {
    EncodeOptions {
        task: Some(task.to_owned()),
        ..EncodeOptions::default()
    }
}

/// Every fixture folder with what its methods must give.
fn check(model: &Model, name: &str) {
    let (texts, expected) = (texts(), expected());
    let found = values(model.encode(&texts).unwrap());
    assert_close(&found, &expected.get(name), name);
    let keys = expected.keys();
    for (suffix, embeddings) in [
        ("query", model.encode_query(&texts)),
        ("document", model.encode_document(&texts)),
        ("short", model.encode_with(&texts, &with_task("short"))),
        ("doc", model.encode_with(&texts, &with_task("doc"))),
        (
            "query.plain",
            model.encode_with(&texts, &with_task("query")),
        ),
    ] {
        let key = format!("{name}.{suffix}");
        if keys.contains(&key) {
            assert_close(&values(embeddings.unwrap()), &expected.get(&key), &key);
        }
    }
    let controls = keys
        .iter()
        .filter(|key| key.starts_with(&format!("control.{name}.")));
    let mut count = 0;
    for key in controls {
        // The controls of routes are those of queries.
        let of = match key.ends_with("other_route") {
            true => values(model.encode_query(&texts).unwrap()),
            false => found.clone(),
        };
        assert_far(&of, &expected.get(key), key);
        count += 1;
    }
    assert!(count > 0, "{name}");
}

const FOLDERS: [&str; 7] = [
    "pipeline",
    "static",
    "model2vec",
    "model2vec_bare",
    "router",
    "shared",
    "asym",
];

#[test]
fn every_module_and_route_gives_what_python_does() {
    for name in FOLDERS {
        check(&load(&format!("modules/{name}")), name);
    }
}

#[test]
fn what_is_saved_is_loaded_again() {
    for name in FOLDERS {
        // For `tests/python/check_modules.py`.
        if let Some(folder) = std::env::var_os("SENTENCE_BURN_SAVE_TO") {
            let folder = std::path::PathBuf::from(folder).join(name);
            load(&format!("modules/{name}")).save(folder).unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        load(&format!("modules/{name}"))
            .save(folder.path())
            .unwrap();
        check(&Model::load(folder.path(), &device()).unwrap(), name);
        // A second time over the first, which may be mapped.
        let model = Model::load(folder.path(), &device()).unwrap();
        model.save(folder.path()).unwrap();
        drop(model);
        let again = Model::load(folder.path(), &device()).unwrap();
        let found = values(again.encode(&texts()).unwrap());
        assert_close(&found, &expected().get(name), name);
    }
}

#[test]
fn token_embeddings_are_those_behind_the_modules_that_change_them() {
    let model = load("modules/pipeline");
    let found = model
        .encode_tokens(&texts(), &EncodeOptions::default())
        .unwrap();
    for (index, tokens) in found.into_iter().enumerate() {
        let key = format!("pipeline.tokens.{index}");
        assert_close(&values(tokens), &expected().get(&key), &key);
    }
    let error = load("modules/static")
        .encode_tokens(&texts(), &EncodeOptions::default())
        .unwrap_err();
    assert!(matches!(error, Error::Model(ModelError::NoTokenEmbeddings)));
}

#[test]
fn layers_are_weighed_only_where_the_encoder_gives_them() {
    let folder = tempfile::tempdir().unwrap();
    load("modules/pipeline").save(folder.path()).unwrap();
    let file = folder.path().join("config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    config["output_hidden_states"] = json!(false);
    fs::write(file, config.to_string()).unwrap();
    let model = Model::load(folder.path(), &device()).unwrap();
    let found = values(model.encode(&texts()).unwrap());
    let key = "pipeline_without_hidden_states";
    assert_close(&found, &expected().get(key), key);
    assert_far(&found, &expected().get("pipeline"), "weighted layers");
}

/// The gradients of the embeddings' weighted sum by parameter names.
fn gradients(name: &str) -> BTreeMap<String, Vec<f32>> {
    type B = TestAutodiffBackend;
    let folder = path(&format!("modules/{name}"));
    let model = SentenceTransformer::<B>::load(folder, &device()).unwrap();
    let batch = model.tokenize(&texts(), None, &device()).unwrap();
    let expected_gradients = expected();
    let expected_keys = expected_gradients.keys();
    let coefficients = expected_gradients.data(&format!("{name}.coefficients"));
    let coefficients = Tensor::<B, 2>::from_data(coefficients, &device());
    let embeddings = model.forward_pass(&batch, Pass::new(Mode::Inference));
    let gradients = (embeddings * coefficients).sum().backward();
    let gradients = GradientsParams::from_grads(gradients, &model);
    let mut found = BTreeMap::new();
    for (key, id) in model.named_trainable() {
        let expected = format!("{name}.gradient.{key}");
        if !expected_keys.contains(&expected) {
            continue;
        }
        let gradient = match expected_gradients.data(&expected).shape.len() {
            1 => gradients.get::<TestBackend, 1>(id).map(values),
            _ => gradients.get::<TestBackend, 2>(id).map(values),
        };
        found.insert(key, gradient.unwrap());
    }
    found
}

#[test]
fn modules_with_weights_train() {
    let expected = expected();
    for (name, count) in [("pipeline", 8), ("static", 1)] {
        let found = gradients(name);
        let prefix = format!("{name}.gradient.");
        let keys = expected.keys();
        let keys: Vec<&str> = keys
            .iter()
            .filter_map(|key| key.strip_prefix(&prefix))
            .collect();
        assert_eq!(keys.len(), count, "{keys:?}");
        for key in keys {
            let gradient = found
                .get(key)
                .unwrap_or_else(|| panic!("{key}: {:?}", found.keys()));
            let known = expected.get(&format!("{prefix}{key}"));
            let scale = known
                .iter()
                .fold(1.0f32, |most, value| most.max(value.abs()));
            let off = max_difference(gradient, &known) / scale;
            assert!(off <= TOLERANCE, "{key}: off by {off:e}");
            let zeros = vec![0.0; known.len()];
            assert_far(gradient, &zeros, key);
        }
    }
}

#[test]
fn every_activation_and_its_gradient_are_torch_s() {
    type B = TestAutodiffBackend;
    let cases = Expected::read("modules/activations.safetensors");
    let tensor = |key: &str| Tensor::<B, 2>::from_data(cases.data(key), &device());
    for name in strings(&json("modules/expected.json")["activations"]) {
        let module = if name == "Identity" {
            "linear"
        } else {
            "activation"
        };
        let config = json!({
            "in_features": 4, "out_features": 6,
            "activation_function": format!("torch.nn.modules.{module}.{name}"),
        });
        let config = DenseConfig::from_json(config.as_object().unwrap()).unwrap();
        let mut tensors = StateDict::new("activations");
        tensors.insert("linear.weight", cases.data("weight"));
        tensors.insert("linear.bias", cases.data("bias"));
        if name == "PReLU" {
            tensors.insert("activation_function.weight", cases.data("PReLU.slope"));
        }
        let dense = config.load::<B>(&mut tensors, &device()).unwrap();
        let output = dense.forward(tensor("input"), Mode::Inference);
        let key = format!("{name}.output");
        let found: Vec<f32> = output.to_data().iter().collect();
        assert_close(&found, &cases.get(&key), &key);
        let [_, dim] = output.dims();
        let coefficients = tensor("coefficients").narrow(1, 0, dim);
        let gradients = (output * coefficients).sum().backward();
        for (param, key) in [
            ("linear.weight", format!("{name}.gradient")),
            (
                "activation_function.weight",
                format!("{name}.slope_gradient"),
            ),
        ] {
            if cases.keys().contains(&key) {
                let found = gradient_of(&dense, param, &gradients);
                assert_close(&found, &cases.get(&key), &key);
            }
        }
    }
    // Negative control: near relatives are told apart.
    for (one, other) in [
        ("ELU", "SELU"),
        ("Softplus", "Mish"),
        ("Softmax", "Softmin"),
    ] {
        let output = |name: &str| cases.get(&format!("{name}.output"));
        assert_far(&output(one), &output(other), one);
    }
}

fn gradient_of(
    dense: &sentence_burn::modules::Dense<TestAutodiffBackend>,
    key: &str,
    gradients: &burn::backend::autodiff::grads::Gradients,
) -> Vec<f32> {
    use sentence_burn::state_dict::ParamVisitor;
    struct Find<'a>(
        &'a str,
        &'a burn::backend::autodiff::grads::Gradients,
        Vec<f32>,
    );
    impl ParamVisitor<TestAutodiffBackend> for Find<'_> {
        fn visit<const D: usize>(
            &mut self,
            key: String,
            param: &mut Param<Tensor<TestAutodiffBackend, D>>,
        ) -> sentence_burn::Result<()> {
            if key == self.0
                && let Some(gradient) = param.val().grad(self.1)
            {
                self.2 = gradient.into_data().iter().collect();
            }
            Ok(())
        }
    }
    let mut find = Find(key, gradients, Vec::new());
    dense.clone().visit_params("", &mut find).unwrap();
    find.2
}

#[test]
fn a_task_without_a_route_is_named() {
    let model = load("modules/shared");
    let error = model.encode_with(&["fox"], &with_task("sts")).unwrap_err();
    assert!(
        matches!(&error, Error::Module(ModuleError::NoRoute { task: Some(task), routes })
            if task == "sts" && routes == &["short", "long"]),
        "{error}"
    );
    // A model without a router has no use for tasks.
    let model = load("modules/pipeline");
    assert!(model.encode_with(&["fox"], &with_task("sts")).is_ok());
}

#[test]
fn an_adapter_goes_on_the_router_s_first_transformer_and_is_saved_beside_it() {
    let mut model = load("modules/router");
    let document = values(model.encode_document(&texts()).unwrap());
    model
        .add_adapter(LoraConfig {
            init_lora_weights: sentence_burn::adapter::InitLoraWeights::Flag(false),
            ..LoraConfig::default()
        })
        .unwrap();
    let adapted = values(model.encode_document(&texts()).unwrap());
    assert_far(&adapted, &document, "adapter");
    let query = values(model.encode_query(&texts()).unwrap());
    assert_close(&query, &expected().get("router.query"), "query");
    let folder = tempfile::tempdir().unwrap();
    model.save(folder.path()).unwrap();
    assert!(
        folder
            .path()
            .join("document_0_Transformer/adapter_config.json")
            .exists()
    );
    let again = Model::load(folder.path(), &device()).unwrap();
    assert_close(
        &values(again.encode_document(&texts()).unwrap()),
        &adapted,
        "saved adapter",
    );
    let error = load("modules/static")
        .add_adapter(LoraConfig::default())
        .unwrap_err();
    assert!(matches!(error, Error::Adapter(AdapterError::NoTransformer)));
}

#[test]
fn routers_that_make_no_model_are_named() {
    let folder = tempfile::tempdir().unwrap();
    load("modules/router").save(folder.path()).unwrap();
    let file = folder.path().join("router_config.json");
    let whole: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
    let with = |edit: &dyn Fn(&mut Value)| {
        let mut config = whole.clone();
        edit(&mut config);
        fs::write(&file, config.to_string()).unwrap();
        Model::load(folder.path(), &device())
            .unwrap_err()
            .to_string()
    };
    let router = "sentence_transformers.models.Router";
    for (edit, named) in [
        (
            &(|c: &mut Value| c["structure"]["query"][0] = json!("x")) as &dyn Fn(&mut Value),
            "`x`",
        ),
        (&|c| c["structure"]["query"] = json!([]), "`query`"),
        (&|c| c["structure"] = json!({}), "no route"),
        (
            &|c| c["parameters"]["default_route"] = json!("sts"),
            "`sts`",
        ),
        (&|c| c["types"]["../x"] = json!(router), "../x"),
        (&|c| c["types"]["."] = json!(router), "deep"),
        (
            &|c| c["types"]["query_0_StaticEmbedding"] = json!("my.Model"),
            "my.Model",
        ),
        (
            &|c| c["parameters"]["route_mappings"] = json!({ "('a', None)": "b" }),
            "`b`",
        ),
        (
            &|c| c["structure"]["query"] = json!(["document_2_Dense"]),
            "first module",
        ),
    ] {
        let error = with(edit);
        assert!(error.contains(named), "{named}: {error}");
    }
}

#[test]
fn a_model2vec_table_with_a_row_missing_is_named() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["modules.json", "config.json", "tokenizer.json"] {
        fs::copy(
            path("modules/model2vec").join(file),
            folder.path().join(file),
        )
        .unwrap();
    }
    let mapping: Vec<i64> = vec![0, 1, 7];
    let rows = TensorData::new(vec![0f32; 12], [2, 6]);
    let bytes: Vec<u8> = mapping.iter().flat_map(|row| row.to_le_bytes()).collect();
    let views = [
        (
            "embeddings",
            safetensors::tensor::TensorView::new(
                safetensors::Dtype::F32,
                vec![2, 6],
                rows.as_bytes(),
            )
            .unwrap(),
        ),
        (
            "mapping",
            safetensors::tensor::TensorView::new(safetensors::Dtype::I64, vec![3], &bytes).unwrap(),
        ),
    ];
    let file = folder.path().join("model.safetensors");
    safetensors::serialize_to_file(views, None, &file).unwrap();
    let error = Model::load(folder.path(), &device())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("row 7") && error.contains("mapping"),
        "{error}"
    );
}
