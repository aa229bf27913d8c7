//! The kernels in Burn's own operations: what every backend but NdArray runs, and what
//! NdArray's kernels are held equal to.

use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Distribution, Int, Tensor, TensorData, activation::softmax};

use super::linear::{add_to_rows, low_rank};
use super::precision::{in_type, widen};
use super::{
    Activation, AttentionOptions, LayerNormParams, LinearParams, LowRankParams, Mode, Packing,
    RmsNormParams, RotaryAngles, TopK, offer_compared,
};
use crate::error::DeviceError;

/// As [`super::linear`].
pub fn linear<B: Backend>(
    input: Tensor<B, 2>,
    params: LinearParams<'_, B>,
    updates: Vec<LowRankParams<'_, B>>,
    activation: Activation,
    mode: Mode,
) -> Tensor<B, 2> {
    let bias: Option<Tensor<B, 2>> = params.bias.map(Tensor::unsqueeze);
    let output = input.clone().matmul(params.weight.transpose());
    let output = match bias {
        Some(bias) => output + bias,
        None => output,
    };
    let output = updates.into_iter().fold(output, |output, update| {
        let rows = update.rows.clone();
        add_to_rows(output, rows, low_rank(input.clone(), update, mode))
    });
    activation.forward(output)
}

/// As [`super::attention`].
///
/// Not by Burn's own operation of that name. Its kernel for GPUs multiplies single precision in
/// half (`cubek-attention` 0.2), is not differentiated, and leaves a bias to these same
/// operations. Flex's takes one head after the other: all-MiniLM-L6-v2 took 1.10 to 1.15 of the
/// time with it on two cores for texts of 20 words, 0.91 to 1.01 for 100 and 200.
pub fn attention<B: Backend>(
    query: Tensor<B, 2>,
    key: Tensor<B, 2>,
    value: Tensor<B, 2>,
    bias: Option<Tensor<B, 3>>,
    packing: &Packing<B>,
    options: &AttentionOptions,
) -> Tensor<B, 2> {
    let [_, hidden] = query.dims();
    let dtype = query.dtype();
    let (texts, width, heads) = (packing.texts(), packing.width(), options.heads);
    let (groups, head_dim) = (options.key_value_heads, hidden / heads);
    // The query heads that share a key head follow each other: they are more of its rows.
    let rows = heads / groups * width;
    let split = |packed: Tensor<B, 2>, heads: usize| -> Tensor<B, 4> {
        packing
            .spread(packed)
            .reshape([texts, width, heads, head_dim])
            .swap_dims(1, 2)
    };
    // Masks and biases take their shapes before the products, as what changes a shape between
    // two operations keeps Burn from fusing them.
    let shape = [texts, heads, width, width];
    let bias: Option<Tensor<B, 4>> = bias.map(Tensor::unsqueeze);
    let mask = hidden_pairs(packing, options).map(|mask| mask.expand(shape));
    let query = split(query * options.scale, heads).reshape([texts, groups, rows, head_dim]);
    let scores = query.matmul(split(key, groups).swap_dims(2, 3));
    let scores = scores.reshape(shape);
    let scores = match bias {
        Some(bias) => scores + bias,
        None => scores,
    };
    let scores = match mask {
        Some(mask) => scores.mask_fill(mask, f32::NEG_INFINITY),
        None => scores,
    };
    let probabilities = dropout(softmax(widen(scores), 3), options.dropout, options.mode);
    let context = in_type(probabilities, dtype)
        .reshape([texts, groups, rows, width])
        .matmul(split(value, groups))
        .reshape([texts, heads, width, head_dim])
        .swap_dims(1, 2)
        .reshape([texts, width, hidden]);
    packing.pack(context)
}

