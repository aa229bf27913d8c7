use std::f64::consts::PI;

use burn::lr_scheduler::LrScheduler;
use burn::tensor::backend::Backend;
use serde::{Deserialize, Serialize};

use super::scheduler_kwargs::{LrSchedulerKwargs, RampType};

/// How the learning rate moves over a run, by the reference's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum LrSchedulerType {
    /// Up to the full rate over the warm-up, then down to 0 at the last step.
    #[default]
    Linear,
    /// After the warm-up down along a cosine.
    Cosine,
    /// After the warm-up down along a cosine to 0, from the full rate again and again.
    CosineWithRestarts,
    /// After the warm-up down along a polynomial.
    Polynomial,
    /// The full rate throughout, without a warm-up.
    Constant,
    /// Up to the full rate over the warm-up, then the full rate.
    ConstantWithWarmup,
    /// After the warm-up down with the inverse square root of the step.
    InverseSqrt,
    /// The full rate, reduced whenever evaluations stop to improve: the metric is
    /// `metric_for_best_model`. Without a warm-up.
    ReduceLrOnPlateau,
    /// As [`Cosine`](Self::Cosine), to a least rate that is given.
    CosineWithMinLr,
    /// The same, with a warm-up that does not begin at 0.
    CosineWarmupWithMinLr,
    /// Up, along the full rate, and down.
    WarmupStableDecay,
}

impl LrSchedulerType {
    /// Every kind.
    pub const ALL: [Self; 11] = [
        Self::Linear,
        Self::Cosine,
        Self::CosineWithRestarts,
        Self::Polynomial,
        Self::Constant,
        Self::ConstantWithWarmup,
        Self::InverseSqrt,
        Self::ReduceLrOnPlateau,
        Self::CosineWithMinLr,
        Self::CosineWarmupWithMinLr,
        Self::WarmupStableDecay,
    ];

    /// The reference's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linear => "linear",
            Self::Cosine => "cosine",
            Self::CosineWithRestarts => "cosine_with_restarts",
            Self::Polynomial => "polynomial",
            Self::Constant => "constant",
            Self::ConstantWithWarmup => "constant_with_warmup",
            Self::InverseSqrt => "inverse_sqrt",
            Self::ReduceLrOnPlateau => "reduce_lr_on_plateau",
            Self::CosineWithMinLr => "cosine_with_min_lr",
            Self::CosineWarmupWithMinLr => "cosine_warmup_with_min_lr",
            Self::WarmupStableDecay => "warmup_stable_decay",
        }
    }

    /// The kind of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// The learning rate of every optimiser step of a run.
