//! The ranking loss and a training run against Sentence Transformers' trainer.

use std::path::Path;

use burn::tensor::Tensor;
use sentence_burn::loss::{
    Loss, LossInput, MultipleNegativesRankingLoss, MultipleNegativesRankingLossConfig,
};
use sentence_burn::training::{BatchSampler, Dataset, SaveStrategy, Trainer, TrainingArguments};
use sentence_burn::{LoadAdapterOptions, SentenceTransformer, SimilarityFunction};
use serde_json::Value;

use crate::backend_under_test::{TestAutodiffBackend, device};
use crate::fixture::{Expected, ON_A_GPU, TOLERANCE, json, path, values};

type B = TestAutodiffBackend;
pub(crate) type Model = SentenceTransformer<B>;

/// The tolerance of losses and weights after some steps.
pub(crate) const CURVE_TOLERANCE: f64 = if ON_A_GPU { 1e-3 } else { 1e-4 };

fn numbers(value: &Value) -> Vec<f64> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_f64().unwrap())
        .collect()
}

/// The largest difference, relative to the largest expected value.
fn distance(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0f32, |most, v| most.max(v.abs()));
    let worst = found
        .iter()
        .zip(expected)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max);
    worst / largest
}

fn furthest(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    found
        .iter()
        .zip(expected)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f64::max)
}

/// The base with the adapter that the Python run starts from.
pub(crate) fn model() -> Model {
    let mut model = Model::load(path("tiny_bert/v6"), &device()).unwrap();
    let options = LoadAdapterOptions {
        is_trainable: true,
        ..Default::default()
    };
    model
        .load_adapter_with(path("training_curve/initial"), &options)
        .unwrap();
    model
}

pub(crate) fn pairs() -> Dataset {
    Dataset::from_jsonl(path("training_curve/pairs.jsonl")).unwrap()
}

pub(crate) fn mnrl() -> MultipleNegativesRankingLoss {
    MultipleNegativesRankingLossConfig::default()
        .init()
        .unwrap()
}

/// The arguments of the Python run.
pub(crate) fn curve_arguments(output_dir: &Path) -> TrainingArguments {
    TrainingArguments {
        output_dir: output_dir.to_owned(),
        num_train_epochs: 1.0,
        per_device_train_batch_size: 4,
        learning_rate: 5e-3,
        warmup_ratio: 0.1,
        batch_sampler: BatchSampler::Sequential,
        dropout: false,
        save_strategy: SaveStrategy::No,
        ..Default::default()
    }
}

fn weights_distance(trained: &Model, expected: &Expected, prefix: &str) -> f32 {
    let adapter = trained.get_adapter_state_dict(None).unwrap();
    assert_eq!(adapter.len(), 8);
    adapter.iter().fold(0.0f32, |worst, (key, data)| {
        let values: Vec<f32> = data.to_vec().unwrap();
        let expected = expected.get(&format!("{prefix}.base_model.model.{key}"));
        worst.max(distance(&values, &expected))
    })
}

#[test]
fn ranking_loss_and_gradients_are_pythons() {
    let tensors = Expected::read("mnrl/expected.safetensors");
    let columns = ["anchor", "positive", "negative", "negative_2"];
    let run = |count: usize, scale: f64, similarity: SimilarityFunction| {
        let loss = MultipleNegativesRankingLossConfig {
            scale,
            similarity,
            ..Default::default()
        };
        let inputs: Vec<Tensor<B, 2>> = columns[..count]
            .iter()
            .map(|name| Tensor::from_data(tensors.data(name), &device()).require_grad())
            .collect();
        let value: Tensor<B, 1> = loss.init().unwrap().forward(LossInput::new(inputs.clone()));
        let gradients = value.backward();
        let value = values(value.inner());
        let of_inputs: Vec<Vec<f32>> = inputs
            .iter()
            .map(|input| values(input.grad(&gradients).unwrap()))
            .collect();
        (value, of_inputs)
    };
    let cases = json("mnrl/expected.json");
    for (name, case) in cases["cases"].as_object().unwrap() {
        let count = case["columns"].as_u64().unwrap() as usize;
        let scale = case["scale"].as_f64().unwrap();
        let similarity =
            SimilarityFunction::from_name(case["similarity"].as_str().unwrap()).unwrap();
        let (value, gradients) = run(count, scale, similarity);
        let expected = tensors.get(&format!("{name}.loss"));
        assert!(
            distance(&value, &expected) < TOLERANCE,
            "{name}: {value:?} for {expected:?}"
        );
        for (column, gradient) in columns.iter().zip(&gradients) {
            let expected = tensors.get(&format!("{name}.grad.{column}"));
            assert!(
                distance(gradient, &expected) < TOLERANCE,
                "{name}: gradient of {column}"
            );
        }
    }
    // Another scale is told apart, in value and gradient.
    let (value, gradients) = run(2, 1.0, SimilarityFunction::Cosine);
    assert!(distance(&value, &tensors.get("pairs.loss")) > 1e-2);
    assert!(distance(&gradients[0], &tensors.get("pairs.grad.anchor")) > 1e-2);
}

#[test]
fn twenty_steps_are_pythons() {
    let expected = json("training_curve/expected.json");
    let tensors = Expected::read("training_curve/expected.safetensors");
    let dir = tempfile::tempdir().unwrap();
    let train = |arguments: TrainingArguments| {
        Trainer::new(model(), arguments, pairs(), mnrl())
            .train()
            .unwrap()
    };

    let trained = train(curve_arguments(dir.path()));
    let records = trained.history.records();
    let losses = trained.history.losses();
    let rates: Vec<f64> = records.iter().map(|record| record.learning_rate).collect();
    let norms: Vec<f64> = records.iter().map(|record| record.grad_norm).collect();
    assert!(trained.finished && trained.steps == 20 && trained.samples == 80);
    let loss_distance = furthest(&losses, &numbers(&expected["loss"]));
    let norm_distance = furthest(&norms, &numbers(&expected["grad_norm"]));
    let weights = weights_distance(&trained.model, &tensors, "final");
    println!("loss within {loss_distance:e}, norm {norm_distance:e}, weights {weights:e}");
    assert!(loss_distance < CURVE_TOLERANCE, "{losses:?}");
    assert!(norm_distance < 10.0 * CURVE_TOLERANCE, "{norms:?}");
    assert!(f64::from(weights) < CURVE_TOLERANCE);
    assert!(
        furthest(&rates, &numbers(&expected["learning_rate"])) < 1e-12,
        "{rates:?}"
    );
    assert_eq!(rates[0], 0.0);

    // What a mistake would have given: Python made it too, and it is told apart.
    let without_clipping = TrainingArguments {
        max_grad_norm: 0.0,
        ..curve_arguments(dir.path())
    };
    let without_warmup = TrainingArguments {
        warmup_ratio: 0.0,
        ..curve_arguments(dir.path())
    };
    for (name, arguments) in [
        ("no_clipping", without_clipping),
        ("no_warmup", without_warmup),
    ] {
        let control = train(arguments);
        let theirs = numbers(&expected["controls"][name]["loss"]);
        assert!(
            furthest(&control.history.losses(), &theirs) < 10.0 * CURVE_TOLERANCE,
            "{name}"
        );
        assert!(
            furthest(&control.history.losses(), &losses) > 1e-2,
            "{name}"
        );
        assert!(
            weights_distance(&control.model, &tensors, "final") > 1e-2,
            "{name}"
        );
    }
    let each = &expected["controls"]["clip_each_tensor"]["loss"];
    assert!(furthest(&losses, &numbers(each)) > 1e-2);
}
