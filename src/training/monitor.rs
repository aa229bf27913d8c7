use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;

use super::checkpoint::{self, TrainerState};
use super::history::{self, EvaluationRecord, History, HistoryWriter, StepRecord};
use super::learner::{TrainableLoss, TrainingModel};
use super::optimizer::Moments;
use super::plan::Plan;
use super::session::{Session, StepLoss};
use super::training_state::NamedParameter;
use crate::error::{Result, TrainingError};
use crate::evaluation::Evaluator;
use crate::model::SentenceTransformer;

/// The evaluations' name in the folder of a run.
const EVALUATIONS: &str = "evaluations.jsonl";

/// What the models of a run are tried on.
pub(super) type BoxedEvaluator<B> = Box<dyn Evaluator<B> + Send>;

/// Hears of what happens in a run.
pub(super) type Listener = Box<dyn FnMut(TrainingEvent<'_>) + Send>;

/// Something that happened in a training run.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum TrainingEvent<'a> {
    /// An optimiser step was taken.
    Step {
        /// What it did.
        record: &'a StepRecord,
        /// The number of steps of the whole run.
        total_steps: usize,
    },
    /// The model was evaluated.
    Evaluation(&'a EvaluationRecord),
    /// A checkpoint was written.
    Checkpoint {
        /// Its folder.
        path: &'a std::path::Path,
    },
}

/// Does what a run owes the outside after each optimiser step: history, log lines,
/// evaluations, checkpoints.
pub(super) struct Monitor<B: AutodiffBackend> {
    pub(super) plan: Arc<Plan>,
    pub(super) session: Arc<Session>,
    /// Every parameter that is trained, by its stable name.
    pub(super) parameters: Vec<NamedParameter>,
    pub(super) history: HistoryWriter,
    pub(super) evaluator: Option<BoxedEvaluator<B::InnerBackend>>,
    pub(super) evaluations: Vec<EvaluationRecord>,
    pub(super) listener: Option<Listener>,
    /// The checkpoints of this run, oldest first.
    pub(super) checkpoints: Vec<PathBuf>,
    /// The optimiser steps behind.
    pub(super) steps: usize,
    /// The samples that this run went through.
    pub(super) samples: usize,
    /// The time that they took.
    pub(super) duration: Duration,
    /// The time that evaluations took.
    pub(super) evaluating: Duration,
    /// When the step before was done.
    pub(super) last_step_at: Instant,
    /// What the workers did of the step that is under way.
    pub(super) losses: Vec<StepLoss>,
    /// The losses since the last log line.
    pub(super) unlogged: Vec<f64>,
}

impl<B: AutodiffBackend> Monitor<B> {
    /// Whether the weights may be updated with gradients of that norm; a run that failed
    /// leaves them as they are.
    pub(super) fn begin_update(&mut self, norm: f64) -> bool {
        self.losses = self.session.take_losses();
        let numbers = [("the loss", self.loss()), ("the gradients' norm", norm)];
        if let Some((what, found)) = numbers.into_iter().find(|(_, n)| !n.is_finite())
            && !self.session.has_failed()
        {
            let step = self.steps + 1;
            self.session
                .fail(TrainingError::NotFinite { step, what, found }.into());
        }
        !self.session.has_failed()
    }

    /// The mean loss of the workers of the step.
    fn loss(&self) -> f64 {
        let sum: f64 = self.losses.iter().map(|worker| worker.loss).sum();
        sum / self.losses.len().max(1) as f64
    }

    /// Does what is due after an update; an error stops the run.
    pub(super) fn finish_update<L: TrainableLoss<B>>(
        &mut self,
        model: &TrainingModel<B, L>,
        moments: &dyn Fn() -> Moments<B, L>,
        learning_rate: f64,
        grad_norm: f64,
    ) {
        if let Err(error) = self.after_step(model, moments, learning_rate, grad_norm) {
            self.session.fail(error);
        }
    }

    fn after_step<L: TrainableLoss<B>>(
        &mut self,
        model: &TrainingModel<B, L>,
        moments: &dyn Fn() -> Moments<B, L>,
        learning_rate: f64,
        grad_norm: f64,
    ) -> Result<()> {
        let loss = self.loss();
        let losses = std::mem::take(&mut self.losses);
        let samples: usize = losses.iter().map(|worker| worker.samples).sum();
        self.steps += 1;
        self.samples += samples;
        let duration = self.last_step_at.elapsed();
        self.duration += duration;
        let record = StepRecord {
            step: self.steps,
            epoch: self.plan.epochs_after(self.steps),
            loss,
            learning_rate,
            grad_norm,
            pairs_per_second: samples as f64 / duration.as_secs_f64().max(1e-9),
        };
        self.history.append(record)?;
        for worker in losses {
            // Only this step fills the cell: it is empty.
            let _ = worker.record.set(record);
        }
        self.tell(&record);

        let arguments = self.plan.arguments();
        let last = self.steps == self.plan.total_steps();
        let due = |every: Option<usize>| every.is_some_and(|n| self.steps.is_multiple_of(n));
        let stopped = self.session.interrupter().should_stop();
        let save = arguments.save_steps.is_some() && (due(arguments.save_steps) || last || stopped);
        if due(arguments.eval_steps) {
            self.evaluate(&model.model.valid())?;
        }
        if save {
            self.save(model, moments, record)?;
        }
        // What evaluating and saving took is not the next step's.
        self.last_step_at = Instant::now();
        Ok(())
    }

    fn tell(&mut self, record: &StepRecord) {
        let total_steps = self.plan.total_steps();
        self.unlogged.push(record.loss);
        if record
            .step
            .is_multiple_of(self.plan.arguments().logging_steps)
            || record.step == total_steps
        {
            let loss = self.unlogged.iter().sum::<f64>() / self.unlogged.len() as f64;
            self.unlogged.clear();
            log::info!(
                "step {}/{total_steps}, epoch {:.2}: loss {loss:.4}, learning rate {:.3e}, \
                 gradient norm {:.3}, {:.1} pairs/s",
                record.step,
                record.epoch,
                record.learning_rate,
                record.grad_norm,
                record.pairs_per_second,
            );
        }
        if let Some(listener) = &mut self.listener {
            listener(TrainingEvent::Step {
                record,
                total_steps,
            });
        }
    }

    /// Scores the model, if there is an evaluator and it has not been at this step.
    pub(super) fn evaluate(&mut self, model: &SentenceTransformer<B::InnerBackend>) -> Result<()> {
        let Some(evaluator) = &self.evaluator else {
            return Ok(());
        };
        if self
            .evaluations
            .last()
            .is_some_and(|last| last.step == self.steps)
        {
            return Ok(());
        }
        let begun = Instant::now();
        let record = EvaluationRecord {
            step: self.steps,
            epoch: self.plan.epochs_after(self.steps),
            primary_metric: evaluator.primary_metric(model),
            metrics: evaluator.evaluate(model)?,
        };
        self.evaluating += begun.elapsed();
        log::info!(
            "step {}: {} {:.4}",
            record.step,
            record.primary_metric,
            record.score().unwrap_or(f64::NAN)
        );
        if let Some(listener) = &mut self.listener {
            listener(TrainingEvent::Evaluation(&record));
        }
        self.evaluations.push(record);
        let path = self.plan.arguments().output_dir.join(EVALUATIONS);
        history::write_evaluations(&path, &self.evaluations)
    }

    fn save<L: TrainableLoss<B>>(
        &mut self,
        model: &TrainingModel<B, L>,
        moments: &dyn Fn() -> Moments<B, L>,
        record: StepRecord,
    ) -> Result<()> {
        // A checkpoint counts only if the history reaches it.
        self.history.sync()?;
        let state = TrainerState {
            record,
            samples: self.plan.dataset().len(),
            arguments: self.plan.arguments().clone(),
            evaluations: self.evaluations.clone(),
        };
        let path = checkpoint::write(model, &moments(), &self.parameters, &state)?;
        log::info!("step {}: wrote {}", record.step, path.display());
        if let Some(listener) = &mut self.listener {
            listener(TrainingEvent::Checkpoint { path: &path });
        }
        self.checkpoints.retain(|other| *other != path);
        self.checkpoints.push(path);
        if let Some(limit) = self.plan.arguments().save_total_limit {
            while self.checkpoints.len() > limit {
                checkpoint::remove(&self.checkpoints.remove(0))?;
            }
        }
        Ok(())
    }

    /// The steps so far.
    pub(super) fn history(&self) -> &History {
        self.history.history()
    }
}
