use std::path::Path;

use burn::tensor::{Tensor, backend::Backend};
use serde::{Deserialize, Serialize};

use super::{CsvReport, Evaluator, Metrics, csv_name, expect_embeddings, functions_or, prefixed};
use crate::error::{EvaluationError, Result};
use crate::model::{EncodeOptions, SentenceTransformer, SimilarityFunction};
use crate::repo::jsonl;

/// A text, one that is like it and one that is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Triplet {
    /// The text.
    pub anchor: String,
    /// The one that is like it.
    pub positive: String,
    /// The one that is not.
    pub negative: String,
}

/// How much more similar the positive must be than the negative.
#[derive(Debug, Clone, PartialEq)]
pub enum TripletMargin {
    /// The same for every similarity.
    All(f32),
    /// One for each similarity named, 0 for the others.
    Each(Vec<(SimilarityFunction, f32)>),
}

impl TripletMargin {
    fn of(&self, similarity: SimilarityFunction) -> f32 {
        match self {
            Self::All(margin) => *margin,
            Self::Each(margins) => margins
                .iter()
                .rfind(|(named, _)| *named == similarity)
                .map_or(0.0, |(_, margin)| *margin),
        }
    }
}

/// What a [`TripletEvaluator`] measures, and how it encodes.
#[derive(Debug, Clone)]
pub struct TripletOptions {
    /// The ways to measure similarity; the main one, or the model's own, alone if empty.
    pub similarities: Vec<SimilarityFunction>,
    /// The similarity of the primary metric; if `None` the only one, or the best of
    /// several.
    pub main_similarity: Option<SimilarityFunction>,
    /// How much more similar the positive must be than the negative.
    pub margin: TripletMargin,
    /// How anchors are encoded: as queries.
    pub query: EncodeOptions,
    /// How positives and negatives are encoded: as documents.
    pub document: EncodeOptions,
    /// Whether [`evaluate_to`](Evaluator::evaluate_to) writes the CSV file.
    pub write_csv: bool,
}

impl Default for TripletOptions {
    fn default() -> Self {
        Self {
            similarities: Vec::new(),
            main_similarity: None,
            margin: TripletMargin::All(0.0),
            query: EncodeOptions::default(),
            document: EncodeOptions::default(),
            write_csv: true,
        }
    }
}

/// The share of triplets whose positive is more similar to the anchor than the negative.
///
/// Definition and names are those of Sentence Transformers' evaluator of that name:
/// `cosine_accuracy`, likewise for each other similarity asked for, and with several of
/// them `max_accuracy`.
#[derive(Debug, Clone)]
pub struct TripletEvaluator {
    name: String,
    options: TripletOptions,
    anchors: Vec<String>,
    positives: Vec<String>,
    negatives: Vec<String>,
}

impl TripletEvaluator {
    /// An evaluator with the default options and no name.
    ///
    /// # Errors
    /// [`EvaluationError::Empty`] if there is no triplet.
    pub fn new(triplets: Vec<Triplet>) -> Result<Self> {
        if triplets.is_empty() {
            let what = "the set of triplets";
            return Err(EvaluationError::Empty { what }.into());
        }
        let mut evaluator = Self {
            name: String::new(),
            options: TripletOptions::default(),
            anchors: Vec::with_capacity(triplets.len()),
            positives: Vec::with_capacity(triplets.len()),
            negatives: Vec::with_capacity(triplets.len()),
        };
        for triplet in triplets {
            evaluator.anchors.push(triplet.anchor);
            evaluator.positives.push(triplet.positive);
            evaluator.negatives.push(triplet.negative);
        }
        Ok(evaluator)
    }

