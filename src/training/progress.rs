use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How far a run is: what a log line says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LogRecord {
    /// The optimiser steps behind.
    pub step: usize,
    /// The optimiser steps of the whole run.
    pub total_steps: usize,
    /// The epochs behind, with their fraction.
    pub epoch: f64,
    /// The mean loss of the steps since the log line before.
    pub loss: f64,
    /// The learning rate of the last step.
    pub learning_rate: f64,
    /// The norm of the last step's gradients, before clipping.
    pub grad_norm: f64,
    /// The samples by the seconds that they took, loading, evaluations and checkpoints left
    /// out.
    pub pairs_per_second: f64,
    /// The time since this run began or went on.
    pub elapsed: Duration,
    /// The time that is left, should it go on so.
    pub remaining: Duration,
}

impl fmt::Display for LogRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "step {}/{}, epoch {:.2}: loss {:.4}, learning rate {:.2e}, gradient norm {:.3}, \
             {:.1} pairs/s, {} left",
            self.step,
            self.total_steps,
            self.epoch,
            self.loss,
            self.learning_rate,
            self.grad_norm,
            self.pairs_per_second,
            Clock(self.remaining),
        )
    }
}

/// What a run came to: the numbers that the reference's `train` returns, by its names.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RunSummary {
    /// The optimiser steps behind.
    pub global_step: usize,
    /// The epochs behind, with their fraction.
    pub epoch: f64,
    /// The mean loss of all steps.
    pub train_loss: f64,
    /// The seconds that this run's steps took, evaluations and checkpoints left out.
    pub train_runtime: f64,
    /// The samples that this run went through.
    pub train_samples: usize,
    /// Those by the seconds.
    pub train_samples_per_second: f64,
    /// The best evaluation's step.
    pub best_global_step: Option<usize>,
    /// The best evaluation's score.
    pub best_metric: Option<f64>,
    /// Whether the run stopped because evaluations improved no more.
    pub stopped_early: bool,
    /// The most memory that the process has taken so far, in bytes, where the system says it.
    /// Not a GPU's own, of which Burn does not tell.
    pub peak_memory: Option<u64>,
}

impl fmt::Display for RunSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} steps, {:.2} epochs, mean loss {:.4}, {} samples in {}: {:.1} samples/s",
            self.global_step,
            self.epoch,
            self.train_loss,
            self.train_samples,
            Clock(Duration::from_secs_f64(self.train_runtime.max(0.0))),
            self.train_samples_per_second,
        )?;
        if let (Some(step), Some(score)) = (self.best_global_step, self.best_metric) {
            write!(f, "; the best evaluation is {score:.4} after {step} steps")?;
        }
        if self.stopped_early {
            write!(f, "; stopped early")?;
        }
        match self.peak_memory {
            Some(bytes) => write!(f, "; {} MB of memory at most", bytes / 1_000_000),
            None => Ok(()),
        }
    }
}

/// A time as hours, minutes and seconds.
struct Clock(Duration);

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
        match hours {
            0 => write!(f, "{minutes}:{rest:02}"),
            _ => write!(f, "{hours}:{minutes:02}:{rest:02}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_says_how_long_it_will_take() {
        let record = LogRecord {
            step: 5,
            total_steps: 20,
            epoch: 0.25,
            loss: 1.23456,
            learning_rate: 1e-5,
            grad_norm: 0.5,
            pairs_per_second: 64.04,
            elapsed: Duration::from_secs(100),
            remaining: Duration::from_secs(3725),
        };
        assert_eq!(
            record.to_string(),
            "step 5/20, epoch 0.25: loss 1.2346, learning rate 1.00e-5, gradient norm 0.500, \
             64.0 pairs/s, 1:02:05 left"
        );
    }

    #[test]
    fn a_summary_names_the_best_evaluation() {
        let summary = RunSummary {
            global_step: 12,
            epoch: 1.5,
            train_loss: 0.5,
            train_runtime: 65.0,
            train_samples: 96,
            train_samples_per_second: 96.0 / 65.0,
            best_global_step: Some(8),
            best_metric: Some(0.75),
            stopped_early: true,
            peak_memory: Some(530_900_000),
        };
        let text = summary.to_string();
        assert!(text.contains("96 samples in 1:05: 1.5 samples/s"), "{text}");
        assert!(
            text.ends_with("0.7500 after 8 steps; stopped early; 530 MB of memory at most"),
            "{text}"
        );
        let without = RunSummary {
            best_global_step: None,
            stopped_early: false,
            ..summary
        };
        assert!(!without.to_string().contains("best"));
    }
}
