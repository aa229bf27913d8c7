use std::sync::Arc;

use burn::backend::NdArray;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use super::{consume, register, waiting};
use crate::kernel::cpu::pooling;
use crate::kernel::cpu::tensor::{Floats, from_tracked, tracked};

#[derive(Debug)]
struct PoolStep;

#[derive(Debug, Clone)]
struct PoolState {
    weights: Vec<f32>,
    lengths: Arc<[usize]>,
}

/// As [`crate::kernel::weighted_sum_pool`].
pub(in crate::kernel::cpu) fn weighted_sum_pool<B: Backend>(
    tokens: Tensor<B, 2>,
    weights: Vec<f32>,
    lengths: &[usize],
) -> Tensor<B, 2> {
    let tokens = tracked(tokens);
    let nodes = [tokens.node.clone()];
    let values = Floats::new(tokens.primitive);
    let output = pooling::weighted_sum_pool(&values, &weights, lengths).into_primitive();
    from_tracked(
        match PoolStep
            .prepare::<NoCheckpointing>(nodes)
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(step) => {
                let lengths = lengths.into();
                step.finish(PoolState { weights, lengths }, output)
            }
            OpsKind::UnTracked(step) => step.finish(output),
        },
    )
}

impl Backward<NdArray, 1> for PoolStep {
    type State = PoolState;

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        gradients: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let gradient = consume(&ops, gradients);
        if let [Some(tokens)] = waiting(&ops) {
            let PoolState { weights, lengths } = &ops.state;
            let values = pooling::weighted_sum_pool_backward(&gradient, weights, lengths);
            register(gradients, tokens, values);
        }
    }
}
