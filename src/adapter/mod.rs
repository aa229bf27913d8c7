//! Adapters as PEFT defines them: LoRA (<https://arxiv.org/abs/2106.09685>) with its
//! variants, AdaLoRA, IA³, LoHa and LoKr.
//!
//! - [`PeftConfig`] is `adapter_config.json`, field for field: a [`LoraConfig`], say.
//! - [`plan_adapter`] finds the layers a configuration means, and what it does to each.
//! - [`AdaptedLinear`], [`AdaptedEmbedding`] and [`AdaptedLayerNorm`] are layers that carry
//!   any number of named adapters; a [`Pass`] says which of them tokens go through.
//! - [`AdapterRegistry`] knows which adapters a model has and which are active.
//!
//! This folder knows neither encoders nor files: layers come as names, tensors as a
//! [`StateDict`](crate::state_dict::StateDict).

mod adalora_config;
pub mod combination;
mod decomposition;
mod embedding;
pub mod eva;
#[cfg(test)]
mod golden;
mod hadamard;
mod ia3_config;
mod init;
pub mod initialization;
mod input_recorder;
mod key;
mod kronecker;
mod layer;
mod layer_norm;
mod linear;
mod linear_adapter;
mod lora_config;
mod low_rank;
mod low_rank_update;
mod lycoris;
mod lycoris_config;
mod matrix;
mod merged_linear;
mod module_names;
mod pass;
mod peft_config;
mod plan;
mod registry;
mod report;
mod rescale;
mod rms_norm;
mod table_update;
mod target;
mod torch_generator;
mod trained_tokens;

pub use adalora_config::AdaLoraConfig;
pub use embedding::{AdaptedEmbedding, EmbeddingAdapter, Lookup, MergedEmbedding, sum_lookups};
pub use hadamard::{HadamardConfig, HadamardUpdate};
pub use ia3_config::Ia3Config;
pub use init::{InitLoraWeights, InitScheme};
pub use input_recorder::InputRecorder;
pub use key::{normalize_key, saved_key};
pub use kronecker::{KroneckerConfig, KroneckerFactor, KroneckerUpdate};
pub use layer::{AdaptedLayer, LayerAdapter, MergedLayer};
pub use layer_norm::{AdaptedLayerNorm, LayerNormAdapter, MergedLayerNorm};
pub use linear::{AdaptedLinear, AdaptedLinearConfig};
pub use linear_adapter::{LinearAdapter, LinearUpdate};
pub use lora_config::{Bias, LoraConfig, TaskType};
pub use low_rank::LowRank;
pub use low_rank_update::{LowRankConfig, LowRankUpdate, ReplacedPart};
pub use lycoris::LycorisDropout;
pub use lycoris_config::{LohaConfig, LokrConfig, LokrInit, LokrScheme};
pub use matrix::Matrix;
pub use merged_linear::MergedLinear;
pub use module_names::{LayerIndices, ModuleNames, TokenIndices};
pub use pass::{AdapterRoute, Pass};
pub use peft_config::PeftConfig;
pub use plan::{
    AdapterPlan, EncoderSites, LayerKind, LayerPlan, LayerSite, Replaced, UpdateConfig,
    plan_adapter,
};
pub use registry::{AdapterEntry, AdapterRegistry, DEFAULT_ADAPTER};
pub use report::AdapterLoadReport;
pub use rescale::{Rescale, RescaleConfig};
pub use rms_norm::{AdaptedRmsNorm, MergedRmsNorm, RmsNormAdapter, RmsNormConfig};
pub use table_update::{TableUpdate, TableUpdateConfig};
use target::Targeting;
pub use torch_generator::TorchGenerator;
pub use trained_tokens::TrainedTokens;
