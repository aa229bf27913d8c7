use burn::backend::NdArray;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use super::{consume, register, waiting};
use crate::kernel::cpu::elementwise;
use crate::kernel::cpu::random::Dropout;
use crate::kernel::cpu::tensor::{Floats, from_tracked, tracked};

#[derive(Debug)]
struct DropoutStep;

/// As [`crate::kernel::dropout`].
pub(in crate::kernel::cpu) fn dropout<B: Backend, const D: usize>(
    input: Tensor<B, D>,
    dropout: Dropout,
) -> Tensor<B, D> {
    let input = tracked(input);
    let nodes = [input.node.clone()];
    let output = Floats::new(input.primitive)
        .map(|values| elementwise::drop_out(values, dropout))
        .into_primitive();
    from_tracked(
        match DropoutStep
            .prepare::<NoCheckpointing>(nodes)
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(step) => step.finish(dropout, output),
            OpsKind::UnTracked(step) => step.finish(output),
        },
    )
}

impl Backward<NdArray, 1> for DropoutStep {
    type State = Dropout;

    fn backward(
        self,
        ops: Ops<Self::State, 1>,
        gradients: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let gradient = consume(&ops, gradients);
        if let [Some(input)] = waiting(&ops) {
            let dropout = ops.state;
            let gradient = gradient.map(|values| elementwise::drop_out(values, dropout));
            register(gradients, input, gradient);
        }
    }
}
