use std::path::Path;

use burn::tensor::{Tensor, TensorData, backend::Backend, s};
use serde::{Deserialize, Serialize};

use super::{
    CsvReport, Evaluator, Metrics, expect_embeddings, functions_or, pearson, prefixed, spearman,
};
use crate::error::{EvaluationError, Result};
use crate::model::{
    EncodeOptions, Precision, SentenceTransformer, SimilarityFunction, quantize_embeddings,
};
use crate::repo::jsonl;

/// Two sentences and how alike people find them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoredPair {
    /// The first sentence.
    pub sentence1: String,
    /// The second sentence.
    pub sentence2: String,
    /// How alike they are, on any scale that rises with similarity.
    pub score: f64,
}

/// What an [`EmbeddingSimilarityEvaluator`] measures, and how it encodes.
#[derive(Debug, Clone)]
pub struct EmbeddingSimilarityOptions {
    /// The ways to measure similarity; the main one, or the model's own, alone if empty.
    pub similarities: Vec<SimilarityFunction>,
    /// The similarity of the primary metric; if `None` the only one, or the best of
    /// several.
    pub main_similarity: Option<SimilarityFunction>,
    /// The precision to store embeddings in before they are compared: they are scaled to
    /// unit length, quantized, bytes of both sides in the same ranges, and compared as the
    /// numbers, or the bits, that come of it.
    pub precision: Option<Precision>,
    /// How the sentences are encoded.
    pub encode: EncodeOptions,
    /// Whether [`evaluate_to`](Evaluator::evaluate_to) writes the CSV file.
    pub write_csv: bool,
}

impl Default for EmbeddingSimilarityOptions {
    fn default() -> Self {
        Self {
            similarities: Vec::new(),
            main_similarity: None,
            precision: None,
            encode: EncodeOptions::default(),
            write_csv: true,
        }
    }
}

/// Correlates the similarity of pairs of embeddings with people's judgement.
///
/// Definitions and names are those of Sentence Transformers' evaluator of that name:
/// `pearson_cosine` and `spearman_cosine`, likewise for each other similarity asked for,
/// and with several of them `pearson_max` and `spearman_max`. A correlation is NaN where
/// it is undefined: if all scores or all similarities are equal.
#[derive(Debug, Clone)]
pub struct EmbeddingSimilarityEvaluator {
    name: String,
    options: EmbeddingSimilarityOptions,
    sentences1: Vec<String>,
    sentences2: Vec<String>,
    scores: Vec<f64>,
}

impl EmbeddingSimilarityEvaluator {
    /// An evaluator with the default options and no name.
    ///
    /// # Errors
    /// [`EvaluationError::TooFewPairs`] for fewer than two pairs,
    /// [`EvaluationError::InvalidScore`] if a score is not finite.
    pub fn new(pairs: Vec<ScoredPair>) -> Result<Self> {
        if pairs.len() < 2 {
            return Err(EvaluationError::TooFewPairs { found: pairs.len() }.into());
        }
        if let Some(index) = pairs.iter().position(|pair| !pair.score.is_finite()) {
            let found = pairs[index].score;
            return Err(EvaluationError::InvalidScore { index, found }.into());
        }
        let mut evaluator = Self {
            name: String::new(),
            options: EmbeddingSimilarityOptions::default(),
            sentences1: Vec::with_capacity(pairs.len()),
            sentences2: Vec::with_capacity(pairs.len()),
            scores: Vec::with_capacity(pairs.len()),
        };
        for pair in pairs {
            evaluator.sentences1.push(pair.sentence1);
            evaluator.sentences2.push(pair.sentence2);
            evaluator.scores.push(pair.score);
        }
        Ok(evaluator)
    }

    /// Reads the pairs from a file, one a line: `{"sentence1", "sentence2", "score"}`.
    ///
    /// # Errors
    /// A [`RepoError`](crate::error::RepoError) naming file and line if a line is not such
    /// a pair, and those of [`new`](Self::new).
    pub fn from_jsonl(path: impl AsRef<Path>) -> Result<Self> {
        let pairs: Result<Vec<ScoredPair>> = jsonl::records(path)?
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
    pub fn with_options(mut self, options: EmbeddingSimilarityOptions) -> Self {
        self.options = options;
        self
    }

    /// The pairs' first and second sentences, in the order that
    /// [`evaluate_embeddings`](Self::evaluate_embeddings) reads their embeddings.
    pub fn sentences(&self) -> [&[String]; 2] {
        [&self.sentences1, &self.sentences2]
    }

    /// Measures embeddings that are there already: with a precision asked for, of unit
    /// length, as encoding gives them then.
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
        expect_embeddings("first sentences", self.scores.len(), &first)?;
        expect_embeddings("second sentences", self.scores.len(), &second)?;
        let [first, second] = match self.options.precision {
            Some(precision) => in_precision(first, second, precision)?,
            None => [first, second],
        };
        let mut metrics = Metrics::new();
        // `max` prefers a number to NaN.
        let (mut pearson_max, mut spearman_max) = (f64::NAN, f64::NAN);
        for similarity in similarities {
            let found = similarity
                .pairwise(first.clone(), second.clone())?
                .into_data();
            let pairs = self.with_scores(found.iter::<f64>())?;
            let (pearson, spearman) = (pearson(&pairs), spearman(&pairs));
            metrics.insert(format!("pearson_{}", similarity.name()), pearson);
            metrics.insert(format!("spearman_{}", similarity.name()), spearman);
            pearson_max = pearson_max.max(pearson);
            spearman_max = spearman_max.max(spearman);
        }
        if similarities.len() > 1 {
            metrics.insert("pearson_max", pearson_max);
            metrics.insert("spearman_max", spearman_max);
        }
        Ok(metrics.named(&self.name))
    }

