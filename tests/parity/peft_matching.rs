//! Which layers a configuration adapts, and how strongly, by peft's rules.

use std::collections::BTreeMap;

use sentence_burn::adapter::{
    AdaptedLayer, EncoderSites, LayerSite, PeftConfig, UpdateConfig, plan_adapter,
};
use sentence_burn::encoder::Layers;
use serde_json::{Map, Value, json};

use crate::backend_under_test::TestBackend;
use crate::fixture::{self, load};

/// Refused by peft for how it wraps layers, not for what is asked; computed here.
const COMPUTED_HERE: [&str; 3] = [
    "saved_over_an_adapter",
    "tokens_over_an_adapter",
    "tokens_of_a_saved_module",
];

/// Rows of a linear layer's weight have no meaning of their own.
const REFUSED_HERE: [&str; 1] = ["tokens_of_a_linear_layer"];

fn sites() -> Vec<LayerSite> {
    let mut sites = Vec::new();
    let mut encoder = load("tiny_bert/v6").encoder().clone();
    let visitor = |path: &str, layer: &mut dyn AdaptedLayer<TestBackend>| {
        sites.push(LayerSite {
            path: path.to_owned(),
            kind: layer.kind(),
        });
        Ok(())
    };
    encoder.visit_layers(&mut Layers(visitor)).unwrap();
    sites
}

/// Of each adapted layer its rank and scale, or whether it is a feed-forward one.
fn adapted(config: &Value, peft_type: &str) -> Result<BTreeMap<String, Value>, String> {
    let mut fields: Map<String, Value> = config.as_object().unwrap().clone();
    fields.insert("peft_type".to_owned(), json!(peft_type));
    let sites = sites();
    let encoder = EncoderSites {
        layers: &sites,
        model_type: "bert",
        default_targets: Some(&["query", "value"]),
    };
    let mut config = PeftConfig::from_json(fields).map_err(|e| e.to_string())?;
    let plan = plan_adapter(&mut config, &encoder).map_err(|e| e.to_string())?;
    let updated = plan.into_iter().filter_map(|(path, layer)| {
        let found = match layer.update? {
            UpdateConfig::LowRank(config) => json!([config.r, config.scaling]),
            UpdateConfig::Table(config) => json!([config.r, config.scaling]),
            UpdateConfig::Rescale(config) => json!(config.feedforward),
            other => panic!("{other:?}"),
        };
        Some((path, found))
    });
    Ok(updated.collect())
}

fn is_equal(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Array(found), Value::Array(expected)) => {
            found.iter().zip(expected).all(|(f, e)| {
                let (f, e) = (f.as_f64().unwrap(), e.as_f64().unwrap());
                (f - e).abs() < 1e-9
            })
        }
        _ => found == expected,
    }
}

#[test]
fn configurations_adapt_the_layers_that_peft_s_do() {
    let cases = fixture::json("peft_matching/expected.json");
    for (kind, peft_type) in [("lora", "LORA"), ("ia3", "IA3")] {
        for (name, case) in cases[kind].as_object().unwrap() {
            let found = adapted(&case["config"], peft_type);
            let refused = case["error"].as_str();
            if COMPUTED_HERE.contains(&name.as_str()) {
                assert!(refused.is_some() && found.is_ok(), "{name}: {found:?}");
                continue;
            }
            if let Some(error) = refused {
                assert!(found.is_err(), "{name}: {found:?}, peft: {error}");
                continue;
            }
            if REFUSED_HERE.contains(&name.as_str()) {
                assert!(found.is_err(), "{name}: {found:?}");
                continue;
            }
            let found = found.unwrap_or_else(|error| panic!("{name}: {error}"));
            let expected = case["adapted"].as_object().unwrap();
            let paths: Vec<&String> = found.keys().collect();
            let mut expected_paths: Vec<&String> = expected.keys().collect();
            expected_paths.sort();
            assert_eq!(paths, expected_paths, "{name}");
            for (path, found) in &found {
                assert!(
                    is_equal(found, &expected[path]),
                    "{name}: {path} is {found}"
                );
            }
        }
    }
}

#[test]
fn another_scale_or_layer_would_be_noticed() {
    let config = json!({ "r": 4, "lora_alpha": 6, "target_modules": ["query"] });
    let found = adapted(&config, "LORA").unwrap();
    let cases = fixture::json("peft_matching/expected.json");
    let expected = cases["lora"]["default_targets"]["adapted"]
        .as_object()
        .unwrap();
    assert_ne!(found.len(), expected.len());
    assert!(!is_equal(&json!([4, 1.5]), &json!([4, 1.6])));
}