///
/// The formulas are those of `transformers.optimization` (`get_linear_schedule_with_warmup`
/// and its siblings). As a Burn scheduler it yields the rate of one step after another.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LearningRateSchedule {
    kind: LrSchedulerType,
    kwargs: LrSchedulerKwargs,
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
            kwargs: LrSchedulerKwargs::default(),
            peak,
            warmup_steps,
            total_steps,
            next_step: 0,
        }
    }

    /// The same schedule with what else its kind reads.
    #[must_use]
    pub fn with_kwargs(self, kwargs: LrSchedulerKwargs) -> Self {
        Self { kwargs, ..self }
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
    /// most warm-ups.
    pub fn rate(&self, step: usize) -> f64 {
        self.peak * self.factor(step)
    }

    /// What every group's own rate is multiplied with at optimiser step `step`, counted
    /// from 0. For [`LrSchedulerType::ReduceLrOnPlateau`] 1: it depends on evaluations.
    pub fn factor(&self, step: usize) -> f64 {
        use LrSchedulerType as Kind;
        match self.kind {
            Kind::Constant | Kind::ReduceLrOnPlateau => 1.0,
            Kind::CosineWarmupWithMinLr => self.cosine_from_above(step),
            Kind::WarmupStableDecay => self.warmup_stable_decay(step),
            _ if step < self.warmup_steps => step as f64 / self.warmup_steps.max(1) as f64,
            Kind::ConstantWithWarmup => 1.0,
            Kind::Linear => {
                let left = self.total_steps.saturating_sub(step) as f64;
                left / self.decay_steps()
            }
            Kind::Cosine | Kind::CosineWithMinLr => {
                let least = self.kwargs.least_share(self.peak);
                let factor = wave(self.kwargs.num_cycles, self.progress(step));
                (factor * (1.0 - least) + least).max(0.0)
            }
            Kind::CosineWithRestarts => {
                let progress = self.progress(step);
                let cycles = self.kwargs.num_cycles.unwrap_or(1.0);
                match progress < 1.0 {
                    true => (0.5 * (1.0 + (PI * ((cycles * progress) % 1.0)).cos())).max(0.0),
                    false => 0.0,
                }
            }
            Kind::Polynomial => {
                let end = self.kwargs.lr_end();
                let left = (1.0 - self.progress(step)).max(0.0);
                let power = self.kwargs.power.unwrap_or(1.0);
                ((self.peak - end) * left.powf(power) + end) / self.peak
            }
            Kind::InverseSqrt => {
                let without = match self.warmup_steps {
                    0 => 10_000,
                    steps => steps,
                };
                let timescale = self.kwargs.timescale.unwrap_or(without) as f64;
                let shift = timescale - self.warmup_steps as f64;
                1.0 / ((step as f64 + shift) / timescale).sqrt()
            }
        }
    }

    /// The steps after the warm-up, at least 1.
    fn decay_steps(&self) -> f64 {
        self.total_steps.saturating_sub(self.warmup_steps).max(1) as f64
    }

    /// The share of the steps after the warm-up that is behind.
    fn progress(&self, step: usize) -> f64 {
        (step - self.warmup_steps) as f64 / self.decay_steps()
    }

    /// `get_cosine_with_min_lr_schedule_with_warmup_lr_rate`.
    fn cosine_from_above(&self, step: usize) -> f64 {
        let (step, warmup) = (step as f64, self.warmup_steps as f64);
        if step < warmup {
            return match self.kwargs.warmup_lr_rate {
                Some(first) => first + (1.0 - first) * step / (warmup - 1.0).max(1.0),
                None => (step + 1.0) / warmup.max(1.0),
            };
        }
        let progress = (step - warmup + 1.0) / self.decay_steps();
        let least = self.kwargs.least_share(self.peak);
        let factor = wave(self.kwargs.num_cycles, progress);
        (factor * (1.0 - least) + least).max(0.0)
    }

    /// `get_wsd_schedule`.
    fn warmup_stable_decay(&self, step: usize) -> f64 {
        let kwargs = &self.kwargs;
        let least = kwargs.min_lr_ratio.unwrap_or(0.0);
        let above = |factor: f64| (factor * (1.0 - least) + least).max(0.0);
        let decay_steps = kwargs.num_decay_steps.unwrap_or(0);
        let edges = self.warmup_steps + decay_steps;
        if step < self.warmup_steps {
            let progress = step as f64 / self.warmup_steps as f64;
            return above(match kwargs.warmup_type.unwrap_or(RampType::Linear) {
                RampType::Linear => progress,
                RampType::Cosine => 0.5 * (1.0 - (PI * progress).cos()),
                RampType::OneMinusSqrt => 1.0 - (1.0 - progress).sqrt(),
            });
        }
        // Where warm-up and decay do not fit into the run, the decay begins early.
        let stable_steps = match kwargs.num_stable_steps {
            Some(steps) => steps as i64,
            None => self.total_steps as i64 - edges as i64,
        };
        let decayed = step as i64 - self.warmup_steps as i64 - stable_steps;
        if decayed < 0 {
            return 1.0;
        }
        if decayed >= decay_steps as i64 {
            return least;
        }
        let progress = decayed as f64 / decay_steps as f64;
        above(match kwargs.decay_type.unwrap_or(RampType::Cosine) {
            RampType::Linear => 1.0 - progress,
            RampType::Cosine => wave(kwargs.num_cycles, progress),
            RampType::OneMinusSqrt => 1.0 - progress.sqrt(),
        })
    }
}

/// Waves of the cosine between 1 and 0, half a one by default.
fn wave(cycles: Option<f64>, progress: f64) -> f64 {
    0.5 * (1.0 + (PI * cycles.unwrap_or(0.5) * 2.0 * progress).cos())
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

    fn expected() -> serde_json::Value {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/fixtures/training_arguments/expected.json"
        );
        serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
    }

    #[test]
    fn every_schedule_is_transformers() {
        let expected = expected();
        let peak = expected["peak"].as_f64().unwrap();
        let mut kinds = std::collections::HashSet::new();
        for case in expected["schedules"].as_array().unwrap() {
            let kind = LrSchedulerType::from_name(case["kind"].as_str().unwrap()).unwrap();
            let kwargs: LrSchedulerKwargs = serde_json::from_value(case["kwargs"].clone()).unwrap();
            kwargs.check(kind, peak).unwrap();
            let number = |name: &str| case[name].as_u64().unwrap() as usize;
            let schedule = LearningRateSchedule::new(kind, peak, number("warmup"), number("total"));
            let furthest = |schedule: LearningRateSchedule| {
                let rates = case["rates"].as_array().unwrap().iter().enumerate();
                rates
                    .map(|(step, rate)| (schedule.rate(step) - rate.as_f64().unwrap()).abs())
                    .fold(0.0, f64::max)
            };
            let found = furthest(schedule.with_kwargs(kwargs));
            assert!(found < 1e-12, "{found}: {case}");
            // The options count.
            if kwargs != LrSchedulerKwargs::default() {
                let without = furthest(schedule);
                assert!(without > 1e-5, "{case}");
            }
            kinds.insert(kind);
        }
        // All but the one that follows evaluations.
        assert_eq!(kinds.len(), LrSchedulerType::ALL.len() - 1);
    }

    #[test]
    fn names_are_those_of_json() {
        for kind in LrSchedulerType::ALL {
            let json = serde_json::to_value(kind).unwrap();
            assert_eq!(json, kind.name());
            assert_eq!(LrSchedulerType::from_name(kind.name()), Some(kind));
        }
        assert_eq!(LrSchedulerType::from_name("greedy"), None);
    }
}
