use std::path::Path;

use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use indexmap::IndexSet;
use serde::{Deserialize, Serialize};

use super::classification::Ranked;
use super::{CsvReport, Evaluator, Metrics, csv_name, expect_embeddings, functions_or, prefixed};
use crate::error::{EvaluationError, Result};
use crate::model::{EncodeOptions, SentenceTransformer, SimilarityFunction};
use crate::repo::jsonl;

/// Two sentences and whether they belong together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LabeledPair {
    /// The first sentence.
    pub sentence1: String,
    /// The second sentence.
    pub sentence2: String,
    /// 1 if they belong together, else 0.
    pub label: u8,
}

/// What a [`BinaryClassificationEvaluator`] measures, and how it encodes.
#[derive(Debug, Clone)]
pub struct BinaryClassificationOptions {
    /// The ways to measure similarity; the model's own way alone if empty.
    pub similarities: Vec<SimilarityFunction>,
    /// How the sentences are encoded.
    pub encode: EncodeOptions,
    /// Whether [`evaluate_to`](Evaluator::evaluate_to) writes the CSV file.
    pub write_csv: bool,
}

impl Default for BinaryClassificationOptions {
    fn default() -> Self {
        Self {
            similarities: Vec::new(),
            encode: EncodeOptions::default(),
            write_csv: true,
        }
    }
}

/// Tells pairs that belong together from pairs that do not by a threshold of their
/// similarity, and measures how well that can be done.
///
/// Definitions and names are those of Sentence Transformers' evaluator of that name: the
/// best accuracy and F1 with their thresholds, the precision and recall of that F1, average
/// precision, and the Matthews correlation at the F1's threshold: `cosine_accuracy`,
/// `cosine_f1_threshold`, `cosine_ap`, …; with several similarities also the largest of
/// each as `max_accuracy` and so on. Thresholds of `euclidean` and `manhattan` are
/// distances.
#[derive(Debug, Clone)]
pub struct BinaryClassificationEvaluator {
    name: String,
    options: BinaryClassificationOptions,
    sentences1: Vec<String>,
    sentences2: Vec<String>,
    labels: Vec<bool>,
}

/// The metrics' names, in the order of the CSV file.
const CSV_METRICS: [&str; 8] = [
    "accuracy",
    "accuracy_threshold",
    "f1",
    "precision",
    "recall",
    "f1_threshold",
    "ap",
    "mcc",
];

impl BinaryClassificationEvaluator {
    /// An evaluator with the default options and no name.
    ///
    /// # Errors
    /// [`EvaluationError::Empty`] if there is no pair, [`EvaluationError::InvalidLabel`] if
    /// a label is neither 0 nor 1.
    pub fn new(pairs: Vec<LabeledPair>) -> Result<Self> {
        if pairs.is_empty() {
            let what = "the set of labelled pairs";
            return Err(EvaluationError::Empty { what }.into());
        }
        if let Some(index) = pairs.iter().position(|pair| pair.label > 1) {
            let found = pairs[index].label;
            return Err(EvaluationError::InvalidLabel { index, found }.into());
        }
        let mut evaluator = Self {
            name: String::new(),
            options: BinaryClassificationOptions::default(),
            sentences1: Vec::with_capacity(pairs.len()),
            sentences2: Vec::with_capacity(pairs.len()),
            labels: Vec::with_capacity(pairs.len()),
        };
        for pair in pairs {
            evaluator.sentences1.push(pair.sentence1);
            evaluator.sentences2.push(pair.sentence2);
            evaluator.labels.push(pair.label == 1);
        }
        Ok(evaluator)
    }

    /// Reads the pairs from a file, one a line: `{"sentence1", "sentence2", "label"}`.
    ///
    /// # Errors
    /// A [`RepoError`](crate::error::RepoError) naming file and line if a line is not such
    /// a pair, and those of [`new`](Self::new).
    pub fn from_jsonl(path: impl AsRef<Path>) -> Result<Self> {
        let pairs: Result<Vec<LabeledPair>> = jsonl::records(path)?
            .map(|record| record.map(|(_, pair)| pair))
            .collect();
        Self::new(pairs?)
    }

    /// The same evaluator with `name` and an underscore before each metric's name.
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The same evaluator with other options.
    pub fn with_options(mut self, options: BinaryClassificationOptions) -> Self {
        self.options = options;
        self
    }

    /// The pairs' first and second sentences, in the order that
    /// [`evaluate_embeddings`](Self::evaluate_embeddings) reads their embeddings.
    pub fn sentences(&self) -> [&[String]; 2] {
        [&self.sentences1, &self.sentences2]
    }

