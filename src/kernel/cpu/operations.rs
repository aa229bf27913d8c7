use burn::tensor::{Int, Tensor, backend::Backend};

use super::attention::Attention;
#[cfg(feature = "autodiff")]
use super::backward;
use super::layer_norm::{Norm, add_residual};
use super::linear::{Linear, LowRank};
use super::nearest::Documents;
use super::random::Dropout;
use super::rms_norm::RmsNorm;
use super::tensor::{Floats, Route, constant, from_plain, indices, plain, untracked};
use super::{elementwise, embedding, pooling, rotary as rotation};
use crate::kernel::{
    Activation, AttentionOptions, LayerNormParams, LinearParams, LowRankParams, Mode, Packing,
    RmsNormParams, RotaryAngles, TopK,
};

/// As [`crate::kernel::linear`].
pub(in crate::kernel) fn linear<B: Backend>(
    route: Route,
    input: Tensor<B, 2>,
    params: LinearParams<'_, B>,
    updates: Vec<LowRankParams<'_, B>>,
    activation: Activation,
    mode: Mode,
) -> Tensor<B, 2> {
    let layer = Linear {
        weight: untracked(params.weight.clone(), route),
        packed: params.packed.clone(),
        bias: params.bias.clone().map(|bias| untracked(bias, route)),
        updates: updates
            .iter()
            .map(|update| LowRank {
                a: untracked(update.a.clone(), route),
                b: untracked(update.b.clone(), route),
                packed: update.packed.clone(),
                scaling: update.scaling as f32,
                dropout: Dropout::draw(update.dropout, mode),
                rows: update.rows.clone(),
            })
            .collect(),
        activation,
    };
    match route {
        Route::Plain => from_plain(layer.forward(&plain(input), false).0),
        #[cfg(feature = "autodiff")]
        Route::Tracked => backward::linear(input, params, updates, layer),
    }
}

/// As [`crate::kernel::attention`], with no gradient for the bias.
pub(in crate::kernel) fn attention<B: Backend>(
    route: Route,
    inputs: [Tensor<B, 2>; 3],
    bias: Option<Tensor<B, 3>>,
    packing: &Packing<B>,
    options: &AttentionOptions,
) -> Tensor<B, 2> {
    let attention = Attention {
        lengths: packing.lengths().into(),
        heads: options.heads,
        key_value_heads: options.key_value_heads,
        scale: options.scale as f32,
        window: options.window,
        causal: options.causal,
        bias: bias.map(|bias| untracked(bias, route)),
        dropout: Dropout::draw(options.dropout, options.mode),
    };
    match route {
        Route::Plain => {
            let [query, key, value] = inputs.map(plain);
            from_plain(attention.forward([&query, &key, &value]))
        }
        #[cfg(feature = "autodiff")]
        Route::Tracked => backward::attention(inputs, attention),
    }
}

/// As [`crate::kernel::add_layer_norm`].
pub(in crate::kernel) fn add_layer_norm<B: Backend>(
    route: Route,
    input: Tensor<B, 2>,
    residual: Option<Tensor<B, 2>>,
    params: LayerNormParams<B>,
    dropout: f64,
    mode: Mode,
) -> Tensor<B, 2> {
    let dropout = Dropout::draw(dropout, mode);
    let norm = Norm {
        weight: untracked(params.weight.clone(), route),
        bias: untracked(params.bias.clone(), route),
        epsilon: params.epsilon as f32,
    };
    match route {
        Route::Plain => {
            let residual = residual.map(plain);
            let sum = add_residual(plain(input), residual.as_ref(), dropout);
            from_plain(norm.forward(sum))
        }
        #[cfg(feature = "autodiff")]
        Route::Tracked => backward::add_layer_norm(input, residual, params, norm, dropout),
    }
}

/// As [`crate::kernel::rms_norm`], without gradients.
pub(in crate::kernel) fn rms_norm<B: Backend>(
    input: Tensor<B, 2>,
    params: RmsNormParams<B>,
) -> Tensor<B, 2> {
    let norm = RmsNorm {
        weight: plain(params.weight),
        offset: params.offset as f32,
        epsilon: params.epsilon as f32,
    };
    from_plain(norm.forward(plain(input)))
}

/// As [`crate::kernel::rotary`], without gradients.
pub(in crate::kernel) fn rotary<B: Backend>(
    input: Tensor<B, 2>,
    angles: &RotaryAngles<B>,
) -> Tensor<B, 2> {
    let [cos, sin] = [&angles.cos, &angles.sin].map(|table| plain(table.clone()));
    from_plain(rotation::rotary(plain(input), &cos, &sin))
}

/// As [`crate::kernel::gated`], without gradients.
pub(in crate::kernel) fn gated<B: Backend>(
    input: Tensor<B, 2>,
    activation: Activation,
) -> Tensor<B, 2> {
    from_plain(elementwise::gated(&plain(input), activation))
}

