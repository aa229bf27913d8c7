//! The model: a tokenizer, an encoder, the modules behind it and its adapters.

mod adapters;
mod config;
mod encode;
mod quantize;
mod sentence_transformer;
pub mod similarity;

pub use adapters::AdapterLoadReport;
pub use config::{ModelCardData, ModelConfig, ModelParts, WeightsReport};
pub use encode::{EncodeOptions, EncodeProgress, ProgressFn};
pub use quantize::{
    Precision, QuantizationRanges, QuantizedEmbeddings, QuantizedValues, quantize_embeddings,
    quantize_embeddings_with_ranges,
};
pub use sentence_transformer::SentenceTransformer;
pub use similarity::{Rows, SimilarityFunction};

pub use crate::kernel::Mode;
#[cfg(feature = "train")]
pub(crate) use crate::kernel::near_threads;
