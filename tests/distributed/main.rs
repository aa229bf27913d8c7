//! Burn's distributed data parallel, on a stand-in for the devices that it is for: what
//! several workers come to is what one does with all their batches.

mod ends;
mod host;
mod runs;
mod stand_in;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::backend::Autodiff;
use sentence_burn::evaluation::{Evaluator, Metrics};
use sentence_burn::loss::{AnyLoss, MultipleNegativesRankingLossConfig};
use sentence_burn::repo::LoadAdapterOptions;
use sentence_burn::training::{
    BatchSampler, Dataset, SaveStrategy, Trained, Trainer, TrainingArguments,
};
use sentence_burn::{Result, SentenceTransformer};

use stand_in::{StandIn, StandInDevice};

type B = Autodiff<StandIn>;
type Model = SentenceTransformer<B>;
type Loss = AnyLoss<B>;
type Run = Trained<B, Loss>;

const TWO: [StandInDevice; 2] = [StandInDevice(0), StandInDevice(1)];

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(path)
}

/// The devices are the same for all tests.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn model() -> Model {
    let mut model = Model::load(fixture("tiny_bert/v6"), &TWO[0]).unwrap();
    let options = LoadAdapterOptions {
        is_trainable: true,
        ..Default::default()
    };
    model
        .load_adapter_with(fixture("training_curve/initial"), &options)
        .unwrap();
    model
}

fn file() -> PathBuf {
    fixture("training_curve/pairs.jsonl")
}

fn pairs() -> Dataset {
    Dataset::from_jsonl(file()).unwrap()
}

fn mnrl() -> Loss {
    let config = MultipleNegativesRankingLossConfig::default();
    config.init().unwrap().into()
}

/// Eighty pairs in file order: ten steps of two workers' batches of four.
fn arguments(output_dir: &Path) -> TrainingArguments {
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

fn trainer(arguments: TrainingArguments) -> Trainer<B, Loss> {
    Trainer::new(model(), arguments, pairs(), mnrl())
}

/// Gives one score after the other, and panics or fails at a score that is none.
struct Scripted {
    scores: Mutex<Vec<f64>>,
}

impl Scripted {
    /// These scores; the first is asked for before the first step.
    fn new(scores: &[f64]) -> Self {
        let scores = Mutex::new(scores.iter().rev().copied().collect());
        Self { scores }
    }
}

/// A score at which the evaluator fails.
const FAILS: f64 = f64::NEG_INFINITY;
/// A score at which the evaluator panics.
const PANICS: f64 = f64::INFINITY;

impl Evaluator<StandIn> for Scripted {
    fn name(&self) -> &str {
        ""
    }

    fn primary_metric(&self, _: &SentenceTransformer<StandIn>) -> String {
        "score".to_owned()
    }

    fn evaluate(&self, _: &SentenceTransformer<StandIn>) -> Result<Metrics> {
        let score = self.scores.lock().unwrap().pop().unwrap_or(0.0);
        if score == FAILS {
            return Err(sentence_burn::error::TrainingError::NothingTrainable.into());
        }
        assert!(score != PANICS, "on purpose");
        Ok([("score", score)].into_iter().collect())
    }
}

fn adapter(model: &Model) -> Vec<(String, Vec<f32>)> {
    let tensors = model.get_adapter_state_dict(None).unwrap();
    tensors
        .iter()
        .map(|(key, data)| (key.to_owned(), data.to_vec().unwrap()))
        .collect()
}

/// The largest difference of the losses of two runs, relative, and that of their adapters.
fn difference(a: &Run, b: &Run) -> (f64, f32) {
    let (losses, others) = (a.history.losses(), b.history.losses());
    assert_eq!(losses.len(), others.len());
    let losses = losses.iter().zip(&others);
    let losses = losses.map(|(a, b)| (a - b).abs() / b.abs().max(1e-2));
    let (adapters, others) = (adapter(&a.model), adapter(&b.model));
    let adapters = adapters.iter().zip(&others).map(|((_, a), (_, b))| {
        let largest = b.iter().fold(0f32, |most, v| most.max(v.abs()));
        let apart = a.iter().zip(b).map(|(a, b)| (a - b).abs());
        apart.fold(0.0, f32::max) / largest
    });
    (losses.fold(0.0, f64::max), adapters.fold(0.0, f32::max))
}

fn same(a: &Run, b: &Run) {
    let (losses, adapters) = difference(a, b);
    assert!(losses < 1e-4 && adapters < 1e-3, "{losses} {adapters}");
}
