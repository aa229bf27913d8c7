//! The kernels of NdArray beside the same operations composed of Burn's own, one after
//! the other in one table.
//!
//! The sizes are those of a small encoder (MiniLM, BGE-small, E5-small): 384 dimensions,
//! 12 heads, and a batch of 1024 tokens. `backward` is a forward pass and its gradients.
//!
//! ```text
//! cargo bench --bench kernels
//! cargo bench --bench kernels -- attention
//! ```

use burn::backend::{Autodiff, NdArray};
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::tensor::{Distribution, Int, Shape, Tensor};
use divan::counter::ItemsCount;
use divan::{Bencher, Divan};
use sentence_burn::kernel::{Mode, Packing, near_threads};

const TOKENS: usize = 1024;
const HIDDEN: usize = 384;
const INTERMEDIATE: usize = 4 * HIDDEN;
const HEADS: usize = 12;
const VOCABULARY: usize = 30_522;
const RANK: usize = 64;

type Trained = Autodiff<NdArray>;

/// Which of the two that an operation is written in.
#[derive(Debug, Clone, Copy)]
enum Version {
    Fused,
    Composed,
}

use Version::{Composed, Fused};

const VERSIONS: [Version; 2] = [Fused, Composed];

fn main() {
    // Where encoding and training call them from.
    near_threads::<NdArray, _>(|| {
        Divan::default().sample_count(30).config_with_args().main();
    });
}

/// Times an operation on 1024 tokens.
fn forward(bencher: Bencher<'_, '_>, run: impl Fn() -> Tensor<NdArray, 2>) {
    bencher.counter(ItemsCount::new(TOKENS)).bench_local(run);
}

/// Times an operation and the gradients of all that it is given to train.
fn backward(bencher: Bencher<'_, '_>, run: impl Fn() -> Tensor<Trained, 2>) {
    bencher
        .counter(ItemsCount::new(TOKENS))
        .bench_local(|| run().sum().backward());
}

fn random<B: Backend, const D: usize>(shape: [usize; D]) -> Tensor<B, D> {
    Tensor::random(
        Shape::from(shape),
        Distribution::Normal(0.0, 0.1),
        &Default::default(),
    )
}

fn trained<B: AutodiffBackend, const D: usize>(shape: [usize; D]) -> Tensor<B, D> {
    random(shape).require_grad()
}

/// As many texts of `width` tokens as make 1024 of them.
fn texts<B: Backend>(width: usize) -> Packing<B> {
    let lengths = vec![width; TOKENS / width];
    Packing::new(lengths.into(), &Default::default())
}

mod linear {
    use super::*;
    use sentence_burn::kernel::{Activation, LinearParams, PackedWeight, composed, linear};

    /// A layer of the feed-forward block, `[1536, 384]`.
    fn layer<B: Backend>(
        version: Version,
        [input, weight]: [Tensor<B, 2>; 2],
        bias: Tensor<B, 1>,
        activation: Activation,
    ) -> impl Fn() -> Tensor<B, 2> {
        let packed = PackedWeight::default();
        move || {
            let run = match version {
                Fused => linear,
                Composed => composed::linear,
            };
            let params = LinearParams {
                weight: weight.clone(),
                bias: Some(bias.clone()),
                packed: &packed,
            };
            run(
                input.clone(),
                params,
                Vec::new(),
                activation,
                Mode::Inference,
            )
        }
    }

    fn plain(version: Version, activation: Activation) -> impl Fn() -> Tensor<NdArray, 2> {
        let tensors = [random([TOKENS, HIDDEN]), random([INTERMEDIATE, HIDDEN])];
        layer(version, tensors, random([INTERMEDIATE]), activation)
    }

    fn with_gradients(version: Version, activation: Activation) -> impl Fn() -> Tensor<Trained, 2> {
        let tensors = [trained([TOKENS, HIDDEN]), trained([INTERMEDIATE, HIDDEN])];
        layer(version, tensors, trained([INTERMEDIATE]), activation)
    }

