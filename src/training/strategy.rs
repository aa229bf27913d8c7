use serde::{Deserialize, Serialize};

/// When something recurs in a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IntervalStrategy {
    /// Never.
    #[default]
    No,
    /// Every so many steps.
    Steps,
    /// At the end of each epoch.
    Epoch,
}

/// When checkpoints are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SaveStrategy {
    /// Never.
    No,
    /// Every `save_steps` steps, and after the last one.
    #[default]
    Steps,
    /// At the end of each epoch.
    Epoch,
    /// Whenever an evaluation is the best so far.
    Best,
}

/// How far apart two things are in a run: in steps, or as a share of the whole run.
///
/// In JSON a number, as in the reference: below 1 it is a share.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(from = "f64", into = "f64")]
pub enum Interval {
    /// So many optimiser steps.
    Steps(usize),
    /// That share of the run's optimiser steps, rounded up.
    Share(f64),
}

impl Interval {
    /// The steps in a run of `total_steps`, at least 1.
    pub fn steps(self, total_steps: usize) -> usize {
        let steps = match self {
            Self::Steps(steps) => steps,
            Self::Share(share) => (total_steps as f64 * share).ceil() as usize,
        };
        steps.max(1)
    }

    /// Whether it can be meant.
    pub(super) fn is_valid(self) -> bool {
        match self {
            Self::Steps(steps) => steps > 0,
            Self::Share(share) => share > 0.0 && share < 1.0,
        }
    }

    /// Whether whole numbers of `other` fit into it, as far as that can be told before the
    /// run.
    pub(super) fn is_multiple_of(self, other: Self) -> bool {
        match (self, other) {
            (Self::Steps(ours), Self::Steps(theirs)) => ours.is_multiple_of(theirs),
            (Self::Share(ours), Self::Share(theirs)) => {
                let times = ours / theirs;
                (times - times.round()).abs() < 1e-6
            }
            _ => false,
        }
    }
}

impl From<usize> for Interval {
    fn from(steps: usize) -> Self {
        Self::Steps(steps)
    }
}

impl From<f64> for Interval {
    /// A share below 1, steps from 1 on; what is neither is not valid.
    fn from(number: f64) -> Self {
        match number >= 1.0 && number.fract() == 0.0 {
            true => Self::Steps(number as usize),
            false => Self::Share(number),
        }
    }
}

impl From<Interval> for f64 {
    fn from(interval: Interval) -> Self {
        match interval {
            Interval::Steps(steps) => steps as f64,
            Interval::Share(share) => share,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_round_up_and_are_numbers_below_one() {
        assert_eq!(Interval::from(0.1).steps(25), 3);
        assert_eq!(Interval::from(0.1).steps(0), 1);
        assert_eq!(Interval::from(7).steps(25), 7);
        for (number, valid) in [(0.1, true), (5.0, true), (1.5, false), (0.0, false)] {
            let interval: Interval = serde_json::from_str(&number.to_string()).unwrap();
            assert_eq!(interval.is_valid(), valid, "{number}");
        }
        assert!(!Interval::from(f64::NAN).is_valid());
        assert_eq!(serde_json::to_string(&Interval::from(5)).unwrap(), "5.0");
    }

    #[test]
    fn multiples_are_told() {
        let multiple =
            |ours: f64, theirs: f64| Interval::from(ours).is_multiple_of(Interval::from(theirs));
        assert!(multiple(10.0, 5.0) && !multiple(10.0, 4.0));
        assert!(multiple(0.3, 0.1) && !multiple(0.3, 0.2));
        assert!(!multiple(0.5, 5.0));
    }
}
