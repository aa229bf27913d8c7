//! LoRA as PEFT defines it (<https://arxiv.org/abs/2106.09685>).
//!
//! - [`LoraConfig`] is `adapter_config.json`, field for field.
//! - [`resolve_targets`] finds the layers a configuration means.
//! - [`LoraLinear`] is a linear layer that carries any number of named adapters.
//! - [`AdapterRegistry`] knows which adapters a model has and which are active.
//!
//! This folder knows neither encoders nor files: layers come as names, tensors as a
//! [`StateDict`](crate::state_dict::StateDict).

mod config;
mod key;
mod lora_linear;
mod registry;
mod target;

pub use config::{Bias, InitLoraWeights, LayerIndices, LoraConfig, ModuleNames, TaskType};
pub use key::{normalize_key, saved_key};
pub use lora_linear::{LoraAdapter, LoraAdapterConfig, LoraLinear, LoraLinearConfig};
pub use registry::{AdapterEntry, AdapterRegistry, DEFAULT_ADAPTER};
pub use target::{Target, resolve_targets};
