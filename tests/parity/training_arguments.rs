//! Runs with every kind of argument against Sentence Transformers' trainer.

use std::path::Path;

use sentence_burn::SentenceTransformer;
use sentence_burn::loss::{AnyLoss, CosineSimilarityLoss};
use sentence_burn::training::{
    Dataset, Interval, IntervalStrategy, LrSchedulerType, MultiDatasetBatchSampler, RouterMapping,
    SaveStrategy, Trained, Trainer, TrainingArguments, TrainingPrompts,
};
use serde_json::Value;

use crate::backend_under_test::{TestAutodiffBackend, device};
use crate::fixture::{json, path};
use crate::training::{CURVE_TOLERANCE, curve_arguments, mnrl, model, pairs};

type B = TestAutodiffBackend;

fn arguments(dir: &Path) -> TrainingArguments {
    TrainingArguments {
        warmup_ratio: 0.0,
        ..curve_arguments(dir)
    }
}

/// How far a run is from Python's: losses, rates and gradient norms, whichever is farthest.
fn distance<L>(trained: &Trained<B, L>, expected: &Value) -> f64 {
    let records = trained.history.records();
    let numbers = |name: &str| -> Vec<f64> {
        let values = expected[name].as_array().unwrap().iter();
        values.map(|value| value.as_f64().unwrap()).collect()
    };
    let found: [(&str, Vec<f64>); 3] = [
        ("loss", records.iter().map(|r| r.loss).collect()),
        (
            "learning_rate",
            records.iter().map(|r| r.learning_rate).collect(),
        ),
        ("grad_norm", records.iter().map(|r| r.grad_norm).collect()),
    ];
    let mut furthest = 0f64;
    for (name, found) in found {
        let expected = numbers(name);
        assert_eq!(found.len(), expected.len(), "{name}");
        for (a, b) in found.iter().zip(&expected) {
            furthest = furthest.max((a - b).abs() / b.abs().max(1e-2));
        }
    }
    furthest
}

fn options(dir: &Path) -> TrainingArguments {
    TrainingArguments {
        num_train_epochs: 2.0,
        per_device_eval_batch_size: 8,
        gradient_accumulation_steps: 3,
        lr_scheduler_type: LrSchedulerType::Cosine,
        warmup_steps: 2,
        weight_decay: 0.1,
        learning_rate_mapping: [("lora_B".to_owned(), 2e-2)].into_iter().collect(),
        max_grad_norm: 0.5,
        eval_strategy: IntervalStrategy::Steps,
        eval_steps: Some(Interval::Steps(5)),
        ..arguments(dir)
    }
}

#[test]
fn rates_decay_accumulation_and_evaluation_are_pythons() {
    let expected = &json("training_arguments/expected.json")["runs"]["options"];
    let dir = tempfile::tempdir().unwrap();
    let train = |arguments| {
        let (eval, _) = pairs().split_at(22);
        Trainer::new(model(), arguments, pairs(), mnrl())
            .with_eval_dataset(eval)
            .train()
            .unwrap()
    };
    let trained = train(options(dir.path()));
    let found = distance(&trained, expected);
    assert!(found < CURVE_TOLERANCE, "{found}");
    let evaluations: Vec<(usize, f64)> = trained.evaluations[1..]
        .iter()
        .map(|evaluation| (evaluation.step, evaluation.score().unwrap()))
        .collect();
    let wanted = expected["evaluations"].as_array().unwrap();
    assert_eq!(evaluations.len(), wanted.len());
    for ((step, loss), wanted) in evaluations.iter().zip(wanted) {
        assert_eq!(Some(*step as u64), wanted[0].as_u64());
        let wanted = wanted[1].as_f64().unwrap();
        assert!(
            (loss - wanted).abs() < CURVE_TOLERANCE * wanted,
            "{loss} {wanted}"
        );
    }
    assert_eq!(trained.best.map(|best| best.step), Some(14));

    // Each of them counts.
    type Change = fn(&mut TrainingArguments);
    let controls: [(&str, Change); 4] = [
        ("rates", |a| a.learning_rate_mapping.clear()),
        ("decay", |a| a.weight_decay = 0.0),
        ("clipping", |a| a.max_grad_norm = 0.0),
        ("schedule", |a| {
            a.lr_scheduler_type = LrSchedulerType::Linear
        }),
    ];
    for (name, change) in controls {
        let mut arguments = options(dir.path());
        change(&mut arguments);
        let found = distance(&train(arguments), expected);
        assert!(found > 5.0 * CURVE_TOLERANCE, "{name}: {found}");
    }
}

