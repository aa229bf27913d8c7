//! The leaves of the graph of one backward pass.
//!
//! Burn 0.21's autodiff keeps the graphs of all threads in one place. A backward pass takes
//! the leaves it reaches out of it, though their tensors live on, and then sweeps every
//! graph in which no tensor is held: those of other threads too. A graph that is built on
//! such leaves looks like that while an operation holds the last tensor of it and is not
//! registered yet (`cat` is one). It loses its first steps, and the gradients behind them
//! are missing without a word (<https://github.com/tracel-ai/burn/issues/5573>).
//!
//! No graph is swept that holds a leaf whose tensor lives. So every pass starts from leaves
//! of its own, which no pass has reached before.

use burn::module::{Module, ModuleMapper, Param};
use burn::tensor::Tensor;
use burn::tensor::backend::AutodiffBackend;

use crate::loss::LossInput;

/// The same weights, those that are trained as leaves that no backward pass has reached.
/// It must live until the pass is done.
pub(super) fn with_own_leaves<B: AutodiffBackend, M: Module<B>>(module: &M) -> M {
    module.clone().map(&mut OwnLeaves)
}

/// The same, where Burn adds up the gradients of what burn-train distributed over devices.
#[cfg(feature = "ddp")]
pub(super) fn with_distributed_leaves<B: AutodiffBackend, M: Module<B>>(module: &M) -> M {
    module.clone().map(&mut DistributedLeaves)
}

/// The same embeddings, as leaves that no backward pass has reached.
pub(super) fn embeddings_as_leaves<B: AutodiffBackend>(input: &LossInput<B>) -> LossInput<B> {
    let leaves = |columns: &Vec<Tensor<B, 2>>| -> Vec<Tensor<B, 2>> {
        let columns = columns.iter().cloned();
        columns
            .map(|column| column.detach().require_grad())
            .collect()
    };
    LossInput {
        embeddings: leaves(&input.embeddings),
        layers: input.layers.iter().map(leaves).collect(),
        ..input.clone()
    }
}

struct OwnLeaves;

impl<B: AutodiffBackend> ModuleMapper<B> for OwnLeaves {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        // `detach` would keep that Burn adds the gradient up with those of other devices.
        param.map(|tensor| {
            let is_trained = tensor.is_require_grad();
            Tensor::from_inner(tensor.inner()).set_require_grad(is_trained)
        })
    }
}

#[cfg(feature = "ddp")]
struct DistributedLeaves;

#[cfg(feature = "ddp")]
impl<B: AutodiffBackend> ModuleMapper<B> for DistributedLeaves {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<B, D>>) -> Param<Tensor<B, D>> {
        // A detached leaf still requires its gradient, and is distributed if it was.
        param.map(Tensor::detach)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use burn::backend::autodiff::checkpoint::base::Checkpointer;
    use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
    use burn::backend::autodiff::grads::Gradients;
    use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::TensorPrimitive;

    use super::*;
    use crate::backend_under_test::{TestAutodiffBackend, TestBackend, device};

    type B = TestAutodiffBackend;

    #[derive(Debug)]
    struct Late;

    impl Backward<TestBackend, 1> for Late {
        type State = ();

        fn backward(self, ops: Ops<(), 1>, gradients: &mut Gradients, _: &mut Checkpointer) {
            let gradient = gradients.consume::<TestBackend>(&ops.node);
            if let [Some(parent)] = &ops.parents {
                gradients.register::<TestBackend>(parent.id, gradient);
            }
        }
    }

    /// The same tensor, by an operation that lets go of its input, and is registered after
    /// another thread's backward pass.
    fn late(tensor: Tensor<B, 2>) -> Tensor<B, 2> {
        let tensor = tensor.into_primitive().tensor();
        let (node, values) = (tensor.node.clone(), tensor.primitive.clone());
        drop(tensor);
        let other = || {
            Tensor::<B, 1>::ones([1], &device())
                .require_grad()
                .backward()
        };
        thread::spawn(move || drop(other())).join().unwrap();
        let step = Late.prepare::<NoCheckpointing>([node]);
        let output = match step.compute_bound().stateful() {
            OpsKind::Tracked(step) => step.finish((), values),
            OpsKind::UnTracked(step) => step.finish(values),
        };
        Tensor::from_primitive(TensorPrimitive::Float(output))
    }

    /// The gradient of the layer's weight.
    fn gradient(layer: &Linear<B>) -> Option<Vec<f32>> {
        let input = Tensor::<B, 2>::ones([3, 2], &device());
        let gradients = late(layer.forward(input)).sum().backward();
        let gradient = layer.weight.grad(&gradients)?;
        Some(gradient.into_data().to_vec().unwrap())
    }

    #[test]
    fn another_threads_pass_takes_no_gradient_from_leaves_of_ones_own() {
        let layer: Linear<B> = LinearConfig::new(2, 2).with_bias(false).init(&device());
        let expected = Some(vec![3.0; 4]);
        for _ in 0..3 {
            assert_eq!(gradient(&with_own_leaves(&layer)), expected);
        }
        assert_eq!(gradient(&layer), expected);
        // A pass has reached the layer's own: Burn loses what is behind `late`.
        assert_eq!(gradient(&layer), None);
        assert_eq!(gradient(&with_own_leaves(&layer)), expected);
    }

    #[test]
    fn what_is_frozen_stays_so() {
        let layer: Linear<B> = LinearConfig::new(2, 2).init(&device());
        let own = with_own_leaves(&layer.clone().no_grad());
        assert!(!own.weight.is_require_grad());
        let own = with_own_leaves(&layer);
        assert!(own.weight.is_require_grad());
        assert_eq!(own.weight.id, layer.weight.id);
    }
}
