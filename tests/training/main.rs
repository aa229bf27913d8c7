//! How training behaves, on the tiny BERT of tests/fixtures; `tests/parity` holds its numbers.

// Burn trains on no CPU backend with `ddp`: `tests/distributed` has what is special there.
#![cfg(not(feature = "ddp"))]

mod adapters;
mod best;
mod checkpointing;
mod crash;
mod datasets;
mod devices;
mod errors;
mod losses;
mod model_card;
mod resume;
mod steps;
mod streams;
mod together;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::backend::{Autodiff, NdArray};
use sentence_burn::error::TrainingError;
use sentence_burn::evaluation::{Evaluator, Metrics};
use sentence_burn::loss::{MultipleNegativesRankingLoss, MultipleNegativesRankingLossConfig};
use sentence_burn::repo::LoadAdapterOptions;
use sentence_burn::training::{BatchSampler, Dataset, SaveStrategy, TrainingArguments};
use sentence_burn::{Result, SentenceTransformer};

type B = Autodiff<NdArray>;
type Model = SentenceTransformer<B>;

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(path)
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
        save_strategy: SaveStrategy::No,
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
        save_strategy: SaveStrategy::Steps,
        save_steps: 5.into(),
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
