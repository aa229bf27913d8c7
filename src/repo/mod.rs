//! A model folder: every file of it, read and written.
//!
//! - `load` and `load_adapter` read folders of both Sentence Transformers generations,
//!   bare Hugging Face folders and adapter folders.
//! - `save` writes folders that Python's Sentence Transformers 5.x and 6.x load.

mod adapter_folder;
mod arrival;
mod commit;
mod file;
pub mod hub;
mod input_folder;
pub(crate) mod interruption;
pub(crate) mod jsonl;
mod load;
mod model_card;
mod module_folder;
mod named_path;
mod names;
mod pipeline;
mod pytorch;
mod router_file;
mod save;
mod sharding;
mod shards;
mod source;
mod text_config;
mod tokenizer_folder;
mod weights;

#[cfg(test)]
mod cut_off_tests;

pub use hub::HubOptions;
pub use load::{LoadAdapterOptions, LoadOptions};
pub use save::SaveOptions;