    /// Reads the triplets from a file, one a line: `{"anchor", "positive", "negative"}`.
    ///
    /// # Errors
    /// A [`RepoError`](crate::error::RepoError) naming file and line if a line is not such
    /// a triplet, and those of [`new`](Self::new).
    pub fn from_jsonl(path: impl AsRef<Path>) -> Result<Self> {
        let triplets: Result<Vec<Triplet>> = jsonl::records(path)?
            .map(|record| record.map(|(_, triplet)| triplet))
            .collect();
        Self::new(triplets?)
    }

    /// The same evaluator with `name` and an underscore before each metric's name.
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The same evaluator with other options.
    pub fn with_options(mut self, options: TripletOptions) -> Self {
        self.options = options;
        self
    }

    /// The anchors, positives and negatives, in the order that
    /// [`evaluate_embeddings`](Self::evaluate_embeddings) reads their embeddings.
    pub fn texts(&self) -> [&[String]; 3] {
        [&self.anchors, &self.positives, &self.negatives]
    }

    /// Measures embeddings that are there already.
    ///
    /// # Shapes
    /// - anchors, positives, negatives: `[triplets, dim]`
    ///
    /// # Errors
    /// [`EvaluationError::EmbeddingCount`] if there are more or fewer than triplets,
    /// [`EvaluationError::NotANumber`] if a similarity is NaN.
    pub fn evaluate_embeddings<B: Backend>(
        &self,
        anchors: Tensor<B, 2>,
        positives: Tensor<B, 2>,
        negatives: Tensor<B, 2>,
        similarities: &[SimilarityFunction],
    ) -> Result<Metrics> {
        let count = self.anchors.len();
        expect_embeddings("anchors", count, &anchors)?;
        expect_embeddings("positives", count, &positives)?;
        expect_embeddings("negatives", count, &negatives)?;
        let mut metrics = Metrics::new();
        let mut largest = f64::NEG_INFINITY;
        for &similarity in similarities {
            let compare = |others: &Tensor<B, 2>, what: &str| {
                let scores = similarity.pairwise(anchors.clone(), others.clone())?;
                let scores: Vec<f32> = scores.into_data().iter().collect();
                match scores.iter().position(|score| score.is_nan()) {
                    Some(triplet) => Err(crate::Error::from(EvaluationError::NotANumber {
                        left: format!("the anchor of triplet {triplet}"),
                        right: format!("its {what}"),
                    })),
                    None => Ok(scores),
                }
            };
            let positive = compare(&positives, "positive")?;
            let negative = compare(&negatives, "negative")?;
            let margin = self.options.margin.of(similarity);
            let pairs = positive.iter().zip(&negative);
            let right = pairs.filter(|(positive, negative)| **positive > **negative + margin);
            let accuracy = right.count() as f64 / count as f64;
            metrics.insert(format!("{}_accuracy", similarity.name()), accuracy);
            largest = largest.max(accuracy);
        }
        if similarities.len() > 1 {
            metrics.insert("max_accuracy", largest);
        }
        Ok(metrics.named(&self.name))
    }

    fn similarities<B: Backend>(&self, model: &SentenceTransformer<B>) -> Vec<SimilarityFunction> {
        let options = &self.options;
        functions_or(&options.similarities, options.main_similarity, model)
    }
}

impl<B: Backend> Evaluator<B> for TripletEvaluator {
    fn name(&self) -> &str {
        &self.name
    }

    /// The main similarity's accuracy, or the largest if several are measured and none is
    /// the main one.
    fn primary_metric(&self, model: &SentenceTransformer<B>) -> String {
        let metric = match (self.options.main_similarity, &self.similarities(model)[..]) {
            (Some(main), _) | (None, &[main]) => format!("{}_accuracy", main.name()),
            _ => "max_accuracy".to_owned(),
        };
        prefixed(&self.name, &metric)
    }

    fn evaluate(&self, model: &SentenceTransformer<B>) -> Result<Metrics> {
        log::info!("triplets: {}", self.anchors.len());
        let anchors = model.encode_query_with(&self.anchors, &self.options.query)?;
        let positives = model.encode_document_with(&self.positives, &self.options.document)?;
        let negatives = model.encode_document_with(&self.negatives, &self.options.document)?;
        self.evaluate_embeddings(anchors, positives, negatives, &self.similarities(model))
    }