/// Which keys each query does not see, true where it does not; `None` where it sees all.
///
/// # Shapes
/// - output: `[texts or 1, 1, width or 1, width]`
fn hidden_pairs<B: Backend>(
    packing: &Packing<B>,
    options: &AttentionOptions,
) -> Option<Tensor<B, 4, Bool>> {
    let (texts, width, device) = (packing.texts(), packing.width(), packing.device());
    // A window as wide as the longest text hides nothing.
    let window = options.window.filter(|&window| window + 1 < width);
    let kind = (window, options.causal);
    packing.pairs(kind, || {
        let after =
            |offset: usize| Tensor::<B, 2, Bool>::tril_mask([width, width], offset as i64, device);
        let before = |offset: usize| {
            Tensor::<B, 2, Bool>::triu_mask([width, width], -(offset as i64), device)
        };
        let by_place = match kind {
            (None, false) => None,
            (None, true) => Some(after(0)),
            (Some(window), false) => Some(after(window).bool_or(before(window))),
            (Some(window), true) => Some(after(0).bool_or(before(window))),
        };
        let padding = packing
            .mask()
            .map(|mask| mask.reshape([texts, 1, 1, width]));
        match (padding, by_place) {
            (None, by_place) => by_place.map(|mask| mask.unsqueeze()),
            (padding, None) => padding,
            (Some(padding), Some(by_place)) => {
                let shape = [texts, 1, width, width];
                let by_place: Tensor<B, 4, Bool> = by_place.unsqueeze();
                let hidden = padding.expand(shape).bool_or(by_place.expand(shape));
                // Behind a text's end a window may hold only padding. A place that sees itself
                // keeps the softmax finite there, which its gradient needs; nobody reads it.
                let off_diagonal = Tensor::<B, 2, Bool>::diag_mask([width, width], 0, device);
                let off_diagonal: Tensor<B, 4, Bool> = off_diagonal.unsqueeze();
                Some(hidden.bool_and(off_diagonal.expand(shape)))
            }
        }
    })
}

/// As [`super::add_layer_norm`].
pub fn add_layer_norm<B: Backend>(
    input: Tensor<B, 2>,
    residual: Option<Tensor<B, 2>>,
    params: LayerNormParams<B>,
    probability: f64,
    mode: Mode,
) -> Tensor<B, 2> {
    let dtype = input.dtype();
    let input = widen(dropout(input, probability, mode));
    let input = match residual {
        Some(residual) => input + widen(residual),
        None => input,
    };
    // Reshaped before the rest, in which nothing then keeps Burn from fusing.
    let weight: Tensor<B, 2> = widen(params.weight).unsqueeze();
    let bias: Tensor<B, 2> = widen(params.bias).unsqueeze();
    let centred = input.clone() - input.mean_dim(1);
    let variance = (centred.clone() * centred.clone()).mean_dim(1);
    let normed = centred / (variance + params.epsilon).sqrt();
    in_type(normed * weight + bias, dtype)
}

/// As [`super::rms_norm`].
pub fn rms_norm<B: Backend>(input: Tensor<B, 2>, params: RmsNormParams<B>) -> Tensor<B, 2> {
    let dtype = input.dtype();
    let input = widen(input);
    let weight: Tensor<B, 2> = (widen(params.weight) + params.offset).unsqueeze();
    let squares = (input.clone() * input.clone()).mean_dim(1);
    let normed = input / (squares + params.epsilon).sqrt();
    in_type(normed * weight, dtype)
}

/// As [`super::rotary`].
pub fn rotary<B: Backend>(input: Tensor<B, 2>, angles: &RotaryAngles<B>) -> Tensor<B, 2> {
    let [tokens, hidden] = input.dims();
    let [_, half] = angles.cos.dims();
    let dtype = input.dtype();
    let input = widen(input);
    let input = input.reshape([tokens, hidden / (2 * half), 2 * half]);
    let [cos, sin] = [&angles.cos, &angles.sin].map(|angles| {
        let angles = in_type(angles.clone(), input.dtype());
        angles.reshape([tokens, 1, half])
    });
    let (first, second) = (
        input.clone().narrow(2, 0, half),
        input.narrow(2, half, half),
    );
    let turned = vec![
        first.clone() * cos.clone() - second.clone() * sin.clone(),
        second * cos + first * sin,
    ];
    in_type(Tensor::cat(turned, 2).reshape([tokens, hidden]), dtype)
}

