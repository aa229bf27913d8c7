//! The kernels of NdArray's `f32` tensors.
//!
//! Burn's CPU backend runs one operation at a time, each a pass over memory. These
//! versions fuse what belongs together, never touch padding, use the widest vectors
//! the machine has (chosen when they run) and share the work between threads.
//!
//! - [`tensor`] gets at the values of a generic tensor by a safe downcast;
//! - [`matrix`] and [`product`] are the matrix product on packed weights, with
//!   [`packed_weight`] keeping the packed copies;
//! - [`linear`], [`attention`], [`layer_norm`], [`rms_norm`], [`rotary`], [`embedding`] and
//!   [`pooling`] are the operations, [`backward`] their gradients under autodiff;
//! - [`nearest`] finds the best of many products without storing them;
//! - [`vector`] has the functions of a vector of values, [`random`] the dropout masks;
//! - [`threads`] shares out work.

#![cfg_attr(
    not(feature = "autodiff"),
    allow(dead_code, reason = "what only backward steps need")
)]

mod attention;
mod attention_scores;
#[cfg(feature = "autodiff")]
mod backward;
mod destination;
mod elementwise;
mod embedding;
mod layer_norm;
mod linear;
mod matrix;
mod nearest;
mod operations;
mod packed_weight;
mod pooling;
mod product;
mod random;
mod rms_norm;
mod rotary;
mod tensor;
mod threads;
// Burn trains on no CPU backend with `ddp`.
#[cfg(all(test, feature = "autodiff", not(feature = "ddp")))]
mod twin_tests;
mod vector;

pub(super) use operations::{
    add_layer_norm, attention, batches_at_once, dropout, embed, gated, has_route, is_tracked,
    linear, map_batches, max_pool, near_threads, normalize, offer_cosines, offer_products,
    rms_norm, rotary, weighted_sum_pool,
};
pub use packed_weight::PackedWeight;
pub(super) use tensor::{Route, route};
