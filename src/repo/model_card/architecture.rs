use burn::tensor::backend::Backend;
use serde_json::{Map, Value, json};

use super::description::{python, quoted};
use crate::encoder::EncoderConfig;
use crate::model::SentenceTransformer;
use crate::modules::{DenseConfig, Modality, PoolingConfig, RouteMapping, SentenceModule, Step};

/// What `AutoModel` of Transformers makes of each `model_type`.
const CLASSES: [(&str, &str); 12] = [
    ("albert", "AlbertModel"),
    ("bert", "BertModel"),
    ("camembert", "CamembertModel"),
    ("distilbert", "DistilBertModel"),
    ("electra", "ElectraModel"),
    ("gemma3_text", "Gemma3TextModel"),
    ("modernbert", "ModernBertModel"),
    ("mpnet", "MPNetModel"),
    ("nomic_bert", "NomicBertModel"),
    ("qwen3", "Qwen3Model"),
    ("roberta", "RobertaModel"),
    ("xlm-roberta", "XLMRobertaModel"),
];

/// The modules with their settings, as Python prints them.
pub(in crate::repo) fn architecture<B: Backend>(model: &SentenceTransformer<B>) -> String {
    format!("SentenceTransformer(\n{})", listed(model, model.steps(), 1))
}

/// Modules one below the other, each at its place.
fn listed<B: Backend>(model: &SentenceTransformer<B>, steps: &[Step], level: usize) -> String {
    let margin = "  ".repeat(level);
    let line = |(place, step)| format!("{margin}({place}): {}\n", printed(model, step, level));
    steps.iter().enumerate().map(line).collect()
}

fn printed<B: Backend>(model: &SentenceTransformer<B>, step: &Step, level: usize) -> String {
    let settings = match step {
        Step::Input(0) => {
            let config = model.config();
            input_settings(&config.encoder, &config.encoder_fields)
        }
        Step::Input(input) => {
            let config = &model.route_inputs()[input - 1].config;
            input_settings(&config.encoder, &config.encoder_fields)
        }
        Step::Module(module) => module_settings(&model.modules()[*module]),
        Step::Router(router) => {
            let margin = |deeper: usize| "  ".repeat(level + deeper);
            let mut settings = Vec::new();
            if let Some(route) = router.default_route() {
                settings.push(format!("default_route={}", quoted(route)));
            }
            if !router.mappings().is_empty() {
                let mappings: Vec<String> = router.mappings().iter().map(mapping).collect();
                settings.push(format!("route_mappings={{{}}}", mappings.join(", ")));
            }
            let mut text = "Router(\n".to_owned();
            if !settings.is_empty() {
                text.push_str(&format!("{}{}\n", margin(1), settings.join(", ")));
            }
            text.push_str(&format!("{}(sub_modules): ModuleDict(\n", margin(1)));
            for route in router.routes() {
                let (name, margin) = (&route.name, margin(2));
                let steps = listed(model, &route.steps, level + 3);
                text.push_str(&format!(
                    "{margin}({name}): Sequential(\n{steps}{margin})\n"
                ));
            }
            text.push_str(&format!("{})\n{})", margin(1), margin(0)));
            return text;
        }
    };
    format!("{}({})", model.step_type(step), python(&settings))
}

fn mapping(mapping: &RouteMapping) -> String {
    let text = |text: &Option<String>| text.as_deref().map_or("None".to_owned(), quoted);
    let modality = match &mapping.modality {
        None => "None".to_owned(),
        Some(Modality::One(name)) => quoted(name),
        Some(Modality::Many(names)) => {
            let names: Vec<String> = names.iter().map(|name| quoted(name)).collect();
            match names.as_slice() {
                [only] => format!("({only},)"),
                names => format!("({})", names.join(", ")),
            }
        }
    };
    let (task, route) = (text(&mapping.task), quoted(&mapping.route));
    format!("({task}, {modality}): {route}")
}

fn input_settings(config: &EncoderConfig, fields: &Map<String, Value>) -> Value {
    if config.is_static() {
        return json!({});
    }
    let model_type = fields.get("model_type").and_then(Value::as_str);
    let model_type = model_type.unwrap_or_else(|| config.model_type());
    let known = CLASSES.iter().find(|(known, _)| *known == model_type);
    json!({
        "transformer_task": "feature-extraction",
        "modality_config": {
            "text": { "method": "forward", "method_output_name": "last_hidden_state" },
        },
        "module_output_name": "token_embeddings",
        "architecture": known.map_or(model_type, |(_, class)| class),
    })
}

fn module_settings<B: Backend>(module: &SentenceModule<B>) -> Value {
    match module {
        SentenceModule::Pooling(pooling) => pooling_settings(pooling.config()),
        SentenceModule::WeightedLayerPooling(pooling) => {
            let config = pooling.config();
            json!({
                "embedding_dimension": config.embedding_dimension,
                "layer_start": config.layer_start,
                "num_hidden_layers": config.num_hidden_layers,
            })
        }
        SentenceModule::Dense(dense) => dense_settings(dense.config()),
        SentenceModule::LayerNorm(norm) => json!({ "dimension": norm.config().dimension }),
        SentenceModule::Dropout(dropout) => json!({ "dropout": dropout.config().dropout }),
        SentenceModule::Normalize(normalize) => {
            let config = normalize.config();
            json!({
                "module_input_name": config.module_input_name,
                "module_output_name": config.output_name(),
            })
        }
    }
}

fn pooling_settings(config: &PoolingConfig) -> Value {
    let modes: Vec<&str> = config.modes.iter().map(|mode| mode.name()).collect();
    json!({
        "embedding_dimension": config.embedding_dimension,
        "pooling_mode": match modes.as_slice() {
            [mode] => json!(mode),
            modes => json!(modes),
        },
        "include_prompt": config.include_prompt,
    })
}

fn dense_settings(config: &DenseConfig) -> Value {
    let mut settings = json!({
        "in_features": config.in_features,
        "out_features": config.out_features,
        "bias": config.bias,
        "activation_function": config.activation_function,
        "module_input_name": config.module_input_name,
        "module_output_name": config.output_name(),
    });
    if config.use_residual {
        settings["use_residual"] = true.into();
    }
    settings
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use super::*;
    use crate::backend_under_test::TestBackend;

    fn fixture(path: &str) -> String {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
        fixtures.join(path).to_string_lossy().into_owned()
    }

    fn model(path: &str) -> SentenceTransformer<TestBackend> {
        SentenceTransformer::load(fixture(path), &Default::default()).unwrap()
    }

    #[test]
    fn every_module_is_printed_as_python_prints_it() {
        let path = fixture("model_card/architectures.json");
        let expected: Map<String, Value> =
            serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap();
        assert_eq!(expected.len(), 6);
        for (name, printed) in &expected {
            assert_eq!(
                architecture(&model(name)),
                printed.as_str().unwrap(),
                "{name}"
            );
        }
        let other = &expected["modules/static"];
        assert_ne!(
            architecture(&model("modules/router")),
            other.as_str().unwrap()
        );
    }
}
