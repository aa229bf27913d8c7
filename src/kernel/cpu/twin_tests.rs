//! Every kernel against its twin in Burn's own operations, values and gradients, over
//! random shapes; and against finite differences where dropout makes the two differ.

use burn::backend::{Autodiff, NdArray};
use burn::tensor::{Int, Tensor, TensorData};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::attention::Attention;
use super::backward;
use super::layer_norm::Norm;
use super::linear::{Linear, LowRank};
use super::random::Dropout;
use super::tensor::{Route, untracked};
use crate::error::DeviceError;
use crate::kernel::{
    Activation, AttentionOptions, LayerNormParams, LinearParams, LowRankParams, Mode, PackedWeight,
    Packing, RmsNormParams, RotaryAngles, TopK, composed,
};
use crate::kernel::{
    add_layer_norm, attention, embed, gated, linear, max_pool, mean_pool, normalize, offer_cosines,
    offer_products, rms_norm, rotary, weighted_sum_pool,
};

type B = Autodiff<NdArray>;
type T<const D: usize> = Tensor<B, D>;

const CASES: u64 = 24;

const ACTIVATIONS: [Activation; 7] = [
    Activation::Identity,
    Activation::Gelu,
    Activation::GeluTanh,
    Activation::Relu,
    Activation::Silu,
    Activation::Tanh,
    Activation::Sigmoid,
];

fn random<const D: usize>(rng: &mut StdRng, shape: [usize; D]) -> T<D> {
    let count = shape.iter().product();
    let values: Vec<f32> = (0..count).map(|_| rng.random_range(-1.0..1.0)).collect();
    Tensor::from_data(TensorData::new(values, shape), &Default::default())
}

fn lengths(rng: &mut StdRng) -> Vec<usize> {
    let texts = rng.random_range(1..5);
    (0..texts).map(|_| rng.random_range(1..120)).collect()
}

fn values<const D: usize>(tensor: Tensor<NdArray, D>) -> Vec<f32> {
    tensor.into_data().iter().collect()
}

/// The output of `run`, and the gradients of its inputs through a random projection of it.
fn run<const N: usize>(
    inputs: &[T<2>; N],
    seed: u64,
    run: impl Fn([T<2>; N]) -> T<2>,
) -> Vec<Vec<f32>> {
    let inputs = inputs.clone().map(|input| input.detach().require_grad());
    let output = run(inputs.clone());
    let projection = random(&mut StdRng::seed_from_u64(seed), output.dims());
    let gradients = (output.clone() * projection).sum().backward();
    let mut found = vec![values(output.inner())];
    found.extend(
        inputs
            .iter()
            .map(|i| i.grad(&gradients).map(values).unwrap_or_default()),
    );
    found
}

fn assert_close(kernel: &[Vec<f32>], twin: &[Vec<f32>], what: &str) {
    for (place, (kernel, twin)) in kernel.iter().zip(twin).enumerate() {
        assert_eq!(kernel.len(), twin.len(), "{what}: {place}");
        let largest = twin.iter().fold(1.0f32, |most, v| most.max(v.abs()));
        let differences = kernel.iter().zip(twin).map(|(a, b)| (a - b).abs());
        let difference = differences.fold(0.0, f32::max);
        assert!(
            difference <= 1e-5 * largest,
            "{what}: {place} differs by {difference}"
        );
    }
}

#[test]
fn linear_layers_with_any_number_of_updates_equal_their_twins() {
    for case in 0..CASES {
        let rng = &mut StdRng::seed_from_u64(case);
        let [rows, d_input, d_output, r] = [100, 90, 140, 9].map(|most| rng.random_range(1..most));
        let updates = case as usize % 3;
        let activation = ACTIVATIONS[case as usize % ACTIVATIONS.len()];
        let bias = (case % 4 != 0).then(|| random::<1>(rng, [d_output]));
        let inputs: [T<2>; 6] = [
            random(rng, [rows, d_input]),
            random(rng, [d_output, d_input]),
            random(rng, [r, d_input]),
            random(rng, [d_output, r]),
            random(rng, [r, d_input]),
            random(rng, [d_output, r]),
        ];
        let forward = |[x, weight, a0, b0, a1, b1]: [T<2>; 6], is_kernel: bool| {
            let packed: [PackedWeight; 5] = Default::default();
            let [of_weight, rest @ ..] = &packed;
            let of_updates: [[PackedWeight; 2]; 2] = [
                [rest[0].clone(), rest[1].clone()],
                [rest[2].clone(), rest[3].clone()],
            ];
            let params = LinearParams {
                weight,
                bias: bias.clone(),
                packed: of_weight,
            };
            let pairs = [(a0, b0, 1.5), (a1, b1, 0.25)].into_iter().zip(&of_updates);
            let updates = pairs
                .take(updates)
                .map(|((a, b, scaling), packed)| LowRankParams {
                    a,
                    b,
                    packed,
                    scaling,
                    dropout: 0.0,
                    rows: None,
                });
            let run = if is_kernel { linear } else { composed::linear };
            run(x, params, updates.collect(), activation, Mode::Inference)
        };
        let kernel = run(&inputs, case, |inputs| forward(inputs, true));
        let twin = run(&inputs, case, |inputs| forward(inputs, false));
        let what = format!("case {case}: {rows}x{d_input}x{d_output}, {activation:?}");
        assert_close(&kernel, &twin, &what);
        // An update that does not take part has no gradient; the others have one.
        assert_eq!(kernel[3].is_empty(), updates == 0, "{what}");
    }
}

