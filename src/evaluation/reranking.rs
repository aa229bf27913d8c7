use std::path::Path;

use burn::tensor::{Int, Tensor, TensorData, backend::Backend, s};
use serde::{Deserialize, Deserializer, Serialize};

use super::classification::Ranked;
use super::{CsvReport, Evaluator, JudgedRanking, Metrics, expect_embeddings, prefixed};
use crate::error::{EvaluationError, Result};
use crate::model::{EncodeOptions, SentenceTransformer, SimilarityFunction};
use crate::repo::jsonl;

/// How many documents are compared with their queries at a time.
const DOCUMENTS_AT_A_TIME: usize = 1 << 14;

/// A query, documents that answer it and documents that do not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RerankingSample {
    /// The query.
    pub query: String,
    /// The documents that answer it; in files one text or a list.
    #[serde(deserialize_with = "one_or_several")]
    pub positive: Vec<String>,
    /// The documents that do not, likewise.
    #[serde(deserialize_with = "one_or_several")]
    pub negative: Vec<String>,
}

fn one_or_several<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Texts {
        One(String),
        Several(Vec<String>),
    }
    Ok(match Texts::deserialize(deserializer)? {
        Texts::One(text) => vec![text],
        Texts::Several(texts) => texts,
    })
}

/// What a [`RerankingEvaluator`] measures, and how it encodes.
#[derive(Debug, Clone)]
pub struct RerankingOptions {
    /// The rank that MRR and NDCG are measured at.
    pub at_k: usize,
    /// How a query is compared with a document.
    pub similarity: SimilarityFunction,
    /// How queries are encoded.
    pub query: EncodeOptions,
    /// How documents are encoded.
    pub document: EncodeOptions,
    /// Whether [`evaluate_to`](Evaluator::evaluate_to) writes the CSV file.
    pub write_csv: bool,
}

impl Default for RerankingOptions {
    fn default() -> Self {
        Self {
            at_k: 10,
            similarity: SimilarityFunction::Cosine,
            query: EncodeOptions::default(),
            document: EncodeOptions::default(),
            write_csv: true,
        }
    }
}

/// Ranks each query's own documents by similarity, and measures how far in front the
/// answers come.
///
/// Definitions and names are those of Sentence Transformers' evaluator of that name: `map`,
/// `mrr@10` and `ndcg@10`. Of equally similar documents, average precision takes all
/// together, NDCG gives each their average, and MRR leaves them in their order.
#[derive(Debug, Clone)]
pub struct RerankingEvaluator {
    name: String,
    options: RerankingOptions,
    queries: Vec<String>,
    documents: Vec<String>,
    /// How many positives and negatives each query has, one after the other in
    /// `documents`.
    counts: Vec<[usize; 2]>,
}

impl RerankingEvaluator {
    /// An evaluator with the default options and no name. Samples without positives or
    /// without negatives are left out.
    ///
    /// # Errors
    /// [`EvaluationError::Empty`] if no sample has both.
    pub fn new(samples: Vec<RerankingSample>) -> Result<Self> {
        let mut evaluator = Self {
            name: String::new(),
            options: RerankingOptions::default(),
            queries: Vec::new(),
            documents: Vec::new(),
            counts: Vec::new(),
        };
        for sample in samples {
            if sample.positive.is_empty() || sample.negative.is_empty() {
                continue;
            }
            let counts = [sample.positive.len(), sample.negative.len()];
            evaluator.counts.push(counts);
            evaluator.queries.push(sample.query);
            evaluator.documents.extend(sample.positive);
            evaluator.documents.extend(sample.negative);
        }
        match evaluator.queries.is_empty() {
            true => Err(EvaluationError::Empty {
                what: "the set of queries with positive and negative documents",
            }
            .into()),
            false => Ok(evaluator),
        }
    }

    /// Reads the samples from a file, one a line: `{"query", "positive", "negative"}`,
    /// where the documents are one text or a list.
    ///
    /// # Errors
    /// A [`RepoError`](crate::error::RepoError) naming file and line if a line is not such
    /// a sample, and those of [`new`](Self::new).
    pub fn from_jsonl(path: impl AsRef<Path>) -> Result<Self> {
        let samples: Result<Vec<RerankingSample>> = jsonl::records(path)?
            .map(|record| record.map(|(_, sample)| sample))
            .collect();
        Self::new(samples?)
    }

    /// The same evaluator with `name` and an underscore before each metric's name.
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The same evaluator with other options.
    ///
    /// # Errors
    /// [`EvaluationError::InvalidOption`] if `at_k` is 0.
    pub fn with_options(mut self, options: RerankingOptions) -> Result<Self> {
        if options.at_k == 0 {
            return Err(EvaluationError::InvalidOption {
                option: "at_k",
                expected: "at least 1",
                found: "0".to_owned(),
            }
            .into());
        }
        self.options = options;
        Ok(self)
    }

