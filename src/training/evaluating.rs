use std::time::Instant;

use burn::module::AutodiffModule;
use burn::tensor::backend::AutodiffBackend;

use super::evaluation_files;
use super::event::TrainingEvent;
use super::history::EvaluationRecord;
use super::learner::{TrainableLoss, TrainingModel};
use super::monitor::Monitor;
use super::strategy::{IntervalStrategy, SaveStrategy};
use super::text_batch::ColumnPass;
use super::training_data::TrainingSet;
use crate::error::Result;
use crate::evaluation::{EvaluatedAt, Evaluator, Metrics};

/// What the models of a run are tried on.
pub(super) type BoxedEvaluator<B> = Box<dyn Evaluator<B> + Send>;

/// What a loss is evaluated on.
pub(super) struct EvalSet {
    pub(super) set: TrainingSet,
    pub(super) columns: Vec<ColumnPass>,
    pub(super) batches: Vec<Vec<u32>>,
}

/// The evaluations of a run.
impl<B: AutodiffBackend> Monitor<B> {
    /// Whether the model is evaluated after the last step.
    pub(super) fn is_evaluated(&self) -> bool {
        let arguments = self.plan.arguments();
        let steps = arguments.eval_interval().steps(self.plan.total_steps());
        let strategy = arguments.eval_strategy;
        self.is_due(strategy, steps) || (strategy == IntervalStrategy::Steps && self.is_last_step())
    }

    /// Scores the model, if there is something to score it by and it has not been at this
    /// step.
    pub(super) fn evaluate<L: TrainableLoss<B>>(
        &mut self,
        model: &TrainingModel<B, L>,
    ) -> Result<()> {
        let seen = self.evaluations.last();
        if (self.evaluator.is_none() && self.eval_sets.is_empty())
            || seen.is_some_and(|last| last.step == self.steps)
        {
            return Ok(());
        }
        let begun = Instant::now();
        let output_dir = &self.plan.arguments().output_dir;
        let epoch = self.plan.epochs_after(self.steps);
        let mut metrics = Metrics::new();
        for EvalSet {
            set,
            columns,
            batches,
        } in &self.eval_sets
        {
            metrics.insert(
                set.loss_name(),
                model.evaluation_loss(set, columns, batches)?,
            );
        }
        let mut primary_metric = metrics.iter().next().map(|(name, _)| name.to_owned());
        if let Some(evaluator) = &self.evaluator {
            let model = model.model.valid();
            let at = EvaluatedAt {
                epoch: Some(epoch),
                steps: Some(self.steps),
            };
            let folder = evaluation_files::folder(output_dir);
            metrics.extend(evaluator.evaluate_to(&model, &folder, at)?);
            primary_metric = Some(evaluator.primary_metric(&model));
        }
        let record = EvaluationRecord {
            step: self.steps,
            epoch,
            primary_metric: primary_metric.unwrap_or_default(),
            metrics,
        };
        self.evaluating += begun.elapsed();
        if self.is_judged() {
            self.judge.score(&record)?;
        }
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
        evaluation_files::write(output_dir, &self.evaluations)
    }

    /// Whether anything depends on the metric to judge by.
    fn is_judged(&self) -> bool {
        let arguments = self.plan.arguments();
        arguments.load_best_model_at_end
            || arguments.early_stopping_patience.is_some()
            || arguments.save_strategy == SaveStrategy::Best
            || arguments.metric_for_best_model.is_some()
            || self.plateau.is_some()
    }
}