#[test]
fn updates_of_some_rows_equal_their_twins() {
    for case in 0..CASES {
        let rng = &mut StdRng::seed_from_u64(1000 + case);
        let [rows, d_input, d_output, r] = [150, 70, 100, 9].map(|most| rng.random_range(3..most));
        let (first, second) = (rng.random_range(0..rows), rng.random_range(0..rows));
        // Next to each other, over each other, empty in the kernel or all.
        let ranges = [
            first.min(second)..first.max(second),
            first.max(second)..rows,
            0..rng.random_range(1..rows + 1),
        ];
        let inputs: [T<2>; 5] = [
            random(rng, [rows, d_input]),
            random(rng, [d_output, d_input]),
            random(rng, [r, d_input]),
            random(rng, [d_output, r]),
            random(rng, [r, d_input]),
        ];
        let activation = ACTIVATIONS[case as usize % ACTIVATIONS.len()];
        let forward = |[x, weight, a0, b, a1]: [T<2>; 5], is_kernel: bool| {
            let packed: [[PackedWeight; 2]; 3] = Default::default();
            let of_weight = PackedWeight::default();
            let params = LinearParams {
                weight,
                bias: None,
                packed: &of_weight,
            };
            let pairs = [&a0, &a1, &a0].into_iter().zip(&packed).zip(&ranges);
            let updates = pairs.map(|((a, packed), rows)| LowRankParams {
                a: a.clone(),
                b: b.clone(),
                packed,
                scaling: 1.5,
                dropout: 0.0,
                rows: Some(rows.clone()),
            });
            match is_kernel {
                true => linear(x, params, updates.collect(), activation, Mode::Inference),
                false => {
                    let updates = updates.filter(|u| !u.rows.as_ref().unwrap().is_empty());
                    composed::linear(x, params, updates.collect(), activation, Mode::Inference)
                }
            }
        };
        let what = format!("case {case}: {rows}x{d_input}x{d_output}, {ranges:?}, {activation:?}");
        let kernel = run(&inputs, case, |inputs| forward(inputs, true));
        let twin = run(&inputs, case, |inputs| forward(inputs, false));
        assert_close(&kernel, &twin, &what);
        // The fused one, without gradients.
        let plain = inputs.clone().map(|input| input.inner());
        let [x, weight, a0, b, a1] = plain;
        let packed: [[PackedWeight; 2]; 3] = Default::default();
        let of_weight = PackedWeight::default();
        let params = LinearParams {
            weight,
            bias: None,
            packed: &of_weight,
        };
        let pairs = [&a0, &a1, &a0].into_iter().zip(&packed).zip(&ranges);
        let updates = pairs.map(|((a, packed), rows)| LowRankParams {
            a: a.clone(),
            b: b.clone(),
            packed,
            scaling: 1.5,
            dropout: 0.0,
            rows: Some(rows.clone()),
        });
        let fused = linear(x, params, updates.collect(), activation, Mode::Inference);
        assert_close(&[values(fused)], &twin[..1], &what);
    }
}

