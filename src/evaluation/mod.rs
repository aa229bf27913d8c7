//! How good a model's embeddings are at a task, by the field's metrics.
//!
//! An [`Evaluator`] holds the data and is asked about one model after the other: before
//! and after training, or at each evaluation in between. The metrics' definitions and
//! names are those of Sentence Transformers.
//!
//! - [`InformationRetrievalEvaluator`]: queries, a corpus and which documents answer
//!   which query.
//! - [`EmbeddingSimilarityEvaluator`]: pairs of sentences and how alike people find them.
//!
//! Below them stand [`JudgedRanking`], [`pearson`] and [`spearman`]: the arithmetic
//! alone, for rankings and scores that come from elsewhere.

mod correlation;
mod embedding_similarity;
mod information_retrieval;
mod metrics;
mod ranking;
mod retrieval_data;
mod top_k;

use burn::tensor::backend::Backend;

pub use correlation::{pearson, spearman};
pub use embedding_similarity::{
    EmbeddingSimilarityEvaluator, EmbeddingSimilarityOptions, ScoredPair,
};
pub use information_retrieval::{InformationRetrievalEvaluator, InformationRetrievalOptions};
pub use metrics::Metrics;
pub use ranking::JudgedRanking;
pub use retrieval_data::RetrievalData;

use crate::error::Result;
use crate::model::SentenceTransformer;

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
}

/// `metric` with the evaluator's name in front, if it has one.
fn prefixed(name: &str, metric: &str) -> String {
    if name.is_empty() {
        metric.to_owned()
    } else {
        format!("{name}_{metric}")
    }
}
