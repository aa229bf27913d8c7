use super::arguments::TrainingArguments;
use super::schedule::LrSchedulerType;
use super::strategy::{IntervalStrategy, SaveStrategy};
use crate::error::{Result, TrainingError};

impl TrainingArguments {
    /// Checks every argument.
    ///
    /// # Errors
    /// [`TrainingError::InvalidArgument`] names the first one that cannot be meant,
    /// [`TrainingError::InvalidSchedulerKwargs`] what the schedule does not read.
    pub fn validate(&self) -> Result<()> {
        for (argument, count) in [
            (
                "per_device_train_batch_size",
                Some(self.per_device_train_batch_size),
            ),
            (
                "per_device_eval_batch_size",
                Some(self.per_device_eval_batch_size),
            ),
            (
                "gradient_accumulation_steps",
                Some(self.gradient_accumulation_steps),
            ),
            ("max_steps", self.max_steps),
            ("save_total_limit", self.save_total_limit),
            ("early_stopping_patience", self.early_stopping_patience),
        ] {
            if count == Some(0) {
                return Err(invalid(argument, "at least 1", 0));
            }
        }
        for (argument, interval) in [
            ("logging_steps", Some(self.logging_steps)),
            ("eval_steps", self.eval_steps),
            ("save_steps", Some(self.save_steps)),
        ] {
            if let Some(interval) = interval.filter(|interval| !interval.is_valid()) {
                let expected = "a whole number of steps, or a share between 0 and 1";
                return Err(invalid(argument, expected, f64::from(interval)));
            }
        }
        let at_least = |least: f64| move |number: f64| number >= least && number.is_finite();
        let share = |number: f64| (0.0..=1.0).contains(&number);
        let decay = |number: f64| (0.0..1.0).contains(&number);
        type Check<'a> = &'a dyn Fn(f64) -> bool;
        let not_negative: (Check<'_>, _) = (&at_least(0.0), "a number of at least 0");
        for (argument, number, (check, expected)) in [
            (
                "num_train_epochs",
                self.num_train_epochs,
                (
                    &at_least(f64::MIN_POSITIVE) as Check<'_>,
                    "a number above 0",
                ),
            ),
            ("learning_rate", self.learning_rate, not_negative),
            (
                "warmup_ratio",
                self.warmup_ratio,
                (&share, "a number from 0 to 1"),
            ),
            ("weight_decay", self.weight_decay, not_negative),
            (
                "adam_beta1",
                self.adam_beta1,
                (&decay, "a number from 0 to below 1"),
            ),
            (
                "adam_beta2",
                self.adam_beta2,
                (&decay, "a number from 0 to below 1"),
            ),
            ("adam_epsilon", self.adam_epsilon, not_negative),
            ("max_grad_norm", self.max_grad_norm, not_negative),
            (
                "loraplus_lr_ratio",
                self.loraplus_lr_ratio.unwrap_or(1.0),
                not_negative,
            ),
            (
                "loraplus_lr_embedding",
                self.loraplus_lr_embedding,
                not_negative,
            ),
            (
                "early_stopping_threshold",
                self.early_stopping_threshold,
                not_negative,
            ),
        ] {
            if !check(number) {
                return Err(invalid(argument, expected, number));
            }
        }
        for (pattern, &rate) in &self.learning_rate_mapping {
            if !at_least(0.0)(rate) {
                let expected = "numbers of at least 0";
                let found = format!("{rate} for `{pattern}`");
                return Err(invalid("learning_rate_mapping", expected, found));
            }
        }
        self.lr_scheduler_kwargs
            .check(self.lr_scheduler_type, self.learning_rate)?;
        self.validate_strategies()
    }

    /// Checks that what waits for evaluations gets some, as the reference does.
    fn validate_strategies(&self) -> Result<()> {
        let evaluates = self.eval_strategy != IntervalStrategy::No;
        let plateau = self.lr_scheduler_type == LrSchedulerType::ReduceLrOnPlateau;
        for (argument, waits, found) in [
            (
                "load_best_model_at_end",
                self.load_best_model_at_end,
                "true".to_owned(),
            ),
            (
                "early_stopping_patience",
                self.early_stopping_patience.is_some(),
                format!("{:?}", self.early_stopping_patience),
            ),
            (
                "save_strategy",
                self.save_strategy == SaveStrategy::Best,
                "best".to_owned(),
            ),
            (
                "lr_scheduler_type",
                plateau,
                self.lr_scheduler_type.name().to_owned(),
            ),
        ] {
            if waits && !evaluates {
                let expected = "an `eval_strategy` of steps or epoch beside it";
                return Err(invalid(argument, expected, found));
            }
        }
        if !self.load_best_model_at_end {
            return Ok(());
        }
        let fits = match (self.save_strategy, self.eval_strategy) {
            (SaveStrategy::Best, _) | (SaveStrategy::Epoch, IntervalStrategy::Epoch) => true,
            (SaveStrategy::Steps, IntervalStrategy::Steps) => {
                self.save_steps.is_multiple_of(self.eval_interval())
            }
            _ => false,
        };
        match fits {
            true => Ok(()),
            false => Err(invalid(
                "load_best_model_at_end",
                "a `save_strategy` that is best, or `eval_strategy`'s with `save_steps` a multiple \
                 of `eval_steps`,",
                format!(
                    "true with save_strategy {:?} ({}) and eval_strategy {:?} ({})",
                    self.save_strategy,
                    f64::from(self.save_steps),
                    self.eval_strategy,
                    f64::from(self.eval_interval())
                ),
            )),
        }
    }
}

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
    use crate::training::Interval;