    /// The queries' texts, in the order that
    /// [`evaluate_embeddings`](Self::evaluate_embeddings) reads their embeddings.
    pub fn queries(&self) -> &[String] {
        &self.queries
    }

    /// The documents' texts, in the order that
    /// [`evaluate_embeddings`](Self::evaluate_embeddings) reads their embeddings: for each
    /// query the positives, then the negatives.
    pub fn documents(&self) -> &[String] {
        &self.documents
    }

    /// Measures embeddings that are there already.
    ///
    /// # Shapes
    /// - queries: `[queries, dim]`
    /// - documents: `[documents, dim]`
    ///
    /// # Errors
    /// [`EvaluationError::EmbeddingCount`] if there are more or fewer than texts,
    /// [`EvaluationError::NotANumber`] if a similarity is NaN.
    pub fn evaluate_embeddings<B: Backend>(
        &self,
        queries: Tensor<B, 2>,
        documents: Tensor<B, 2>,
    ) -> Result<Metrics> {
        expect_embeddings("queries", self.queries.len(), &queries)?;
        expect_embeddings("documents", self.documents.len(), &documents)?;
        let scores = self.scores(&queries, &documents)?;
        let at_k = self.options.at_k;
        let (mut map, mut mrr, mut ndcg) = (0.0, 0.0, 0.0);
        let mut scores = &scores[..];
        for &[positives, negatives] in &self.counts {
            let (own, rest) = scores.split_at(positives + negatives);
            scores = rest;
            let relevant: Vec<bool> = (0..own.len()).map(|place| place < positives).collect();
            map += Ranked::new(own, &relevant, true).average_precision();
            let order = falling(own);
            let judged = JudgedRanking {
                hits: order.iter().map(|&place| relevant[place]).collect(),
                relevant: positives,
            };
            mrr += judged.reciprocal_rank_at(at_k);
            ndcg += tie_averaged_ndcg(&order, own, &relevant, at_k);
        }
        let count = self.queries.len() as f64;
        let metrics: Metrics = [
            ("map".to_owned(), map / count),
            (format!("mrr@{at_k}"), mrr / count),
            (format!("ndcg@{at_k}"), ndcg / count),
        ]
        .into_iter()
        .collect();
        Ok(metrics.named(&self.name))
    }

    /// Each document's similarity to its query.
    fn scores<B: Backend>(
        &self,
        queries: &Tensor<B, 2>,
        documents: &Tensor<B, 2>,
    ) -> Result<Vec<f32>> {
        let counts = self.counts.iter().map(|counts| counts.iter().sum());
        let own: Vec<i32> = (0..)
            .zip(counts)
            .flat_map(|(query, count)| std::iter::repeat_n(query, count))
            .collect();
        let mut scores: Vec<f32> = Vec::with_capacity(own.len());
        for own in own.chunks(DOCUMENTS_AT_A_TIME) {
            let start = scores.len();
            let places = TensorData::new(own.to_vec(), [own.len()]);
            let places = Tensor::<B, 1, Int>::from_data(places, &queries.device());
            let queries = queries.clone().select(0, places);
            let documents = documents.clone().slice(s![start..start + own.len(), ..]);
            let found = self.options.similarity.pairwise(queries, documents)?;
            scores.extend(found.into_data().iter::<f32>());
        }
        match scores.iter().position(|score| score.is_nan()) {
            Some(document) => Err(EvaluationError::NotANumber {
                left: format!("query {}", own[document]),
                right: format!("document {document}"),
            }
            .into()),
            None => Ok(scores),
        }
    }
}

/// The places of scores from the highest to the lowest, equal ones in their order.
fn falling(scores: &[f32]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..scores.len()).collect();
    order.sort_by(|&a, &b| (scores[b] + 0.0).total_cmp(&(scores[a] + 0.0)));
    order
}

/// NDCG at `k` with the gains of equal scores averaged, as scikit-learn's `ndcg_score`.
fn tie_averaged_ndcg(order: &[usize], scores: &[f32], relevant: &[bool], k: usize) -> f64 {
    let discount = |rank: usize| 1.0 / ((rank + 2) as f64).log2();
    let count = relevant.iter().filter(|relevant| **relevant).count();
    let (mut gain, mut first) = (0.0, 0);
    for equal in order.chunk_by(|&a, &b| scores[a] == scores[b]) {
        let hits = equal.iter().filter(|&&place| relevant[place]).count();
        let ranks = first..(first + equal.len()).min(k);
        let discounts: f64 = ranks.map(discount).sum();
        gain += hits as f64 / equal.len() as f64 * discounts;
        first += equal.len();
    }
    let best: f64 = (0..count.min(k)).map(discount).sum();
    gain / best
}

impl<B: Backend> Evaluator<B> for RerankingEvaluator {
    fn name(&self) -> &str {
        &self.name
    }

    /// NDCG.
    fn primary_metric(&self, _model: &SentenceTransformer<B>) -> String {
        prefixed(&self.name, &format!("ndcg@{}", self.options.at_k))
    }

