//! How good a model's embeddings are at a task, by the field's metrics.
//!
//! An [`Evaluator`] holds the data and is asked about one model after the other: before
//! and after training, or at each evaluation in between. The metrics' definitions and
//! names are those of Sentence Transformers.
//!
//! - [`InformationRetrievalEvaluator`]: queries, a corpus and which documents answer
//!   which query; [`NanoBeirEvaluator`]: thirteen such sets.
//! - [`RerankingEvaluator`]: queries with documents of their own to rank.
//! - [`EmbeddingSimilarityEvaluator`]: pairs of sentences and how alike people find them.
//! - [`BinaryClassificationEvaluator`]: pairs that belong together or do not.
//! - [`TripletEvaluator`]: a text, one that is like it and one that is not.
//! - [`ParaphraseMiningEvaluator`]: sentences, some of which are duplicates.
//! - [`TranslationEvaluator`]: sentences and their translations.
//! - [`MseEvaluator`]: a teacher's embeddings.
//! - [`SequentialEvaluator`]: several of these.
//!
//! [`Evaluator::evaluate`] gives the metrics, which are also JSON;
//! [`Evaluator::evaluate_to`] adds them to the CSV files that Sentence Transformers writes.
//!
//! Below them stand [`JudgedRanking`], [`pearson`] and [`spearman`]: the arithmetic
//! alone, for rankings and scores that come from elsewhere.

mod binary_classification;
mod classification;
mod correlation;
mod csv;
mod description;
mod embedding_similarity;
mod information_retrieval;
mod metrics;
mod mse;
mod nano_beir;
#[cfg(feature = "datasets")]
mod nano_beir_hub;
mod paraphrase_mining;
mod predictions;
mod ranking;
mod reranking;
mod retrieval_data;
mod retrieval_options;
mod sequential;
mod translation;
mod triplet;

use std::collections::HashSet;
use std::path::Path;

use burn::tensor::{Tensor, backend::Backend};

pub use binary_classification::{
    BinaryClassificationEvaluator, BinaryClassificationOptions, LabeledPair,
};
pub use correlation::{pearson, spearman};
pub use csv::{CsvReport, EvaluatedAt};
pub use embedding_similarity::{
    EmbeddingSimilarityEvaluator, EmbeddingSimilarityOptions, ScoredPair,
};
pub use information_retrieval::InformationRetrievalEvaluator;
pub use metrics::Metrics;
pub use mse::{MseEvaluator, MseOptions};
pub use nano_beir::{NANO_BEIR_DATASETS, NanoBeirEvaluator, NanoBeirOptions};
#[cfg(feature = "datasets")]
pub use nano_beir_hub::NANO_BEIR_REPOSITORY;
pub use paraphrase_mining::{ParaphraseMiningEvaluator, ParaphraseMiningEvaluatorOptions};
pub use predictions::{PredictedDocument, Prediction};
pub use ranking::JudgedRanking;
pub use reranking::{RerankingEvaluator, RerankingOptions, RerankingSample};
pub use retrieval_data::RetrievalData;
pub use retrieval_options::InformationRetrievalOptions;
pub use sequential::SequentialEvaluator;
pub use translation::{TranslationEvaluator, TranslationOptions};
pub use triplet::{Triplet, TripletEvaluator, TripletMargin, TripletOptions};

use crate::error::{EvaluationError, Result};
use crate::model::{CardEvaluation, SentenceTransformer, SimilarityFunction};

/// A task to try models on.
pub trait Evaluator<B: Backend> {
    /// What tells this evaluator's metrics from another's: each metric's name begins with
    /// it and an underscore. Empty if there is nothing to tell apart.
    fn name(&self) -> &str;

    /// The name of the metric to judge `model` by; higher is better.
    fn primary_metric(&self, model: &SentenceTransformer<B>) -> String;

    /// Encodes the evaluator's texts with `model` and measures the embeddings.
    ///
    /// # Errors
    /// Whatever encoding says, and [`EvaluationError::NotANumber`] if the embeddings hold
    /// NaN.
    ///
    /// [`EvaluationError::NotANumber`]: crate::error::EvaluationError::NotANumber
    fn evaluate(&self, model: &SentenceTransformer<B>) -> Result<Metrics>;

    /// What a model card says of these metrics, which this evaluator found: one entry, unless
    /// it is made of others.
    fn describe(&self, model: &SentenceTransformer<B>, metrics: &Metrics) -> Vec<CardEvaluation> {
        let type_name = std::any::type_name::<Self>();
        let primary = self.primary_metric(model);
        vec![description::described(
            type_name,
            self.name(),
            &primary,
            metrics,
        )]
    }

    /// The CSV files that [`evaluate_to`](Self::evaluate_to) adds a row to; none unless an
    /// evaluator says so.
    fn csv_reports(&self, _model: &SentenceTransformer<B>) -> Vec<CsvReport> {
        Vec::new()
    }

    /// As [`evaluate`](Self::evaluate), and adds a row to each of the evaluator's CSV files
    /// in `folder`.
    ///
    /// # Errors
    /// Those of [`evaluate`](Self::evaluate), and
    /// [`RepoError::Io`](crate::error::RepoError::Io) if a file cannot be written.
    fn evaluate_to(
        &self,
        model: &SentenceTransformer<B>,
        folder: &Path,
        at: EvaluatedAt,
    ) -> Result<Metrics> {
        let metrics = self.evaluate(model)?;
        for report in self.csv_reports(model) {
            report.append(folder, at, &metrics)?;
        }
        Ok(metrics)
    }
}

/// `metric` with the evaluator's name in front, if it has one.
fn prefixed(name: &str, metric: &str) -> String {
    if name.is_empty() {
        metric.to_owned()
    } else {
        format!("{name}_{metric}")
    }
}

/// `kind` with a name behind it, if there is one.
fn suffixed(kind: &str, name: &str) -> String {
    if name.is_empty() {
        kind.to_owned()
    } else {
        format!("{kind}_{name}")
    }
}

/// The name of an evaluator's CSV file.
fn csv_name(kind: &str, name: &str) -> String {
    format!("{}_results.csv", suffixed(kind, name))
}

/// The similarity functions asked for; where there is none the main one, or the model's own.
fn functions_or<B: Backend>(
    functions: &[SimilarityFunction],
    main: Option<SimilarityFunction>,
    model: &SentenceTransformer<B>,
) -> Vec<SimilarityFunction> {
    match functions.is_empty() {
        true => vec![main.unwrap_or_else(|| model.similarity_fn())],
        false => functions.to_vec(),
    }
}

/// Refuses embeddings that are not one for each text.
fn expect_embeddings<B: Backend>(
    what: &'static str,
    expected: usize,
    embeddings: &Tensor<B, 2>,
) -> Result<()> {
    let found = embeddings.dims()[0];
    match expected == found {
        true => Ok(()),
        false => Err(EvaluationError::EmbeddingCount {
            what,
            expected,
            found,
        }
        .into()),
    }
}

/// Refuses ids that two texts have.
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
