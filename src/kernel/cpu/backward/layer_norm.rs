use burn::backend::NdArray;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use super::{consume, nobody, register, waiting};
use crate::kernel::LayerNormParams;
use crate::kernel::cpu::elementwise;
use crate::kernel::cpu::layer_norm::{Norm, add_residual};
use crate::kernel::cpu::random::Dropout;
use crate::kernel::cpu::tensor::{Floats, from_tracked, tracked};

#[derive(Debug)]
struct LayerNormStep;

#[derive(Debug, Clone)]
struct LayerNormState {
    norm: Norm,
    /// What was normed.
    sum: Floats,
    dropout: Option<Dropout>,
}

/// As [`crate::kernel::add_layer_norm`].
pub(in crate::kernel::cpu) fn add_layer_norm<B: Backend>(
    input: Tensor<B, 2>,
    residual: Option<Tensor<B, 2>>,
    params: LayerNormParams<B>,
    norm: Norm,
    dropout: Option<Dropout>,
) -> Tensor<B, 2> {
    let has_residual = residual.is_some();
    let input = tracked(input);
    let residual = residual.map_or_else(nobody, tracked);
    let (weight, bias) = (tracked(params.weight), tracked(params.bias));
    let nodes = [&input, &residual, &weight, &bias].map(|parent| parent.node.clone());
    let residual = has_residual.then(|| Floats::new(residual.primitive));
    let sum = add_residual(Floats::new(input.primitive), residual.as_ref(), dropout);
    from_tracked(
        match LayerNormStep
            .prepare::<NoCheckpointing>(nodes)
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(step) => {
                let output = norm.forward(sum.clone()).into_primitive();
                let state = LayerNormState { norm, sum, dropout };
                step.finish(state, output)
            }
            OpsKind::UnTracked(step) => step.finish(norm.forward(sum).into_primitive()),
        },
    )
}

impl Backward<NdArray, 4> for LayerNormStep {
    type State = LayerNormState;

    fn backward(
        self,
        ops: Ops<Self::State, 4>,
        gradients: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let gradient = consume(&ops, gradients);
        let [input, residual, weight, bias] = waiting(&ops);
        let LayerNormState { norm, sum, dropout } = &ops.state;
        let parameters = weight.or(bias).is_some();
        let (gradient, sums) = norm.backward(sum, gradient, parameters);
        if let Some(sums) = sums {
            for (parent, sums) in [weight, bias].into_iter().zip(sums) {
                if let Some(parent) = parent {
                    let columns = sums.len();
                    register(gradients, parent, Floats::from_vec(sums, &[columns]));
                }
            }
        }
        if let Some(residual) = residual {
            register(gradients, residual, gradient.clone());
        }
        if let Some(input) = input {
            let gradient = match *dropout {
                Some(dropout) => gradient.map(|values| elementwise::drop_out(values, dropout)),
                None => gradient,
            };
            register(gradients, input, gradient);
        }
    }
}
