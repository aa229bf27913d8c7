//! The few hot operations, on packed sequences.
//!
//! Each is written once in Burn's own operations, so that it runs, differentiates and
//! fuses on every backend. Texts lie back to back in `[tokens, hidden]` tensors:
//! linear layers, norms and activations never see a padded token, and only
//! [`attention`] spreads them out, guided by a [`Packing`].

mod activation;
mod attention;
mod dropout;
mod layer_norm;
mod linear;
mod mapped_file;
mod normalize;
mod packing;
mod pooling;

pub use activation::Activation;
pub use attention::{AttentionOptions, attention};
pub use dropout::{Mode, dropout};
pub use layer_norm::layer_norm;
pub use linear::linear;
pub use mapped_file::MappedFile;
pub use normalize::normalize;
pub use packing::Packing;
pub use pooling::{max_pool, weighted_sum_pool};