    /// Each pair's gold score beside the similarity found.
    fn with_scores(&self, similarities: impl Iterator<Item = f64>) -> Result<Vec<(f64, f64)>> {
        let pairs: Vec<(f64, f64)> = self.scores.iter().copied().zip(similarities).collect();
        match pairs.iter().position(|(_, found)| found.is_nan()) {
            Some(pair) => Err(EvaluationError::NotANumber {
                left: format!("sentence1 of pair {pair}"),
                right: "its sentence2".to_owned(),
            }
            .into()),
            None => Ok(pairs),
        }
    }

    fn similarities<B: Backend>(&self, model: &SentenceTransformer<B>) -> Vec<SimilarityFunction> {
        let options = &self.options;
        functions_or(&options.similarities, options.main_similarity, model)
    }
}

/// Both sides as they come out of being stored in a precision.
fn in_precision<B: Backend>(
    first: Tensor<B, 2>,
    second: Tensor<B, 2>,
    precision: Precision,
) -> Result<[Tensor<B, 2>; 2]> {
    let device = first.device();
    let pairs = first.dims()[0];
    // Together, so that a sentence is the same on both sides.
    let both = quantize_embeddings(Tensor::cat(vec![first, second], 0), precision, None)?;
    let values = both.values_or_bits(precision);
    let rows = both.shape[0];
    let dim = values.len() / rows;
    let values: Tensor<B, 2> = Tensor::from_data(
        TensorData::new(values, [rows, dim]).convert::<B::FloatElem>(),
        &device,
    );
    Ok([0, pairs].map(|start| values.clone().slice(s![start..start + pairs, ..])))
}

impl<B: Backend> Evaluator<B> for EmbeddingSimilarityEvaluator {
    fn name(&self) -> &str {
        &self.name
    }

    /// The main similarity's Spearman correlation, or the largest if several are measured
    /// and none is the main one.
    fn primary_metric(&self, model: &SentenceTransformer<B>) -> String {
        let metric = match (self.options.main_similarity, &self.similarities(model)[..]) {
            (Some(main), _) | (None, &[main]) => format!("spearman_{}", main.name()),
            _ => "spearman_max".to_owned(),
        };
        prefixed(&self.name, &metric)
    }

    fn evaluate(&self, model: &SentenceTransformer<B>) -> Result<Metrics> {
        log::info!("embedding similarity: {} pairs", self.scores.len());
        let encode = &self.options.encode;
        let encode = EncodeOptions {
            normalize: encode.normalize || self.options.precision.is_some(),
            ..encode.clone()
        };
        let first = model.encode_with(&self.sentences1, &encode)?;
        let second = model.encode_with(&self.sentences2, &encode)?;
        self.evaluate_embeddings(first, second, &self.similarities(model))
    }

    fn csv_reports(&self, model: &SentenceTransformer<B>) -> Vec<CsvReport> {
        if !self.options.write_csv {
            return Vec::new();
        }
        let precision = self.options.precision.map(Precision::name);
        let parts = ["similarity_evaluation", &self.name]
            .into_iter()
            .chain(precision);
        let parts: Vec<&str> = parts.filter(|part| !part.is_empty()).collect();
        let mut report = CsvReport::new(format!("{}_results.csv", parts.join("_")));
        for similarity in self.similarities(model) {
            let similarity = similarity.name();
            for metric in ["pearson", "spearman"] {
                let header = format!("{similarity}_{metric}");
                report = report.column(header, &self.name, &format!("{metric}_{similarity}"));
            }
        }
        vec![report]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};
    use crate::error::{Error, RepoError};

    const ALL: [SimilarityFunction; 4] = [
        SimilarityFunction::Cosine,
        SimilarityFunction::Dot,
        SimilarityFunction::Euclidean,
        SimilarityFunction::Manhattan,
    ];