#[test]
fn a_bias_gets_its_gradient_and_a_frozen_weight_none() {
    let rng = &mut StdRng::seed_from_u64(1);
    let (x, weight): (T<2>, T<2>) = (random(rng, [7, 5]), random(rng, [3, 5]));
    let bias = random::<1>(rng, [3]).require_grad();
    let packed = PackedWeight::default();
    let params = LinearParams {
        weight: weight.clone(),
        bias: Some(bias.clone()),
        packed: &packed,
    };
    let output = linear(
        x.clone(),
        params,
        Vec::new(),
        Activation::Identity,
        Mode::Inference,
    );
    let gradients = output.sum().backward();
    assert_eq!(bias.grad(&gradients).map(values), Some(vec![7.0; 3]));
    assert!(weight.grad(&gradients).is_none() && x.grad(&gradients).is_none());
}

#[test]
fn attention_equals_its_twin_whatever_its_options() {
    for case in 0..CASES {
        let rng = &mut StdRng::seed_from_u64(case);
        let lengths = lengths(rng);
        let tokens = lengths.iter().sum();
        let packing = Packing::<B>::new(lengths.clone().into(), &Default::default());
        let (groups, each) = (rng.random_range(1..4), rng.random_range(1..3));
        let (heads, head_dim) = (groups * each, rng.random_range(1..40));
        let options = AttentionOptions {
            heads,
            key_value_heads: groups,
            scale: (head_dim as f64).sqrt().recip(),
            window: [None, Some(0), Some(3), Some(50)][case as usize % 4],
            causal: case % 3 == 1,
            dropout: 0.0,
            mode: Mode::Inference,
        };
        let width = packing.width();
        let bias = (case % 5 == 2).then(|| random::<3>(rng, [heads, width, width]));
        let inputs = [
            random(rng, [tokens, heads * head_dim]),
            random(rng, [tokens, groups * head_dim]),
            random(rng, [tokens, groups * head_dim]),
        ];
        let kernel = run(&inputs, case, |[q, k, v]| {
            attention(q, k, v, bias.clone(), &packing, &options)
        });
        let twin = run(&inputs, case, |[q, k, v]| {
            composed::attention(q, k, v, bias.clone(), &packing, &options)
        });
        assert_close(
            &kernel,
            &twin,
            &format!("case {case}: {lengths:?} {options:?}"),
        );
    }
}

#[test]
fn a_bias_of_attention_that_is_trained_gets_its_gradient() {
    let rng = &mut StdRng::seed_from_u64(3);
    let packing = Packing::<B>::new([4, 2].into(), &Default::default());
    let options = AttentionOptions {
        heads: 2,
        key_value_heads: 2,
        scale: 1.0,
        window: None,
        causal: false,
        dropout: 0.0,
        mode: Mode::Inference,
    };
    let bias = random::<3>(rng, [2, 4, 4]).require_grad();
    let [q, k, v] = [0, 1, 2].map(|_| random::<2>(rng, [6, 6]));
    let output = attention(q, k, v, Some(bias.clone()), &packing, &options);
    let gradients = output.powi_scalar(2).sum().backward();
    let gradient = bias.grad(&gradients).map(values).unwrap_or_default();
    assert!(gradient.iter().any(|v| v.abs() > 1e-4));
}

#[test]
fn norms_equal_their_twins() {
    for case in 0..CASES {
        let rng = &mut StdRng::seed_from_u64(case);
        let [rows, hidden] = [300, 400].map(|most| rng.random_range(1..most));
        let hidden = hidden + 1;
        let inputs = [
            random(rng, [rows, hidden]),
            random(rng, [rows, hidden]),
            random(rng, [1, hidden]),
            random(rng, [1, hidden]),
        ];
        let forward = |[x, residual, weight, bias]: [T<2>; 4], is_kernel: bool| {
            let params = LayerNormParams {
                weight: weight.reshape([hidden]),
                bias: bias.reshape([hidden]),
                epsilon: 1e-5,
            };
            let residual = (case % 3 != 0).then_some(residual);
            let run = if is_kernel {
                add_layer_norm
            } else {
                composed::add_layer_norm
            };
            run(x, residual, params, 0.0, Mode::Inference)
        };
        let kernel = run(&inputs, case, |inputs| forward(inputs, true));
        let twin = run(&inputs, case, |inputs| forward(inputs, false));
        assert_close(&kernel, &twin, &format!("case {case}: {rows}x{hidden}"));
    }
}

