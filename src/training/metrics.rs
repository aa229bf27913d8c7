use std::sync::Arc;

use burn::train::metric::state::{FormatOptions, NumericMetricState};
use burn::train::metric::{
    Adaptor, Metric, MetricAttributes, MetricDefinition, MetricMetadata, MetricName, Numeric,
    NumericAttributes, NumericEntry, SerializedEntry,
};
use burn::train::renderer::{
    EvaluationName, EvaluationProgress, MetricState, MetricsRenderer, MetricsRendererEvaluation,
    MetricsRendererTraining, ProgressType, TrainingProgress,
};

use super::history::StepRecord;
use super::learner::StepOutput;

/// What the metrics read of a step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct StepSeen {
    pub(super) record: StepRecord,
    /// The score of the last evaluation, no number if there was none.
    pub(super) score: f64,
}

/// One number of each step, as burn-train's dashboard shows it.
#[derive(Clone)]
pub(super) struct StepMetric {
    name: MetricName,
    unit: Option<&'static str>,
    higher_is_better: bool,
    read: fn(&StepSeen) -> f64,
    state: NumericMetricState,
}

impl StepMetric {
    pub(super) fn loss() -> Self {
        Self::new("Loss", None, false, |seen| seen.record.loss)
    }

    pub(super) fn learning_rate() -> Self {
        Self::new("Learning rate", None, false, |seen| {
            seen.record.learning_rate
        })
    }

    pub(super) fn grad_norm() -> Self {
        Self::new("Gradient norm", None, false, |seen| seen.record.grad_norm)
    }

    pub(super) fn pairs_per_second() -> Self {
        Self::new("Speed", Some("pairs/s"), true, |seen| {
            seen.record.pairs_per_second
        })
    }

    /// The score of the last evaluation, by the name of the metric to judge by.
    pub(super) fn score(name: &str, higher_is_better: bool) -> Self {
        Self::new(name, None, higher_is_better, |seen| seen.score)
    }

    fn new(
        name: &str,
        unit: Option<&'static str>,
        higher_is_better: bool,
        read: fn(&StepSeen) -> f64,
    ) -> Self {
        Self {
            name: Arc::new(name.to_owned()),
            unit,
            higher_is_better,
            read,
            state: NumericMetricState::new(),
        }
    }
}

impl Adaptor<Option<StepSeen>> for StepOutput {
    fn adapt(&self) -> Option<StepSeen> {
        self.seen.get().copied()
    }
}

impl Metric for StepMetric {
    /// None for the step that failed.
    type Input = Option<StepSeen>;

    fn name(&self) -> MetricName {
        self.name.clone()
    }

    fn attributes(&self) -> MetricAttributes {
        let attributes = NumericAttributes {
            unit: self.unit.map(str::to_owned),
            higher_is_better: self.higher_is_better,
        };
        attributes.into()
    }

    fn update(&mut self, seen: &Option<StepSeen>, _: &MetricMetadata) -> SerializedEntry {
        let value = seen.as_ref().map_or(f64::NAN, self.read);
        let format = FormatOptions::new(self.name()).precision(4);
        let format = match self.unit {
            Some(unit) => format.unit(unit),
            None => format,
        };
        self.state.update(value, 1, format)
    }

    fn clear(&mut self) {
        self.state.reset();
    }
}

impl Numeric for StepMetric {
    fn value(&self) -> NumericEntry {
        self.state.current_value()
    }

    fn running_value(&self) -> NumericEntry {
        self.state.running_value()
    }
}

/// Shows nothing: where there is no terminal for the dashboard, the run's log lines
/// tell what the dashboard would.
pub(super) struct NoDashboard;

impl MetricsRendererTraining for NoDashboard {
    fn update_train(&mut self, _: MetricState) {}

    fn update_valid(&mut self, _: MetricState) {}

    fn render_train(&mut self, _: TrainingProgress, _: Vec<ProgressType>) {}

    fn render_valid(&mut self, _: TrainingProgress, _: Vec<ProgressType>) {}
}

impl MetricsRendererEvaluation for NoDashboard {
    fn update_test(&mut self, _: EvaluationName, _: MetricState) {}

    fn render_test(&mut self, _: EvaluationProgress, _: Vec<ProgressType>) {}
}

impl MetricsRenderer for NoDashboard {
    fn manual_close(&mut self) {}

    fn register_metric(&mut self, _: MetricDefinition) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::training::history::tests::record;
    use burn::data::dataloader::Progress;

    fn seen(step: usize) -> StepSeen {
        StepSeen {
            record: record(step),
            score: 0.25 * step as f64,
        }
    }

    fn metadata() -> MetricMetadata {
        MetricMetadata {
            progress: Progress::new(1, 2),
            global_progress: Progress::new(1, 1),
            iteration: Some(1),
            lr: None,
        }
    }

    #[test]
    fn metrics_read_the_steps_record() {
        let output = StepOutput::default();
        assert_eq!(Adaptor::<Option<StepSeen>>::adapt(&output), None);
        output.seen.set(seen(2)).unwrap();
        let expected = record(2);
        for (mut metric, value) in [
            (StepMetric::loss(), expected.loss),
            (StepMetric::learning_rate(), expected.learning_rate),
            (StepMetric::grad_norm(), expected.grad_norm),
            (StepMetric::pairs_per_second(), expected.pairs_per_second),
            (StepMetric::score("cosine_ndcg@10", true), 0.5),
        ] {
            metric.update(&output.adapt(), &metadata());
            assert_eq!(metric.value().current(), value, "{}", metric.name());
        }
    }

    #[test]
    fn a_running_value_is_the_mean_until_it_is_cleared() {
        let mut metric = StepMetric::loss();
        for step in [1, 2] {
            metric.update(&Some(seen(step)), &metadata());
        }
        let mean = (record(1).loss + record(2).loss) / 2.0;
        assert!((metric.running_value().current() - mean).abs() < 1e-12);
        metric.clear();
        metric.update(&Some(seen(3)), &metadata());
        assert_eq!(metric.running_value().current(), record(3).loss);
    }
}
