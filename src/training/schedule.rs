use burn::lr_scheduler::LrScheduler;
use burn::tensor::backend::Backend;
use serde::{Deserialize, Serialize};

/// How the learning rate moves over a run, by the reference's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LrSchedulerType {
    /// Up to the full rate over the warm-up, then down to 0 at the last step.
    #[default]
    Linear,
    /// The full rate throughout, without a warm-up.
    Constant,
    /// Up to the full rate over the warm-up, then the full rate.
    ConstantWithWarmup,
}

/// The learning rate of every optimiser step of a run.
///
/// The formulas are those of `transformers.optimization` (`get_linear_schedule_with_warmup`
/// and its siblings). As a Burn scheduler it yields the rate of one step after another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LearningRateSchedule {
    kind: LrSchedulerType,
    peak: f64,
    warmup_steps: usize,
    total_steps: usize,
    next_step: usize,
}

impl LearningRateSchedule {
    /// The schedule of a run of `total_steps` optimiser steps.
    pub fn new(kind: LrSchedulerType, peak: f64, warmup_steps: usize, total_steps: usize) -> Self {
        Self {
            kind,
            peak,
            warmup_steps,
            total_steps,
            next_step: 0,
        }
    }

    /// The same schedule, about to yield the rate of that step, from 0.
    #[must_use]
    pub fn starting_at(self, step: usize) -> Self {
        Self {
            next_step: step,
            ..self
        }
    }

    /// The rate that optimiser step `step` uses, counted from 0: 0 at the first step of
    /// a warm-up.
    pub fn rate(&self, step: usize) -> f64 {
        let warming = step < self.warmup_steps;
        let rise = step as f64 / self.warmup_steps.max(1) as f64;
        let factor = match self.kind {
            LrSchedulerType::Constant => 1.0,
            LrSchedulerType::Linear | LrSchedulerType::ConstantWithWarmup if warming => rise,
            LrSchedulerType::ConstantWithWarmup => 1.0,
            LrSchedulerType::Linear => {
                let left = self.total_steps.saturating_sub(step) as f64;
                left / self.total_steps.saturating_sub(self.warmup_steps).max(1) as f64
            }
        };
        self.peak * factor
    }
}

impl LrScheduler for LearningRateSchedule {
    type Record<B: Backend> = usize;

    fn step(&mut self) -> f64 {
        let rate = self.rate(self.next_step);
        self.next_step += 1;
        rate
    }

    fn to_record<B: Backend>(&self) -> usize {
        self.next_step
    }

    fn load_record<B: Backend>(self, record: usize) -> Self {
        self.starting_at(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(kind: LrSchedulerType, warmup: usize, total: usize) -> Vec<f64> {
        let mut schedule = LearningRateSchedule::new(kind, 2.0, warmup, total);
        (0..total)
            .map(|_| LrScheduler::step(&mut schedule))
            .collect()
    }

    #[test]
    fn linear_rises_from_zero_and_falls_towards_zero() {
        let found = rates(LrSchedulerType::Linear, 2, 6);
        assert_eq!(found, [0.0, 1.0, 2.0, 1.5, 1.0, 0.5]);
    }

    #[test]
    fn linear_without_warmup_starts_at_the_peak() {
        assert_eq!(rates(LrSchedulerType::Linear, 0, 4), [2.0, 1.5, 1.0, 0.5]);
    }

    #[test]
    fn constant_ignores_the_warmup_unless_asked() {
        assert_eq!(rates(LrSchedulerType::Constant, 2, 3), [2.0; 3]);
        assert_eq!(
            rates(LrSchedulerType::ConstantWithWarmup, 2, 4),
            [0.0, 1.0, 2.0, 2.0]
        );
    }

    #[test]
    fn a_warmup_of_the_whole_run_never_divides_by_zero() {
        assert_eq!(rates(LrSchedulerType::Linear, 4, 4), [0.0, 0.5, 1.0, 1.5]);
        let schedule = LearningRateSchedule::new(LrSchedulerType::Linear, 2.0, 4, 4);
        assert_eq!(schedule.rate(9), 0.0);
    }

    #[test]
    fn continues_where_it_is_told() {
        let schedule = LearningRateSchedule::new(LrSchedulerType::Linear, 2.0, 2, 6);
        let mut resumed = schedule.starting_at(3);
        assert_eq!(LrScheduler::step(&mut resumed), schedule.rate(3));
    }
}
