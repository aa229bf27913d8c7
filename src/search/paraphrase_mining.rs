use std::cmp::{Ordering, Reverse};
use std::collections::{BinaryHeap, HashSet};

use burn::tensor::{Tensor, backend::Backend, s};
use serde::{Deserialize, Serialize};

use super::Neighbours;
use super::semantic_search::at_least_one;
use crate::error::Result;
use crate::kernel::TopK;
use crate::model::{EncodeOptions, SentenceTransformer, SimilarityFunction};

/// How [`paraphrase_mining`] looks for pairs.
#[derive(Debug, Clone)]
pub struct ParaphraseMiningOptions {
    /// How many texts are compared with all others at a time. It bounds the memory that
    /// scores take.
    pub query_chunk_size: usize,
    /// How many texts they are compared with at a time, likewise.
    pub corpus_chunk_size: usize,
    /// The most pairs to return.
    pub max_pairs: usize,
    /// The most other texts that one text is paired with.
    pub top_k: usize,
    /// How two texts are compared: by a function that does not mind their order.
    pub score_function: SimilarityFunction,
    /// How texts are encoded.
    pub encode: EncodeOptions,
}

impl Default for ParaphraseMiningOptions {
    fn default() -> Self {
        Self {
            query_chunk_size: 5000,
            corpus_chunk_size: 100_000,
            max_pairs: 500_000,
            top_k: 100,
            score_function: SimilarityFunction::Cosine,
            encode: EncodeOptions::default(),
        }
    }
}

/// Two texts that are alike.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct ParaphrasePair {
    /// How alike they are.
    pub score: f32,
    /// The place of the first text.
    pub id1: usize,
    /// The place of the second text, greater than the first one's.
    pub id2: usize,
}

impl Eq for ParaphrasePair {}

/// By score, then by place: the worse first.
impl Ord for ParaphrasePair {
    fn cmp(&self, other: &Self) -> Ordering {
        self.score
            .total_cmp(&other.score)
            .then(self.id1.cmp(&other.id1))
            .then(self.id2.cmp(&other.id2))
    }
}

impl PartialOrd for ParaphrasePair {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Encodes texts and finds the pairs that are most alike, the most alike first.
///
/// # Errors
/// Those of encoding and of [`paraphrase_mining_embeddings`].
pub fn paraphrase_mining<B: Backend, T: AsRef<str>>(
    model: &SentenceTransformer<B>,
    sentences: &[T],
    options: &ParaphraseMiningOptions,
) -> Result<Vec<ParaphrasePair>> {
    let embeddings = model.encode_with(sentences, &options.encode)?;
    paraphrase_mining_embeddings(embeddings, options)
}

/// Finds the pairs of embeddings that are most alike, the most alike first and equal ones
/// by their places.
///
/// Each embedding is paired with its `top_k` nearest ones; a pair counts once.
///
/// # Shapes
/// - embeddings: `[texts, dim]`
///
/// # Errors
/// [`SearchError::InvalidOption`](crate::error::SearchError::InvalidOption) if a chunk
/// size is 0, [`SearchError::NotANumber`](crate::error::SearchError::NotANumber) if a
/// similarity is NaN.
pub fn paraphrase_mining_embeddings<B: Backend>(
    embeddings: Tensor<B, 2>,
    options: &ParaphraseMiningOptions,
) -> Result<Vec<ParaphrasePair>> {
    at_least_one("query_chunk_size", options.query_chunk_size)?;
    at_least_one("corpus_chunk_size", options.corpus_chunk_size)?;
    let [texts, _] = embeddings.dims();
    let mut pairs = BestPairs::new(options.max_pairs);
    for start in (0..texts).step_by(options.query_chunk_size) {
        let end = texts.min(start + options.query_chunk_size);
        let queries = embeddings.clone().slice(s![start..end, ..]);
        // One more than asked for: a text is its own nearest.
        let best = TopK::new(options.top_k.saturating_add(1));
        let mut neighbours = Neighbours::new(queries, options.score_function, best);
        neighbours.offer_corpus(embeddings.clone(), options.corpus_chunk_size)?;
        let rankings = neighbours
            .into_rankings()
            .map_err(|nan| nan.in_rows(start))?;
        for (text, ranking) in (start..).zip(rankings) {
            let others = ranking.iter().filter(|other| other.item as usize != text);
            for other in others.take(options.top_k) {
                pairs.offer(other.score, text, other.item as usize);
            }
        }
    }
    Ok(pairs.into_sorted())
}

/// The best pairs so far, each once.
struct BestPairs {
    most: usize,
    /// The worst on top.
    pairs: BinaryHeap<Reverse<ParaphrasePair>>,
    known: HashSet<(usize, usize)>,
    /// The score of the last pair that had to go.
    floor: f32,
}

impl BestPairs {
    fn new(most: usize) -> Self {
        Self {
            most,
            pairs: BinaryHeap::new(),
            known: HashSet::new(),
            floor: f32::NEG_INFINITY,
        }
    }

