use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::schedule::LrSchedulerType;
use crate::error::{Result, TrainingError};

/// The form of a warm-up or a decay of [`LrSchedulerType::WarmupStableDecay`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RampType {
    /// A straight line.
    Linear,
    /// Half a wave of the cosine.
    Cosine,
    /// `1 - sqrt`, steep at first where it falls and at last where it rises.
    #[serde(rename = "1-sqrt")]
    OneMinusSqrt,
}

/// Whether [`LrSchedulerType::ReduceLrOnPlateau`] waits for a metric to fall or to rise.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlateauMode {
    /// Lower is better.
    Min,
    /// Higher is better.
    Max,
}

/// How [`LrSchedulerType::ReduceLrOnPlateau`] reads its `threshold`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ThresholdMode {
    /// As a share of the best value.
    Rel,
    /// As a difference to it.
    Abs,
}

/// What a learning-rate schedule is built with beyond the warm-up: the reference's
/// `lr_scheduler_kwargs`, by its names.
///
/// Each kind of schedule reads some of them, and refuses the others.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LrSchedulerKwargs {
    /// Waves of the cosine: 0.5 by default, which only falls; with restarts how often the
    /// rate starts from its peak, 1 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_cycles: Option<f64>,
    /// Where the polynomial ends, 1e-7 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr_end: Option<f64>,
    /// The polynomial's power, 1 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub power: Option<f64>,
    /// The time scale of the inverse square root: the warm-up's steps by default, 10,000
    /// without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timescale: Option<usize>,
    /// The least rate of a cosine or a plateau.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_lr: Option<f64>,
    /// The least rate of a cosine as a share of the peak, instead of `min_lr`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_lr_rate: Option<f64>,
    /// Where the warm-up of a cosine begins, as a share of the peak.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_lr_rate: Option<f64>,
    /// The steps over which the rate falls at the end; must be given where it is read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_decay_steps: Option<usize>,
    /// The steps at the peak; what warm-up and decay leave by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub num_stable_steps: Option<usize>,
    /// The form of the warm-up, linear by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_type: Option<RampType>,
    /// The form of the decay, cosine by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decay_type: Option<RampType>,
    /// The rate at either end as a share of the peak, 0 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_lr_ratio: Option<f64>,
    /// What a plateau waits for: what the metric's `greater_is_better` says by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<PlateauMode>,
    /// What a plateau multiplies the rate with, 0.1 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub factor: Option<f64>,
    /// How many evaluations without an improvement a plateau bears, 10 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patience: Option<usize>,
    /// What an improvement must be larger than, 1e-4 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f64>,
    /// How `threshold` is read, as a share by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub threshold_mode: Option<ThresholdMode>,
    /// The evaluations after a reduction that do not count, 0 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cooldown: Option<usize>,
    /// Reductions smaller than this are not made, 1e-8 by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eps: Option<f64>,
}

