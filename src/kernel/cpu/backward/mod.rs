//! The backward steps of the kernels, registered with burn-autodiff.
//!
//! A step computes only the gradients that someone waits for: none for frozen weights,
//! and none below the lowest trained layer, where no parent is tracked.

mod attention;
mod dropout;
mod layer_norm;
mod linear;
mod pooling;

use burn::backend::NdArray;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::Ops;

pub(super) use attention::attention;
pub(super) use dropout::dropout;
pub(super) use layer_norm::add_layer_norm;
pub(super) use linear::linear;
pub(super) use pooling::weighted_sum_pool;

use super::tensor::{Floats, Tracked};

/// A tensor that no gradient flows into, in the place of a parent that is not there.
fn nobody() -> Tracked {
    let none = Floats::from_vec(Vec::new(), &[0]);
    Tracked::new(none.into_primitive())
}

/// The gradient of a step's output.
fn consume<S, const N: usize>(ops: &Ops<S, N>, gradients: &mut Gradients) -> Floats {
    Floats::new(gradients.consume::<NdArray>(&ops.node))
}

/// Adds to the gradient of a parent.
fn register(gradients: &mut Gradients, parent: NodeId, gradient: Floats) {
    gradients.register::<NdArray>(parent, gradient.into_primitive());
}

/// Which of a step's parents wait for a gradient.
fn waiting<S, const N: usize>(ops: &Ops<S, N>) -> [Option<NodeId>; N] {
    std::array::from_fn(|i| ops.parents[i].as_ref().map(|node| node.id))
}
