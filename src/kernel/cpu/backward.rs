//! The backward steps of the kernels, registered with burn-autodiff.
//!
//! A step computes only the gradients that someone waits for: none for frozen weights,
//! and none below the lowest trained layer, where no parent is tracked.

use std::sync::Arc;

use burn::backend::NdArray;
use burn::backend::autodiff::NodeId;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};

use super::attention::Attention;
use super::layer_norm::{Norm, add_residual};
use super::linear::{Kept, Linear, LowRank, multiply, view};
use super::matrix::{MatrixView, PackedMatrix};
use super::product::{Term, product};
use super::random::Dropout;
use super::tensor::{Floats, Tracked, from_tracked, tracked};
use super::{elementwise, pooling};
use crate::kernel::linear::{add_to_rows, low_rank};
use crate::kernel::{Activation, LayerNormParams, LinearParams, LowRankParams, Mode};

/// A tensor that no gradient flows into, in the place of a parent that is not there.
fn nobody() -> Tracked {
    let none = Floats::from_vec(Vec::new(), &[0]);
    burn::backend::Autodiff::<NdArray>::from_inner(none.into_primitive())
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

#[derive(Debug)]
struct LinearStep;

#[derive(Debug, Clone)]
struct LinearState {
    layer: Linear,
    /// `[rows, d_input]` of the input.
    shape: [usize; 2],
    /// The input, where a weight's gradient needs it.
    input: Option<Floats>,
    kept: Kept,
}

/// As [`crate::kernel::linear`].
pub(super) fn linear<B: Backend>(
    input: Tensor<B, 2>,
    params: LinearParams<'_, B>,
    mut updates: Vec<LowRankParams<'_, B>>,
    mut layer: Linear,
) -> Tensor<B, 2> {
    // One update of all rows is fused; others are composed, and the activation is last.
    let fused = updates
        .first()
        .map_or(0, |first| usize::from(first.rows.is_none()));
    let others = updates.split_off(fused);
    let drawn = layer.updates.split_off(fused);
    let activation = match others.is_empty() {
        true => Activation::Identity,
        false => std::mem::replace(&mut layer.activation, Activation::Identity),
    };
    let generic_input = input.clone();
    let input = tracked(input);
    let weight = tracked(params.weight);
    let bias = params.bias.map_or_else(nobody, tracked);
    let (a, b) = match updates.pop() {
        Some(update) => (tracked(update.a), tracked(update.b)),
        None => (nobody(), nobody()),
    };
    let is_read = weight.is_tracked() || a.is_tracked();
    let nodes = [&input, &weight, &bias, &a, &b].map(|parent| parent.node.clone());
    let values = Floats::new(input.primitive.clone());
    let output = match LinearStep
        .prepare::<NoCheckpointing>(nodes)
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(step) => {
            let (output, kept) = layer.forward(&values, true);
            let (shape, input) = (values.dims(), is_read.then_some(values));
            let state = LinearState {
                layer,
                shape,
                input,
                kept,
            };
            step.finish(state, output.into_primitive())
        }
        OpsKind::UnTracked(step) => step.finish(layer.forward(&values, false).0.into_primitive()),
    };
    let output: Tensor<B, 2> = from_tracked(output);
    let output = others
        .into_iter()
        .zip(drawn)
        .fold(output, |output, (mut update, drawn)| {
            let rows = update.rows.take();
            let input = match &rows {
                Some(rows) => generic_input.clone().narrow(0, rows.start, rows.len()),
                None => generic_input.clone(),
            };
            let input = match drawn.dropout {
                Some(drawn) => dropout(input, drawn),
                None => input,
            };
            // Dropped out already, by the mask that was drawn in turn.
            add_to_rows(output, rows, low_rank(input, update, Mode::Inference))
        });
    match activation {
        Activation::Identity => output,
        activation => activation.forward(output),
    }
}

impl Backward<NdArray, 5> for LinearStep {
    type State = LinearState;

