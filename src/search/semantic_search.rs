use burn::tensor::{Tensor, backend::Backend};
use serde::{Deserialize, Serialize};

use super::Neighbours;
use crate::error::{Result, SearchError};
use crate::kernel::{Scored, TopK};
use crate::model::{Rows, SimilarityFunction};

/// How [`semantic_search`] searches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SemanticSearchOptions {
    /// The most queries compared at a time, where a backend keeps their scores: it bounds
    /// the memory that these take and has no effect on the result.
    pub query_chunk_size: usize,
    /// How many documents are compared at a time, likewise.
    pub corpus_chunk_size: usize,
    /// How many documents to find for each query.
    pub top_k: usize,
    /// How a query is compared with a document.
    pub score_function: SimilarityFunction,
}

impl Default for SemanticSearchOptions {
    fn default() -> Self {
        Self {
            query_chunk_size: 100,
            corpus_chunk_size: 500_000,
            top_k: 10,
            score_function: SimilarityFunction::Cosine,
        }
    }
}

/// A document found for a query.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct SearchHit {
    /// The document's row.
    pub corpus_id: usize,
    /// Its similarity to the query.
    pub score: f32,
}

impl From<Scored> for SearchHit {
    fn from(scored: Scored) -> Self {
        Self {
            corpus_id: scored.item as usize,
            score: scored.score,
        }
    }
}

/// Finds the documents most similar to each query, the most similar first.
///
/// ```
/// use burn::backend::NdArray;
/// use burn::tensor::Tensor;
/// use sentence_burn::search::{SemanticSearchOptions, semantic_search};
///
/// # fn main() -> sentence_burn::Result<()> {
/// let device = Default::default();
/// let query = Tensor::<NdArray, 1>::from_floats([1.0, 0.0], &device);
/// let corpus = Tensor::<NdArray, 2>::from_floats([[0.0, 2.0], [3.0, 4.0], [5.0, 0.0]], &device);
/// let options = SemanticSearchOptions { top_k: 2, ..Default::default() };
/// let hits = semantic_search(query, corpus, &options)?;
/// assert_eq!((hits[0][0].corpus_id, hits[0][1].corpus_id), (2, 1));
/// # Ok(())
/// # }
/// ```
///
/// # Shapes
/// - queries: `[queries, dim]` or `[dim]`
/// - corpus: `[documents, dim]`
/// - output: for each query up to `top_k` documents
///
/// # Errors
/// [`SearchError::InvalidOption`] if a chunk size is 0,
/// [`ModelError::IncompatibleEmbeddings`](crate::error::ModelError::IncompatibleEmbeddings)
/// where the dimensions differ, [`SearchError::NotANumber`] if a similarity is NaN.
pub fn semantic_search<B: Backend>(
    queries: impl Rows<B>,
    corpus: Tensor<B, 2>,
    options: &SemanticSearchOptions,
) -> Result<Vec<Vec<SearchHit>>> {
    for (option, found) in [
        ("query_chunk_size", options.query_chunk_size),
        ("corpus_chunk_size", options.corpus_chunk_size),
    ] {
        at_least_one(option, found)?;
    }
    let best = TopK::new(options.top_k);
    let mut neighbours = Neighbours::new(queries.into_rows(), options.score_function, best)
        .with_queries_at_a_time(options.query_chunk_size);
    neighbours.offer_corpus(corpus, options.corpus_chunk_size)?;
    let rankings = neighbours.into_rankings().map_err(|nan| nan.in_rows(0))?;
    let hits = |ranking: Vec<Scored>| ranking.into_iter().map(SearchHit::from).collect();
    Ok(rankings.into_iter().map(hits).collect())
}

/// Refuses an option that is 0.
pub(super) fn at_least_one(option: &'static str, found: usize) -> Result<()> {
    match found {
        0 => Err(SearchError::InvalidOption {
            option,
            expected: "at least 1".to_owned(),
            found: "0".to_owned(),
        }
        .into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};
    use crate::error::{Error, ModelError};

    fn tensor<const N: usize>(rows: [[f32; 2]; N]) -> Tensor<TestBackend, 2> {
        Tensor::from_floats(rows, &device())
    }

    fn options() -> SemanticSearchOptions {
        SemanticSearchOptions::default()
    }

    #[test]
    fn finds_no_more_than_there_is() {
        let corpus = tensor([[1.0, 0.0], [0.0, 1.0]]);
        let hits = semantic_search(tensor([[0.0, 2.0]; 3]), corpus.clone(), &options());
        let hits = hits.unwrap();
        assert_eq!(hits.len(), 3);
        let [first, second] = hits[2][..] else {
            panic!("{hits:?}")
        };
        assert_eq!((first.corpus_id, second.corpus_id), (1, 0));
        assert!((first.score - 1.0).abs() < 1e-6 && second.score.abs() < 1e-6);

        let nothing = Tensor::<TestBackend, 2>::empty([0, 2], &device());
        let hits = semantic_search(corpus.clone(), nothing.clone(), &options()).unwrap();
        assert_eq!(hits, [vec![], vec![]]);
        let hits = semantic_search(nothing, corpus, &options()).unwrap();
        assert!(hits.is_empty());
    }

    #[test]
    fn what_cannot_be_searched_is_a_named_error() {
        let corpus = tensor([[1.0, 0.0], [0.0, f32::NAN]]);
        let error = semantic_search(tensor([[0.0, 2.0]]), corpus.clone(), &options()).unwrap_err();
        let expected = "the similarity of query 0 and document 1 is not a number";
        assert_eq!(error.to_string(), expected);

        let narrow = Tensor::<TestBackend, 2>::zeros([1, 3], &device());
        let error = semantic_search(narrow, corpus.clone(), &options()).unwrap_err();
        assert!(matches!(
            error,
            Error::Model(ModelError::IncompatibleEmbeddings { .. })
        ));

        let options = SemanticSearchOptions {
            corpus_chunk_size: 0,
            ..options()
        };
        let error = semantic_search(tensor([[0.0, 2.0]]), corpus, &options).unwrap_err();
        assert!(error.to_string().contains("`corpus_chunk_size` is 0"));
    }
}
