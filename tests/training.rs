//! Training on the tiny BERT of tests/fixtures, beside what Python's trainer did with it.

#![cfg(all(feature = "train", feature = "ndarray"))]

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use burn::backend::{Autodiff, NdArray};
use burn::tensor::{Tensor, TensorData};
use safetensors::SafeTensors;
use sentence_burn::error::{AdapterError, LossError, TrainingError};
use sentence_burn::evaluation::{Evaluator, Metrics};
use sentence_burn::loss::{
    CachedLoss, Loss, MultipleNegativesRankingLoss, MultipleNegativesRankingLossConfig,
};
use sentence_burn::repo::LoadAdapterOptions;
use sentence_burn::training::{
    BatchSampler, Checkpoint, Dataset, History, Trained, Trainer, TrainingArguments, TrainingEvent,
    plot_history,
};
use sentence_burn::{
    Error, LoraConfig, ModuleNames, Result, SentenceTransformer, SimilarityFunction,
};
use serde_json::Value;

type B = Autodiff<NdArray>;
type Model = SentenceTransformer<B>;

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(path)
}

fn json(path: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(fixture(path)).unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<f64> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|v| v.as_f64().unwrap())
        .collect()
}

/// Named tensors of a safetensors file.
struct Tensors(Vec<u8>);

impl Tensors {
    fn read(path: &Path) -> Self {
        Self(fs::read(path).unwrap())
    }

    fn data(&self, name: &str) -> TensorData {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        let view = file.tensor(name).unwrap();
        let values: Vec<f32> = view
            .data()
            .chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect();
        TensorData::new(values, view.shape().to_vec())
    }

    fn values(&self, name: &str) -> Vec<f32> {
        self.data(name).to_vec().unwrap()
    }

    fn names(&self) -> Vec<String> {
        let file = SafeTensors::deserialize(&self.0).unwrap();
        file.names().into_iter().map(str::to_owned).collect()
    }
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

/// NdArray has one generator for all threads: runs that draw from it go one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn base() -> Model {
    Model::load(fixture("tiny_bert/v6"), &Default::default()).unwrap()
}

/// The base with the adapter that the Python run starts from.
fn model() -> Model {
    let mut model = base();
    let options = LoadAdapterOptions {
        is_trainable: true,
        ..Default::default()
    };
    model
        .load_adapter_with(fixture("training_curve/initial"), &options)
        .unwrap();
    model
}

fn pairs() -> Dataset {
    Dataset::from_jsonl(fixture("training_curve/pairs.jsonl")).unwrap()
}

fn mnrl() -> MultipleNegativesRankingLoss {
    MultipleNegativesRankingLossConfig::default()
        .init()
        .unwrap()
}

/// Sums an embedding up; fails when it is asked for the `at`-th time, counted from 0.
struct Failing {
    at: usize,
    calls: AtomicUsize,
}

impl Failing {
    fn at(at: usize) -> Self {
        Self {
            at,
            calls: AtomicUsize::new(0),
        }
    }
}

impl Evaluator<NdArray> for Failing {
    fn name(&self) -> &str {
        ""
    }

    fn primary_metric(&self, _: &SentenceTransformer<NdArray>) -> String {
        "sum".to_owned()
    }

    fn evaluate(&self, model: &SentenceTransformer<NdArray>) -> Result<Metrics> {
        if self.calls.fetch_add(1, Ordering::SeqCst) == self.at {
            return Err(TrainingError::NothingTrainable.into());
        }
        let sum = model.encode(&["the quick fox"])?.sum().into_scalar();
        Ok([("sum", f64::from(sum)), ("undefined", f64::NAN)]
            .into_iter()
            .collect())
    }
}

/// The arguments of the Python run.
fn curve_arguments(output_dir: &Path) -> TrainingArguments {
    TrainingArguments {
        output_dir: output_dir.to_owned(),
        num_train_epochs: 1.0,
        per_device_train_batch_size: 4,
        learning_rate: 5e-3,
        warmup_ratio: 0.1,
        batch_sampler: BatchSampler::Sequential,
        dropout: false,
        save_steps: None,
        ..Default::default()
    }
}

/// Short runs with everything that is random: dropout and a drawn order.
fn random_arguments(output_dir: &Path) -> TrainingArguments {
    TrainingArguments {
        max_steps: Some(12),
        per_device_train_batch_size: 8,
        batch_sampler: BatchSampler::NoDuplicates,
        dropout: true,
        save_steps: Some(5),
        ..curve_arguments(output_dir)
    }
}