    fn backward(
        self,
        ops: Ops<Self::State, 5>,
        gradients: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let gradient = consume(&ops, gradients);
        let [input, weight, bias, a, b] = waiting(&ops);
        let LinearState {
            layer,
            shape: [rows, d_input],
            input: x,
            kept,
        } = &ops.state;
        let (rows, d_input) = (*rows, *d_input);
        let gradient = match &kept.before {
            Some(before) => gradient.map(|values| {
                elementwise::multiply_by_slope(values, before.values(), layer.activation);
            }),
            None => gradient,
        };
        let g = view(&gradient);
        if let Some(bias) = bias {
            let sums = elementwise::column_sums(g.data, g.columns);
            register(gradients, bias, Floats::from_vec(sums, &[g.columns]));
        }
        if let (Some(weight), Some(x)) = (weight, x) {
            let right = PackedMatrix::new(view(x), 1.0);
            let values = multiply(&[Term::new(g.transposed(), &right)], 1.0);
            let shape = [g.columns, d_input];
            register(gradients, weight, Floats::from_vec(values, &shape));
        }
        let update = layer.updates.first().zip(kept.thin.first());
        // The gradient of `A(dropout(x))`.
        let narrow = update.filter(|_| a.or(input).is_some()).map(|(update, _)| {
            let wide = update.packed[1].straight(&update.b);
            multiply(&[Term::new(g, &wide)], update.scaling)
        });
        if let (Some(b), Some((_, thin))) = (b, update) {
            let r = thin.len() / rows.max(1);
            let right = PackedMatrix::new(MatrixView::new(thin, [rows, r]), 1.0);
            let values = multiply(&[Term::new(g.transposed(), &right)], 1.0);
            register(gradients, b, Floats::from_vec(values, &[g.columns, r]));
        }
        if let (Some(a), Some(x), Some((update, _)), Some(narrow)) = (a, x, update, &narrow) {
            let [r, _] = update.a.dims();
            let dropped = update.dropped(view(x));
            let x = match &dropped {
                Some(values) => MatrixView::new(values, [rows, d_input]),
                None => view(x),
            };
            let left = MatrixView::new(narrow, [rows, r]).transposed();
            let values = multiply(&[Term::new(left, &PackedMatrix::new(x, 1.0))], 1.0);
            register(gradients, a, Floats::from_vec(values, &[r, d_input]));
        }
        if let Some(input) = input {
            let weight = layer.packed.straight(&layer.weight);
            let own = Term::new(g, &weight);
            let values = match (update, &narrow) {
                (Some((update, _)), Some(narrow)) => {
                    input_gradient(own, update, narrow, [rows, d_input])
                }
                _ => multiply(&[own], 1.0),
            };
            let shape = [rows, d_input];
            register(gradients, input, Floats::from_vec(values, &shape));
        }
    }
}

/// The gradient of the input: through the weight, and through the update's dropout.
fn input_gradient(
    own: Term<'_>,
    update: &LowRank,
    narrow: &[f32],
    [rows, d_input]: [usize; 2],
) -> Vec<f32> {
    let [r, _] = update.a.dims();
    let right = update.packed[0].straight(&update.a);
    let through_update = Term::new(MatrixView::new(narrow, [rows, r]), &right);
    let Some(dropout) = update.dropout else {
        return multiply(&[own, through_update], 1.0);
    };
    let mut values = multiply(&[own], 1.0);
    let sums = super::destination::Destination::over(&mut values, d_input);
    let epilogue = elementwise::AddDropped {
        output: &sums,
        dropout,
        columns: d_input,
    };
    product(&[through_update], &epilogue);
    values
}

#[derive(Debug)]
struct AttentionStep;

#[derive(Debug, Clone)]
struct AttentionState {
    attention: Attention,
    inputs: [Floats; 3],
}

/// As [`crate::kernel::attention`].
pub(super) fn attention<B: Backend>(
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
pub(super) fn add_layer_norm<B: Backend>(
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

#[derive(Debug)]
struct DropoutStep;

/// As [`crate::kernel::dropout`].
pub(super) fn dropout<B: Backend, const D: usize>(
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

#[derive(Debug)]
struct PoolStep;

#[derive(Debug, Clone)]
struct PoolState {
    weights: Vec<f32>,
    lengths: Arc<[usize]>,
}

/// As [`crate::kernel::weighted_sum_pool`].
pub(super) fn weighted_sum_pool<B: Backend>(
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
