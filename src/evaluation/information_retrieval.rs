use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;

use burn::tensor::{Tensor, backend::Backend, s};

use super::{Evaluator, JudgedRanking, Metrics, RetrievalData, prefixed, top_k::TopK};
use crate::error::{EvaluationError, Result};
use crate::model::{EncodeOptions, SentenceTransformer, SimilarityFunction};

/// How many similarities are on the host at a time: 64 MiB of them.
const SCORES_AT_A_TIME: usize = 1 << 24;

/// What an [`InformationRetrievalEvaluator`] measures, and how it encodes.
#[derive(Debug, Clone)]
pub struct InformationRetrievalOptions {
    /// The ranks that accuracy is measured at.
    pub accuracy_at_k: Vec<usize>,
    /// The ranks that precision and recall are measured at.
    pub precision_recall_at_k: Vec<usize>,
    /// The ranks that NDCG is measured at. The last one is the primary metric's.
    pub ndcg_at_k: Vec<usize>,
    /// The ranks that the mean reciprocal rank is measured at.
    pub mrr_at_k: Vec<usize>,
    /// The ranks that the mean average precision is measured at.
    pub map_at_k: Vec<usize>,
    /// How many documents are encoded and scored at a time. It bounds the memory that
    /// embeddings take and has no effect on the metrics.
    pub corpus_chunk_size: usize,
    /// How similarity is measured; the model's own way if `None`.
    pub similarity: Option<SimilarityFunction>,
    /// How queries are encoded.
    pub query: EncodeOptions,
    /// How documents are encoded.
    pub document: EncodeOptions,
}

impl Default for InformationRetrievalOptions {
    fn default() -> Self {
        Self {
            accuracy_at_k: vec![1, 3, 5, 10],
            precision_recall_at_k: vec![1, 3, 5, 10],
            ndcg_at_k: vec![10],
            mrr_at_k: vec![10],
            map_at_k: vec![100],
            corpus_chunk_size: 50_000,
            similarity: None,
            query: EncodeOptions::default(),
            document: EncodeOptions::default(),
        }
    }
}

impl InformationRetrievalOptions {
    fn validate(&self) -> Result<()> {
        let invalid = |option, expected, found| {
            Err(EvaluationError::InvalidOption {
                option,
                expected,
                found,
            }
            .into())
        };
        for (option, ranks) in [
            ("accuracy_at_k", &self.accuracy_at_k),
            ("precision_recall_at_k", &self.precision_recall_at_k),
            ("ndcg_at_k", &self.ndcg_at_k),
            ("mrr_at_k", &self.mrr_at_k),
            ("map_at_k", &self.map_at_k),
        ] {
            if ranks.contains(&0) {
                return invalid(option, "ranks from 1", format!("{ranks:?}"));
            }
        }
        if self.ndcg_at_k.is_empty() {
            return invalid("ndcg_at_k", "at least one rank", "empty".to_owned());
        }
        if self.corpus_chunk_size == 0 {
            return invalid("corpus_chunk_size", "at least 1", "0".to_owned());
        }
        Ok(())
    }

    /// The lowest rank that any measure looks at.
    fn depth(&self) -> usize {
        [
            &self.accuracy_at_k,
            &self.precision_recall_at_k,
            &self.ndcg_at_k,
            &self.mrr_at_k,
            &self.map_at_k,
        ]
        .into_iter()
        .flatten()
        .copied()
        .max()
        .unwrap_or(0)
    }
}

