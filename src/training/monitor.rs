use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use burn::tensor::backend::AutodiffBackend;

use super::best_model::{BestEvaluation, Judge, Verdict};
use super::checkpoint::{self, TrainerState};
use super::checkpoint_folders;
use super::evaluating::{BoxedEvaluator, EvalSet};
use super::event::{Listener, TrainingEvent};
use super::history::{EvaluationRecord, History, HistoryWriter, StepRecord};
use super::learner::{TrainableLoss, TrainingModel};
use super::metrics::StepSeen;
use super::optimizer::Moments;
use super::plan::Plan;
use super::plateau::Plateau;
use super::progress::LogRecord;
use super::rotation;
use super::schedule::LearningRateSchedule;
use super::session::{Session, StepLoss};
use super::strategy::{IntervalStrategy, SaveStrategy};
use super::training_state::NamedParameter;
use crate::error::{Result, TrainingError};

/// Does what a run owes the outside after each optimiser step: history, log lines,
/// evaluations, checkpoints; and what follows for the run: its rates, and its end.
pub(super) struct Monitor<B: AutodiffBackend> {
    pub(super) plan: Arc<Plan>,
    pub(super) session: Arc<Session>,
    /// Every parameter that is trained, by its stable name.
    pub(super) parameters: Vec<NamedParameter>,
    pub(super) schedule: LearningRateSchedule,
    /// What reduces the rates instead of the schedule.
    pub(super) plateau: Option<Plateau>,
    pub(super) judge: Judge,
    pub(super) history: HistoryWriter,
    pub(super) evaluator: Option<BoxedEvaluator<B::InnerBackend>>,
    pub(super) eval_sets: Vec<EvalSet>,
    pub(super) evaluations: Vec<EvaluationRecord>,
    pub(super) listener: Option<Listener>,
    /// The checkpoints of this run with their steps, oldest first.
    pub(super) checkpoints: Vec<(usize, PathBuf)>,
    /// The optimiser steps behind.
    pub(super) steps: usize,
    /// The steps behind at the last log line.
    pub(super) logged: usize,
    /// The samples that this run went through.
    pub(super) samples: usize,
    /// The time that they took.
    pub(super) duration: Duration,
    /// The time that evaluations took.
    pub(super) evaluating: Duration,
    /// When this run began or went on, and the steps behind then.
    pub(super) started: (Instant, usize),
    /// When the step before was done.
    pub(super) last_step_at: Instant,
    /// What the workers did of the step that is under way.
    pub(super) losses: Vec<StepLoss>,
}

impl<B: AutodiffBackend> Monitor<B> {
    /// What a rate has become at the step that is under way.
    pub(super) fn rate(&self, rate: f64) -> f64 {
        match &self.plateau {
            Some(plateau) => plateau.rate(rate, self.judge.scores(&self.evaluations)),
            None => rate * self.schedule.factor(self.steps),
        }
    }

    /// What the evaluations so far say.
    pub(super) fn verdict(&self) -> Verdict {
        self.judge.judge(&self.evaluations)
    }

    /// The best evaluation that there is a checkpoint of, and that checkpoint.
    pub(super) fn best_checkpoint(&self) -> Option<(BestEvaluation, &PathBuf)> {
        let of_step = |best: BestEvaluation| {
            let mut checkpoints = self.checkpoints.iter();
            let (_, path) = checkpoints.find(|(step, _)| *step == best.step)?;
            Some((best, path))
        };
        let improvements = self.verdict().improvements;
        improvements.into_iter().rev().find_map(of_step)
    }

    /// Takes what the workers did of a step whose gradients have that norm. A loss or a norm
    /// that is no number ends the run before the weights are updated.
    pub(super) fn begin_update(&mut self, norm: f64) {
        self.losses = self.session.take_losses();
        let numbers = [("the loss", self.loss()), ("the gradients' norm", norm)];
        if let Some((what, found)) = numbers.into_iter().find(|(_, n)| !n.is_finite())
            && !self.session.has_failed()
        {
            let step = self.steps + 1;
            self.session
                .fail(TrainingError::NotFinite { step, what, found }.into());
        }
    }

    /// The loss of the step: what its workers add to it.
    fn loss(&self) -> f64 {
        self.losses.iter().map(|worker| worker.loss).sum()
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
        let asked = self.session.asked_to_stop();
        if asked.should_stop() {
            self.session
                .interrupter()
                .stop(asked.get_message().as_deref());
        }
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
        self.tell(&record);

        let mut improved = false;
        if self.is_evaluated() {
            self.evaluate(model)?;
            let verdict = self.verdict();
            let best = verdict.improvements.last();
            improved = best.is_some_and(|best| best.step == self.steps);
            // Not by burn-train's early stopping, which is asked at the end of an epoch alone.
            if verdict.stop {
                let reason = format!("{} has not improved for too long", self.judge.metric());
                log::info!("step {}: {reason}", self.steps);
                self.session.interrupter().stop(Some(&reason));
            }
        }
        let last = self.evaluations.last();
        let score = last.and_then(EvaluationRecord::score).unwrap_or(f64::NAN);
        for worker in losses {
            // Only this step fills the cell: it is empty.
            let _ = worker.seen.set(StepSeen { record, score });
        }
        if self.is_saved(improved) {
            self.save(model, moments, record)?;
        }
        // What evaluating and saving took is not the next step's.
        self.last_step_at = Instant::now();
        Ok(())
    }