fn adapter(model: &Model) -> Vec<(String, Vec<f32>)> {
    let tensors = model.get_adapter_state_dict(None).unwrap();
    tensors
        .iter()
        .map(|(key, data)| (key.to_owned(), data.to_vec().unwrap()))
        .collect()
}

fn weights_distance(trained: &Model, expected: &Tensors, prefix: &str) -> f32 {
    let adapter = adapter(trained);
    assert_eq!(adapter.len(), 8);
    adapter.iter().fold(0.0, |worst, (key, values)| {
        let expected = expected.values(&format!("{prefix}.base_model.model.{key}"));
        worst.max(distance(values, &expected))
    })
}

fn furthest(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    found
        .iter()
        .zip(expected)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f64::max)
}

#[test]
fn ranking_loss_and_gradients_are_pythons() {
    let tensors = Tensors::read(&fixture("mnrl/expected.safetensors"));
    let columns = ["anchor", "positive", "negative", "negative_2"];
    let run = |count: usize, scale: f64, similarity: SimilarityFunction| {
        let loss = MultipleNegativesRankingLossConfig { scale, similarity }
            .init()
            .unwrap();
        let inputs: Vec<Tensor<B, 2>> = columns[..count]
            .iter()
            .map(|name| Tensor::from_data(tensors.data(name), &Default::default()).require_grad())
            .collect();
        let value: Tensor<B, 1> = loss.forward(inputs.clone(), None);
        let gradients = value.backward();
        let value: Vec<f32> = value.into_data().to_vec().unwrap();
        let of_inputs: Vec<Vec<f32>> = inputs
            .iter()
            .map(|input| {
                input
                    .grad(&gradients)
                    .unwrap()
                    .into_data()
                    .to_vec()
                    .unwrap()
            })
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
        let expected = tensors.values(&format!("{name}.loss"));
        assert!(
            distance(&value, &expected) < 1e-5,
            "{name}: {value:?} for {expected:?}"
        );
        for (column, gradient) in columns.iter().zip(&gradients) {
            let expected = tensors.values(&format!("{name}.grad.{column}"));
            assert!(
                distance(gradient, &expected) < 1e-5,
                "{name}: gradient of {column}"
            );
        }
    }
    // Another scale is told apart, in value and gradient.
    let (value, gradients) = run(2, 1.0, SimilarityFunction::Cosine);
    assert!(distance(&value, &tensors.values("pairs.loss")) > 1e-2);
    assert!(distance(&gradients[0], &tensors.values("pairs.grad.anchor")) > 1e-2);
}

#[test]
fn twenty_steps_are_pythons() {
    let _alone = alone();
    let expected = json("training_curve/expected.json");
    let tensors = Tensors::read(&fixture("training_curve/expected.safetensors"));
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
    assert!(loss_distance < 1e-4, "{losses:?}");
    assert!(norm_distance < 1e-3, "{norms:?}");
    assert!(weights < 1e-4);
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
            furthest(&control.history.losses(), &theirs) < 1e-3,
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

#[test]
fn only_the_adapter_moves() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let embed = |model: &Model| -> Vec<f32> {
        let texts = ["the quick fox", "a lazy dog at the station"];
        model.encode(&texts).unwrap().into_data().to_vec().unwrap()
    };
    let before = model();
    let mut after = Trainer::new(before.clone(), curve_arguments(dir.path()), pairs(), mnrl())
        .train()
        .unwrap()
        .model;
    assert_ne!(embed(&before), embed(&after));
    after.disable_adapters().unwrap();
    assert_eq!(embed(&after), embed(&base()));
    after.enable_adapters().unwrap();
    // What is trained is still known to be: another run may follow.
    assert_eq!(after.named_trainable().len(), 8);
}