#[test]
fn embeddings_and_pooling_equal_their_twins() {
    for case in 0..CASES {
        let rng = &mut StdRng::seed_from_u64(case);
        let lengths = lengths(rng);
        let tokens = lengths.iter().sum();
        let packing = Packing::<B>::new(lengths.clone().into(), &Default::default());
        let hidden = rng.random_range(1..70);
        let tables: Vec<(T<2>, Tensor<B, 1, Int>)> = (0..rng.random_range(1..4))
            .map(|_| {
                let entries = rng.random_range(1..20);
                let ids: Vec<i32> = (0..tokens)
                    .map(|_| rng.random_range(0..entries as i32))
                    .collect();
                let ids = Tensor::from_data(TensorData::new(ids, [tokens]), &Default::default());
                (random(rng, [entries, hidden]), ids)
            })
            .collect();
        let [kernel, twin] = [embed(tables.clone()), composed::embed(tables)];
        assert_close(
            &[values(kernel.inner())],
            &[values(twin.inner())],
            &format!("embeddings, case {case}"),
        );

        let input = [random(rng, [tokens, hidden])];
        let weights: Vec<f32> = (0..tokens).map(|_| rng.random_range(0.0..1.0)).collect();
        let kernel = run(&input, case, |[x]| {
            weighted_sum_pool(x, weights.clone(), &packing)
        });
        let twin = run(&input, case, |[x]| {
            composed::weighted_sum_pool(x, weights.clone(), &packing)
        });
        assert_close(
            &kernel,
            &twin,
            &format!("pooling, case {case}: {lengths:?}"),
        );

        let kernel = run(&input, case, |[x]| mean_pool(x, &packing));
        let twin = run(&input, case, |[x]| composed::mean_pool(x, &packing));
        assert_close(&kernel, &twin, &format!("means, case {case}: {lengths:?}"));

        let [plain] = input.map(|input| input.inner());
        let packing = Packing::<NdArray>::new(lengths.into(), &Default::default());
        let first = case as usize % 3;
        let [kernel, twin] = [
            max_pool(plain.clone(), first, &packing),
            composed::max_pool(plain.clone(), first, &packing),
        ];
        // Where no token counts, the composed version is free to say any low number.
        let lower = |values: Vec<f32>| values.iter().map(|v| v.max(-10.0)).collect();
        assert_close(
            &[lower(values(kernel))],
            &[lower(values(twin))],
            &format!("maximum, case {case}"),
        );
        let [kernel, twin] = [normalize(plain.clone()), composed::normalize(plain)];
        assert_close(
            &[values(kernel)],
            &[values(twin)],
            &format!("lengths, case {case}"),
        );
    }
}

#[test]
fn the_best_scores_are_those_of_all_scores() {
    for case in 0..CASES {
        let rng = &mut StdRng::seed_from_u64(5000 + case);
        let dim = rng.random_range(1..80);
        let (count, documents) = (rng.random_range(1..70), rng.random_range(1..900));
        let (queries, rows) = (random(rng, [count, dim]), random(rng, [documents, dim]));
        let items: Vec<u32> = (0..documents as u32).collect();
        let k = rng.random_range(1..20);
        type Offer = fn(T<2>, T<2>, &[u32], usize, &mut [TopK]) -> Result<(), DeviceError>;
        let run = |offer: Offer| {
            let mut best = vec![TopK::new(k); count];
            offer(queries.clone(), rows.clone(), &items, 7, &mut best).unwrap();
            let best = best.into_iter().flat_map(TopK::into_sorted);
            vec![best.map(|scored| scored.score).collect::<Vec<f32>>()]
        };
        let products = [run(offer_products), run(composed::offer_products)];
        let cosines = [run(offer_cosines), run(composed::offer_cosines)];
        assert_close(
            &products[0],
            &products[1],
            &format!("products, case {case}"),
        );
        assert_close(&cosines[0], &cosines[1], &format!("cosines, case {case}"));
        assert_eq!(cosines[0][0].len(), count * k.min(documents));
    }
}

#[test]
fn what_is_without_gradients_equals_its_twin() {
    for case in 0..CASES {
        let rng = &mut StdRng::seed_from_u64(case);
        let lengths = lengths(rng);
        let tokens = lengths.iter().sum();
        let packing = Packing::<NdArray>::new(lengths.into(), &Default::default());
        let (heads, half) = (rng.random_range(1..9), rng.random_range(1..40));
        let hidden = heads * 2 * half;
        let input = random(rng, [tokens, hidden]).inner();
        let weight = random::<1>(rng, [hidden]).inner();
        let params = || RmsNormParams {
            weight: weight.clone(),
            offset: (case % 2) as f64,
            epsilon: 1e-5,
        };
        let angles = RotaryAngles::new(&vec![0.3; half], &packing);
        let activation = ACTIVATIONS[case as usize % ACTIVATIONS.len()];
        for (what, kernel, twin) in [
            (
                "norm",
                rms_norm(input.clone(), params()),
                composed::rms_norm(input.clone(), params()),
            ),
            (
                "rotary embedding",
                rotary(input.clone(), &angles),
                composed::rotary(input.clone(), &angles),
            ),
            (
                "gate",
                gated(input.clone(), activation),
                composed::gated(input.clone(), activation),
            ),
        ] {
            let what = format!("{what}, case {case}: {tokens}x{hidden}, {activation:?}");
            assert_close(&[values(kernel)], &[values(twin)], &what);
        }
    }
}

