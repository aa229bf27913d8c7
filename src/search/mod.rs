//! Tools on embeddings: search, paraphrases, communities, hard negatives.
//!
//! They are those of Sentence Transformers' `util`, and give what it gives for the same
//! embeddings. Where the reference leaves the order of equal scores open, the lower index
//! comes first here.
//!
//! - [`semantic_search`]: the documents most similar to each query.
//! - [`semantic_search_quantized`]: the same in a corpus of bytes or bits.
//! - [`paraphrase_mining`]: the most similar pairs of a set of texts.
//! - [`community_detection`]: groups of texts that are close to one of them.
//! - [`mine_hard_negatives`]: for each anchor, texts that look like answers and are none.
//!
//! On NdArray the scores of a comparison are looked at where they are computed and never
//! stored, so that the memory needed is that of the embeddings and the results.

mod community_detection;
mod embedding_cache;
mod hard_negative_mining;
mod hard_negatives;
mod mined;
mod negative_options;
mod neighbours;
mod paraphrase_mining;
mod quantized_search;
mod rescoring;
mod semantic_search;

pub use community_detection::{CommunityDetectionOptions, community_detection};
pub use hard_negative_mining::{mine_hard_negatives, mine_hard_negatives_rescored};
pub use hard_negatives::HardNegativeMiner;
pub use mined::{HardNegatives, MinedRow, NegativeFormat};
pub use negative_options::{HardNegativeOptions, SamplingStrategy};
pub(crate) use neighbours::{Neighbours, NotANumber};
pub use paraphrase_mining::{
    ParaphraseMiningOptions, ParaphrasePair, paraphrase_mining, paraphrase_mining_embeddings,
};
pub use quantized_search::{QuantizedSearchOptions, semantic_search_quantized};
pub use rescoring::PairScorer;
pub use semantic_search::{SearchHit, SemanticSearchOptions, semantic_search};

pub(crate) use crate::kernel::{Scored, TopK};
