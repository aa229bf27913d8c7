use std::path::PathBuf;

use super::NegativeFormat;
use super::semantic_search::at_least_one;
use crate::error::{Result, SearchError};
use crate::model::EncodeOptions;

/// Which of the candidates become negatives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SamplingStrategy {
    /// The most similar ones.
    #[default]
    Top,
    /// Any of them, drawn with [`HardNegativeOptions::seed`].
    Random,
}

/// What [`mine_hard_negatives`](super::mine_hard_negatives) takes for a hard negative.
#[derive(Debug, Clone)]
pub struct HardNegativeOptions {
    /// How many of the most similar candidates are skipped: they may be unlabelled
    /// positives.
    pub range_min: usize,
    /// The last rank that is looked at. `None` leaves room for the positives, the skipped
    /// ones and the negatives, ten times as many where a margin or `max_score` takes some, or
    /// a scorer's `min_score` does.
    pub range_max: Option<usize>,
    /// The greatest similarity of a negative.
    pub max_score: Option<f32>,
    /// The least similarity of a negative.
    pub min_score: Option<f32>,
    /// How far below the least similar positive a negative must be.
    pub absolute_margin: Option<f32>,
    /// The same as a share of that positive's similarity: with 0.05, a negative is at least
    /// 5 % of its magnitude below it.
    pub relative_margin: Option<f32>,
    /// How many negatives to find for each anchor.
    pub num_negatives: usize,
    /// Which of the candidates to take.
    pub sampling_strategy: SamplingStrategy,
    /// What random sampling draws with.
    pub seed: u64,
    /// Whether positives are candidates too; for re-ranking sets. The rows are then tuples,
    /// whatever `output_format` says.
    pub include_positives: bool,
    /// How the rows are laid out.
    pub output_format: NegativeFormat,
    /// How many anchors are compared with the corpus at a time: the reference's
    /// `faiss_batch_size`. It bounds the memory that scores take.
    pub query_chunk_size: usize,
    /// A folder to keep embeddings in, as `.npy` files: texts that were encoded before, with
    /// the same prompt, are not encoded again. A file is not used once the model embeds its
    /// first text otherwise.
    pub cache_folder: Option<PathBuf>,
    /// How anchors are encoded; unit length is added.
    pub query: EncodeOptions,
    /// How the corpus is encoded; unit length is added.
    pub corpus: EncodeOptions,
}

impl Default for HardNegativeOptions {
    fn default() -> Self {
        Self {
            range_min: 0,
            range_max: None,
            max_score: None,
            min_score: None,
            absolute_margin: None,
            relative_margin: None,
            num_negatives: 3,
            sampling_strategy: SamplingStrategy::Top,
            seed: 42,
            include_positives: false,
            output_format: NegativeFormat::Triplet,
            query_chunk_size: 16_384,
            cache_folder: None,
            query: EncodeOptions::default(),
            corpus: EncodeOptions::default(),
        }
    }
}

impl HardNegativeOptions {
    /// The last rank that is looked at, once all is known to fit together.
    pub(super) fn range_max(&self, max_positives: usize, rescored: bool) -> Result<usize> {
        at_least_one("num_negatives", self.num_negatives)?;
        at_least_one("query_chunk_size", self.query_chunk_size)?;
        let invalid = |option, expected, found: usize| SearchError::InvalidOption {
            option,
            expected,
            found: found.to_string(),
        };
        let filtered = self.absolute_margin.is_some()
            || self.relative_margin.is_some()
            || self.max_score.is_some()
            || (rescored && self.min_score.is_some());
        let spare = if filtered { 10 } else { 1 };
        let range_max = self
            .range_max
            .unwrap_or(self.range_min + spare * self.num_negatives + max_positives);
        if self.range_min >= range_max {
            let expected = format!("less than `range_max`, which is {range_max}");
            return Err(invalid("range_min", expected, self.range_min).into());
        }
        let window = range_max - self.range_min;
        if self.num_negatives > window {
            let expected = format!("at most the {window} ranks from `range_min` to `range_max`");
            return Err(invalid("num_negatives", expected, self.num_negatives).into());
        }
        Ok(range_max)
    }

    /// Whether scores decide about a candidate.
    pub(super) fn is_bounded(&self) -> bool {
        self.absolute_margin.is_some()
            || self.relative_margin.is_some()
            || self.max_score.is_some()
            || self.min_score.is_some()
    }

    pub(super) fn format(&self) -> NegativeFormat {
        if self.include_positives && self.output_format != NegativeFormat::NTuple {
            log::warn!("with `include_positives` the rows are tuples, so that their order is kept");
            return NegativeFormat::NTuple;
        }
        self.output_format
    }
}
