use std::fmt;
use std::path::Path;

use burn::tensor::backend::Backend;

use super::{CsvReport, EvaluatedAt, Evaluator, Metrics};
use crate::error::Result;
use crate::model::{CardEvaluation, SentenceTransformer};

/// What a [`SequentialEvaluator`] makes of its evaluators' primary metrics.
type MainScore = Box<dyn Fn(&[f64]) -> f64 + Send + Sync>;

/// Several evaluators, one after the other.
///
/// The metrics are those of all, and `sequential_score`: the last evaluator's primary
/// metric, unless [`with_main_score`](Self::with_main_score) says otherwise. As Sentence
/// Transformers' evaluator of that name.
pub struct SequentialEvaluator<B: Backend> {
    evaluators: Vec<Box<dyn Evaluator<B> + Send>>,
    main_score: MainScore,
}

impl<B: Backend> SequentialEvaluator<B> {
    /// An evaluator of these. Give them names where two have metrics in common.
    pub fn new(evaluators: Vec<Box<dyn Evaluator<B> + Send>>) -> Self {
        Self {
            evaluators,
            main_score: Box::new(|scores| scores.last().copied().unwrap_or(0.0)),
        }
    }

    /// The same evaluator with another way from the evaluators' primary metrics to
    /// `sequential_score`; it is asked only if there is an evaluator.
    pub fn with_main_score(
        mut self,
        main_score: impl Fn(&[f64]) -> f64 + Send + Sync + 'static,
    ) -> Self {
        self.main_score = Box::new(main_score);
        self
    }

    fn gather(
        &self,
        model: &SentenceTransformer<B>,
        evaluate: impl Fn(&dyn Evaluator<B>) -> Result<Metrics>,
    ) -> Result<Metrics> {
        let mut metrics = Metrics::new();
        let mut scores = Vec::with_capacity(self.evaluators.len());
        for evaluator in &self.evaluators {
            let found = evaluate(evaluator.as_ref())?;
            let score = found.get(&evaluator.primary_metric(model));
            scores.push(score.unwrap_or(f64::NAN));
            metrics.extend(found);
        }
        let score = match scores.is_empty() {
            true => 0.0,
            false => (self.main_score)(&scores),
        };
        metrics.insert("sequential_score", score);
        Ok(metrics)
    }
}

impl<B: Backend> fmt::Debug for SequentialEvaluator<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.evaluators.iter().map(|evaluator| evaluator.name());
        f.debug_struct("SequentialEvaluator")
            .field("evaluators", &names.collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl<B: Backend> Evaluator<B> for SequentialEvaluator<B> {
    fn name(&self) -> &str {
        ""
    }

    fn primary_metric(&self, _model: &SentenceTransformer<B>) -> String {
        "sequential_score".to_owned()
    }

    fn evaluate(&self, model: &SentenceTransformer<B>) -> Result<Metrics> {
        self.gather(model, |evaluator| evaluator.evaluate(model))
    }

    /// What each of its evaluators says of its own metrics.
    fn describe(&self, model: &SentenceTransformer<B>, metrics: &Metrics) -> Vec<CardEvaluation> {
        let of = |evaluator: &dyn Evaluator<B>| {
            let prefix = super::prefixed(evaluator.name(), "");
            let own = metrics
                .iter()
                .filter(|(metric, _)| metric.starts_with(&prefix));
            evaluator.describe(model, &own.collect())
        };
        let described = self
            .evaluators
            .iter()
            .flat_map(|evaluator| of(evaluator.as_ref()));
        described.collect()
    }

    /// The files of all its evaluators.
    fn csv_reports(&self, model: &SentenceTransformer<B>) -> Vec<CsvReport> {
        let reports = self.evaluators.iter();
        reports
            .flat_map(|evaluator| evaluator.csv_reports(model))
            .collect()
    }

    fn evaluate_to(
        &self,
        model: &SentenceTransformer<B>,
        folder: &Path,
        at: EvaluatedAt,
    ) -> Result<Metrics> {
        self.gather(model, |evaluator| evaluator.evaluate_to(model, folder, at))
    }
}