/// Ranks a corpus for each query by similarity and compares with the documents that
/// answer it: accuracy, precision, recall, NDCG, MRR and MAP at the first k.
///
/// Definitions and names are those of Sentence Transformers' evaluator of that name:
/// - Queries that no document answers are left out.
/// - Documents are ranked by falling similarity, equally similar ones by rising id.
/// - Relevance is binary; a relevant document that the corpus lacks counts as not found.
/// - A document with the query's own id is a document like any other.
/// - Metrics are named `cosine_ndcg@10`, `cosine_recall@5`, …, by the similarity function.
#[derive(Debug, Clone)]
pub struct InformationRetrievalEvaluator {
    name: String,
    options: InformationRetrievalOptions,
    queries: Vec<Query>,
    query_texts: Vec<String>,
    corpus: Vec<String>,
    document_ids: Vec<String>,
    /// Each document's place in the order of ids, by its place in the corpus.
    id_order: Vec<u32>,
}

#[derive(Debug, Clone)]
struct Query {
    id: String,
    /// The relevant documents of the corpus, by their place in the order of ids.
    relevant: HashSet<u32>,
    /// How many documents are relevant, those that the corpus lacks included.
    relevant_count: usize,
}

impl InformationRetrievalEvaluator {
    /// An evaluator with the default options and no name.
    ///
    /// # Errors
    /// [`EvaluationError::DuplicateId`] if two documents or two queries have one id,
    /// [`EvaluationError::Empty`] if there is no document or no query that one answers.
    pub fn new(data: RetrievalData) -> Result<Self> {
        check_unique("documents", &data.corpus)?;
        check_unique("queries", &data.queries)?;
        if data.corpus.is_empty() {
            return Err(EvaluationError::Empty { what: "the corpus" }.into());
        }
        let mut by_id: Vec<u32> = (0..data.corpus.len() as u32).collect();
        by_id.sort_unstable_by_key(|&place| data.corpus[place as usize].0.as_str());
        let mut id_order = vec![0; by_id.len()];
        for (order, &place) in (0..).zip(&by_id) {
            id_order[place as usize] = order;
        }

        let (mut queries, mut query_texts) = (Vec::new(), Vec::new());
        for (id, text) in data.queries {
            let Some(ids) = data.relevant.get(&id).filter(|ids| !ids.is_empty()) else {
                continue;
            };
            let order_of = |id: &String| {
                by_id
                    .binary_search_by_key(&id.as_str(), |&place| &data.corpus[place as usize].0)
                    .ok()
                    .map(|order| order as u32)
            };
            queries.push(Query {
                id,
                relevant: ids.iter().filter_map(order_of).collect(),
                relevant_count: ids.len(),
            });
            query_texts.push(text);
        }
        if queries.is_empty() {
            let what = "the set of queries that a document answers";
            return Err(EvaluationError::Empty { what }.into());
        }
        let lacking: usize = queries
            .iter()
            .map(|query| query.relevant_count - query.relevant.len())
            .sum();
        if lacking > 0 {
            log::warn!(
                "{lacking} relevant documents are not in the corpus: no model can find them"
            );
        }
        let (document_ids, corpus) = data.corpus.into_iter().unzip();
        Ok(Self {
            name: String::new(),
            options: InformationRetrievalOptions::default(),
            queries,
            query_texts,
            corpus,
            document_ids,
            id_order,
        })
    }

    /// Reads the data from a folder, see [`RetrievalData::from_folder`].
    ///
    /// # Errors
    /// Those of reading and of [`new`](Self::new).
    pub fn from_folder(folder: impl AsRef<Path>) -> Result<Self> {
        Self::new(RetrievalData::from_folder(folder)?)
    }

    /// The same evaluator with `name` and an underscore before each metric's name.
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The same evaluator with other options.
    ///
    /// # Errors
    /// [`EvaluationError::InvalidOption`] if a rank or the chunk size is 0, or no rank is
    /// given for NDCG.
    pub fn with_options(mut self, options: InformationRetrievalOptions) -> Result<Self> {
        options.validate()?;
        self.options = options;
        Ok(self)
    }

    /// The queries' texts, in the order that
    /// [`evaluate_embeddings`](Self::evaluate_embeddings) reads their embeddings; those
    /// that no document answers are left out.
    pub fn queries(&self) -> &[String] {
        &self.query_texts
    }