    #[divan::bench(args = VERSIONS)]
    fn forward(bencher: Bencher<'_, '_>, version: Version) {
        super::forward(bencher, plain(version, Activation::Identity));
    }

    #[divan::bench(args = VERSIONS)]
    fn backward(bencher: Bencher<'_, '_>, version: Version) {
        super::backward(bencher, with_gradients(version, Activation::Identity));
    }

    #[divan::bench(args = VERSIONS)]
    fn gelu_forward(bencher: Bencher<'_, '_>, version: Version) {
        super::forward(bencher, plain(version, Activation::Gelu));
    }

    #[divan::bench(args = VERSIONS)]
    fn gelu_backward(bencher: Bencher<'_, '_>, version: Version) {
        super::backward(bencher, with_gradients(version, Activation::Gelu));
    }
}

mod lora {
    use super::*;
    use sentence_burn::kernel::{
        Activation, LinearParams, LowRankParams, PackedWeight, composed, linear,
    };

    /// A projection of the attention, `[384, 384]`, with an adapter of rank 64.
    fn layer<B: Backend>(
        version: Version,
        mode: Mode,
        input: Tensor<B, 2>,
        [a, b]: [Tensor<B, 2>; 2],
    ) -> impl Fn() -> Tensor<B, 2> {
        let (weight, bias) = (random([HIDDEN, HIDDEN]), random([HIDDEN]));
        let (packed, packed_update) = (PackedWeight::default(), Default::default());
        move || {
            let run = match version {
                Fused => linear,
                Composed => composed::linear,
            };
            let params = LinearParams {
                weight: weight.clone(),
                bias: Some(bias.clone()),
                packed: &packed,
            };
            let update = LowRankParams {
                a: a.clone(),
                b: b.clone(),
                packed: &packed_update,
                scaling: 2.0,
                dropout: 0.1,
                rows: None,
            };
            run(
                input.clone(),
                params,
                vec![update],
                Activation::Identity,
                mode,
            )
        }
    }

    #[divan::bench(args = VERSIONS)]
    fn forward(bencher: Bencher<'_, '_>, version: Version) {
        let update = [random([RANK, HIDDEN]), random([HIDDEN, RANK])];
        let input = random([TOKENS, HIDDEN]);
        super::forward(bencher, layer(version, Mode::Inference, input, update));
    }

    /// The adapter is trained and what lies below it, the weight is frozen.
    #[divan::bench(args = VERSIONS)]
    fn backward(bencher: Bencher<'_, '_>, version: Version) {
        let update = [trained([RANK, HIDDEN]), trained([HIDDEN, RANK])];
        let input = trained([TOKENS, HIDDEN]);
        super::backward(bencher, layer(version, Mode::Training, input, update));
    }
}

mod add_layer_norm {
    use super::*;
    use sentence_burn::kernel::{LayerNormParams, add_layer_norm, composed};

    fn layer<B: Backend>(
        version: Version,
        mode: Mode,
        [input, residual]: [Tensor<B, 2>; 2],
        [weight, bias]: [Tensor<B, 1>; 2],
    ) -> impl Fn() -> Tensor<B, 2> {
        move || {
            let run = match version {
                Fused => add_layer_norm,
                Composed => composed::add_layer_norm,
            };
            let params = LayerNormParams {
                weight: weight.clone(),
                bias: bias.clone(),
                epsilon: 1e-12,
            };
            run(input.clone(), Some(residual.clone()), params, 0.1, mode)
        }
    }

    #[divan::bench(args = VERSIONS)]
    fn forward(bencher: Bencher<'_, '_>, version: Version) {
        let tokens = [random([TOKENS, HIDDEN]), random([TOKENS, HIDDEN])];
        let params = [random([HIDDEN]), random([HIDDEN])];
        super::forward(bencher, layer(version, Mode::Inference, tokens, params));
    }

