use burn::backend::NdArray;
use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::NoCheckpointing;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind};
use burn::tensor::Tensor;
use burn::tensor::backend::Backend;

use super::{consume, dropout, nobody, register, waiting};
use crate::kernel::cpu::elementwise;
use crate::kernel::cpu::linear::{Kept, Linear, LowRank, multiply, view};
use crate::kernel::cpu::matrix::{MatrixView, PackedMatrix};
use crate::kernel::cpu::product::{Term, product};
use crate::kernel::cpu::tensor::{Floats, from_tracked, tracked};
use crate::kernel::linear::{add_to_rows, low_rank};
use crate::kernel::{Activation, LinearParams, LowRankParams, Mode};

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
pub(in crate::kernel::cpu) fn linear<B: Backend>(
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
    let sums = crate::kernel::cpu::destination::Destination::over(&mut values, d_input);
    let epilogue = elementwise::AddDropped {
        output: &sums,
        dropout,
        columns: d_input,
    };
    product(&[through_update], &epilogue);
    values
}