    fn evaluator(scores: &[f64]) -> EmbeddingSimilarityEvaluator {
        let pair = |&score: &f64| ScoredPair {
            sentence1: "a".to_owned(),
            sentence2: "b".to_owned(),
            score,
        };
        EmbeddingSimilarityEvaluator::new(scores.iter().map(pair).collect()).unwrap()
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
    fn correlates_each_similarity_with_the_scores() {
        let [first, second] = embeddings();
        let metrics = evaluator(&[5.0, 4.0, 0.0])
            .evaluate_embeddings(first, second, &ALL)
            .unwrap();
        let names: Vec<&str> = metrics.iter().map(|(name, _)| name).collect();
        assert_eq!(
            names,
            [
                "pearson_cosine",
                "spearman_cosine",
                "pearson_dot",
                "spearman_dot",
                "pearson_euclidean",
                "spearman_euclidean",
                "pearson_manhattan",
                "spearman_manhattan",
                "pearson_max",
                "spearman_max",
            ]
        );
        let expect = |name: &str, expected: f64| {
            let found = metrics.get(name).unwrap();
            assert!(
                (found - expected).abs() < 1e-6,
                "{name}: {found} is not {expected}"
            );
        };
        // Scores deviate by (2, 1, -3), cosines by (.2, 0, -.2), dot products by
        // (-3, 4, -1): products 1 and 1, squares 14, .08 and 26.
        expect("pearson_cosine", 1.0 / (14.0_f64 * 0.08).sqrt());
        expect("spearman_cosine", 1.0);
        expect("pearson_dot", 1.0 / (14.0_f64 * 26.0).sqrt());
        expect("spearman_dot", -0.5);
        // Distances (0, √13, √20) and (0, 5, 6), both negated.
        let euclidean = [(5.0, 0.0), (4.0, -(13f64.sqrt())), (0.0, -(20f64.sqrt()))];
        expect("pearson_euclidean", pearson(&euclidean));
        expect(
            "pearson_manhattan",
            pearson(&[(5.0, 0.0), (4.0, -5.0), (0.0, -6.0)]),
        );
        expect("spearman_manhattan", 1.0);
        expect("pearson_max", 1.0 / (14.0_f64 * 0.08).sqrt());
        expect("spearman_max", 1.0);
    }

    #[test]
    fn one_similarity_has_no_maximum_and_the_name_goes_in_front() {
        let [first, second] = embeddings();
        let metrics = evaluator(&[0.0, 1.0, 2.0])
            .with_name("sts")
            .evaluate_embeddings(first, second, &ALL[..1])
            .unwrap();
        assert_eq!(metrics.len(), 2);
        assert!((metrics.get("sts_spearman_cosine").unwrap() + 1.0).abs() < 1e-6);
    }

    #[test]
    fn equal_scores_leave_the_correlation_undefined() {
        let [first, second] = embeddings();
        let metrics = evaluator(&[1.0; 3])
            .evaluate_embeddings(first, second, &ALL)
            .unwrap();
        assert!(metrics.iter().all(|(_, value)| value.is_nan()));
    }

    #[test]
    fn nan_embeddings_and_wrong_counts_are_errors() {
        let [first, _] = embeddings();
        let device = device();
        let nan = Tensor::from_floats([[1.0, 0.0], [f32::NAN, 0.0], [1.0, 0.0]], &device);
        let error = evaluator(&[0.0, 1.0, 2.0])
            .evaluate_embeddings(first.clone(), nan, &ALL)
            .unwrap_err();
        assert!(error.to_string().contains("sentence1 of pair 1"), "{error}");
        let error = evaluator(&[0.0, 1.0])
            .evaluate_embeddings(first.clone(), first, &ALL)
            .unwrap_err();
        assert!(matches!(
            error,
            Error::Evaluation(EvaluationError::EmbeddingCount {
                expected: 2,
                found: 3,
                ..
            })
        ));
    }

    #[test]
    fn reads_a_file_and_names_what_is_wrong_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sts.jsonl");
        let read = |content: &str| {
            std::fs::write(&path, content).unwrap();
            EmbeddingSimilarityEvaluator::from_jsonl(&path)
        };
        let line = "{\"sentence1\": \"a\", \"sentence2\": \"b\", \"score\": 1}\n";
        assert_eq!(read(&line.repeat(2)).unwrap().scores, [1.0, 1.0]);
        assert!(matches!(
            read(line).unwrap_err(),
            Error::Evaluation(EvaluationError::TooFewPairs { found: 1 })
        ));
        assert!(matches!(
            read(&format!("{line}{{\"sentence1\": \"a\"}}\n")).unwrap_err(),
            Error::Repo(RepoError::InvalidLine { line: 2, .. })
        ));
    }

    #[test]
    fn a_score_that_is_not_finite_is_an_error() {
        let pair = |score| ScoredPair {
            sentence1: String::new(),
            sentence2: String::new(),
            score,
        };
        let error = EmbeddingSimilarityEvaluator::new(vec![pair(0.0), pair(f64::INFINITY)]);
        assert!(matches!(
            error.unwrap_err(),
            Error::Evaluation(EvaluationError::InvalidScore { index: 1, .. })
        ));
    }
}
