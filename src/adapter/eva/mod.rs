//! EVA: A from the data that a layer sees, and ranks where they explain most
//! (<https://arxiv.org/abs/2410.07170>).
//!
//! - [`EvaConfig`] is the configuration's `eva_config`.
//! - [`LayerSvd`] finds the first right singular vectors of one layer's inputs, a batch
//!   at a time.
//! - [`redistribute_ranks`] gives the ranks to the layers whose vectors explain most.
//! - [`EvaPass`] brings them together over the layers of a model.
//!
//! A is a layer's singular vectors, B zero: the fresh adapter changes nothing.
//!
//! Source: `tuners/lora/eva.py` and `utils/incremental_pca.py` of PEFT.

mod config;
mod layer_svd;
mod pass;
mod ranks;

pub use config::EvaConfig;
pub use layer_svd::LayerSvd;
pub use pass::{EvaAdapter, EvaLayer, EvaPass, inputs_digest};
pub use ranks::{ExplainedVariance, redistribute_ranks};