    fn offer(&mut self, score: f32, a: usize, b: usize) {
        let (id1, id2) = (a.min(b), a.max(b));
        if score <= self.floor || !self.known.insert((id1, id2)) {
            return;
        }
        self.pairs.push(Reverse(ParaphrasePair { score, id1, id2 }));
        if self.pairs.len() > self.most
            && let Some(Reverse(worst)) = self.pairs.pop()
        {
            self.known.remove(&(worst.id1, worst.id2));
            self.floor = worst.score;
        }
    }

    fn into_sorted(self) -> Vec<ParaphrasePair> {
        let mut pairs: Vec<_> = self.pairs.into_iter().map(|Reverse(pair)| pair).collect();
        pairs.sort_unstable_by(|a, b| {
            let by_score = b.score.total_cmp(&a.score);
            by_score.then((a.id1, a.id2).cmp(&(b.id1, b.id2)))
        });
        pairs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};

    /// Embeddings of two dimensions, at the angles given in degrees.
    fn at_angles(angles: &[f32]) -> Tensor<TestBackend, 2> {
        let rows: Vec<f32> = angles
            .iter()
            .flat_map(|angle| [angle.to_radians().cos(), angle.to_radians().sin()])
            .collect();
        Tensor::<TestBackend, 1>::from_floats(&rows[..], &device()).reshape([angles.len(), 2])
    }

    fn mine(angles: &[f32], options: ParaphraseMiningOptions) -> Vec<(usize, usize)> {
        let pairs = paraphrase_mining_embeddings(at_angles(angles), &options).unwrap();
        assert!(pairs.is_sorted_by(|a, b| a.score >= b.score));
        pairs.iter().map(|pair| (pair.id1, pair.id2)).collect()
    }

    #[test]
    fn every_pair_comes_once_and_the_nearest_first() {
        let found = mine(&[0.0, 50.0, 3.0, 60.0], Default::default());
        assert_eq!(found, [(0, 2), (1, 3), (1, 2), (0, 1), (2, 3), (0, 3)]);
    }

    #[test]
    fn top_k_and_max_pairs_bound_the_result() {
        let angles = [0.0, 50.0, 3.0, 60.0];
        let options = |top_k, max_pairs| ParaphraseMiningOptions {
            top_k,
            max_pairs,
            query_chunk_size: 3,
            corpus_chunk_size: 2,
            ..Default::default()
        };
        assert_eq!(mine(&angles, options(1, 9)), [(0, 2), (1, 3)]);
        assert_eq!(mine(&angles, options(9, 3)), [(0, 2), (1, 3), (1, 2)]);
        assert!(mine(&angles, options(9, 0)).is_empty());
        assert!(mine(&angles, options(0, 9)).is_empty());
        assert!(mine(&[], options(9, 9)).is_empty());
    }

    #[test]
    fn a_pair_that_had_to_go_may_not_come_back() {
        let mut pairs = BestPairs::new(1);
        pairs.offer(0.5, 1, 0);
        pairs.offer(0.7, 2, 1);
        pairs.offer(0.5, 0, 1);
        pairs.offer(0.6, 0, 2);
        let kept = pairs.into_sorted();
        assert_eq!((kept.len(), kept[0].id1, kept[0].id2), (1, 1, 2));
    }
}