    fn evaluate(&self, model: &SentenceTransformer<B>) -> Result<Metrics> {
        log::info!(
            "re-ranking: {} queries, {} documents",
            self.queries.len(),
            self.documents.len()
        );
        let queries = model.encode_query_with(&self.queries, &self.options.query)?;
        let documents = model.encode_document_with(&self.documents, &self.options.document)?;
        self.evaluate_embeddings(queries, documents)
    }

    fn csv_reports(&self, _model: &SentenceTransformer<B>) -> Vec<CsvReport> {
        if !self.options.write_csv {
            return Vec::new();
        }
        let k = self.options.at_k;
        let file = prefixed(&self.name, &format!("results_@{k}.csv"));
        let report = CsvReport::new(format!("RerankingEvaluator_{file}"))
            .column("MAP", &self.name, "map")
            .column(format!("MRR@{k}"), &self.name, &format!("mrr@{k}"))
            .column(format!("NDCG@{k}"), &self.name, &format!("ndcg@{k}"));
        vec![report]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};

    fn sample(positives: usize, negatives: usize) -> RerankingSample {
        let texts = |count| (0..count).map(|i| format!("text {i}")).collect();
        RerankingSample {
            query: "query".to_owned(),
            positive: texts(positives),
            negative: texts(negatives),
        }
    }

    fn evaluate(evaluator: &RerankingEvaluator, documents: &[f32]) -> Result<Metrics> {
        let column = |values: &[f32]| {
            let values = Tensor::<TestBackend, 1>::from_floats(values, &device());
            values.clone().reshape([values.dims()[0], 1])
        };
        let queries = column(&vec![1.0; evaluator.queries().len()]);
        evaluator.evaluate_embeddings(queries, column(documents))
    }

    fn evaluator(samples: Vec<RerankingSample>, at_k: usize) -> RerankingEvaluator {
        let options = RerankingOptions {
            at_k,
            similarity: SimilarityFunction::Dot,
            ..Default::default()
        };
        RerankingEvaluator::new(samples)
            .and_then(|evaluator| evaluator.with_options(options))
            .unwrap()
    }

    #[track_caller]
    fn expect(metrics: &Metrics, name: &str, expected: f64) {
        let found = metrics.get(name).unwrap();
        assert!(
            (found - expected).abs() < 1e-12,
            "{name}: {found}, not {expected}"
        );
    }

    #[test]
    fn measures_the_mean_over_the_samples() {
        let evaluator = evaluator(vec![sample(2, 2), sample(0, 3), sample(1, 1)], 10);
        assert_eq!(
            (evaluator.queries().len(), evaluator.documents().len()),
            (2, 6)
        );
        // Hits at 1 and 3 of the first, at 2 of the second.
        let metrics = evaluate(&evaluator, &[0.9, 0.5, 0.7, 0.1, 0.2, 0.3]).unwrap();
        expect(&metrics, "map", ((1.0 + 2.0 / 3.0) / 2.0 + 0.5) / 2.0);
        expect(&metrics, "mrr@10", (1.0 + 0.5) / 2.0);
        let second = 1.0 / 3f64.log2();
        let first = (1.0 + 0.5) / (1.0 + second);
        expect(&metrics, "ndcg@10", (first + second) / 2.0);
    }

    #[test]
    fn equal_scores_share_their_gain() {
        let evaluator = evaluator(vec![sample(1, 2)], 2);
        let metrics = evaluate(&evaluator, &[0.5, 0.5, 0.9]).unwrap();
        expect(&metrics, "map", 1.0 / 3.0);
        // The positive comes before the negative that it ties with.
        expect(&metrics, "mrr@2", 0.5);
        // Half of what rank 2 gives; rank 3 is too low to give anything.
        expect(&metrics, "ndcg@2", 0.5 / 3f64.log2());
    }

    #[test]
    fn one_document_need_not_be_a_list() {
        let line = r#"{"query": "q", "positive": "p", "negative": ["n", "m"]}"#;
        let sample: RerankingSample = serde_json::from_str(line).unwrap();
        assert_eq!((sample.positive.len(), sample.negative.len()), (1, 2));
    }

    #[test]
    fn bad_data_is_a_named_error() {
        let error = RerankingEvaluator::new(vec![sample(1, 0)]).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("positive and negative documents is empty")
        );
        let evaluator = evaluator(vec![sample(1, 1), sample(1, 1)], 3);
        let error = evaluate(&evaluator, &[0.1, 0.2, 0.3]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "3 embeddings of documents, the evaluator has 4"
        );
        let error = evaluate(&evaluator, &[0.1, 0.2, f32::NAN, 0.3]).unwrap_err();
        let expected = "the similarity of query 1 and document 2 is not a number";
        assert_eq!(error.to_string(), expected);
        let options = RerankingOptions {
            at_k: 0,
            ..Default::default()
        };
        assert!(evaluator.with_options(options).is_err());
    }
}
