use std::collections::BTreeMap;
use std::path::PathBuf;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::multi_dataset_sampler::MultiDatasetBatchSampler;
use super::prompts::TrainingPrompts;
use super::router_mapping::RouterMapping;
use super::sampler::BatchSampler;
use super::schedule::{LearningRateSchedule, LrSchedulerType};
use super::scheduler_kwargs::LrSchedulerKwargs;
use super::strategy::{Interval, IntervalStrategy, SaveStrategy};

/// How to train. Names and defaults are those of the reference's
/// `SentenceTransformerTrainingArguments`, early stopping and LoRA+ included, which the
/// reference has elsewhere.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TrainingArguments {
    /// Where checkpoints and the history go.
    pub output_dir: PathBuf,
    /// How often to go through the data; the last time may be a part of it.
    pub num_train_epochs: f64,
    /// How many optimiser steps to take, whatever `num_train_epochs` says.
    pub max_steps: Option<usize>,
    /// Samples in a batch.
    pub per_device_train_batch_size: usize,
    /// Samples in a batch of the data set that the loss is evaluated on.
    pub per_device_eval_batch_size: usize,
    /// Batches whose gradients are averaged into one optimiser step. In-batch negatives
    /// stay those of one batch.
    pub gradient_accumulation_steps: usize,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// Rates of parameters whose name a pattern matches anywhere, instead of
    /// `learning_rate`; where several do, the last one counts. The schedule moves them alike.
    ///
    /// Names are the reference's: `model.0.model.encoder.layer.0.attention.self.query.weight`,
    /// behind it `lora_A.default.weight` for an adapter, `model.2.linear.weight` for a module
    /// behind the encoder, `classifier.weight` for a weight of the loss.
    pub learning_rate_mapping: IndexMap<String, f64>,
    /// LoRA+: how many times the rate of an adapter's `lora_A` its `lora_B` has
    /// (<https://arxiv.org/abs/2402.12354>); the same rate if `None`.
    pub loraplus_lr_ratio: Option<f64>,
    /// The rate of adapters on embeddings under LoRA+.
    pub loraplus_lr_embedding: f64,
    /// How the learning rate moves.
    pub lr_scheduler_type: LrSchedulerType,
    /// What else that schedule reads.
    pub lr_scheduler_kwargs: LrSchedulerKwargs,
    /// The share of the run to warm up over, rounded up to whole steps.
    pub warmup_ratio: f64,
    /// The steps to warm up over; where it is not 0 it goes before `warmup_ratio`.
    pub warmup_steps: usize,
    /// AdamW's decoupled weight decay; biases and layer norms are left out, as in the
    /// reference.
    pub weight_decay: f64,
    /// AdamW's decay of the first moment.
    pub adam_beta1: f64,
    /// AdamW's decay of the second moment.
    pub adam_beta2: f64,
    /// What AdamW adds to the denominator.
    pub adam_epsilon: f64,
    /// The norm that all gradients together are scaled down to; 0 leaves them alone.
    pub max_grad_norm: f64,
    /// What the order of the data and the dropout masks follow from: each epoch's order
    /// from the seed and the epoch, each batch's masks from the seed and the step.
    pub seed: u64,
    /// Whether to refuse what would make two runs of the same seed differ. On one device
    /// nothing does.
    pub full_determinism: bool,
    /// What is put in front of the texts.
    pub prompts: Option<TrainingPrompts>,
    /// The adapters that a column's texts go through, by the column's name: the active ones
    /// where a column is not named. Only active adapters train.
    pub column_adapters: BTreeMap<String, Vec<String>>,
    /// The routes of the columns' texts, which a model with a Router needs.
    pub router_mapping: Option<RouterMapping>,
    /// How samples are put into batches.
    pub batch_sampler: BatchSampler,
    /// In what order the batches of several data sets come.
    pub multi_dataset_batch_sampler: MultiDatasetBatchSampler,
    /// Whether to leave batches out that are smaller than the others.
    pub dataloader_drop_last: bool,
    /// Whether the model and its adapters drop out.
    pub dropout: bool,
    /// When a log line is written.
    pub logging_strategy: IntervalStrategy,
    /// How far apart log lines are.
    pub logging_steps: Interval,
    /// Whether the first step has a log line too.
    pub logging_first_step: bool,
    /// When the model is evaluated during the run; before and after the run it is in any
    /// case.
    pub eval_strategy: IntervalStrategy,
    /// How far apart evaluations are; as far as log lines if `None`.
    pub eval_steps: Option<Interval>,
    /// When checkpoints are written.
    pub save_strategy: SaveStrategy,
    /// How far apart checkpoints are.
    pub save_steps: Interval,
    /// How many checkpoints to keep, besides which the best and the last one stay; all if
    /// `None`.
    pub save_total_limit: Option<usize>,
    /// Whether the run ends with the weights of the best evaluation that has a checkpoint.
    pub load_best_model_at_end: bool,
    /// The metric that tells the best model; `eval_` may precede it. The evaluator's primary
    /// metric if `None`, or `loss` where there is no evaluator.
    pub metric_for_best_model: Option<String>,
    /// Whether more of that metric is better; unless it ends with `loss` if `None`.
    pub greater_is_better: Option<bool>,
    /// How many evaluations in a row may be no improvement before the run stops; it goes on
    /// if `None`.
    pub early_stopping_patience: Option<usize>,
    /// What an improvement must be larger than to count for that.
    pub early_stopping_threshold: f64,
}

