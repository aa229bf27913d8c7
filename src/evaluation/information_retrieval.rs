use std::collections::HashSet;
use std::ops::Range;
use std::path::Path;

use burn::tensor::{Tensor, backend::Backend, s};

use super::predictions::{self, PredictedDocument, Prediction};
use super::{
    CsvReport, EvaluatedAt, Evaluator, InformationRetrievalOptions, JudgedRanking, Metrics,
    RetrievalData, check_unique, csv_name, expect_embeddings, functions_or, prefixed, suffixed,
};
use crate::error::{EvaluationError, Result};
use crate::model::{SentenceTransformer, SimilarityFunction};
use crate::search::{Neighbours, NotANumber, Scored, TopK};

/// What the names of the reference's files begin with.
const KIND: &str = "Information-Retrieval_evaluation";

/// What is measured, at which ranks, and how.
type Measure<'a> = (&'a str, &'a [usize], fn(&JudgedRanking, usize) -> f64);

/// Ranks a corpus for each query by similarity and compares with the documents that
/// answer it: accuracy, precision, recall, NDCG, MRR and MAP at the first k.
///
/// Definitions and names are those of Sentence Transformers' evaluator of that name:
/// - Queries that no document answers are left out.
/// - Documents are ranked by falling similarity, equally similar ones by rising id.
/// - Relevance is binary; a relevant document that the corpus lacks counts as not found.
/// - A document with the query's own id is a document like any other.
/// - Metrics are named `cosine_ndcg@10`, `cosine_recall@5`, …, by the similarity function.
///
/// With several similarities and no main one, the reference judges a model by the one with
/// the highest NDCG; here it is the first, so that two models are judged alike.
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
    /// The reverse: the documents' places in the corpus, in the order of ids.
    by_id: Vec<u32>,
}

/// What a similarity finds for each query: documents, by their place in the order of ids.
struct Rankings {
    similarity: SimilarityFunction,
    of_queries: Vec<Vec<Scored>>,
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
            by_id,
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
    /// [`EvaluationError::InvalidOption`] if a rank or the chunk size is 0, no rank is given
    /// for NDCG, or the main similarity is not among those to measure.
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
        similarities: &[SimilarityFunction],
    ) -> Result<Metrics> {
        expect_embeddings("queries", self.queries.len(), &queries)?;
        expect_embeddings("documents", self.corpus.len(), &corpus)?;
        let rankings = self.rank(queries, similarities, |documents| {
            Ok(corpus.clone().slice(s![documents, ..]))
        })?;
        Ok(self.measure(&rankings))
    }

    /// Ranks the corpus for each query by each similarity.
    fn rank<B: Backend>(
        &self,
        queries: Tensor<B, 2>,
        similarities: &[SimilarityFunction],
        embed: impl Fn(Range<usize>) -> Result<Tensor<B, 2>>,
    ) -> Result<Vec<Rankings>> {
        let best = TopK::new(self.options.depth());
        let mut searches: Vec<Neighbours<B>> = similarities
            .iter()
            .map(|&similarity| Neighbours::new(queries.clone(), similarity, best.clone()))
            .collect();
        for start in (0..self.corpus.len()).step_by(self.options.corpus_chunk_size) {
            let end = self
                .corpus
                .len()
                .min(start + self.options.corpus_chunk_size);
            let documents = embed(start..end)?;
            for search in &mut searches {
                search.offer(documents.clone(), &self.id_order[start..end])?;
            }
        }
        let rankings = |(&similarity, search): (&SimilarityFunction, Neighbours<B>)| {
            let found = search.into_rankings();
            Ok(Rankings {
                similarity,
                of_queries: found.map_err(|nan| self.not_a_number(nan))?,
            })
        };
        similarities.iter().zip(searches).map(rankings).collect()
    }

    fn not_a_number(&self, nan: NotANumber) -> EvaluationError {
        let document = self.by_id[nan.document as usize] as usize;
        EvaluationError::NotANumber {
            left: format!("query `{}`", self.queries[nan.query].id),
            right: format!("document `{}`", self.document_ids[document]),
        }
    }

    /// The means over the queries, of each similarity.
    fn measure(&self, rankings: &[Rankings]) -> Metrics {
        let mut metrics = Metrics::new();
        for Rankings {
            similarity,
            of_queries,
        } in rankings
        {
            let judged: Vec<JudgedRanking> = self
                .queries
                .iter()
                .zip(of_queries)
                .map(|(query, ranking)| query.judge(ranking))
                .collect();
            for (name, ranks, at) in self.measures() {
                for &k in ranks {
                    let sum: f64 = judged.iter().map(|ranking| at(ranking, k)).sum();
                    let name = format!("{}_{name}@{k}", similarity.name());
                    metrics.insert(name, sum / judged.len() as f64);
                }
            }
        }
        metrics.named(&self.name)
    }

    fn measures(&self) -> [Measure<'_>; 6] {
        let options = &self.options;
        [
            (
                "accuracy",
                &options.accuracy_at_k,
                JudgedRanking::accuracy_at,
            ),
            (
                "precision",
                &options.precision_recall_at_k,
                JudgedRanking::precision_at,
            ),
            (
                "recall",
                &options.precision_recall_at_k,
                JudgedRanking::recall_at,
            ),
            ("ndcg", &options.ndcg_at_k, JudgedRanking::ndcg_at),
            ("mrr", &options.mrr_at_k, JudgedRanking::reciprocal_rank_at),
            (
                "map",
                &options.map_at_k,
                JudgedRanking::average_precision_at,
            ),
        ]
    }

    fn similarities<B: Backend>(&self, model: &SentenceTransformer<B>) -> Vec<SimilarityFunction> {
        let options = &self.options;
        functions_or(&options.score_functions, options.main_score_function, model)
    }

    /// Encodes all texts and ranks the corpus.
    fn rank_with<B: Backend>(&self, model: &SentenceTransformer<B>) -> Result<Vec<Rankings>> {
        log::info!(
            "information retrieval: {} queries, {} documents",
            self.queries.len(),
            self.corpus.len()
        );
        let queries = model.encode_query_with(&self.query_texts, &self.options.query)?;
        self.rank(queries, &self.similarities(model), |documents| {
            model.encode_document_with(&self.corpus[documents], &self.options.document)
        })
    }

    /// Writes what each similarity finds into a file of its own.
    fn write_predictions(&self, rankings: &[Rankings], folder: &Path) -> Result<()> {
        let document = |found: &Scored| PredictedDocument {
            corpus_id: self.document_ids[self.by_id[found.item as usize] as usize].clone(),
            score: found.score,
        };
        for ranking in rankings {
            let texts = self.queries.iter().zip(&self.query_texts);
            let predictions: Vec<Prediction> = texts
                .zip(&ranking.of_queries)
                .map(|((query, text), found)| Prediction {
                    query_id: query.id.clone(),
                    query: text.clone(),
                    results: found.iter().map(document).collect(),
                })
                .collect();
            let kind = suffixed(KIND, &self.name);
            let file = format!("{kind}_predictions_{}.jsonl", ranking.similarity.name());
            predictions::write(&folder.join(file), &predictions)?;
        }
        Ok(())
    }
}

