use burn::tensor::{Tensor, TensorData, backend::Backend};

use super::Packing;

/// Sums each text's tokens, each times its weight: mean, first-token, last-token and
/// position-weighted pooling are this with the weights of their formula.
///
/// # Shapes
/// - tokens: `[tokens, hidden]`
/// - weights: one for each token
/// - output: `[texts, hidden]`
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

/// The largest value of each dimension over each text's tokens from `first` on.
///
/// A text without such a token gives the lowest finite number, as the reference's
/// masked maximum gives its mask value.
///
/// # Shapes
/// - tokens: `[tokens, hidden]`
/// - output: `[texts, hidden]`
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
        let mask = Tensor::<B, 3, burn::tensor::Bool>::from_data(
            TensorData::new(hidden_places, [texts, width, 1]),
            packing.device(),
        );
        spread.mask_fill(mask.expand([texts, width, hidden]), f32::NEG_INFINITY)
    } else {
        spread
    };
    visible.max_dim(1).reshape([texts, hidden])
}
