use burn::tensor::backend::Backend;

use super::HardNegativeMiner;
use super::embedding_cache;
use super::mined::HardNegatives;
use super::negative_options::HardNegativeOptions;
use super::rescoring::PairScorer;
use crate::error::Result;
use crate::model::SentenceTransformer;

/// Encodes anchors and a corpus, and finds for each anchor documents that are similar to
/// it and are none of its positives.
///
/// `pairs` are anchors and positives; an anchor that comes several times has several
/// positives. The corpus that negatives are taken from is `corpus` and all positives.
///
/// As the reference's function of that name; [`mine_hard_negatives_rescored`] has its
/// rescoring by a cross-encoder.
///
/// # Errors
/// Those of [`HardNegativeMiner::new`], of encoding, of
/// [`HardNegativeMiner::mine_embeddings`] and of writing to the cache.
pub fn mine_hard_negatives<B: Backend>(
    model: &SentenceTransformer<B>,
    pairs: Vec<(String, String)>,
    corpus: Vec<String>,
    options: &HardNegativeOptions,
) -> Result<HardNegatives> {
    mine_pairs(model, pairs, corpus, None, options)
}

/// The same where margins and scores are those of `scorer`, such as a cross-encoder: the
/// model finds the candidates, the scorer says which of them are negatives.
///
/// Without a margin, a `max_score` or a `min_score` the scorer is not asked, as in the
/// reference.
///
/// # Errors
/// As [`mine_hard_negatives`], the scorer's own, and
/// [`SearchError::ScoreCount`](crate::error::SearchError::ScoreCount) or
/// [`SearchError::NotANumber`](crate::error::SearchError::NotANumber) for scores that cannot
/// be used.
pub fn mine_hard_negatives_rescored<B: Backend>(
    model: &SentenceTransformer<B>,
    pairs: Vec<(String, String)>,
    corpus: Vec<String>,
    mut scorer: impl PairScorer,
    options: &HardNegativeOptions,
) -> Result<HardNegatives> {
    mine_pairs(model, pairs, corpus, Some(&mut scorer), options)
}

fn mine_pairs<B: Backend>(
    model: &SentenceTransformer<B>,
    pairs: Vec<(String, String)>,
    corpus: Vec<String>,
    scorer: Option<&mut dyn PairScorer>,
    options: &HardNegativeOptions,
) -> Result<HardNegatives> {
    let miner = HardNegativeMiner::new(pairs, corpus)?;
    options.range_max(miner.max_positives, scorer.is_some())?;
    let folder = options.cache_folder.as_deref();
    let corpus = embedding_cache::encode(folder, "corpus", &miner.corpus(), &options.corpus, {
        |texts, options| model.encode_document_with(texts, options)
    })?;
    let queries = embedding_cache::encode(folder, "query", &miner.queries(), &options.query, {
        |texts, options| model.encode_query_with(texts, options)
    })?;
    miner.mine(queries, corpus, model.similarity_fn(), scorer, options)
}