#[test]
fn history_is_on_disk_step_by_step() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.jsonl");
    let lines = Arc::new(Mutex::new(Vec::new()));
    let (seen, watched) = (lines.clone(), path.clone());
    let trained = Trainer::new(model(), curve_arguments(dir.path()), pairs(), mnrl())
        .with_listener(move |event| {
            if let TrainingEvent::Step {
                record,
                total_steps,
            } = event
            {
                let written = fs::read_to_string(&watched).unwrap();
                assert!(written.ends_with('\n'));
                seen.lock()
                    .unwrap()
                    .push((record.step, written.lines().count(), total_steps));
            }
        })
        .train()
        .unwrap();
    let expected: Vec<_> = (1..=20).map(|step| (step, step, 20)).collect();
    assert_eq!(*lines.lock().unwrap(), expected);
    let read = History::read(&path).unwrap();
    assert!(furthest(&read.losses(), &trained.history.losses()) < 1e-12);
    assert!(plot_history(&read, &trained.evaluations).contains("Learning rate"));
    // Nothing else is left in the folder: no logs of burn-train's, no checkpoints.
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn a_run_that_was_cut_off_continues_as_if_it_had_not_been() {
    let _alone = alone();
    let (whole, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let train = |arguments| Trainer::new(model(), arguments, pairs(), mnrl());
    let uninterrupted = train(random_arguments(whole.path())).train().unwrap();

    // The evaluator fails at step 8, three steps after the only checkpoint so far.
    let arguments = TrainingArguments {
        eval_steps: Some(4),
        ..random_arguments(cut.path())
    };
    let error = train(arguments)
        .with_evaluator(Failing::at(2))
        .train()
        .unwrap_err();
    assert!(matches!(
        error,
        Error::Training(TrainingError::NothingTrainable)
    ));
    let history = cut.path().join("history.jsonl");
    assert_eq!(History::read(&history).unwrap().records().len(), 8);
    // What a kill in the middle of writing leaves behind.
    let text = fs::read_to_string(&history).unwrap();
    fs::write(&history, format!("{text}{{\"step\":9,\"ep")).unwrap();
    let unfinished = cut.path().join(".checkpoint-8.unfinished");
    fs::create_dir(&unfinished).unwrap();
    fs::write(unfinished.join("trainer_state.json"), "{").unwrap();
    fs::create_dir(cut.path().join("checkpoint-9")).unwrap();

    let resumed = train(random_arguments(cut.path())).resume().unwrap();
    assert_eq!(resumed.history.losses(), uninterrupted.history.losses());
    assert_eq!(adapter(&resumed.model), adapter(&uninterrupted.model));
    assert_eq!((resumed.steps, resumed.finished), (12, true));
    assert_eq!(resumed.samples, uninterrupted.samples - 5 * 8);
    assert_eq!(History::read(&history).unwrap().records().len(), 12);
    assert!(!unfinished.exists());

    // A run that is done has nothing left to do.
    let again = train(random_arguments(cut.path())).resume().unwrap();
    assert_eq!((again.samples, again.finished), (0, true));
    assert_eq!(adapter(&again.model), adapter(&uninterrupted.model));
}

#[test]
fn what_is_random_follows_from_the_seed() {
    let _alone = alone();
    let losses = |change: fn(&mut TrainingArguments)| {
        let dir = tempfile::tempdir().unwrap();
        let mut arguments = random_arguments(dir.path());
        change(&mut arguments);
        let trainer = Trainer::new(model(), arguments, pairs(), mnrl());
        trainer.train().unwrap().history.losses()
    };
    let first = losses(|_| ());
    assert_eq!(first, losses(|_| ()));
    assert_ne!(first, losses(|arguments| arguments.seed = 43));
    assert_ne!(first, losses(|arguments| arguments.dropout = false));
}

#[test]
fn a_checkpoint_of_another_run_is_refused() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let train = |arguments| Trainer::new(model(), arguments, pairs(), mnrl());
    train(random_arguments(dir.path())).train().unwrap();
    let seed = TrainingArguments {
        seed: 7,
        ..random_arguments(dir.path())
    };
    let batch = TrainingArguments {
        per_device_train_batch_size: 4,
        ..random_arguments(dir.path())
    };
    for (arguments, named) in [(seed, "`seed`"), (batch, "`per_device_train_batch_size`")] {
        let Err(Error::Training(TrainingError::CheckpointMismatch { reason, .. })) =
            train(arguments).resume()
        else {
            panic!("{named} may differ");
        };
        assert!(reason.contains(named), "{reason}");
    }
    // Other parameters: a fresh adapter on other layers.
    let mut other = base();
    let config = LoraConfig {
        r: 4,
        target_modules: Some(ModuleNames::List(vec!["key".to_owned()])),
        ..Default::default()
    };
    other.add_adapter(config).unwrap();
    assert!(matches!(
        Trainer::new(other, random_arguments(dir.path()), pairs(), mnrl()).resume(),
        Err(Error::Training(TrainingError::CheckpointMismatch { .. }))
    ));

    // A run that starts anew in the same folder does not go on with what it finds there.
    let fresh = TrainingArguments {
        max_steps: Some(3),
        save_steps: None,
        seed: 7,
        ..random_arguments(dir.path())
    };
    train(fresh.clone()).train().unwrap();
    assert_eq!(Checkpoint::last_in(dir.path()).unwrap(), None);
    assert_eq!(train(fresh).resume().unwrap().samples, 24);
}