    fn csv_reports(&self, model: &SentenceTransformer<B>) -> Vec<CsvReport> {
        if !self.options.write_csv {
            return Vec::new();
        }
        let mut report = CsvReport::new(csv_name("triplet_evaluation", &self.name));
        for similarity in self.similarities(model) {
            let similarity = similarity.name();
            let metric = format!("{similarity}_accuracy");
            report = report.column(format!("accuracy_{similarity}"), &self.name, &metric);
        }
        vec![report]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};

    use SimilarityFunction::{Cosine, Dot, Euclidean, Manhattan};

    fn evaluator() -> TripletEvaluator {
        let triplet = Triplet {
            anchor: "a".to_owned(),
            positive: "p".to_owned(),
            negative: "n".to_owned(),
        };
        TripletEvaluator::new(vec![triplet; 4]).unwrap()
    }

    fn measure(evaluator: &TripletEvaluator, similarities: &[SimilarityFunction]) -> Metrics {
        let device = device();
        let anchors = [[1.0, 0.0]; 4];
        let positives = [[2.0, 0.0], [0.6, 0.8], [0.0, 1.0], [3.0, 4.0]];
        let negatives = [[4.0, 3.0], [0.0, 1.0], [1.0, 0.0], [6.0, 8.0]];
        let [anchors, positives, negatives] = [anchors, positives, negatives]
            .map(|rows| Tensor::<TestBackend, 2>::from_floats(rows, &device));
        evaluator
            .evaluate_embeddings(anchors, positives, negatives, similarities)
            .unwrap()
    }

    #[test]
    fn a_tie_is_not_won() {
        let metrics = measure(&evaluator(), &[Cosine, Dot, Euclidean, Manhattan]);
        let found: Vec<(&str, f64)> = metrics.iter().collect();
        // Cosines 1 to .8, .6 to 0, 0 to 1, .6 to .6; products 2 to 4, .6 to 0, 0 to 1,
        // 3 to 6; the distance to the negative is the shorter one only in the third.
        assert_eq!(
            found,
            [
                ("cosine_accuracy", 0.5),
                ("dot_accuracy", 0.25),
                ("euclidean_accuracy", 0.75),
                ("manhattan_accuracy", 0.75),
                ("max_accuracy", 0.75),
            ]
        );
    }

    #[test]
    fn a_margin_is_for_all_similarities_or_for_some() {
        let with = |margin| {
            let options = TripletOptions {
                margin,
                ..Default::default()
            };
            let metrics = measure(&evaluator().with_options(options), &[Cosine, Dot]);
            [metrics.get("cosine_accuracy"), metrics.get("dot_accuracy")].map(Option::unwrap)
        };
        assert_eq!(with(TripletMargin::All(0.3)), [0.25, 0.25]);
        assert_eq!(with(TripletMargin::Each(vec![(Dot, 1.0)])), [0.5, 0.0]);
    }

    #[test]
    fn bad_data_is_a_named_error() {
        let error = TripletEvaluator::new(vec![]).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("the set of triplets is empty")
        );
        let rows =
            |rows: usize, value: f32| Tensor::<TestBackend, 2>::full([rows, 2], value, &device());
        let error = |anchors, negatives| {
            let evaluated =
                evaluator().evaluate_embeddings(anchors, rows(4, 1.0), negatives, &[Cosine]);
            evaluated.unwrap_err().to_string()
        };
        let expected = "3 embeddings of anchors, the evaluator has 4";
        assert_eq!(error(rows(3, 1.0), rows(4, 1.0)), expected);
        let expected = "the similarity of the anchor of triplet 0 and its negative is not a number";
        assert_eq!(error(rows(4, 1.0), rows(4, f32::NAN)), expected);
    }
}