#[test]
fn prompts_are_pythons() {
    let runs = json("training_arguments/expected.json");
    let expected = &runs["runs"]["prompts"];
    let dir = tempfile::tempdir().unwrap();
    let train = |prompts: Option<&str>| {
        let arguments = TrainingArguments {
            num_train_epochs: 0.5,
            prompts: prompts.map(|json| serde_json::from_str(json).unwrap()),
            ..arguments(dir.path())
        };
        let trained = Trainer::new(model(), arguments, pairs(), mnrl()).train();
        distance(&trained.unwrap(), expected)
    };
    let both = r#"{"anchor": "query: ", "positive": "the passage "}"#;
    let found = train(Some(both));
    assert!(found < CURVE_TOLERANCE, "{found}");
    assert!(train(None) > 1e-2);
    assert!(train(Some(r#""query: ""#)) > 1e-2);
}

#[test]
fn data_sets_in_turn_with_a_loss_each_are_pythons() {
    let runs = json("training_arguments/expected.json");
    let expected = &runs["runs"]["round_robin"];
    let dir = tempfile::tempdir().unwrap();
    let train = |change: fn(&mut TrainingArguments)| {
        let scores = (0..pairs().len()).map(|sample| vec![(sample % 5) as f32 / 4.0]);
        let scored = pairs().with_labels(scores.collect()).unwrap();
        let (plain, _) = pairs().split_at(30);
        let (_, scored) = scored.split_at(30);
        let mut arguments = TrainingArguments {
            num_train_epochs: 2.0,
            multi_dataset_batch_sampler: MultiDatasetBatchSampler::RoundRobin,
            dataloader_drop_last: true,
            prompts: Some(TrainingPrompts::Named(
                [("scored".to_owned(), "query: ".to_owned())].into(),
            )),
            ..arguments(dir.path())
        };
        change(&mut arguments);
        let parts: [(&str, Dataset, AnyLoss<B>); 2] = [
            ("pairs", plain, mnrl().into()),
            ("scored", scored, CosineSimilarityLoss.into()),
        ];
        Trainer::with_losses(model(), arguments, parts)
            .train()
            .unwrap()
    };
    let trained = train(|_| ());
    let found = distance(&trained, expected);
    assert!(found < CURVE_TOLERANCE, "{found}");
    assert_eq!((trained.steps, trained.samples), (28, 112));
    assert!(distance(&train(|a| a.prompts = None), expected) > 1e-2);
}

#[test]
fn without_clipping_or_warm_up_too() {
    let runs = json("training_arguments/expected.json");
    let expected = &runs["runs"]["without_options"];
    let dir = tempfile::tempdir().unwrap();
    let train = |max_grad_norm| {
        let arguments = TrainingArguments {
            max_grad_norm,
            ..arguments(dir.path())
        };
        let trained = Trainer::new(model(), arguments, pairs(), mnrl()).train();
        distance(&trained.unwrap(), expected)
    };
    let found = train(0.0);
    assert!(found < CURVE_TOLERANCE, "{found}");
    assert!(train(1.0) > 1e-2);
}

#[test]
fn a_routers_routes_are_trained_as_in_python() {
    let runs = json("training_arguments/expected.json");
    let expected = &runs["runs"]["router"];
    let dir = tempfile::tempdir().unwrap();
    let run = |mapping: Option<RouterMapping>| {
        let arguments = TrainingArguments {
            num_train_epochs: 0.5,
            router_mapping: mapping,
            save_strategy: SaveStrategy::No,
            ..arguments(dir.path())
        };
        let router = SentenceTransformer::<B>::load(path("modules/router"), &device()).unwrap();
        Trainer::new(router, arguments, pairs(), mnrl()).train()
    };
    let sides =
        |anchor, positive| RouterMapping::by_column([("anchor", anchor), ("positive", positive)]);
    let of = |mapping| distance(&run(Some(mapping)).unwrap(), expected);
    let found = of(sides("query", "document"));
    assert!(found < CURVE_TOLERANCE, "{found}");
    assert!(of(sides("document", "query")) > 1e-2);
    assert!(of(RouterMapping::by_column([("positive", "document")])) > 1e-2);

    for (mapping, told) in [
        (None, "a route for each column"),
        (
            Some(sides("query", "passage")),
            "no route for task `passage`",
        ),
        (
            Some(RouterMapping::by_column([("question", "query")])),
            "question",
        ),
    ] {
        let error = run(mapping).err().map(|error| error.to_string());
        assert!(
            error.as_ref().is_some_and(|error| error.contains(told)),
            "{told}: {error:?}"
        );
    }
}