impl LrSchedulerKwargs {
    /// The names that a kind of schedule reads.
    fn read_by(kind: LrSchedulerType) -> &'static [&'static str] {
        use LrSchedulerType as Kind;
        match kind {
            Kind::Linear | Kind::Constant | Kind::ConstantWithWarmup => &[],
            Kind::Cosine | Kind::CosineWithRestarts => &["num_cycles"],
            Kind::Polynomial => &["lr_end", "power"],
            Kind::InverseSqrt => &["timescale"],
            Kind::CosineWithMinLr => &["num_cycles", "min_lr", "min_lr_rate"],
            Kind::CosineWarmupWithMinLr => {
                &["num_cycles", "min_lr", "min_lr_rate", "warmup_lr_rate"]
            }
            Kind::WarmupStableDecay => &[
                "num_decay_steps",
                "num_stable_steps",
                "warmup_type",
                "decay_type",
                "min_lr_ratio",
                "num_cycles",
            ],
            Kind::ReduceLrOnPlateau => &[
                "mode",
                "factor",
                "patience",
                "threshold",
                "threshold_mode",
                "cooldown",
                "min_lr",
                "eps",
            ],
        }
    }

    /// Checks that a schedule of that kind and peak can be built with these.
    ///
    /// # Errors
    /// [`TrainingError::InvalidSchedulerKwargs`] if one is not read by that kind, is out of
    /// range or is missing.
    pub(super) fn check(&self, kind: LrSchedulerType, peak: f64) -> Result<()> {
        let refuse = |reason: String| {
            Err(TrainingError::InvalidSchedulerKwargs {
                scheduler: kind.name(),
                reason,
            }
            .into())
        };
        let read = Self::read_by(kind);
        let given = match serde_json::to_value(self) {
            Ok(Value::Object(given)) => given,
            _ => return refuse("a number that JSON does not have".to_owned()),
        };
        for (name, value) in &given {
            if !read.contains(&name.as_str()) {
                return refuse(format!("`{name}` is not read, it reads {read:?}"));
            }
            // Only numbers can be out of range; JSON has no infinities: they are null.
            if value.is_null() || value.as_f64().is_some_and(|number| number < 0.0) {
                return refuse(format!("`{name}` must be a number of at least 0"));
            }
        }
        match kind {
            LrSchedulerType::Polynomial if peak <= self.lr_end() => refuse(format!(
                "`lr_end` is {}, expected less than the learning rate, {peak}",
                self.lr_end()
            )),
            LrSchedulerType::CosineWithMinLr | LrSchedulerType::CosineWarmupWithMinLr => {
                match (self.min_lr, self.min_lr_rate) {
                    (Some(_), Some(_)) => {
                        refuse("only one of `min_lr` and `min_lr_rate` may be given".to_owned())
                    }
                    (None, None) => {
                        refuse("one of `min_lr` and `min_lr_rate` must be given".to_owned())
                    }
                    (Some(_), None) if peak == 0.0 => {
                        refuse("`min_lr` is a share of the learning rate, which is 0".to_owned())
                    }
                    _ => Ok(()),
                }
            }
            LrSchedulerType::WarmupStableDecay if self.num_decay_steps.is_none() => {
                refuse("`num_decay_steps` must be given".to_owned())
            }
            LrSchedulerType::InverseSqrt if self.timescale == Some(0) => {
                refuse("`timescale` must be at least 1".to_owned())
            }
            LrSchedulerType::ReduceLrOnPlateau if self.factor.is_some_and(|f| f >= 1.0) => {
                refuse("`factor` must be less than 1".to_owned())
            }
            _ => Ok(()),
        }
    }

    pub(super) fn lr_end(&self) -> f64 {
        self.lr_end.unwrap_or(1e-7)
    }

    /// The least rate of a cosine as a share of the peak.
    pub(super) fn least_share(&self, peak: f64) -> f64 {
        match (self.min_lr_rate, self.min_lr) {
            (Some(share), _) => share,
            (None, Some(rate)) => rate / peak,
            (None, None) => 0.0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn reason(kind: LrSchedulerType, peak: f64, json: &str) -> Option<String> {
        let kwargs: LrSchedulerKwargs = serde_json::from_str(json).unwrap();
        match kwargs.check(kind, peak) {
            Ok(()) => None,
            Err(Error::Training(TrainingError::InvalidSchedulerKwargs { scheduler, reason })) => {
                assert_eq!(scheduler, kind.name());
                Some(reason)
            }
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn a_schedule_reads_its_own_and_refuses_the_others() {
        use LrSchedulerType as Kind;
        for (kind, json) in [
            (Kind::Linear, "{}"),
            (Kind::Cosine, r#"{"num_cycles": 2}"#),
            (Kind::Polynomial, r#"{"lr_end": 1e-5, "power": 2}"#),
            (Kind::CosineWithMinLr, r#"{"min_lr_rate": 0.1}"#),
            (
                Kind::WarmupStableDecay,
                r#"{"num_decay_steps": 3, "decay_type": "1-sqrt"}"#,
            ),
            (
                Kind::ReduceLrOnPlateau,
                r#"{"mode": "max", "threshold_mode": "abs"}"#,
            ),
        ] {
            assert_eq!(reason(kind, 1e-3, json), None, "{json}");
        }
        for (kind, json, expected) in [
            (Kind::Linear, r#"{"num_cycles": 2}"#, "`num_cycles`"),
            (Kind::Cosine, r#"{"power": 2}"#, "`power`"),
            (Kind::Cosine, r#"{"num_cycles": -1}"#, "at least 0"),
            (Kind::Polynomial, r#"{"lr_end": 0.1}"#, "`lr_end` is 0.1"),
            (Kind::CosineWithMinLr, "{}", "must be given"),
            (
                Kind::CosineWithMinLr,
                r#"{"min_lr": 1e-5, "min_lr_rate": 0.1}"#,
                "only one",
            ),
            (Kind::WarmupStableDecay, "{}", "`num_decay_steps`"),
            (Kind::InverseSqrt, r#"{"timescale": 0}"#, "`timescale`"),
            (Kind::ReduceLrOnPlateau, r#"{"factor": 1}"#, "`factor`"),
        ] {
            let found = reason(kind, 1e-3, json).unwrap_or_else(|| panic!("{json} passed"));
            assert!(found.contains(expected), "{found}");
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        let kwargs = LrSchedulerKwargs {
            power: Some(f64::NAN),
            ..Default::default()
        };
        assert!(kwargs.check(LrSchedulerType::Polynomial, 1.0).is_err());
    }
}