    /// The documents' texts, in the order that
    /// [`evaluate_embeddings`](Self::evaluate_embeddings) reads their embeddings.
    pub fn corpus(&self) -> &[String] {
        &self.corpus
    }

    /// Measures embeddings that are there already.
    ///
    /// # Shapes
    /// - queries: `[queries, dim]`
    /// - corpus: `[documents, dim]`
    ///
    /// # Errors
    /// [`EvaluationError::EmbeddingCount`] if there are more or fewer than texts,
    /// [`EvaluationError::NotANumber`] if a similarity is NaN.
    pub fn evaluate_embeddings<B: Backend>(
        &self,
        queries: Tensor<B, 2>,
        corpus: Tensor<B, 2>,
        similarity: SimilarityFunction,
    ) -> Result<Metrics> {
        for (what, expected, found) in [
            ("queries", self.queries.len(), queries.dims()[0]),
            ("documents", self.corpus.len(), corpus.dims()[0]),
        ] {
            if expected != found {
                return Err(EvaluationError::EmbeddingCount {
                    what,
                    expected,
                    found,
                }
                .into());
            }
        }
        let rankings = self.rank(queries, similarity, |documents| {
            Ok(corpus.clone().slice(s![documents, ..]))
        })?;
        Ok(self.measure(&rankings, similarity))
    }

    /// Ranks the corpus for each query and judges the first documents.
    fn rank<B: Backend>(
        &self,
        queries: Tensor<B, 2>,
        similarity: SimilarityFunction,
        embed: impl Fn(Range<usize>) -> Result<Tensor<B, 2>>,
    ) -> Result<Vec<JudgedRanking>> {
        let depth = self.options.depth();
        let mut best = vec![TopK::new(depth); self.queries.len()];
        let mut start = 0;
        while start < self.corpus.len() {
            let end = (start + self.options.corpus_chunk_size).min(self.corpus.len());
            self.score_chunk(&queries, embed(start..end)?, start, similarity, &mut best)?;
            start = end;
        }
        let judge = |(query, best): (&Query, TopK)| JudgedRanking {
            hits: best
                .into_documents()
                .into_iter()
                .map(|document| query.relevant.contains(&document))
                .collect(),
            relevant: query.relevant_count,
        };
        Ok(self.queries.iter().zip(best).map(judge).collect())
    }

    /// Offers each document of a chunk that begins at `start` to each query's best.
    fn score_chunk<B: Backend>(
        &self,
        queries: &Tensor<B, 2>,
        chunk: Tensor<B, 2>,
        start: usize,
        similarity: SimilarityFunction,
        best: &mut [TopK],
    ) -> Result<()> {
        let documents = chunk.dims()[0];
        let rows = (SCORES_AT_A_TIME / documents).max(1);
        for (block, best) in best.chunks_mut(rows).enumerate() {
            let first = block * rows;
            let block = queries.clone().slice(s![first..first + best.len(), ..]);
            let scores = similarity.similarity(block, chunk.clone())?.into_data();
            let mut scores = scores.iter::<f32>();
            for (query, best) in (first..).zip(best) {
                for (document, score) in (start..start + documents).zip(&mut scores) {
                    if score.is_nan() {
                        return Err(EvaluationError::NotANumber {
                            left: format!("query `{}`", self.queries[query].id),
                            right: format!("document `{}`", self.document_ids[document]),
                        }
                        .into());
                    }
                    best.push(score, self.id_order[document]);
                }
            }
        }
        Ok(())
    }

