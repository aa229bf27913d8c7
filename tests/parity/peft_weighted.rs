//! Adapters combined into one, against peft's `add_weighted_adapter`.

use sentence_burn::adapter::PeftConfig;
use sentence_burn::adapter::combination::MajoritySignMethod;
use sentence_burn::{
    Combination, CombinationOptions, LoadAdapterOptions, ModuleNames, Result, SentenceTransformer,
};
use serde_json::Value;

use crate::backend_under_test::TestBackend;
use crate::fixture::{self, Expected, assert_close, assert_far, load, path, strings, values};

type Model = SentenceTransformer<TestBackend>;

fn expected() -> Expected {
    Expected::read("peft_weighted/expected.safetensors")
}

fn summary() -> Value {
    fixture::json("peft_weighted/expected.json")
}

fn encode(model: &Model) -> Vec<f32> {
    values(model.encode(&strings(&summary()["texts"])).unwrap())
}

fn with(names: &[String]) -> Model {
    let mut model = load("tiny_bert/v6");
    for name in names {
        let options = LoadAdapterOptions {
            name: name.clone(),
            ..LoadAdapterOptions::default()
        };
        model
            .load_adapter_with(path("peft_weighted").join(name), &options)
            .unwrap();
    }
    model
}

/// The model with the adapters of a call, and those combined as it says, under `combined`.
fn combine(arguments: &Value) -> (Model, Result<()>) {
    let names = strings(&arguments["adapters"]);
    let mut model = with(&names);
    let weights: Vec<f64> = serde_json::from_value(arguments["weights"].clone()).unwrap();
    let adapters: Vec<(&str, f64)> = names.iter().map(String::as_str).zip(weights).collect();
    let combination = arguments["combination_type"].as_str().unwrap_or("svd");
    let options = CombinationOptions {
        density: arguments["density"].as_f64(),
        majority_sign_method: match arguments["majority_sign_method"].as_str() {
            Some("frequency") => MajoritySignMethod::Frequency,
            _ => MajoritySignMethod::Total,
        },
        svd_rank: arguments["svd_rank"].as_u64().map(|rank| rank as usize),
        ..CombinationOptions::default()
    };
    let combination: Combination = combination.parse().unwrap();
    let result = model.add_weighted_adapter(&adapters, "combined", combination, options);
    (model, result)
}

#[test]
fn combinations_embed_as_in_peft() {
    let (expected, summary) = (expected(), summary());
    let base = encode(&load("tiny_bert/v6"));
    for (name, case) in summary["combinations"].as_object().unwrap() {
        let (mut model, result) = combine(&case["arguments"]);
        result.unwrap_or_else(|error| panic!("{name}: {error}"));
        // What was active still is.
        let adapters = strings(&case["arguments"]["adapters"]);
        assert_eq!(
            model.active_adapters().unwrap(),
            adapters[adapters.len() - 1..]
        );
        model.set_adapter(&["combined"]).unwrap();
        let found = encode(&model);
        assert_close(&found, &expected.get(name), name);
        assert_far(&found, &base, name);
        let control = format!("control.{name}.");
        for control in expected
            .keys()
            .iter()
            .filter(|key| key.starts_with(&control))
        {
            assert_far(&found, &expected.get(control), control);
        }
        let config = &model.adapters().get("combined").unwrap().config;
        let result = &case["result"];
        if let PeftConfig::Lora(config) = config {
            assert_eq!(result["r"], config.r, "{name}");
            assert_eq!(
                result["lora_alpha"].as_f64(),
                Some(config.lora_alpha),
                "{name}"
            );
        }
        match config.target_modules() {
            Some(ModuleNames::List(names)) => {
                let mut wanted = strings(&result["target_modules"]);
                wanted.sort();
                // Those of peft, unless they mean layers that none of the adapters is on.
                let is_exact = names.iter().all(|name| name.starts_with("encoder."));
                assert!(names == &wanted || is_exact, "{name}: {names:?}");
            }
            Some(ModuleNames::Pattern(pattern)) => {
                assert_eq!(result["target_modules"], pattern.as_str(), "{name}");
            }
            None => panic!("{name} has no targets"),
        }
    }
}

#[test]
fn the_first_adapter_s_rank_stabilisation_does_not_scale_the_sum() {
    // A defect of peft: with the rank-stabilised one first, its result is √r times too much.
    let defect = &summary()["defects"]["cat_ranks_swapped"];
    let mut arguments = defect.clone();
    arguments["combination_type"] = "cat".into();
    let (mut model, result) = combine(&arguments);
    result.unwrap();
    model.set_adapter(&["combined"]).unwrap();
    let right = expected().get(defect["right"].as_str().unwrap());
    assert_close(&encode(&model), &right, "swapped");
}

#[test]
fn what_does_not_suit_is_refused_and_leaves_no_trace() {
    for (arguments, why) in [
        (
            r#"{"adapters": ["a", "rslora"], "weights": [1, 1], "combination_type": "linear"}"#,
            "ranks",
        ),
        (
            r#"{"adapters": ["a", "rslora"], "weights": [1, 1], "combination_type": "ties", "density": 0.5}"#,
            "ranks",
        ),
        (
            r#"{"adapters": ["a", "b"], "weights": [1, 1], "combination_type": "ties"}"#,
            "density",
        ),
        (
            r#"{"adapters": ["a", "b"], "weights": [1, 1], "combination_type": "ties", "density": -0.5}"#,
            "density",
        ),
        (
            r#"{"adapters": ["a", "regex"], "weights": [1, 1], "combination_type": "cat"}"#,
            "target_modules",
        ),
        (
            r#"{"adapters": ["norm_a", "norm_b"], "weights": [1, 1], "combination_type": "cat"}"#,
            "modules",
        ),
        (
            r#"{"adapters": ["a", "ia3_a"], "weights": [1, 1], "combination_type": "cat"}"#,
            "type",
        ),
    ] {
        let arguments: Value = serde_json::from_str(arguments).unwrap();
        let (model, result) = combine(&arguments);
        let error = result.unwrap_err().to_string();
        assert!(error.contains(why), "{arguments}: {error}");
        assert!(model.adapters().get("combined").is_err());
    }
    assert!("mean".parse::<Combination>().is_err());
}
