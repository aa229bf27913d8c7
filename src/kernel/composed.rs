//! The kernels in Burn's own operations: what every backend but NdArray runs, and what
//! NdArray's kernels are held equal to.

use std::convert::Infallible;

use burn::tensor::backend::Backend;
use burn::tensor::{Bool, Distribution, Int, Tensor, TensorData, activation::softmax};

use super::linear::{add_to_rows, low_rank};
use super::{
    Activation, AttentionOptions, LayerNormParams, LinearParams, LowRankParams, Mode, Packing,
    RmsNormParams, RotaryAngles, TopK, offer_compared,
};

/// As [`super::linear`].
pub fn linear<B: Backend>(
    input: Tensor<B, 2>,
    params: LinearParams<'_, B>,
    updates: Vec<LowRankParams<'_, B>>,
    activation: Activation,
    mode: Mode,
) -> Tensor<B, 2> {
    let output = input.clone().matmul(params.weight.transpose());
    let output = match params.bias {
        Some(bias) => output + bias.unsqueeze(),
        None => output,
    };
    let output = updates.into_iter().fold(output, |output, update| {
        let rows = update.rows.clone();
        add_to_rows(output, rows, low_rank(input.clone(), update, mode))
    });
    activation.forward(output)
}

/// As [`super::attention`].
pub fn attention<B: Backend>(
    query: Tensor<B, 2>,
    key: Tensor<B, 2>,
    value: Tensor<B, 2>,
    bias: Option<Tensor<B, 3>>,
    packing: &Packing<B>,
    options: &AttentionOptions,
) -> Tensor<B, 2> {
    let [_, hidden] = query.dims();
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
    let query = (split(query, heads) * options.scale).reshape([texts, groups, rows, head_dim]);
    let scores = query
        .matmul(split(key, groups).swap_dims(2, 3))
        .reshape([texts, heads, width, width]);
    let scores = match bias {
        Some(bias) => scores + bias.unsqueeze(),
        None => scores,
    };
    let scores = match hidden_pairs(packing, options) {
        Some(mask) => {
            let mask = mask.expand([texts, heads, width, width]);
            scores.mask_fill(mask, f32::NEG_INFINITY)
        }
        None => scores,
    };
    let probabilities = dropout(softmax(scores, 3), options.dropout, options.mode);
    let context = probabilities
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
    let after =
        |offset: usize| Tensor::<B, 2, Bool>::tril_mask([width, width], offset as i64, device);
    let before =
        |offset: usize| Tensor::<B, 2, Bool>::triu_mask([width, width], -(offset as i64), device);
    // A window as wide as the longest text hides nothing.
    let window = options.window.filter(|&window| window + 1 < width);
    let by_place = match (window, options.causal) {
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
}

/// As [`super::add_layer_norm`].
pub fn add_layer_norm<B: Backend>(
    input: Tensor<B, 2>,
    residual: Option<Tensor<B, 2>>,
    params: LayerNormParams<B>,
    probability: f64,
    mode: Mode,
) -> Tensor<B, 2> {
    let input = dropout(input, probability, mode);
    let input = match residual {
        Some(residual) => input + residual,
        None => input,
    };
    let centred = input.clone() - input.mean_dim(1);
    let variance = (centred.clone() * centred.clone()).mean_dim(1);
    let normed = centred / (variance + params.epsilon).sqrt();
    normed * params.weight.unsqueeze() + params.bias.unsqueeze()
}

/// As [`super::rms_norm`].
pub fn rms_norm<B: Backend>(input: Tensor<B, 2>, params: RmsNormParams<B>) -> Tensor<B, 2> {
    let squares = (input.clone() * input.clone()).mean_dim(1);
    let normed = input / (squares + params.epsilon).sqrt();
    normed * (params.weight + params.offset).unsqueeze()
}

/// As [`super::rotary`].
pub fn rotary<B: Backend>(input: Tensor<B, 2>, angles: &RotaryAngles<B>) -> Tensor<B, 2> {
    let [tokens, hidden] = input.dims();
    let [_, half] = angles.cos.dims();
    let heads = input.reshape([tokens, hidden / (2 * half), 2 * half]);
    let (first, second) = (
        heads.clone().narrow(2, 0, half),
        heads.narrow(2, half, half),
    );
    let [cos, sin] = [&angles.cos, &angles.sin].map(|t| t.clone().reshape([tokens, 1, half]));
    let turned = vec![
        first.clone() * cos.clone() - second.clone() * sin.clone(),
        second * cos + first * sin,
    ];
    Tensor::cat(turned, 2).reshape([tokens, hidden])
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

/// As [`super::weighted_sum_pool`].
pub fn weighted_sum_pool<B: Backend>(
    tokens: Tensor<B, 2>,
    weights: Vec<f32>,
    packing: &Packing<B>,
) -> Tensor<B, 2> {
    let [_, hidden] = tokens.dims();
    let (texts, width) = (packing.texts(), packing.width());
    // Weights of 0 on the padding, so that it adds nothing whatever it shows.
    let mut spread = vec![0.0; texts * width];
    for (text, (start, &length)) in packing.starts().iter().zip(packing.lengths()).enumerate() {
        spread[text * width..][..length].copy_from_slice(&weights[*start..][..length]);
    }
    let weights = Tensor::<B, 3>::from_data(
        TensorData::new(spread, [texts, width, 1]).convert::<B::FloatElem>(),
        packing.device(),
    );
    (packing.spread(tokens) * weights)
        .sum_dim(1)
        .reshape([texts, hidden])
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
    let squared = (input.clone() * input.clone()).sum_dim(1).clamp_min(1e-24);
    input / squared.sqrt()
}

/// As [`super::offer_products`].
pub fn offer_products<B: Backend>(
    queries: Tensor<B, 2>,
    documents: Tensor<B, 2>,
    items: &[u32],
    queries_at_a_time: usize,
    best: &mut [TopK],
) {
    let documents = documents.transpose();
    let compare = |queries: Tensor<B, 2>| Ok(queries.matmul(documents.clone()));
    let Ok(()) = offer_compared::<B, Infallible>(queries, items, queries_at_a_time, best, compare);
}

/// As [`super::offer_cosines`].
pub fn offer_cosines<B: Backend>(
    queries: Tensor<B, 2>,
    documents: Tensor<B, 2>,
    items: &[u32],
    queries_at_a_time: usize,
    best: &mut [TopK],
) {
    let (queries, documents) = (normalize(queries), normalize(documents));
    offer_products(queries, documents, items, queries_at_a_time, best);
}