    #[test]
    fn defaults_are_valid() {
        TrainingArguments::default().validate().unwrap();
    }

    #[test]
    fn names_the_argument_that_cannot_be_meant() {
        type Break = fn(&mut TrainingArguments);
        let broken: [(&str, Break); 19] = [
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
            ("eval_steps", |a| a.eval_steps = Some(Interval::Steps(0))),
            ("logging_steps", |a| a.logging_steps = 1.5.into()),
            ("learning_rate_mapping", |a| {
                a.learning_rate_mapping.insert("x".to_owned(), -1.0);
            }),
            ("load_best_model_at_end", |a| {
                a.load_best_model_at_end = true
            }),
            ("load_best_model_at_end", |a| {
                a.load_best_model_at_end = true;
                a.eval_strategy = IntervalStrategy::Epoch;
            }),
            ("load_best_model_at_end", |a| {
                a.load_best_model_at_end = true;
                a.eval_strategy = IntervalStrategy::Steps;
                a.eval_steps = Some(300.into());
            }),
            ("early_stopping_patience", |a| {
                a.early_stopping_patience = Some(1)
            }),
            ("save_strategy", |a| a.save_strategy = SaveStrategy::Best),
            ("lr_scheduler_type", |a| {
                a.lr_scheduler_type = LrSchedulerType::ReduceLrOnPlateau
            }),
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
    fn the_best_model_needs_checkpoints_where_evaluations_are() {
        let arguments = TrainingArguments {
            load_best_model_at_end: true,
            eval_strategy: IntervalStrategy::Steps,
            eval_steps: Some(100.into()),
            ..Default::default()
        };
        arguments.validate().unwrap();
        let best = TrainingArguments {
            save_strategy: SaveStrategy::Best,
            eval_steps: Some(0.3.into()),
            ..arguments
        };
        best.validate().unwrap();
    }

    #[test]
    fn a_schedule_refuses_what_it_does_not_read() {
        let mut arguments = TrainingArguments::default();
        arguments.lr_scheduler_kwargs.power = Some(2.0);
        assert!(matches!(
            arguments.validate(),
            Err(Error::Training(
                TrainingError::InvalidSchedulerKwargs { .. }
            ))
        ));
    }
}
