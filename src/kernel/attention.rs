use burn::tensor::{Tensor, activation::softmax, backend::Backend};

use super::{Mode, Packing, dropout};

/// What an attention layer does beside the products.
#[derive(Debug, Clone, Copy)]
pub struct AttentionOptions {
    /// The number of heads the hidden size is split into.
    pub heads: usize,
    /// The factor on the scores, `1 / √head_dim` by the paper.
    pub scale: f64,
    /// The dropout on the probabilities, after the softmax.
    pub dropout: f64,
    /// Whether to drop out.
    pub mode: Mode,
}

/// Multi-head attention within each text of a packed batch
/// (<https://arxiv.org/abs/1706.03762>).
///
/// Only ragged batches are masked.
///
/// # Shapes
/// - query, key, value: `[tokens, hidden]`
/// - output: `[tokens, hidden]`
pub fn attention<B: Backend>(
    query: Tensor<B, 2>,
    key: Tensor<B, 2>,
    value: Tensor<B, 2>,
    packing: &Packing<B>,
    options: &AttentionOptions,
) -> Tensor<B, 2> {
    let [_, hidden] = query.dims();
    let (texts, width, heads) = (packing.texts(), packing.width(), options.heads);
    let split = |packed: Tensor<B, 2>| -> Tensor<B, 4> {
        packing
            .spread(packed)
            .reshape([texts, width, heads, hidden / heads])
            .swap_dims(1, 2)
    };
    let scores = (split(query) * options.scale).matmul(split(key).swap_dims(2, 3));
    let scores = match packing.mask() {
        Some(mask) => {
            let mask = mask.reshape([texts, 1, 1, width]);
            scores.mask_fill(mask.expand([texts, heads, width, width]), f32::NEG_INFINITY)
        }
        None => scores,
    };
    let probabilities = dropout(softmax(scores, 3), options.dropout, options.mode);
    let context = probabilities
        .matmul(split(value))
        .swap_dims(1, 2)
        .reshape([texts, width, hidden]);
    packing.pack(context)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};
    use burn::tensor::Distribution;

    #[test]
    fn a_ragged_batch_equals_its_texts_one_by_one() {
        let lengths = [5, 1, 3];
        let random = || Tensor::<TestBackend, 2>::random([9, 6], Distribution::Default, &device());
        let (query, key, value) = (random(), random(), random());
        let options = AttentionOptions {
            heads: 2,
            scale: 3f64.sqrt().recip(),
            dropout: 0.0,
            mode: Mode::Inference,
        };
        let attend = |rows: std::ops::Range<usize>, lengths: &[usize]| -> Vec<f32> {
            let cut = |t: &Tensor<TestBackend, 2>| t.clone().slice([rows.clone(), 0..6]);
            let packing = Packing::new(lengths.into(), &device());
            attention(cut(&query), cut(&key), cut(&value), &packing, &options)
                .into_data()
                .iter()
                .collect()
        };
        let together = attend(0..9, &lengths);
        let apart = [attend(0..5, &[5]), attend(5..6, &[1]), attend(6..9, &[3])].concat();
        let difference = together.iter().zip(&apart).map(|(a, b)| (a - b).abs());
        assert!(difference.fold(0.0, f32::max) < 1e-6);
        // Negative control: without the mask, texts would see their neighbours' padding.
        let unmasked = attend(0..9, &[9]);
        let difference = together.iter().zip(&unmasked).map(|(a, b)| (a - b).abs());
        assert!(difference.fold(0.0, f32::max) > 1e-3);
    }
}
