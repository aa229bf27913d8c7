//! The model: a tokenizer, an encoder, the modules behind it and its adapters.

mod adapter_choice;
mod adapter_layers;
mod adapters;
mod card;
mod config;
mod encode;
mod encode_options;
mod eva;
mod float_type;
mod forward;
mod layout;
mod merging;
mod prompt_groups;
mod quantize;
mod routing;
mod sentence_transformer;
pub mod similarity;
mod stream;
mod weighted;

pub use adapter_choice::{AdapterChoice, BASE_MODEL};
pub use adapters::AdapterWeights;
pub use card::{
    CardArgument, CardColumn, CardDataset, CardEvaluation, CardLogLine, CardLoss, CardTraining,
    ModelCardData,
};
pub use config::{
    AdapterSettings, InputConfig, ModelConfig, ModelParts, RouteInput, Routing, WeightsReport,
};
pub use encode_options::{EncodeOptions, EncodeProgress, ProgressFn};
pub use quantize::{
    Precision, QuantizationRanges, QuantizedEmbeddings, QuantizedValues, quantize_embeddings,
    quantize_embeddings_with_ranges,
};
pub use sentence_transformer::SentenceTransformer;
pub use similarity::{Rows, SimilarityFunction};
pub use stream::{EncodeStream, EncodeWindows};

pub(crate) use layout::{Layout, file_name};

pub use crate::adapter::{AdapterLoadReport, AdapterRoute, Pass};
pub use crate::kernel::Mode;
#[cfg(feature = "train")]
pub(crate) use crate::kernel::{Reading, check_usable, finish, near_threads};