    /// Measures embeddings that are there already.
    ///
    /// # Shapes
    /// - first, second: `[pairs, dim]`
    ///
    /// # Errors
    /// [`EvaluationError::EmbeddingCount`] if there are more or fewer than pairs,
    /// [`EvaluationError::NotANumber`] if a similarity is NaN.
    pub fn evaluate_embeddings<B: Backend>(
        &self,
        first: Tensor<B, 2>,
        second: Tensor<B, 2>,
        similarities: &[SimilarityFunction],
    ) -> Result<Metrics> {
        expect_embeddings("first sentences", self.labels.len(), &first)?;
        expect_embeddings("second sentences", self.labels.len(), &second)?;
        let mut metrics = Metrics::new();
        let mut largest = Metrics::new();
        for &similarity in similarities {
            let scores = similarity.pairwise(first.clone(), second.clone())?;
            for (metric, value) in self.measure(scores, similarity)? {
                metrics.insert(format!("{}_{metric}", similarity.name()), value);
                let most = largest.get(&metric).map_or(value, |most| most.max(value));
                largest.insert(metric, most);
            }
        }
        if similarities.len() > 1 {
            metrics.extend(
                largest
                    .into_iter()
                    .map(|(name, value)| (format!("max_{name}"), value)),
            );
        }
        Ok(metrics.named(&self.name))
    }

    /// The metrics of one similarity, without its name.
    fn measure<B: Backend>(
        &self,
        scores: Tensor<B, 1>,
        similarity: SimilarityFunction,
    ) -> Result<Metrics> {
        let greater_is_better = matches!(
            similarity,
            SimilarityFunction::Cosine | SimilarityFunction::Dot
        );
        let sign = if greater_is_better { 1.0 } else { -1.0 };
        let scores = scores.into_data();
        let scores: Vec<f32> = scores.iter::<f32>().map(|score| sign * score).collect();
        if let Some(pair) = scores.iter().position(|score| score.is_nan()) {
            return Err(EvaluationError::NotANumber {
                left: format!("sentence1 of pair {pair}"),
                right: "its sentence2".to_owned(),
            }
            .into());
        }
        let ranked = Ranked::new(&scores, &self.labels, greater_is_better);
        let (accuracy, accuracy_threshold) = ranked.best_accuracy();
        let best = ranked.best_f1();
        Ok([
            ("accuracy", accuracy),
            ("accuracy_threshold", f64::from(accuracy_threshold)),
            ("f1", best.f1),
            ("f1_threshold", f64::from(best.threshold)),
            ("precision", best.precision),
            ("recall", best.recall),
            ("ap", ranked.average_precision()),
            ("mcc", ranked.matthews_correlation(best.threshold)),
        ]
        .into_iter()
        .collect())
    }

    fn similarities<B: Backend>(&self, model: &SentenceTransformer<B>) -> Vec<SimilarityFunction> {
        functions_or(&self.options.similarities, None, model)
    }
}

impl<B: Backend> Evaluator<B> for BinaryClassificationEvaluator {
    fn name(&self) -> &str {
        &self.name
    }

    /// Average precision, the largest if several similarities are measured.
    fn primary_metric(&self, model: &SentenceTransformer<B>) -> String {
        let metric = match self.similarities(model)[..] {
            [similarity] => format!("{}_ap", similarity.name()),
            _ => "max_ap".to_owned(),
        };
        prefixed(&self.name, &metric)
    }

    fn evaluate(&self, model: &SentenceTransformer<B>) -> Result<Metrics> {
        log::info!("binary classification: {} pairs", self.labels.len());
        // A sentence may stand in many pairs.
        let both = self.sentences1.iter().chain(&self.sentences2);
        let unique: IndexSet<&str> = both.map(String::as_str).collect();
        let texts: Vec<&str> = unique.iter().copied().collect();
        let embeddings = model.encode_with(&texts, &self.options.encode)?;
        let of = |sentences: &[String]| {
            let place = |text: &String| unique.get_index_of(text.as_str()).map(|i| i as i32);
            let places: Vec<i32> = sentences.iter().filter_map(place).collect();
            let places = TensorData::new(places, [sentences.len()]);
            let places = Tensor::<B, 1, Int>::from_data(places, &embeddings.device());
            embeddings.clone().select(0, places)
        };
        let (first, second) = (of(&self.sentences1), of(&self.sentences2));
        self.evaluate_embeddings(first, second, &self.similarities(model))
    }