/// As [`super::gated`].
pub fn gated<B: Backend>(input: Tensor<B, 2>, activation: Activation) -> Tensor<B, 2> {
    let [_, width] = input.dims();
    let gate = activation.forward(input.clone().narrow(1, 0, width / 2));
    gate * input.narrow(1, width / 2, width / 2)
}

/// As [`super::dropout`].
pub fn dropout<B: Backend, const D: usize>(
    input: Tensor<B, D>,
    probability: f64,
    mode: Mode,
) -> Tensor<B, D> {
    if mode == Mode::Inference || probability == 0.0 {
        return input;
    }
    let keep = 1.0 - probability;
    let mask = Tensor::<B, D>::random(
        input.shape(),
        Distribution::Bernoulli(keep),
        &input.device(),
    );
    input * mask * (1.0 / keep)
}

/// As [`super::embed`].
pub fn embed<B: Backend>(tables: Vec<(Tensor<B, 2>, Tensor<B, 1, Int>)>) -> Tensor<B, 2> {
    let rows = tables.into_iter().map(|(table, ids)| table.select(0, ids));
    let sum = rows.reduce(|sum, rows| sum + rows);
    sum.unwrap_or_else(|| Tensor::empty([0, 0], &B::Device::default()))
}

/// As [`super::mean_pool`].
pub fn mean_pool<B: Backend>(tokens: Tensor<B, 2>, packing: &Packing<B>) -> Tensor<B, 2> {
    let [_, hidden] = tokens.dims();
    let dtype = tokens.dtype();
    let (texts, width) = (packing.texts(), packing.width());
    let mask = packing.mask().map(|mask| {
        let mask: Tensor<B, 3, Bool> = mask.reshape([texts, width, 1]);
        mask.expand([texts, width, hidden])
    });
    let lengths = packing.lengths_on_device();
    let tokens = widen(packing.spread(tokens));
    let means = match (mask, lengths) {
        (Some(mask), Some(lengths)) => {
            let sums = tokens.mask_fill(mask, 0.0).sum_dim(1);
            let counts = lengths.float().cast(sums.dtype()).clamp_min(1.0);
            sums.reshape([texts, hidden]) / counts
        }
        _ => tokens.mean_dim(1).reshape([texts, hidden]),
    };
    in_type(means, dtype)
}

/// As [`super::weighted_sum_pool`].
pub fn weighted_sum_pool<B: Backend>(
    tokens: Tensor<B, 2>,
    weights: Vec<f32>,
    packing: &Packing<B>,
) -> Tensor<B, 2> {
    let [_, hidden] = tokens.dims();
    let dtype = tokens.dtype();
    let tokens = widen(packing.spread(tokens));
    let (texts, width) = (packing.texts(), packing.width());
    // Weights of 0 on the padding, so that it adds nothing whatever it shows.
    let mut spread = vec![0.0; texts * width];
    let mut rest = &weights[..];
    for (places, &length) in spread.chunks_mut(width.max(1)).zip(packing.lengths()) {
        let (of_text, behind) = rest.split_at(length);
        places[..length].copy_from_slice(of_text);
        rest = behind;
    }
    let weights = Tensor::<B, 3>::from_data(
        TensorData::new(spread, [texts, width, 1]),
        (packing.device(), tokens.dtype()),
    );
    let sums = (tokens * weights).sum_dim(1).reshape([texts, hidden]);
    in_type(sums, dtype)
}

