use std::time::Duration;

use burn::tensor::backend::AutodiffBackend;

use super::best_model::BestEvaluation;
use super::history::{EvaluationRecord, History};
use super::memory::peak_memory;
use super::progress::RunSummary;
use crate::model::SentenceTransformer;

/// What came out of a run.
#[derive(Debug)]
pub struct Trained<B: AutodiffBackend, L> {
    /// The model with its trained weights: those of the best evaluation, if
    /// [`load_best_model_at_end`](super::TrainingArguments::load_best_model_at_end) asks for them.
    pub model: SentenceTransformer<B>,
    /// The losses with their trained weights, such as a
    /// [`SoftmaxLoss`](crate::loss::SoftmaxLoss)'s classifier: one, or one for each data
    /// set in their order.
    pub losses: Vec<L>,
    /// Every optimiser step, those before a resumption included.
    pub history: History,
    /// The evaluations, in order; the first is of the model as it came.
    pub evaluations: Vec<EvaluationRecord>,
    /// The optimiser steps behind.
    pub steps: usize,
    /// Whether the run went to its end; not if the user stopped it at the dashboard.
    pub finished: bool,
    /// Whether it ended because evaluations improved no more.
    pub stopped_early: bool,
    /// The best evaluation by
    /// [`metric_for_best_model`](super::TrainingArguments::metric_for_best_model).
    pub best: Option<BestEvaluation>,
    /// The samples that this run went through, one counted as often as it was seen.
    pub samples: usize,
    /// The time that these samples took: loading, evaluations and checkpoints left out.
    pub duration: Duration,
}

impl<B: AutodiffBackend, L> Trained<B, L> {
    /// The run in numbers.
    pub fn summary(&self) -> RunSummary {
        let losses = self.history.losses();
        let seconds = self.duration.as_secs_f64();
        RunSummary {
            global_step: self.steps,
            epoch: self.history.records().last().map_or(0.0, |last| last.epoch),
            train_loss: losses.iter().sum::<f64>() / losses.len().max(1) as f64,
            train_runtime: seconds,
            train_samples: self.samples,
            train_samples_per_second: self.samples as f64 / seconds.max(1e-9),
            best_global_step: self.best.map(|best| best.step),
            best_metric: self.best.map(|best| best.score),
            stopped_early: self.stopped_early,
            peak_memory: peak_memory(),
        }
    }
}
