#![cfg_attr(feature = "train", doc = include_str!("../README.md"))]
#![cfg_attr(
    not(feature = "train"),
    doc = "Sentence-embedding models with PEFT adapters, on any Burn backend."
)]

pub mod adapter;
#[cfg(feature = "datasets")]
pub mod data;
pub mod encoder;
pub mod error;
pub mod evaluation;
pub mod kernel;
pub mod loss;
pub mod model;
pub mod modules;
pub mod repo;
pub mod search;
pub mod state_dict;
pub mod text;
#[cfg(feature = "train")]
pub mod training;

#[cfg(test)]
mod backend_under_test;

pub use adapter::combination::{Combination, CombinationOptions};
pub use adapter::{
    AdaLoraConfig, Ia3Config, LohaConfig, LokrConfig, LoraConfig, ModuleNames, PeftConfig, TaskType,
};
pub use error::{Error, Result};
pub use model::{
    AdapterChoice, CardDataset, EncodeOptions, ModelCardData, Precision, SentenceTransformer,
    SimilarityFunction,
};
pub use repo::{HubOptions, LoadAdapterOptions, LoadOptions, SaveOptions};
pub use text::{Prompt, Prompts};

/// The wgpu that Burn computes with, for programs that share their device with it.
#[cfg(any(feature = "wgpu", feature = "vulkan", feature = "metal"))]
pub use wgpu;
