//! The crate against the Python reference: Sentence Transformers 6.2.0 and peft 0.21.2.
//!
//! The fixtures lie in `tests/fixtures`, each beside the script that made it. Every test
//! that holds this crate's numbers against the reference's also shows that a wrong formula
//! would fail it.

#[cfg_attr(
    not(feature = "train"),
    expect(dead_code, reason = "only `training` needs gradients here")
)]
#[path = "../../src/backend_under_test.rs"]
mod backend_under_test;
mod fixture;

mod adapter_loading;
mod adapters;
mod architectures;
mod defects;
mod encode;
mod evaluation;
mod evaluators;
mod files;
mod folders;
mod half;
#[cfg(feature = "train")]
mod losses;
#[cfg(feature = "test-wgpu")]
mod memory;
mod minilm;
mod modules;
mod peft_eva;
mod peft_matching;
mod peft_options;
mod peft_weighted;
mod quantization;
mod real_models;
mod rescoring;
mod saving;
mod search;
mod sizes;
mod stream;
mod threads;
#[cfg(feature = "train")]
mod training;
#[cfg(feature = "train")]
mod training_arguments;
