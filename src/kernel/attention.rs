use burn::tensor::{Tensor, backend::Backend};

use super::{Mode, Packing};

/// What an attention layer does beside the products.
#[derive(Debug, Clone, Copy)]
pub struct AttentionOptions {
    /// The number of query heads.
    pub heads: usize,
    /// The number of key and value heads, of which `heads` is a multiple: each serves that
    /// many query heads in a row (<https://arxiv.org/abs/2305.13245>).
    pub key_value_heads: usize,
    /// The factor on the scores, `1 / √head_dim` by the paper.
    pub scale: f64,
    /// How far to either side of itself a token sees; `None` is the whole text.
    pub window: Option<usize>,
    /// Whether a token sees only itself and those before it.
    pub causal: bool,
    /// The dropout on the probabilities, after the softmax.
    pub dropout: f64,
    /// Whether to drop out.
    pub mode: Mode,
}

/// Multi-head attention within each text of a packed batch
/// (<https://arxiv.org/abs/1706.03762>).
///
/// `bias` is added to the scaled scores: a text of `length` tokens gets its first `length`
/// rows and columns. Only ragged batches, windows and causal layers are masked.
///
/// # Shapes
/// - query: `[tokens, heads * head_dim]`
/// - key, value: `[tokens, key_value_heads * head_dim]`
/// - bias: `[heads, width, width]`, `width` being the packing's
/// - output: `[tokens, heads * head_dim]`
pub fn attention<B: Backend>(
    query: Tensor<B, 2>,
    key: Tensor<B, 2>,
    value: Tensor<B, 2>,
    bias: Option<Tensor<B, 3>>,
    packing: &Packing<B>,
    options: &AttentionOptions,
) -> Tensor<B, 2> {
    // What is wider than the longest text is no wider than it, and its end would overflow.
    let options = &AttentionOptions {
        window: options.window.map(|window| window.min(packing.width())),
        ..*options
    };
    #[cfg(feature = "ndarray")]
    if let Some(route) = super::cpu::route(&query) {
        // A bias that is trained needs a gradient, which the kernel does not give.
        let is_trained = |bias| super::cpu::is_tracked(route, bias);
        if !bias.as_ref().is_some_and(is_trained) {
            return super::cpu::attention(route, [query, key, value], bias, packing, options);
        }
    }
    super::composed::attention(query, key, value, bias, packing, options)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestAutodiffBackend, TestBackend, device};
    use burn::tensor::Distribution;

    const OPTIONS: AttentionOptions = AttentionOptions {
        heads: 2,
        key_value_heads: 2,
        scale: 0.577,
        window: None,
        causal: false,
        dropout: 0.0,
        mode: Mode::Inference,
    };

    fn random<B: Backend>(rows: usize, columns: usize, device: &B::Device) -> Tensor<B, 2> {
        Tensor::random([rows, columns], Distribution::Default, device)
    }

    fn values<B: Backend, const D: usize>(tensor: Tensor<B, D>) -> Vec<f32> {
        tensor.into_data().iter().collect()
    }

    fn max_difference(a: &[f32], b: &[f32]) -> f32 {
        assert_eq!(a.len(), b.len());
        let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
        differences.fold(0.0, f32::max)
    }

    /// What `attention` is to give, by its definition, of one query, key, value and bias.
    fn by_definition(
        [query, key, value]: [&[f32]; 3],
        bias: impl Fn(usize, usize, usize) -> f32,
        lengths: &[usize],
        head_dim: usize,
        options: &AttentionOptions,
    ) -> Vec<f32> {
        let (heads, groups) = (options.heads, options.key_value_heads);
        let mut output = vec![0.0; query.len()];
        let mut start = 0;
        for &length in lengths {
            for (i, head) in (0..length).flat_map(|i| (0..heads).map(move |head| (i, head))) {
                let group = head / (heads / groups);
                let at = |of: &[f32], heads: usize, token: usize, head: usize, d: usize| {
                    of[((start + token) * heads + head) * head_dim + d]
                };
                let sees = |j: usize| {
                    options.window.is_none_or(|window| i.abs_diff(j) <= window)
                        && !(options.causal && j > i)
                };
                let score = |j: usize| -> f32 {
                    let products = (0..head_dim)
                        .map(|d| at(query, heads, i, head, d) * at(key, groups, j, group, d));
                    products.sum::<f32>() * options.scale as f32 + bias(head, i, j)
                };
                let seen: Vec<usize> = (0..length).filter(|&j| sees(j)).collect();
                let weights: Vec<f32> = seen.iter().map(|&j| score(j).exp()).collect();
                let sum: f32 = weights.iter().sum();
                for d in 0..head_dim {
                    let weighted = seen.iter().zip(&weights);
                    output[((start + i) * heads + head) * head_dim + d] = weighted
                        .map(|(&j, weight)| weight / sum * at(value, groups, j, group, d))
                        .sum();
                }
            }
            start += length;
        }
        output
    }

    #[test]
    fn every_option_does_what_it_says_on_ragged_batches_and_on_even_ones() {
        let head_dim = 3;
        for lengths in [vec![7, 1, 4], vec![5, 5]] {
            let tokens = lengths.iter().sum();
            let packing = Packing::<TestBackend>::new(lengths.clone().into(), &device());
            for (heads, key_value_heads) in [(2, 2), (4, 2), (3, 1)] {
                let query = random::<TestBackend>(tokens, heads * head_dim, &device());
                let [key, value] =
                    [0, 1].map(|_| random(tokens, key_value_heads * head_dim, &device()));
                let inputs = [&query, &key, &value].map(|t| values(t.clone()));
                let inputs = [&inputs[0][..], &inputs[1], &inputs[2]];
                let width = packing.width();
                let bias = Tensor::<TestBackend, 3>::random(
                    [heads, width, width],
                    Distribution::Default,
                    &device(),
                );
                let bias_values = values(bias.clone());
                let mut unlike_plain = 0;
                for window in [None, Some(0), Some(2), Some(usize::MAX)] {
                    for (causal, biased) in
                        [(false, false), (true, false), (false, true), (true, true)]
                    {
                        let options = AttentionOptions {
                            heads,
                            key_value_heads,
                            window,
                            causal,
                            ..OPTIONS
                        };
                        let run = |options: &AttentionOptions, bias| {
                            let (query, key, value) = (query.clone(), key.clone(), value.clone());
                            values(attention(query, key, value, bias, &packing, options))
                        };
                        let found = run(&options, biased.then(|| bias.clone()));
                        let bias_at = |head: usize, i: usize, j: usize| {
                            let index = (head * width + i) * width + j;
                            if biased { bias_values[index] } else { 0.0 }
                        };
                        let expected = by_definition(inputs, bias_at, &lengths, head_dim, &options);
                        let difference = max_difference(&found, &expected);
                        assert!(difference < 1e-5, "{options:?} {lengths:?}: {difference}");
                        // Negative control: the options count.
                        let plain = AttentionOptions {
                            window: None,
                            causal: false,
                            ..options
                        };
                        let plain = max_difference(&found, &run(&plain, None));
                        unlike_plain += usize::from(plain > 1e-3);
                    }
                }
                // All but the plain layer itself and the window that hides nothing.
                assert_eq!(unlike_plain, 14);
            }
        }
    }

    #[test]
    fn gradients_stay_finite_where_a_window_holds_only_padding() {
        type B = TestAutodiffBackend;
        let packing = Packing::<B>::new([9, 1].into(), &device());
        for causal in [false, true] {
            let options = AttentionOptions {
                window: Some(1),
                causal,
                ..OPTIONS
            };
            let inputs = [0, 1, 2].map(|_| random::<B>(10, 6, &device()).require_grad());
            let [query, key, value] = inputs.clone();
            let output = attention(query, key, value, None, &packing, &options);
            let gradients = output.powi_scalar(2).sum().backward();
            for input in inputs {
                let gradient = input.grad(&gradients).map(values).unwrap_or_default();
                assert_eq!(gradient.len(), 60);
                assert!(gradient.iter().all(|value| value.is_finite()));
            }
        }
    }

    #[test]
    fn a_ragged_batch_equals_its_texts_one_by_one() {
        let lengths = [5, 1, 3];
        let [query, key, value] = [0, 1, 2].map(|_| random::<TestBackend>(9, 6, &device()));
        let attend = |rows: std::ops::Range<usize>, lengths: &[usize]| -> Vec<f32> {
            let cut = |t: &Tensor<TestBackend, 2>| t.clone().slice([rows.clone(), 0..6]);
            let packing = Packing::new(lengths.into(), &device());
            let (query, key, value) = (cut(&query), cut(&key), cut(&value));
            values(attention(query, key, value, None, &packing, &OPTIONS))
        };
        let together = attend(0..9, &lengths);
        let apart = [attend(0..5, &[5]), attend(5..6, &[1]), attend(6..9, &[3])].concat();
        assert!(max_difference(&together, &apart) < 1e-6);
        // Negative control: without the mask, texts would see their neighbours' padding.
        let unmasked = attend(0..9, &[9]);
        assert!(max_difference(&together, &unmasked) > 1e-3);
    }
}