#[test]
fn checkpoints_hold_what_is_trained_and_are_rotated() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let arguments = TrainingArguments {
        save_steps: Some(2),
        save_total_limit: Some(2),
        max_steps: Some(7),
        ..random_arguments(dir.path())
    };
    let trained = Trainer::new(model(), arguments.clone(), pairs(), mnrl())
        .train()
        .unwrap();
    let left = |dir: &Path| {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(
        left(dir.path()),
        ["checkpoint-6", "checkpoint-7", "history.jsonl"]
    );

    let last = Checkpoint::last_in(dir.path()).unwrap().unwrap();
    assert_eq!(last.state().record.step, 7);
    assert!(last.path().join("adapter_model.safetensors").exists());
    assert!(!last.path().join("model.safetensors").exists());
    let state = Tensors::read(&last.path().join("training_state.safetensors"));
    assert_eq!(state.names().len(), 8 * 4);
    assert!(state.names().iter().all(|name| name.contains("lora_")));

    // It is a model: the one that training ended with.
    let loaded = Model::load(last.path(), &Default::default()).unwrap();
    assert_eq!(adapter(&loaded), adapter(&trained.model));

    // A longer run goes on from there, and knows the checkpoints before it.
    let longer = TrainingArguments {
        max_steps: Some(9),
        ..arguments
    };
    let longer = Trainer::new(model(), longer, pairs(), mnrl())
        .resume()
        .unwrap();
    assert_eq!((longer.steps, longer.samples), (9, 16));
    assert_eq!(
        left(dir.path()),
        ["checkpoint-8", "checkpoint-9", "history.jsonl"]
    );
}

#[test]
fn a_whole_model_trains_and_continues_too() {
    let _alone = alone();
    let (whole, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let arguments = |dir: &Path| TrainingArguments {
        learning_rate: 1e-3,
        weight_decay: 0.01,
        save_steps: Some(3),
        max_steps: Some(6),
        ..random_arguments(dir)
    };
    let train = |arguments| Trainer::new(base(), arguments, pairs(), mnrl());
    let uninterrupted = train(arguments(whole.path())).train().unwrap();
    let evaluated = TrainingArguments {
        eval_steps: Some(5),
        ..arguments(cut.path())
    };
    assert!(
        train(evaluated)
            .with_evaluator(Failing::at(1))
            .train()
            .is_err()
    );
    let resumed = train(arguments(cut.path())).resume().unwrap();
    assert_eq!(resumed.history.losses(), uninterrupted.history.losses());

    let embed = |model: &Model| -> Vec<f32> {
        model
            .encode(&["the quick fox"])
            .unwrap()
            .into_data()
            .to_vec()
            .unwrap()
    };
    assert_eq!(embed(&resumed.model), embed(&uninterrupted.model));
    let checkpoint = Model::load(cut.path().join("checkpoint-6"), &Default::default()).unwrap();
    assert!(distance(&embed(&checkpoint), &embed(&uninterrupted.model)) < 1e-6);
    assert!(distance(&embed(&base()), &embed(&uninterrupted.model)) > 1e-3);
}

#[test]
fn embedding_in_parts_gives_the_same_steps() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let arguments = || TrainingArguments {
        max_steps: Some(5),
        ..curve_arguments(dir.path())
    };
    let plain = Trainer::new(model(), arguments(), pairs(), mnrl())
        .train()
        .unwrap();
    for mini_batch_size in [1, 3, 4, 100] {
        let cached = CachedLoss::new(mnrl(), mini_batch_size).unwrap();
        let cached = Trainer::new(model(), arguments(), pairs(), cached)
            .train()
            .unwrap();
        assert!(furthest(&cached.history.losses(), &plain.history.losses()) < 1e-5);
        for ((_, a), (_, b)) in adapter(&cached.model).iter().zip(&adapter(&plain.model)) {
            assert!(distance(a, b) < 1e-4, "mini-batches of {mini_batch_size}");
        }
    }
}

#[test]
fn accumulated_batches_are_averaged() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let first = |arguments: TrainingArguments| {
        let arguments = TrainingArguments {
            max_steps: Some(2),
            ..arguments
        };
        let trained = Trainer::new(model(), arguments, pairs(), mnrl())
            .train()
            .unwrap();
        trained.history.records().to_vec()
    };
    let frozen = || TrainingArguments {
        learning_rate: 0.0,
        ..curve_arguments(dir.path())
    };
    let single = first(frozen());
    let double = first(TrainingArguments {
        gradient_accumulation_steps: 2,
        ..frozen()
    });
    let mean = (single[0].loss + single[1].loss) / 2.0;
    assert!((double[0].loss - mean).abs() < 1e-6);
    assert!((single[0].loss - mean).abs() > 1e-2);
    assert!(double[0].grad_norm < single[0].grad_norm.max(single[1].grad_norm));
}