    /// The means over the queries.
    fn measure(&self, rankings: &[JudgedRanking], similarity: SimilarityFunction) -> Metrics {
        let mut metrics = Metrics::new();
        let mut add = |name: &str, ranks: &[usize], at: fn(&JudgedRanking, usize) -> f64| {
            for &k in ranks {
                let sum: f64 = rankings.iter().map(|ranking| at(ranking, k)).sum();
                let name = format!("{}_{name}@{k}", similarity.name());
                metrics.insert(name, sum / rankings.len() as f64);
            }
        };
        let options = &self.options;
        let both = &options.precision_recall_at_k;
        add(
            "accuracy",
            &options.accuracy_at_k,
            JudgedRanking::accuracy_at,
        );
        add("precision", both, JudgedRanking::precision_at);
        add("recall", both, JudgedRanking::recall_at);
        add("ndcg", &options.ndcg_at_k, JudgedRanking::ndcg_at);
        add("mrr", &options.mrr_at_k, JudgedRanking::reciprocal_rank_at);
        add(
            "map",
            &options.map_at_k,
            JudgedRanking::average_precision_at,
        );
        metrics.named(&self.name)
    }

    fn similarity<B: Backend>(&self, model: &SentenceTransformer<B>) -> SimilarityFunction {
        self.options
            .similarity
            .unwrap_or_else(|| model.similarity_fn())
    }
}

impl<B: Backend> Evaluator<B> for InformationRetrievalEvaluator {
    fn name(&self) -> &str {
        &self.name
    }

    /// NDCG at the largest rank.
    fn primary_metric(&self, model: &SentenceTransformer<B>) -> String {
        let k = self.options.ndcg_at_k.iter().max().unwrap_or(&0);
        let metric = format!("{}_ndcg@{k}", self.similarity(model).name());
        prefixed(&self.name, &metric)
    }

    fn evaluate(&self, model: &SentenceTransformer<B>) -> Result<Metrics> {
        log::info!(
            "information retrieval: {} queries, {} documents",
            self.queries.len(),
            self.corpus.len()
        );
        let similarity = self.similarity(model);
        let queries = model.encode_query_with(&self.query_texts, &self.options.query)?;
        let rankings = self.rank(queries, similarity, |documents| {
            model.encode_document_with(&self.corpus[documents], &self.options.document)
        })?;
        Ok(self.measure(&rankings, similarity))
    }
}

