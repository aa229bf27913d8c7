use super::scheduler_kwargs::{LrSchedulerKwargs, PlateauMode, ThresholdMode};

/// A rate that is reduced whenever a metric has stopped to improve: PyTorch's
/// `ReduceLROnPlateau`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Plateau {
    kwargs: LrSchedulerKwargs,
    greater_is_better: bool,
}

impl Plateau {
    /// With `greater_is_better` where the options name no mode.
    pub(super) fn new(kwargs: LrSchedulerKwargs, greater_is_better: bool) -> Self {
        let greater_is_better = match kwargs.mode {
            Some(mode) => mode == PlateauMode::Max,
            None => greater_is_better,
        };
        Self {
            kwargs,
            greater_is_better,
        }
    }

    /// What a rate has become after evaluations with these scores.
    pub(super) fn rate(&self, mut rate: f64, scores: impl IntoIterator<Item = f64>) -> f64 {
        let kwargs = &self.kwargs;
        let patience = kwargs.patience.unwrap_or(10);
        let least = kwargs.min_lr.unwrap_or(0.0);
        let mut best = match self.greater_is_better {
            true => f64::NEG_INFINITY,
            false => f64::INFINITY,
        };
        let (mut bad, mut cooling) = (0, 0);
        for score in scores {
            match self.improves(score, best) {
                true => (best, bad) = (score, 0),
                false => bad += 1,
            }
            if cooling > 0 {
                cooling -= 1;
                bad = 0;
            }
            if bad > patience {
                let reduced = (rate * kwargs.factor.unwrap_or(0.1)).max(least);
                if rate - reduced > kwargs.eps.unwrap_or(1e-8) {
                    rate = reduced;
                }
                cooling = kwargs.cooldown.unwrap_or(0);
                bad = 0;
            }
        }
        rate
    }

    fn improves(&self, score: f64, best: f64) -> bool {
        let threshold = self.kwargs.threshold.unwrap_or(1e-4);
        let mode = self.kwargs.threshold_mode.unwrap_or(ThresholdMode::Rel);
        match (self.greater_is_better, mode) {
            (true, ThresholdMode::Rel) => score > best * (1.0 + threshold),
            (true, ThresholdMode::Abs) => score > best + threshold,
            (false, ThresholdMode::Rel) => score < best * (1.0 - threshold),
            (false, ThresholdMode::Abs) => score < best - threshold,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kwargs(json: &str) -> LrSchedulerKwargs {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn reduces_after_its_patience() {
        let plateau = Plateau::new(kwargs(r#"{"patience": 1, "factor": 0.5}"#), false);
        let scores = [1.0, 1.0, 1.0, 1.0, 0.5];
        let rates: Vec<f64> = (0..=5)
            .map(|n| plateau.rate(8.0, scores[..n].iter().copied()))
            .collect();
        assert_eq!(rates, [8.0, 8.0, 8.0, 4.0, 4.0, 4.0]);
    }

    #[test]
    fn the_metrics_direction_counts_unless_a_mode_is_named() {
        let falling = [3.0, 2.0, 1.0];
        let after = |json, greater| Plateau::new(kwargs(json), greater).rate(1.0, falling);
        assert_eq!(after(r#"{"patience": 0}"#, false), 1.0);
        assert!(after(r#"{"patience": 0}"#, true) < 0.1);
        assert_eq!(after(r#"{"patience": 0, "mode": "min"}"#, true), 1.0);
    }

    #[test]
    fn reduces_where_pytorch_reduces() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/fixtures/training_arguments/expected.json"
        );
        let expected: serde_json::Value =
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let peak = expected["peak"].as_f64().unwrap();
        let numbers = |value: &serde_json::Value| -> Vec<f64> {
            let values = value.as_array().unwrap().iter();
            values.map(|value| value.as_f64().unwrap()).collect()
        };
        for case in expected["plateau"].as_array().unwrap() {
            let kwargs: LrSchedulerKwargs = serde_json::from_value(case["kwargs"].clone()).unwrap();
            let (scores, rates) = (numbers(&case["scores"]), numbers(&case["rates"]));
            let differs = |kwargs| {
                let plateau = Plateau::new(kwargs, false);
                rates.iter().enumerate().any(|(place, expected)| {
                    let rate = plateau.rate(peak, scores[..=place].iter().copied());
                    (rate - expected).abs() > 1e-12
                })
            };
            assert!(!differs(kwargs), "{case}");
            assert!(differs(LrSchedulerKwargs::default()), "{case}");
        }
    }
}
