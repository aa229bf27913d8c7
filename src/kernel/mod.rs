//! The few hot operations, on packed sequences.
//!
//! Texts lie one behind the other in `[rows, hidden]` tensors, a row for each token and on a
//! GPU a few more ([`Layout`]): linear layers, norms and activations see hardly any padding,
//! and attention knows by a [`Packing`] where each text lies.
//!
//! Every operation is written twice: in [`composed`], in Burn's own operations, so that it
//! runs, differentiates and fuses on every backend; and for NdArray's `f32` tensors in
//! `cpu`, with its own backward step. A function here chooses between them by the type of
//! the tensor it is given. In half precision the composed ones sum in single precision.

mod activation;
mod attention;
mod batches;
mod completion;
pub mod composed;
#[cfg(feature = "ndarray")]
mod cpu;
mod dropout;
mod embedding;
mod gated;
mod layer_norm;
mod layout;
mod linear;
mod mapped_file;
mod nearest;
mod normalize;
mod packing;
mod pooling;
mod precision;
mod rms_norm;
mod rotary;
mod top_k;

pub use activation::Activation;
pub use attention::{AttentionOptions, attention};
pub use batches::{batches_at_once, map_batches, near_threads};
pub use completion::{Reading, check_usable, finish, is_asynchronous};
#[cfg(feature = "ndarray")]
pub use cpu::PackedWeight;
pub use dropout::{Mode, dropout};
pub use embedding::embed;
pub use gated::gated;
pub use layer_norm::{LayerNormParams, add_layer_norm, layer_norm};
pub use layout::Layout;
pub use linear::{LinearParams, LowRankParams, linear, low_rank};
pub use mapped_file::MappedFile;
pub use nearest::{offer_compared, offer_cosines, offer_products};
pub use normalize::normalize;
pub use packing::Packing;
pub use pooling::{max_pool, mean_pool, weighted_sum_pool};
pub use rms_norm::{RmsNormParams, rms_norm};
pub use rotary::{RotaryAngles, rotary};
pub use top_k::{Scored, TopK};

/// Where NdArray's kernels keep a weight's packed copies; other backends have none.
#[cfg(not(feature = "ndarray"))]
#[derive(Debug, Clone, Default)]
pub struct PackedWeight;