fn check_unique(what: &'static str, texts: &[(String, String)]) -> Result<()> {
    let mut seen = HashSet::with_capacity(texts.len());
    match texts.iter().find(|(id, _)| !seen.insert(id)) {
        Some((id, _)) => Err(EvaluationError::DuplicateId {
            what,
            id: id.clone(),
        }
        .into()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use rand::{Rng, SeedableRng, rngs::StdRng};

    use super::*;
    use crate::backend_under_test::{TestBackend, device};
    use crate::error::Error;

    fn texts(ids: &[&str]) -> Vec<(String, String)> {
        ids.iter()
            .map(|id| (id.to_string(), format!("text {id}")))
            .collect()
    }

    fn data(queries: &[&str], corpus: &[&str], relevant: &[(&str, &[&str])]) -> RetrievalData {
        RetrievalData {
            queries: texts(queries),
            corpus: texts(corpus),
            relevant: relevant
                .iter()
                .map(|(query, ids)| {
                    (
                        query.to_string(),
                        ids.iter().map(|id| id.to_string()).collect(),
                    )
                })
                .collect(),
        }
    }

    /// Embeddings of one dimension, whose dot product with a query of 1 is their value.
    fn scores(values: &[f32]) -> Tensor<TestBackend, 2> {
        Tensor::<TestBackend, 1>::from_floats(values, &device()).reshape([values.len(), 1])
    }

    fn evaluate(evaluator: &InformationRetrievalEvaluator, documents: &[f32]) -> Metrics {
        let queries = scores(&vec![1.0; evaluator.queries().len()]);
        evaluator
            .evaluate_embeddings(queries, scores(documents), SimilarityFunction::Dot)
            .unwrap()
    }

    #[track_caller]
    fn expect(metrics: &Metrics, name: &str, expected: f64) {
        let found = metrics.get(name).unwrap();
        assert!(
            (found - expected).abs() < 1e-12,
            "{name}: {found} is not {expected}"
        );
    }

    #[test]
    fn measures_the_mean_over_the_queries() {
        // The ranking is d, c, b, a for both: hits at 1 and 4 of two, and at 2 of one.
        let data = data(
            &["p", "q"],
            &["c", "a", "d", "b"],
            &[("p", &["a", "d"]), ("q", &["c"])],
        );
        let evaluator = InformationRetrievalEvaluator::new(data).unwrap();
        let metrics = evaluate(&evaluator, &[0.3, 0.1, 0.4, 0.2]);
        expect(&metrics, "dot_accuracy@1", 0.5);
        expect(&metrics, "dot_accuracy@3", 1.0);
        expect(&metrics, "dot_precision@1", 0.5);
        expect(&metrics, "dot_precision@10", 0.15);
        expect(&metrics, "dot_recall@1", 0.25);
        expect(&metrics, "dot_recall@10", 1.0);
        let second = 1.0 / 3f64.log2();
        let p = (1.0 + 1.0 / 5f64.log2()) / (1.0 + second);
        expect(&metrics, "dot_ndcg@10", (p + second) / 2.0);
        expect(&metrics, "dot_mrr@10", 0.75);
        expect(&metrics, "dot_map@100", ((1.0 + 0.5) / 2.0 + 0.5) / 2.0);
    }

    #[test]
    fn the_defaults_are_the_reference_s_metrics_in_its_order() {
        let evaluator = InformationRetrievalEvaluator::new(data(&["q"], &["a"], &[("q", &["a"])]));
        let metrics = evaluate(&evaluator.unwrap().with_name("dev"), &[1.0]);
        let names: Vec<&str> = metrics.iter().map(|(name, _)| name).collect();
        let expected = "accuracy@1 accuracy@3 accuracy@5 accuracy@10 precision@1 precision@3 \
            precision@5 precision@10 recall@1 recall@3 recall@5 recall@10 ndcg@10 mrr@10 map@100";
        let expected: Vec<String> = expected
            .split_whitespace()
            .map(|m| format!("dev_dot_{m}"))
            .collect();
        assert_eq!(names, expected);
    }

    #[test]
    fn equal_scores_rank_by_id_as_a_string() {
        let ids = ["9", "10", "2"];
        for (relevant, rank) in [("10", 1.0), ("2", 2.0), ("9", 3.0)] {
            let data = data(&["q"], &ids, &[("q", &[relevant])]);
            let evaluator = InformationRetrievalEvaluator::new(data).unwrap();
            expect(&evaluate(&evaluator, &[0.5; 3]), "dot_mrr@10", 1.0 / rank);
        }
    }

    #[test]
    fn queries_without_relevant_documents_are_left_out() {
        let data = data(
            &["none", "q", "empty"],
            &["a", "b"],
            &[("q", &["a"]), ("empty", &[])],
        );
        let evaluator = InformationRetrievalEvaluator::new(data).unwrap();
        assert_eq!(evaluator.queries(), ["text q"]);
        expect(&evaluate(&evaluator, &[1.0, 0.0]), "dot_accuracy@1", 1.0);
    }

    #[test]
    fn relevant_documents_that_the_corpus_lacks_count_as_not_found() {
        let data = data(&["q"], &["a", "b"], &[("q", &["a", "lost"])]);
        let evaluator = InformationRetrievalEvaluator::new(data).unwrap();
        let metrics = evaluate(&evaluator, &[1.0, 0.0]);
        expect(&metrics, "dot_recall@10", 0.5);
        expect(&metrics, "dot_map@100", 0.5);
        expect(&metrics, "dot_ndcg@10", 1.0 / (1.0 + 1.0 / 3f64.log2()));
    }

    #[test]
    fn the_chunk_size_changes_nothing() {
        let mut rng = StdRng::seed_from_u64(5);
        let ids: Vec<String> = (0..200).map(|i| i.to_string()).collect();
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        let judged: Vec<(&str, Vec<&str>)> = (0..20)
            .map(|q| {
                (
                    ids[q],
                    (0..200)
                        .filter(|_| rng.random_bool(0.1))
                        .map(|d| ids[d])
                        .collect(),
                )
            })
            .collect();
        let judged: Vec<(&str, &[&str])> = judged.iter().map(|(q, d)| (*q, &d[..])).collect();
        // Few distinct values, so that many documents tie.
        let mut embed = |n: usize| {
            let values: Vec<f32> = (0..n * 2).map(|_| rng.random_range(-2..3) as f32).collect();
            Tensor::<TestBackend, 1>::from_floats(&values[..], &device()).reshape([n, 2])
        };
        let data = data(&ids[..20], &ids, &judged);
        let evaluator = InformationRetrievalEvaluator::new(data).unwrap();
        let (queries, corpus) = (embed(evaluator.queries().len()), embed(200));
        let run = |corpus_chunk_size| {
            let options = InformationRetrievalOptions {
                corpus_chunk_size,
                ..Default::default()
            };
            let evaluator = evaluator.clone().with_options(options).unwrap();
            evaluator
                .evaluate_embeddings(queries.clone(), corpus.clone(), SimilarityFunction::Dot)
                .unwrap()
        };
        let whole = run(50_000);
        assert!(whole.get("dot_map@100").unwrap() > 0.0);
        for chunk_size in [1, 7, 200] {
            assert_eq!(run(chunk_size), whole, "chunks of {chunk_size}");
        }
    }

    #[test]
    fn a_nan_similarity_is_an_error_that_names_the_texts() {
        let data = data(&["q"], &["a", "b"], &[("q", &["a"])]);
        let error = InformationRetrievalEvaluator::new(data)
            .unwrap()
            .evaluate_embeddings(
                scores(&[1.0]),
                scores(&[0.0, f32::NAN]),
                SimilarityFunction::Dot,
            )
            .unwrap_err();
        assert!(
            matches!(&error, Error::Evaluation(EvaluationError::NotANumber { left, right })
            if left == "query `q`" && right == "document `b`")
        );
    }

    #[test]
    fn bad_data_is_a_named_error() {
        let error = |data| match InformationRetrievalEvaluator::new(data).unwrap_err() {
            Error::Evaluation(error) => error.to_string(),
            other => panic!("{other:?}"),
        };
        let relevant: &[(&str, &[&str])] = &[("q", &["a"])];
        assert_eq!(
            error(data(&["q"], &["a", "a"], relevant)),
            "two documents have the id `a`"
        );
        assert_eq!(
            error(data(&["q", "q"], &["a"], relevant)),
            "two queries have the id `q`"
        );
        assert!(error(data(&["q"], &[], relevant)).starts_with("the corpus is empty"));
        assert!(error(data(&["p"], &["a"], relevant)).contains("queries that a document answers"));

        let evaluator = InformationRetrievalEvaluator::new(data(&["q"], &["a"], relevant)).unwrap();
        let error = evaluator
            .evaluate_embeddings(scores(&[1.0]), scores(&[0.0, 0.1]), SimilarityFunction::Dot)
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "2 embeddings of documents, the evaluator has 1"
        );
    }

    #[test]
    fn bad_options_are_named_errors() {
        let data = data(&["q"], &["a"], &[("q", &["a"])]);
        let evaluator = InformationRetrievalEvaluator::new(data).unwrap();
        let error = |change: fn(&mut InformationRetrievalOptions)| {
            let mut options = InformationRetrievalOptions::default();
            change(&mut options);
            evaluator
                .clone()
                .with_options(options)
                .unwrap_err()
                .to_string()
        };
        assert!(error(|o| o.map_at_k = vec![5, 0]).contains("`map_at_k` is [5, 0]"));
        assert!(error(|o| o.ndcg_at_k.clear()).contains("`ndcg_at_k` is empty"));
        assert!(error(|o| o.corpus_chunk_size = 0).contains("`corpus_chunk_size` is 0"));
    }
}