    /// Whether something recurs after this step.
    pub(super) fn is_due(&self, strategy: IntervalStrategy, steps: usize) -> bool {
        self.is_due_after(self.steps, strategy, steps)
    }

    /// Whether something recurs after that step.
    fn is_due_after(&self, step: usize, strategy: IntervalStrategy, steps: usize) -> bool {
        match strategy {
            IntervalStrategy::No => false,
            IntervalStrategy::Steps => step.is_multiple_of(steps),
            IntervalStrategy::Epoch => self.plan.ends_epoch(step),
        }
    }

    /// Whether the arguments ask for a log line after that step.
    pub(super) fn is_logged(&self, step: usize) -> bool {
        let arguments = self.plan.arguments();
        let steps = arguments.logging_steps.steps(self.plan.total_steps());
        let first = arguments.logging_first_step && step == 1;
        first || self.is_due_after(step, arguments.logging_strategy, steps)
    }

    pub(super) fn is_last_step(&self) -> bool {
        self.steps == self.plan.total_steps()
    }

    fn is_saved(&self, improved: bool) -> bool {
        let arguments = self.plan.arguments();
        let steps = arguments.save_steps.steps(self.plan.total_steps());
        let due = match arguments.save_strategy {
            SaveStrategy::No => return false,
            SaveStrategy::Steps => {
                self.is_due(IntervalStrategy::Steps, steps) || self.is_last_step()
            }
            SaveStrategy::Epoch => self.is_due(IntervalStrategy::Epoch, steps),
            SaveStrategy::Best => improved,
        };
        due || self.session.interrupter().should_stop()
    }

    fn tell(&mut self, record: &StepRecord) {
        let total_steps = self.plan.total_steps();
        if let Some(listener) = &mut self.listener {
            listener(TrainingEvent::Step {
                record,
                total_steps,
            });
        }
        if !(self.is_logged(record.step) || self.is_last_step()) {
            return;
        }
        let since = &self.history.history().losses()[self.logged..];
        let (started, behind) = self.started;
        let elapsed = started.elapsed();
        let a_step = elapsed.as_secs_f64() / (record.step - behind) as f64;
        let log = LogRecord {
            step: record.step,
            total_steps,
            epoch: record.epoch,
            loss: since.iter().sum::<f64>() / since.len().max(1) as f64,
            learning_rate: record.learning_rate,
            grad_norm: record.grad_norm,
            pairs_per_second: self.samples as f64 / self.duration.as_secs_f64().max(1e-9),
            elapsed,
            remaining: Duration::from_secs_f64(a_step * (total_steps - record.step) as f64),
        };
        self.logged = record.step;
        log::info!("{log}");
        if let Some(listener) = &mut self.listener {
            listener(TrainingEvent::Log(&log));
        }
    }

    fn save<L: TrainableLoss<B>>(
        &mut self,
        model: &TrainingModel<B, L>,
        moments: &dyn Fn() -> Moments<B, L>,
        record: StepRecord,
    ) -> Result<()> {
        // A checkpoint counts only if the history reaches it.
        self.history.sync()?;
        let (samples, datasets) = checkpoint::sizes(&self.plan);
        let state = TrainerState {
            record,
            samples,
            datasets,
            workers: self.plan.workers(),
            stream: self.plan.stream().map(|stream| stream.state(self.steps)),
            arguments: self.plan.arguments().clone(),
            evaluations: self.evaluations.clone(),
        };
        let path = checkpoint::write(model, &moments(), &self.parameters, &state)?;
        log::info!("step {}: wrote {}", record.step, path.display());
        if let Some(listener) = &mut self.listener {
            listener(TrainingEvent::Checkpoint { path: &path });
        }
        self.checkpoints.retain(|(_, other)| *other != path);
        self.checkpoints.push((record.step, path));
        let steps: Vec<usize> = self.checkpoints.iter().map(|(step, _)| *step).collect();
        let best = self.best_checkpoint().map(|(best, _)| best.step);
        let limit = self.plan.arguments().save_total_limit;
        let gone = rotation::superfluous(&steps, limit, best);
        for (_, path) in self.checkpoints.iter().filter(|(s, _)| gone.contains(s)) {
            checkpoint_folders::remove(path)?;
        }
        self.checkpoints.retain(|(step, _)| !gone.contains(step));
        Ok(())
    }

    /// The steps so far.
    pub(super) fn history(&self) -> &History {
        self.history.history()
    }
}