#[test]
fn evaluates_before_between_and_after() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let arguments = TrainingArguments {
        eval_steps: Some(5),
        ..random_arguments(dir.path())
    };
    let trained = Trainer::new(model(), arguments, pairs(), mnrl())
        .with_evaluator(Failing::at(usize::MAX))
        .train()
        .unwrap();
    let steps: Vec<usize> = trained
        .evaluations
        .iter()
        .map(|record| record.step)
        .collect();
    assert_eq!(steps, [0, 5, 10, 12]);
    let sums: Vec<_> = trained
        .evaluations
        .iter()
        .map(|record| record.score())
        .collect();
    assert!(sums.windows(2).all(|pair| pair[0] != pair[1]), "{sums:?}");
    // An undefined metric does not spoil the checkpoint that it is in.
    let last = Checkpoint::last_in(dir.path()).unwrap().unwrap();
    assert_eq!(last.state().evaluations.len(), 3);
}

/// The error of a run that cannot start; nothing is written then.
fn refused(model: Model, change: fn(&mut TrainingArguments), dataset: Dataset) -> Error {
    let dir = tempfile::tempdir().unwrap();
    let output_dir = dir.path().join("run");
    let mut arguments = random_arguments(&output_dir);
    change(&mut arguments);
    let error = Trainer::new(model, arguments, dataset, mnrl())
        .train()
        .unwrap_err();
    assert!(!output_dir.exists());
    error
}

#[test]
fn what_cannot_be_trained_is_named() {
    let _alone = alone();
    let mut frozen = base();
    frozen
        .load_adapter(fixture("training_curve/initial"))
        .unwrap();
    assert!(matches!(
        refused(frozen, |_| (), pairs()),
        Error::Training(TrainingError::NothingTrainable)
    ));
    assert!(matches!(
        refused(model(), |_| (), Dataset::from_pairs::<String, String>([])),
        Error::Training(TrainingError::EmptyDataset { .. })
    ));
    assert!(matches!(
        refused(model(), |arguments| arguments.adam_beta1 = 2.0, pairs()),
        Error::Training(TrainingError::InvalidArgument {
            argument: "adam_beta1",
            ..
        })
    ));
    let single = Dataset::from_columns([("text", vec!["one".to_owned()])]).unwrap();
    assert!(matches!(
        refused(model(), |_| (), single),
        Error::Loss(LossError::Columns { found: 1, .. })
    ));
    let mut two = model();
    two.add_named_adapter("second", LoraConfig::default())
        .unwrap();
    two.set_adapter(&["default", "second"]).unwrap();
    assert!(matches!(
        refused(two, |_| (), pairs()),
        Error::Adapter(AdapterError::NotOneActive { .. })
    ));
}

#[test]
fn a_loss_that_is_no_number_ends_the_run() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let arguments = TrainingArguments {
        learning_rate: 1e30,
        warmup_ratio: 0.0,
        max_grad_norm: 0.0,
        ..curve_arguments(dir.path())
    };
    let error = Trainer::new(model(), arguments, pairs(), mnrl())
        .train()
        .unwrap_err();
    assert!(
        matches!(error, Error::Training(TrainingError::NotFinite { .. })),
        "{error}"
    );
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let _alone = alone();
    let file = tempfile::NamedTempFile::new().unwrap();
    let arguments = curve_arguments(&file.path().join("run"));
    let error = Trainer::new(model(), arguments, pairs(), mnrl())
        .train()
        .unwrap_err();
    assert!(matches!(
        error,
        Error::Training(TrainingError::Io {
            action: "create",
            ..
        })
    ));
}

#[test]
fn a_checkpoint_that_cannot_be_written_ends_the_run() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    // A file where the checkpoint's folder would be made.
    let blocked = dir.path().join(".checkpoint-5.unfinished");
    let arguments = random_arguments(dir.path());
    let result: Result<Trained<B>> = Trainer::new(model(), arguments, pairs(), mnrl())
        .with_listener(move |event| {
            if let TrainingEvent::Step { record, .. } = event
                && record.step == 4
            {
                fs::write(&blocked, "in the way").unwrap();
            }
        })
        .train();
    assert!(matches!(
        result,
        Err(Error::Training(TrainingError::Io { .. }))
    ));
    assert_eq!(
        History::read(dir.path().join("history.jsonl"))
            .unwrap()
            .records()
            .len(),
        5
    );
}
