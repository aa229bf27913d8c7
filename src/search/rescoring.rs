use indexmap::IndexSet;

use crate::error::{Result, SearchError};
use crate::kernel::Scored;

/// Scores documents against a query: a cross-encoder, a re-ranking service, any other
/// judge. A closure is one.
pub trait PairScorer {
    /// A score for each document, higher for better answers.
    ///
    /// # Errors
    /// The scorer's own.
    fn score(&mut self, query: &str, documents: &[&str]) -> Result<Vec<f32>>;
}

impl<F: FnMut(&str, &[&str]) -> Result<Vec<f32>>> PairScorer for F {
    fn score(&mut self, query: &str, documents: &[&str]) -> Result<Vec<f32>> {
        self(query, documents)
    }
}

/// The scores of some documents of a corpus, in their order.
///
/// # Errors
/// The scorer's own, and those of scores that cannot be used.
pub(super) fn rescore(
    query: usize,
    text: &str,
    items: &[u32],
    corpus: &IndexSet<String>,
    scorer: &mut dyn PairScorer,
) -> Result<Vec<Scored>> {
    if items.is_empty() {
        return Ok(Vec::new());
    }
    let documents: Vec<&str> = items
        .iter()
        .map(|&item| corpus[item as usize].as_str())
        .collect();
    let scores = scorer.score(text, &documents)?;
    if scores.len() != items.len() {
        return Err(SearchError::ScoreCount {
            query,
            expected: items.len(),
            found: scores.len(),
        }
        .into());
    }
    let pairs = scores.into_iter().zip(items);
    pairs
        .map(|(score, &item)| match score.is_nan() {
            false => Ok(Scored { score, item }),
            true => Err(SearchError::NotANumber {
                query,
                document: item as usize,
            }
            .into()),
        })
        .collect()
}