/// As [`super::max_pool`].
pub fn max_pool<B: Backend>(
    tokens: Tensor<B, 2>,
    first: usize,
    packing: &Packing<B>,
) -> Tensor<B, 2> {
    let [_, hidden] = tokens.dims();
    let (texts, width) = (packing.texts(), packing.width());
    let hidden_places: Vec<bool> = packing
        .lengths()
        .iter()
        .flat_map(|&length| (0..width).map(move |place| place < first || place >= length))
        .collect();
    let spread = packing.spread(tokens);
    let visible = if hidden_places.contains(&true) {
        let mask = Tensor::<B, 3, Bool>::from_data(
            TensorData::new(hidden_places, [texts, width, 1]),
            packing.device(),
        );
        spread.mask_fill(mask.expand([texts, width, hidden]), f32::NEG_INFINITY)
    } else {
        spread
    };
    visible.max_dim(1).reshape([texts, hidden])
}

/// As [`super::normalize`].
pub fn normalize<B: Backend>(input: Tensor<B, 2>) -> Tensor<B, 2> {
    // The clamp stands under the root: at a zero row the root's own gradient is infinite.
    let dtype = input.dtype();
    let input = widen(input);
    let squared = (input.clone() * input.clone()).sum_dim(1).clamp_min(1e-24);
    in_type(input / squared.sqrt(), dtype)
}

/// As [`super::offer_products`].
pub fn offer_products<B: Backend>(
    queries: Tensor<B, 2>,
    documents: Tensor<B, 2>,
    items: &[u32],
    queries_at_a_time: usize,
    best: &mut [TopK],
) -> Result<(), DeviceError> {
    let documents = documents.transpose();
    offer_compared(queries, items, queries_at_a_time, best, |queries| {
        Ok(queries.matmul(documents.clone()))
    })
}

/// As [`super::offer_cosines`].
pub fn offer_cosines<B: Backend>(
    queries: Tensor<B, 2>,
    documents: Tensor<B, 2>,
    items: &[u32],
    queries_at_a_time: usize,
    best: &mut [TopK],
) -> Result<(), DeviceError> {
    let (queries, documents) = (normalize(queries), normalize(documents));
    offer_products(queries, documents, items, queries_at_a_time, best)
}

#[cfg(test)]
mod tests {
    use super::super::Layout;
    use super::*;
    use crate::backend_under_test::{TestAutodiffBackend, device};

    type B = TestAutodiffBackend;

    const HIDDEN: usize = 6;

    type Operation = dyn Fn(Vec<Tensor<B, 2>>, &Packing<B>) -> Tensor<B, 2>;