    fn csv_reports(&self, model: &SentenceTransformer<B>) -> Vec<CsvReport> {
        if !self.options.write_csv {
            return Vec::new();
        }
        let file = csv_name("binary_classification_evaluation", &self.name);
        let mut report = CsvReport::new(file);
        for similarity in self.similarities(model) {
            for metric in CSV_METRICS {
                let metric = format!("{}_{metric}", similarity.name());
                report = report.column(&metric, &self.name, &metric);
            }
        }
        vec![report]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};

    const ALL: [SimilarityFunction; 4] = SimilarityFunction::ALL;

    fn pair(label: u8) -> LabeledPair {
        LabeledPair {
            sentence1: "a".to_owned(),
            sentence2: "b".to_owned(),
            label,
        }
    }

    fn evaluator(labels: &[u8]) -> BinaryClassificationEvaluator {
        let pairs = labels.iter().map(|&label| pair(label)).collect();
        BinaryClassificationEvaluator::new(pairs).unwrap()
    }

    /// Pairs whose cosines are 1, 0.8, 0.6 and dot products 1, 8, 3.
    fn embeddings() -> [Tensor<TestBackend, 2>; 2] {
        let device = device();
        [
            Tensor::from_floats([[1.0, 0.0], [2.0, 0.0], [1.0, 0.0]], &device),
            Tensor::from_floats([[1.0, 0.0], [4.0, 3.0], [3.0, 4.0]], &device),
        ]
    }

    #[test]
    fn every_similarity_is_measured_and_the_largest_of_each_metric() {
        let [first, second] = embeddings();
        let metrics = evaluator(&[1, 1, 0])
            .with_name("dev")
            .evaluate_embeddings(first, second, &ALL)
            .unwrap();
        assert_eq!(metrics.len(), 5 * 8);
        let expect = |name: &str, expected: f64| {
            let found = metrics.get(name).unwrap();
            assert!((found - expected).abs() < 1e-6, "{name}: {found}");
        };
        expect("dev_cosine_accuracy", 1.0);
        expect("dev_cosine_accuracy_threshold", 0.7);
        expect("dev_cosine_ap", 1.0);
        expect("dev_cosine_mcc", 1.0);
        // Products 8 (1), 3 (0), 1 (1): above 3, or all.
        expect("dev_dot_accuracy", 2.0 / 3.0);
        expect("dev_dot_accuracy_threshold", 5.5);
        expect("dev_dot_f1", 0.8);
        expect("dev_dot_f1_threshold", 1.0);
        expect("dev_dot_ap", 0.5 + 0.5 * (2.0 / 3.0));
        // Distances 0, √13, √20.
        expect(
            "dev_euclidean_accuracy_threshold",
            (13f64.sqrt() + 20f64.sqrt()) / 2.0,
        );
        expect("dev_manhattan_f1_threshold", 5.5);
        expect("dev_max_accuracy_threshold", 5.5);
    }

    #[test]
    fn the_names_and_their_order_are_the_reference_s() {
        let [first, second] = embeddings();
        let metrics = evaluator(&[1, 0, 0])
            .evaluate_embeddings(first, second, &ALL[..1])
            .unwrap();
        let names: Vec<&str> = metrics.iter().map(|(name, _)| name).collect();
        let expected = "accuracy accuracy_threshold f1 f1_threshold precision recall ap mcc";
        let expected: Vec<String> = expected
            .split(' ')
            .map(|metric| format!("cosine_{metric}"))
            .collect();
        assert_eq!(names, expected);
    }

    #[test]
    fn bad_data_is_a_named_error() {
        let error = |pairs| {
            BinaryClassificationEvaluator::new(pairs)
                .unwrap_err()
                .to_string()
        };
        assert!(error(vec![]).starts_with("the set of labelled pairs is empty"));
        let expected = "the label of pair 1 is 2, expected 0 or 1";
        assert_eq!(error(vec![pair(0), pair(2)]), expected);

        let [first, second] = embeddings();
        let evaluator = evaluator(&[1, 0, 1]);
        let nan = second.clone() * f32::NAN;
        let error = evaluator.evaluate_embeddings(first.clone(), nan, &ALL);
        assert!(
            error
                .unwrap_err()
                .to_string()
                .contains("sentence1 of pair 0")
        );
        let short = second.narrow(0, 0, 2);
        let error = evaluator.evaluate_embeddings(first, short, &ALL);
        let expected = "2 embeddings of second sentences, the evaluator has 3";
        assert_eq!(error.unwrap_err().to_string(), expected);
    }
}