/// The derivative of `run` along a direction against its gradient.
fn assert_slope<const N: usize>(
    inputs: &[T<2>; N],
    what: &str,
    forward: impl Fn([T<2>; N]) -> T<2>,
) {
    let found = run(inputs, 5, &forward);
    let rng = &mut StdRng::seed_from_u64(6);
    for input in 0..N {
        let direction = random(rng, inputs[input].dims());
        let h = 1e-2;
        let at = |h: f32| {
            let mut moved = inputs.clone();
            moved[input] = moved[input].clone() + direction.clone() * h;
            let output = forward(moved);
            let projection = random(&mut StdRng::seed_from_u64(5), output.dims());
            f64::from((output * projection).sum().into_scalar())
        };
        let expected = (at(h) - at(-h)) / f64::from(2.0 * h);
        let direction = values(direction.inner());
        let terms = found[input + 1].iter().zip(&direction);
        let slope: f64 = terms.map(|(g, d)| f64::from(g * d)).sum();
        let size: f64 = found[input + 1].iter().map(|g| f64::from(g * g)).sum();
        let tolerance = 3e-3 * size.sqrt() + 1e-3;
        assert!(
            (slope - expected).abs() < tolerance,
            "{what}, input {input}: {slope} for {expected}"
        );
        assert!(size > 1e-6, "{what}, input {input} has no gradient");
    }
}

#[test]
fn gradients_go_through_the_dropout_masks_of_the_forward_pass() {
    let rng = &mut StdRng::seed_from_u64(9);
    let dropout = Some(Dropout::of(0.3, [5, 6]));
    let route = Route::Tracked;

    let inputs = [
        random(rng, [40, 20]),
        random(rng, [24, 20]),
        random(rng, [4, 20]),
        random(rng, [24, 4]),
    ];
    let packed: [PackedWeight; 3] = Default::default();
    let of_update = [packed[1].clone(), packed[2].clone()];
    assert_slope(&inputs, "linear", |[x, weight, a, b]| {
        let layer = Linear {
            weight: untracked(weight.clone(), route),
            packed: packed[0].clone(),
            bias: None,
            updates: vec![LowRank {
                a: untracked(a.clone(), route),
                b: untracked(b.clone(), route),
                packed: of_update.clone(),
                scaling: 2.0,
                dropout,
                rows: None,
            }],
            activation: Activation::Gelu,
        };
        let params = LinearParams {
            weight,
            bias: None,
            packed: &packed[0],
        };
        let update = LowRankParams {
            a,
            b,
            packed: &of_update,
            scaling: 2.0,
            dropout: 0.3,
            rows: None,
        };
        backward::linear(x, params, vec![update], layer)
    });

    let inputs = [0, 1, 2].map(|_| random(rng, [23, 12]));
    assert_slope(&inputs, "attention", |inputs| {
        let layer = Attention {
            lengths: [9, 1, 13].into(),
            heads: 2,
            key_value_heads: 2,
            scale: 1.0,
            window: None,
            causal: false,
            bias: None,
            dropout,
        };
        backward::attention(inputs, layer)
    });

    let inputs = [random(rng, [10, 30]), random(rng, [10, 30])];
    let (weight, bias) = (random::<1>(rng, [30]), random::<1>(rng, [30]));
    assert_slope(&inputs, "norm", |[x, residual]| {
        let norm = Norm {
            weight: untracked(weight.clone(), route),
            bias: untracked(bias.clone(), route),
            epsilon: 1e-5,
        };
        let params = LayerNormParams {
            weight: weight.clone(),
            bias: bias.clone(),
            epsilon: 1e-5,
        };
        backward::add_layer_norm(x, Some(residual), params, norm, dropout)
    });

    let inputs = [random(rng, [10, 30])];
    assert_slope(&inputs, "dropout", |[x]| {
        backward::dropout(x, Dropout::of(0.3, [5, 6]))
    });
}
