use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::sampler::BatchSampler;
use super::schedule::{LearningRateSchedule, LrSchedulerType};
use crate::error::{Result, TrainingError};

/// How to train. Names and defaults are those of the reference's
/// `SentenceTransformerTrainingArguments`.
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
    /// Batches whose gradients are averaged into one optimiser step. In-batch negatives
    /// stay those of one batch.
    pub gradient_accumulation_steps: usize,
    /// The highest learning rate.
    pub learning_rate: f64,
    /// How the learning rate moves.
    pub lr_scheduler_type: LrSchedulerType,
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
    /// What the order of the data and the dropout masks follow from.
    pub seed: u64,
    /// The adapters that a column's texts go through, by the column's name: the active ones
    /// where a column is not named. Only active adapters train.
    pub column_adapters: BTreeMap<String, Vec<String>>,
    /// How samples are put into batches.
    pub batch_sampler: BatchSampler,
    /// Whether the model and its adapters drop out.
    pub dropout: bool,
    /// Steps between two log lines.
    pub logging_steps: usize,
    /// Steps between two evaluations; only before and after the run if `None`.
    pub eval_steps: Option<usize>,
    /// Steps between two checkpoints, the last step always being one; no checkpoints if
    /// `None`.
    pub save_steps: Option<usize>,
    /// How many checkpoints to keep; all if `None`.
    pub save_total_limit: Option<usize>,
}

impl Default for TrainingArguments {
    fn default() -> Self {
        Self {
            output_dir: PathBuf::from("trainer_output"),
            num_train_epochs: 3.0,
            max_steps: None,
            per_device_train_batch_size: 8,
            gradient_accumulation_steps: 1,
            learning_rate: 5e-5,
            lr_scheduler_type: LrSchedulerType::Linear,
            warmup_ratio: 0.0,
            warmup_steps: 0,
            weight_decay: 0.0,
            adam_beta1: 0.9,
            adam_beta2: 0.999,
            adam_epsilon: 1e-8,
            max_grad_norm: 1.0,
            seed: 42,
            column_adapters: BTreeMap::new(),
            batch_sampler: BatchSampler::Random,
            dropout: true,
            logging_steps: 500,
            eval_steps: None,
            save_steps: Some(500),
            save_total_limit: None,
        }
    }
}

impl TrainingArguments {
    /// Checks every argument.
    ///
    /// # Errors
    /// [`TrainingError::InvalidArgument`] names the first one that cannot be meant.
    pub fn validate(&self) -> Result<()> {
        let counts = [
            (
                "per_device_train_batch_size",
                Some(self.per_device_train_batch_size),
            ),
            (
                "gradient_accumulation_steps",
                Some(self.gradient_accumulation_steps),
            ),
            ("logging_steps", Some(self.logging_steps)),
            ("max_steps", self.max_steps),
            ("eval_steps", self.eval_steps),
            ("save_steps", self.save_steps),
            ("save_total_limit", self.save_total_limit),
        ];
        for (argument, count) in counts {
            if count == Some(0) {
                return Err(invalid(argument, "at least 1", 0));
            }
        }
        let numbers = [
            (
                "num_train_epochs",
                self.num_train_epochs,
                0.0,
                f64::MAX,
                "a number above 0",
            ),
            (
                "learning_rate",
                self.learning_rate,
                0.0,
                f64::MAX,
                "a number of at least 0",
            ),
            (
                "warmup_ratio",
                self.warmup_ratio,
                0.0,
                1.0,
                "a number from 0 to 1",
            ),
            (
                "weight_decay",
                self.weight_decay,
                0.0,
                f64::MAX,
                "a number of at least 0",
            ),
            (
                "adam_beta1",
                self.adam_beta1,
                0.0,
                BELOW_ONE,
                "a number from 0 to below 1",
            ),
            (
                "adam_beta2",
                self.adam_beta2,
                0.0,
                BELOW_ONE,
                "a number from 0 to below 1",
            ),
            (
                "adam_epsilon",
                self.adam_epsilon,
                0.0,
                f64::MAX,
                "a number of at least 0",
            ),
            (
                "max_grad_norm",
                self.max_grad_norm,
                0.0,
                f64::MAX,
                "a number of at least 0",
            ),
        ];
        for (argument, number, least, most, expected) in numbers {
            if !(least..=most).contains(&number) {
                return Err(invalid(argument, expected, number));
            }
        }
        if self.num_train_epochs == 0.0 {
            return Err(invalid("num_train_epochs", "a number above 0", 0));
        }
        Ok(())
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
    }
}

const BELOW_ONE: f64 = 1.0 - f64::EPSILON;

fn invalid(argument: &'static str, expected: &'static str, found: impl ToString) -> crate::Error {
    TrainingError::InvalidArgument {
        argument,
        expected,
        found: found.to_string(),
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn defaults_are_valid() {
        TrainingArguments::default().validate().unwrap();
    }

    #[test]
    fn names_the_argument_that_cannot_be_meant() {
        type Break = fn(&mut TrainingArguments);
        let broken: [(&str, Break); 10] = [
            ("per_device_train_batch_size", |a| {
                a.per_device_train_batch_size = 0
            }),
            ("gradient_accumulation_steps", |a| {
                a.gradient_accumulation_steps = 0
            }),
            ("max_steps", |a| a.max_steps = Some(0)),
            ("save_total_limit", |a| a.save_total_limit = Some(0)),
            ("num_train_epochs", |a| a.num_train_epochs = 0.0),
            ("num_train_epochs", |a| a.num_train_epochs = f64::INFINITY),
            ("learning_rate", |a| a.learning_rate = f64::NAN),
            ("warmup_ratio", |a| a.warmup_ratio = 1.5),
            ("adam_beta2", |a| a.adam_beta2 = 1.0),
            ("max_grad_norm", |a| a.max_grad_norm = -1.0),
        ];
        for (name, break_it) in broken {
            let mut arguments = TrainingArguments::default();
            break_it(&mut arguments);
            let Err(Error::Training(TrainingError::InvalidArgument { argument, .. })) =
                arguments.validate()
            else {
                panic!("{name} passed");
            };
            assert_eq!(argument, name);
        }
    }

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