/// As [`crate::kernel::dropout`].
pub(in crate::kernel) fn dropout<B: Backend, const D: usize>(
    route: Route,
    input: Tensor<B, D>,
    probability: f64,
    mode: Mode,
) -> Tensor<B, D> {
    let Some(dropout) = Dropout::draw(probability, mode) else {
        return input;
    };
    match route {
        Route::Plain => {
            let dropped = plain(input).map(|values| elementwise::drop_out(values, dropout));
            from_plain(dropped)
        }
        #[cfg(feature = "autodiff")]
        Route::Tracked => backward::dropout(input, dropout),
    }
}

/// As [`crate::kernel::embed`], with no gradient for the tables.
pub(in crate::kernel) fn embed<B: Backend>(
    route: Route,
    tables: Vec<(Tensor<B, 2>, Tensor<B, 1, Int>)>,
) -> Tensor<B, 2> {
    let tables: Vec<(Floats, Vec<usize>)> = tables
        .into_iter()
        .map(|(table, ids)| (untracked(table, route), indices(ids)))
        .collect();
    constant(embedding::embed(&tables), route)
}

/// As [`crate::kernel::weighted_sum_pool`].
pub(in crate::kernel) fn weighted_sum_pool<B: Backend>(
    route: Route,
    tokens: Tensor<B, 2>,
    weights: Vec<f32>,
    packing: &Packing<B>,
) -> Tensor<B, 2> {
    match route {
        Route::Plain => {
            let tokens = plain(tokens);
            from_plain(pooling::weighted_sum_pool(
                &tokens,
                &weights,
                packing.lengths(),
            ))
        }
        #[cfg(feature = "autodiff")]
        Route::Tracked => backward::weighted_sum_pool(tokens, weights, packing.lengths()),
    }
}

/// As [`crate::kernel::max_pool`], without gradients.
pub(in crate::kernel) fn max_pool<B: Backend>(
    tokens: Tensor<B, 2>,
    first: usize,
    packing: &Packing<B>,
) -> Tensor<B, 2> {
    from_plain(pooling::max_pool(&plain(tokens), first, packing.lengths()))
}

/// As [`crate::kernel::normalize`], without gradients.
pub(in crate::kernel) fn normalize<B: Backend>(input: Tensor<B, 2>) -> Tensor<B, 2> {
    from_plain(pooling::normalize(plain(input)))
}

/// As [`crate::kernel::offer_products`].
pub(in crate::kernel) fn offer_products<B: Backend>(
    route: Route,
    queries: Tensor<B, 2>,
    documents: Tensor<B, 2>,
    items: &[u32],
    best: &mut [TopK],
) {
    let (queries, documents) = (untracked(queries, route), untracked(documents, route));
    Documents::new(&documents, items, false).offer_to(&queries, best);
}

/// As [`crate::kernel::offer_cosines`].
pub(in crate::kernel) fn offer_cosines<B: Backend>(
    route: Route,
    queries: Tensor<B, 2>,
    documents: Tensor<B, 2>,
    items: &[u32],
    best: &mut [TopK],
) {
    let (queries, documents) = (untracked(queries, route), untracked(documents, route));
    let queries = pooling::normalize(queries);
    Documents::new(&documents, items, true).offer_to(&queries, best);
}

/// Whether gradients flow into a tensor.
pub(in crate::kernel) fn is_tracked<B: Backend, const D: usize>(
    route: Route,
    tensor: &Tensor<B, D>,
) -> bool {
    match route {
        Route::Plain => {
            let _ = tensor;
            false
        }
        #[cfg(feature = "autodiff")]
        Route::Tracked => super::tensor::tracked(tensor.clone()).is_tracked(),
    }
}

/// As [`crate::kernel::map_batches`].
pub(in crate::kernel) fn map_batches<B: Backend, T: Sync, R: Send>(
    items: &[T],
    run: impl Fn(&T) -> R + Sync,
) -> Vec<R> {
    match super::tensor::route_of::<B>() {
        Some(_) => super::threads::map(items, run),
        None => items.iter().map(run).collect(),
    }
}

/// Whether the kernels serve a backend.
pub(in crate::kernel) fn has_route<B: Backend>() -> bool {
    super::tensor::route_of::<B>().is_some()
}

/// As [`crate::kernel::batches_at_once`].
pub(in crate::kernel) fn batches_at_once<B: Backend>() -> usize {
    super::tensor::route_of::<B>().map_or(1, |_| super::threads::available())
}

/// As [`crate::kernel::near_threads`].
pub(in crate::kernel) fn near_threads<B: Backend, R: Send>(run: impl FnOnce() -> R + Send) -> R {
    match super::tensor::route_of::<B>() {
        Some(_) => rayon::scope(|_| run()),
        None => run(),
    }
}
