use burn::backend::NdArray;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use super::{consume, register, waiting};
use crate::kernel::cpu::attention::Attention;
use crate::kernel::cpu::tensor::{Floats, from_tracked, tracked};

#[derive(Debug)]
struct AttentionStep;

#[derive(Debug, Clone)]
struct AttentionState {
    attention: Attention,
    inputs: [Floats; 3],
}

/// As [`crate::kernel::attention`].
pub(in crate::kernel::cpu) fn attention<B: Backend>(
    inputs: [Tensor<B, 2>; 3],
    attention: Attention,
) -> Tensor<B, 2> {
    // They live on until the step is registered: autodiff forgets a node that nobody holds.
    let parents = inputs.map(tracked);
    let nodes = [0, 1, 2].map(|i| parents[i].node.clone());
    let inputs = [0, 1, 2].map(|i| Floats::new(parents[i].primitive.clone()));
    let output = attention.forward([&inputs[0], &inputs[1], &inputs[2]]);
    let output = output.into_primitive();
    from_tracked(
        match AttentionStep
            .prepare::<NoCheckpointing>(nodes)
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(step) => step.finish(AttentionState { attention, inputs }, output),
            OpsKind::UnTracked(step) => step.finish(output),
        },
    )
}

impl Backward<NdArray, 3> for AttentionStep {
    type State = AttentionState;

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        gradients: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let gradient = consume(&ops, gradients);
        let AttentionState { attention, inputs } = &ops.state;
        let [query, key, value] = inputs;
        let found = attention.backward([query, key, value], &gradient);
        for (parent, gradient) in waiting(&ops).into_iter().zip(found) {
            if let Some(parent) = parent {
                register(gradients, parent, gradient);
            }
        }
    }
}