    fn values<const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
        tensor.into_data().iter().collect()
    }

    /// The values in the rows of tokens, and those in the others.
    fn by_token(rows: &[f32], layout: &Layout) -> (Vec<f32>, Vec<f32>) {
        let marks = layout.to_rows(vec![1u8; layout.tokens()]);
        let marked = |mark: u8| {
            let rows = rows.chunks(HIDDEN).zip(&marks);
            let rows = rows.filter(|(_, found)| **found == mark);
            rows.flat_map(|(row, _)| row.to_vec()).collect()
        };
        (marked(1), marked(0))
    }

    /// What an operation makes of tokens that lie so, and the gradients of its inputs; rows
    /// without a token hold `filling`.
    fn run(
        inputs: &[Vec<f32>],
        layout: &Layout,
        filling: f32,
        operation: &Operation,
    ) -> Vec<Vec<f32>> {
        let packing = Packing::of(layout.clone(), &device());
        let marks = layout.to_rows(vec![1u8; layout.tokens()]);
        let tensors: Vec<Tensor<B, 2>> = inputs
            .iter()
            .map(|input| {
                let mut tokens = input.chunks(HIDDEN);
                let rows = marks.iter().flat_map(|mark| match mark {
                    1 => tokens.next().unwrap().to_vec(),
                    _ => vec![filling; HIDDEN],
                });
                let data = TensorData::new(rows.collect::<Vec<f32>>(), [layout.rows(), HIDDEN]);
                Tensor::<B, 2>::from_data(data, &device()).require_grad()
            })
            .collect();
        let output = operation(tensors.clone(), &packing);
        let found = values(output.clone());
        let is_of_rows = output.dims()[0] == layout.rows() && layout.rows() != layout.texts();
        let (found, seen) = match is_of_rows {
            // What is behind in a model reads tokens alone.
            true => {
                let weights = vec![1.0; layout.tokens()];
                let read = weighted_sum_pool(output, weights, &packing);
                (by_token(&found, layout).0, read)
            }
            false => (found, output),
        };
        let sines = (0..layout.texts() * HIDDEN).map(|i| (i as f32).sin());
        let sines = TensorData::new(sines.collect::<Vec<f32>>(), [layout.texts(), HIDDEN]);
        let gradients = (seen * Tensor::from_data(sines, &device()))
            .sum()
            .backward();
        let mut all = vec![found];
        for tensor in tensors {
            let gradient = tensor.grad(&gradients).map(|g| g.into_data());
            let gradient: Vec<f32> = gradient.map(|g| g.iter().collect()).unwrap();
            let (of_tokens, of_filling) = by_token(&gradient, layout);
            assert!(of_filling.iter().all(|&value| value == 0.0), "{layout:?}");
            all.push(of_tokens);
        }
        all
    }

    #[test]
    fn results_and_gradients_are_those_of_the_padded_way_whatever_fills_the_rows() {
        let options = |window, causal| AttentionOptions {
            heads: 2,
            key_value_heads: 2,
            scale: 0.577,
            window,
            causal,
            dropout: 0.0,
            mode: Mode::Inference,
        };
        let attend = |options: AttentionOptions| -> Box<Operation> {
            Box::new(move |inputs, packing| {
                let [query, key, value] = inputs.try_into().unwrap();
                attention(query, key, value, None, packing, &options)
            })
        };
        let mean: Box<Operation> = Box::new(|inputs, packing| {
            let lengths = packing.lengths().iter();
            let weights = lengths.flat_map(|&length| vec![1.0 / length as f32; length]);
            weighted_sum_pool(inputs[0].clone(), weights.collect(), packing)
        });
        let max: Box<Operation> =
            Box::new(|inputs, packing| max_pool(inputs[0].clone(), 1, packing));
        for (columns, operation) in [
            (3, attend(options(None, false))),
            (3, attend(options(Some(2), true))),
            (1, mean),
            (1, max),
        ] {
            for lengths in [vec![16, 15, 16], vec![17, 2, 9], vec![11], vec![3, 3]] {
                let tokens: usize = lengths.iter().sum();
                let inputs: Vec<Vec<f32>> = (0..columns)
                    .map(|column| {
                        let of = |i: usize| ((i * 7 + column * 13) as f32 * 0.37).sin();
                        (0..tokens * HIDDEN).map(of).collect()
                    })
                    .collect();
                let padded = Layout::padded(lengths.clone().into());
                let expected = run(&inputs, &padded, 0.25, &*operation);
                for layout in [
                    Layout::rounded(lengths.clone().into()),
                    Layout::exact(lengths.clone().into()),
                ] {
                    let found = run(&inputs, &layout, -123.0, &*operation);
                    for (found, expected) in found.iter().zip(&expected) {
                        assert_eq!(found.len(), expected.len());
                        let furthest = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
                        let furthest = furthest.fold(0.0, f32::max);
                        assert!(furthest < 1e-5, "{layout:?}: {furthest:e}");
                    }
                }
                // Negative control: the same numbers as one text.
                if lengths.len() > 1 {
                    let one = Layout::exact([tokens].into());
                    let found = run(&inputs, &one, 0.0, &*operation);
                    let differ = found[0].iter().zip(&expected[0]);
                    assert!(differ.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) > 1e-3);
                }
            }
        }
    }
}