impl Default for TrainingArguments {
    fn default() -> Self {
        Self {
            output_dir: PathBuf::from("trainer_output"),
            num_train_epochs: 3.0,
            max_steps: None,
            per_device_train_batch_size: 8,
            per_device_eval_batch_size: 8,
            gradient_accumulation_steps: 1,
            learning_rate: 5e-5,
            learning_rate_mapping: IndexMap::new(),
            loraplus_lr_ratio: None,
            loraplus_lr_embedding: 1e-6,
            lr_scheduler_type: LrSchedulerType::Linear,
            lr_scheduler_kwargs: LrSchedulerKwargs::default(),
            warmup_ratio: 0.0,
            warmup_steps: 0,
            weight_decay: 0.0,
            adam_beta1: 0.9,
            adam_beta2: 0.999,
            adam_epsilon: 1e-8,
            max_grad_norm: 1.0,
            seed: 42,
            full_determinism: false,
            prompts: None,
            column_adapters: BTreeMap::new(),
            router_mapping: None,
            batch_sampler: BatchSampler::Random,
            multi_dataset_batch_sampler: MultiDatasetBatchSampler::Proportional,
            dataloader_drop_last: false,
            dropout: true,
            logging_strategy: IntervalStrategy::Steps,
            logging_steps: Interval::Steps(500),
            logging_first_step: false,
            eval_strategy: IntervalStrategy::No,
            eval_steps: None,
            save_strategy: SaveStrategy::Steps,
            save_steps: Interval::Steps(500),
            save_total_limit: None,
            load_best_model_at_end: false,
            metric_for_best_model: None,
            greater_is_better: None,
            early_stopping_patience: None,
            early_stopping_threshold: 0.0,
        }
    }
}

impl TrainingArguments {
    /// How far apart evaluations are.
    pub(super) fn eval_interval(&self) -> Interval {
        self.eval_steps.unwrap_or(self.logging_steps)
    }

    /// The steps to warm up over in a run of `total_steps`.
    pub fn warmup(&self, total_steps: usize) -> usize {
        match self.warmup_steps {
            0 => (total_steps as f64 * self.warmup_ratio).ceil() as usize,
            steps => steps,
        }
    }

    /// The learning rates of a run of `total_steps`.
    pub fn schedule(&self, total_steps: usize) -> LearningRateSchedule {
        LearningRateSchedule::new(
            self.lr_scheduler_type,
            self.learning_rate,
            self.warmup(total_steps),
            total_steps,
        )
        .with_kwargs(self.lr_scheduler_kwargs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warmup_rounds_up_and_steps_go_first() {
        let mut arguments = TrainingArguments {
            warmup_ratio: 0.1,
            ..Default::default()
        };
        assert_eq!(arguments.warmup(11), 2);
        assert_eq!(arguments.warmup(0), 0);
        arguments.warmup_steps = 5;
        assert_eq!(arguments.warmup(11), 5);
    }

    #[test]
    fn survives_json() {
        let arguments = TrainingArguments {
            max_steps: Some(7),
            batch_sampler: BatchSampler::NoDuplicates,
            eval_steps: Some(0.1.into()),
            prompts: Some(TrainingPrompts::One("query: ".to_owned())),
            router_mapping: Some(RouterMapping::by_column([("anchor", "query")])),
            learning_rate_mapping: [("b".to_owned(), 1.0), ("a".to_owned(), 2.0)].into(),
            ..Default::default()
        };
        let json = serde_json::to_string(&arguments).unwrap();
        assert_eq!(
            serde_json::from_str::<TrainingArguments>(&json).unwrap(),
            arguments
        );
        assert!(json.contains(r#""batch_sampler":"no_duplicates""#));
    }
}
