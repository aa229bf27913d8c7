use super::arguments::TrainingArguments;
use super::history::EvaluationRecord;
use crate::error::{Result, TrainingError};

/// The best evaluation of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BestEvaluation {
    /// The optimiser steps behind.
    pub step: usize,
    /// The value of the metric to judge by.
    pub score: f64,
}

/// Judges a run by its evaluations: which one is the best, and whether to go on.
///
/// Everything follows from the evaluations alone, so that a run that continues comes to
/// the same judgement.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Judge {
    metric: String,
    pub(super) greater_is_better: bool,
    patience: Option<usize>,
    threshold: f64,
}

/// What evaluations say.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Verdict {
    /// The evaluations that were the best so far when they came, the best of all last.
    pub improvements: Vec<BestEvaluation>,
    /// Whether there has been no improvement for too long.
    pub stop: bool,
}

impl Judge {
    /// A judge by `metric_for_best_model`; by the evaluator's `primary` metric, or the loss
    /// where there is no evaluator, if there is none named.
    pub(super) fn new(arguments: &TrainingArguments, primary: Option<String>) -> Self {
        let named = arguments.metric_for_best_model.as_deref();
        let metric = match named {
            Some(name) => name.strip_prefix("eval_").unwrap_or(name).to_owned(),
            None => primary.unwrap_or_else(|| LOSS.to_owned()),
        };
        let greater_is_better = arguments
            .greater_is_better
            .unwrap_or(!metric.ends_with(LOSS));
        Self {
            metric,
            greater_is_better,
            patience: arguments.early_stopping_patience,
            threshold: arguments.early_stopping_threshold,
        }
    }

    /// The metric's name.
    pub(super) fn metric(&self) -> &str {
        &self.metric
    }

    /// The value of the metric.
    ///
    /// # Errors
    /// [`TrainingError::UnknownMetric`] if there is none of that name.
    pub(super) fn score(&self, evaluation: &EvaluationRecord) -> Result<f64> {
        let found = evaluation.metrics.get(&self.metric);
        found.ok_or_else(|| {
            let names = evaluation.metrics.iter().map(|(name, _)| name.to_owned());
            TrainingError::UnknownMetric {
                metric: self.metric.clone(),
                available: names.collect(),
            }
            .into()
        })
    }

    /// The scores of the evaluations that count: not the one before the first step.
    pub(super) fn scores<'a>(
        &'a self,
        evaluations: &'a [EvaluationRecord],
    ) -> impl Iterator<Item = f64> + 'a {
        let counted = evaluations.iter().filter(|evaluation| evaluation.step > 0);
        counted.filter_map(|evaluation| evaluation.metrics.get(&self.metric))
    }

    /// What the evaluations say: `_determine_best_metric` and `EarlyStoppingCallback` of
    /// the reference, one evaluation after the other.
    pub(super) fn judge(&self, evaluations: &[EvaluationRecord]) -> Verdict {
        let mut verdict = Verdict::default();
        let mut best: Option<f64> = None;
        let mut waited = 0;
        for evaluation in evaluations.iter().filter(|evaluation| evaluation.step > 0) {
            let Some(score) = evaluation.metrics.get(&self.metric) else {
                continue;
            };
            let improves = |best: f64| match self.greater_is_better {
                true => score > best,
                false => score < best,
            };
            let far_enough = |best: f64| (score - best).abs() > self.threshold;
            waited = match best {
                Some(best) if !(improves(best) && far_enough(best)) => waited + 1,
                _ => 0,
            };
            // The reference stops for good; what comes after does not take it back.
            verdict.stop |= self.patience.is_some_and(|patience| waited >= patience);
            let worst = match self.greater_is_better {
                true => f64::NEG_INFINITY,
                false => f64::INFINITY,
            };
            let so_far = best.unwrap_or(worst);
            best = Some(so_far);
            if improves(so_far) {
                best = Some(score);
                verdict.improvements.push(BestEvaluation {
                    step: evaluation.step,
                    score,
                });
            }
        }
        verdict
    }
}

/// The name of the loss among an evaluation's metrics.
pub(super) const LOSS: &str = "loss";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use serde_json::Value;

    fn evaluations(scores: &[f64]) -> Vec<EvaluationRecord> {
        let record = |(place, &score): (usize, &f64)| EvaluationRecord {
            step: 10 * (place + 1),
            epoch: 0.0,
            primary_metric: "m".to_owned(),
            metrics: [("m", score)].into_iter().collect(),
        };
        scores.iter().enumerate().map(record).collect()
    }

    fn judge(greater_is_better: bool, patience: usize, threshold: f64) -> Judge {
        let arguments = TrainingArguments {
            metric_for_best_model: Some("eval_m".to_owned()),
            greater_is_better: Some(greater_is_better),
            early_stopping_patience: Some(patience),
            early_stopping_threshold: threshold,
            ..Default::default()
        };
        Judge::new(&arguments, None)
    }

    #[test]
    fn stops_where_the_reference_stops() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/fixtures/training_arguments/expected.json"
        );
        let expected: Value =
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let (mut stopped, mut more_patient) = (0, 0);
        for case in expected["early_stopping"].as_array().unwrap() {
            let scores = case["scores"].as_array().unwrap();
            let scores: Vec<f64> = scores
                .iter()
                .map(|score| score.as_f64().unwrap_or(f64::NAN))
                .collect();
            let patience = case["patience"].as_u64().unwrap() as usize;
            let greater = case["greater_is_better"].as_bool().unwrap();
            let threshold = case["threshold"].as_f64().unwrap();
            let all = evaluations(&scores);
            let stop = |patience| {
                let judge = judge(greater, patience, threshold);
                (1..=all.len()).find(|&n| judge.judge(&all[..n]).stop)
            };
            let at = stop(patience);
            let expected_at = case["stopped_at"].as_u64().map(|step| step as usize / 10);
            assert_eq!(at, expected_at, "{case}");
            let seen = &all[..at.unwrap_or(all.len())];
            let best = judge(greater, patience, threshold).judge(seen).improvements;
            let best = best.last().map(|best| best.step as u64);
            assert_eq!(best, case["best_step"].as_u64(), "{case}");
            stopped += usize::from(at.is_some());
            more_patient += usize::from(at.is_some() && stop(patience + 1) != at);
        }
        assert!(stopped >= 4 && more_patient == stopped);
    }

    #[test]
    fn the_evaluation_before_the_first_step_does_not_count() {
        let mut all = evaluations(&[0.9, 0.1]);
        all[0].step = 0;
        let verdict = judge(true, 1, 0.0).judge(&all);
        assert_eq!(verdict.improvements.len(), 1);
        assert!(!verdict.stop);
    }

    #[test]
    fn a_metric_that_is_not_there_is_named() {
        let by = |name: &str| {
            let arguments = TrainingArguments {
                metric_for_best_model: Some(name.to_owned()),
                ..Default::default()
            };
            Judge::new(&arguments, Some("primary".to_owned()))
        };
        let Err(Error::Training(TrainingError::UnknownMetric { metric, available })) =
            by("eval_x").score(&evaluations(&[0.5])[0])
        else {
            panic!("passed");
        };
        assert_eq!((metric.as_str(), available), ("x", vec!["m".to_owned()]));
        assert!(!by("eval_loss").greater_is_better && by("ndcg").greater_is_better);
        let default = Judge::new(&TrainingArguments::default(), Some("primary".to_owned()));
        assert_eq!(default.metric(), "primary");
    }
}