impl Query {
    fn judge(&self, ranking: &[Scored]) -> JudgedRanking {
        JudgedRanking {
            hits: ranking
                .iter()
                .map(|document| self.relevant.contains(&document.item))
                .collect(),
            relevant: self.relevant_count,
        }
    }
}

impl<B: Backend> Evaluator<B> for InformationRetrievalEvaluator {
    fn name(&self) -> &str {
        &self.name
    }

    /// The main similarity's NDCG at the largest rank.
    fn primary_metric(&self, model: &SentenceTransformer<B>) -> String {
        let main = self.options.main_score_function;
        let main = main.unwrap_or_else(|| self.similarities(model)[0]);
        let k = self.options.ndcg_at_k.iter().max().unwrap_or(&0);
        prefixed(&self.name, &format!("{}_ndcg@{k}", main.name()))
    }

    fn evaluate(&self, model: &SentenceTransformer<B>) -> Result<Metrics> {
        Ok(self.measure(&self.rank_with(model)?))
    }

    fn csv_reports(&self, model: &SentenceTransformer<B>) -> Vec<CsvReport> {
        if !self.options.write_csv {
            return Vec::new();
        }
        let file = csv_name(KIND, &self.name);
        let similarities = self.similarities(model);
        vec![self.options.csv_report(file, similarities, &self.name)]
    }

    fn evaluate_to(
        &self,
        model: &SentenceTransformer<B>,
        folder: &Path,
        at: EvaluatedAt,
    ) -> Result<Metrics> {
        let rankings = self.rank_with(model)?;
        let metrics = self.measure(&rankings);
        for report in self.csv_reports(model) {
            report.append(folder, at, &metrics)?;
        }
        if self.options.write_predictions {
            self.write_predictions(&rankings, folder)?;
        }
        Ok(metrics)
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
            .evaluate_embeddings(queries, scores(documents), &[SimilarityFunction::Dot])
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
                .evaluate_embeddings(queries.clone(), corpus.clone(), &[SimilarityFunction::Dot])
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
                &[SimilarityFunction::Dot],
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
            .evaluate_embeddings(
                scores(&[1.0]),
                scores(&[0.0, 0.1]),
                &[SimilarityFunction::Dot],
            )
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
        let found = error(|o| {
            o.score_functions = vec![SimilarityFunction::Dot];
            o.main_score_function = Some(SimilarityFunction::Cosine);
        });
        assert!(found.contains("`main_score_function` is cosine, expected one of"));
    }
}