    #[divan::bench(args = VERSIONS)]
    fn backward(bencher: Bencher<'_, '_>, version: Version) {
        let tokens = [trained([TOKENS, HIDDEN]), trained([TOKENS, HIDDEN])];
        let params = [trained([HIDDEN]), trained([HIDDEN])];
        super::backward(bencher, layer(version, Mode::Training, tokens, params));
    }
}

mod attention {
    use super::*;
    use sentence_burn::kernel::{AttentionOptions, attention, composed};

    const OPTIONS: AttentionOptions = AttentionOptions {
        heads: HEADS,
        key_value_heads: HEADS,
        scale: 0.176_776_7,
        window: None,
        causal: false,
        dropout: 0.0,
        mode: Mode::Inference,
    };

    fn layer<B: Backend>(
        version: Version,
        width: usize,
        [query, key, value]: [Tensor<B, 2>; 3],
    ) -> impl Fn() -> Tensor<B, 2> {
        let packing = texts(width);
        move || {
            let run = match version {
                Fused => attention,
                Composed => composed::attention,
            };
            let [query, key, value] = [query.clone(), key.clone(), value.clone()];
            run(query, key, value, None, &packing, &OPTIONS)
        }
    }

    #[divan::bench(consts = [16, 128, 256], args = VERSIONS)]
    fn forward<const WIDTH: usize>(bencher: Bencher<'_, '_>, version: Version) {
        let tokens = [(); 3].map(|()| random([TOKENS, HIDDEN]));
        super::forward(bencher, layer(version, WIDTH, tokens));
    }

    #[divan::bench(consts = [16, 128, 256], args = VERSIONS)]
    fn backward<const WIDTH: usize>(bencher: Bencher<'_, '_>, version: Version) {
        let tokens = [(); 3].map(|()| trained([TOKENS, HIDDEN]));
        super::backward(bencher, layer(version, WIDTH, tokens));
    }
}

mod embed {
    use super::*;
    use sentence_burn::kernel::{composed, embed};

    /// Words, places and segments. Trained tables are always composed.
    #[divan::bench(args = VERSIONS)]
    fn forward(bencher: Bencher<'_, '_>, version: Version) {
        let tables = [VOCABULARY, 512, 2].map(|entries| {
            let last = Distribution::Uniform(0.0, entries as f64 - 1.0);
            let ids: Tensor<NdArray, 1, Int> = Tensor::random([TOKENS], last, &Default::default());
            (random([entries, HIDDEN]), ids)
        });
        let run = match version {
            Fused => embed,
            Composed => composed::embed,
        };
        super::forward(bencher, || run(tables.to_vec()));
    }
}

mod weighted_sum_pool {
    use super::*;
    use sentence_burn::kernel::{composed, weighted_sum_pool};

    /// The mean of texts of 16 tokens.
    fn layer<B: Backend>(version: Version, tokens: Tensor<B, 2>) -> impl Fn() -> Tensor<B, 2> {
        let packing = texts(16);
        move || {
            let run = match version {
                Fused => weighted_sum_pool,
                Composed => composed::weighted_sum_pool,
            };
            run(tokens.clone(), vec![1.0 / 16.0; TOKENS], &packing)
        }
    }

    #[divan::bench(args = VERSIONS)]
    fn forward(bencher: Bencher<'_, '_>, version: Version) {
        super::forward(bencher, layer(version, random([TOKENS, HIDDEN])));
    }

    #[divan::bench(args = VERSIONS)]
    fn backward(bencher: Bencher<'_, '_>, version: Version) {
        super::backward(bencher, layer(version, trained([TOKENS, HIDDEN])));
    }
}

mod normalize {
    use super::*;
    use sentence_burn::kernel::{composed, normalize};

    /// Under autodiff it is always composed.
    #[divan::bench(args = VERSIONS)]
    fn forward(bencher: Bencher<'_, '_>, version: Version) {
        let run = match version {
            Fused => normalize,
            Composed => composed::normalize,
        };
        let rows: Tensor<NdArray, 2> = random([TOKENS, HIDDEN]);
        super::forward(bencher, || run(rows.clone()));
    }
}
