//! How a fresh adapter is drawn: the schemes of `init_lora_weights`.
//!
//! Source: `LoraLayer` in `tuners/lora/layer.py` of PEFT.

use faer::Mat;

use super::decomposition::{SingularValues, orthonormal_basis, svd_lowrank, thin_svd};
use super::{LowRank, Matrix, TorchGenerator};
use crate::error::{AdapterError, Result};

/// The configuration's field.
const FIELD: &str = "init_lora_weights";
/// What starts the name of a randomised PiSSA.
const PISSA_NITER: &str = "pissa_niter_";

/// A and B as PyTorch initialises linear layers: A uniform in ±1/√d_input, B in ±1/√r.
/// The fresh adapter already changes the output.
///
/// PEFT makes these two layers before every scheme, so every scheme here that draws
/// numbers draws these first: one generator over a model's layers, in the model's order,
/// gives the adapter that `torch.manual_seed` and PEFT give.
pub fn random(
    [d_output, d_input]: [usize; 2],
    r: usize,
    generator: &mut TorchGenerator,
) -> LowRank {
    let a = linear([r, d_input], generator);
    LowRank::from_factors(a, linear([d_output, r], generator))
}

/// A uniform in ±1/√d_input, B zero.
pub fn default(dims: [usize; 2], r: usize, generator: &mut TorchGenerator) -> LowRank {
    random(dims, r, generator);
    let [d_output, d_input] = dims;
    let a = linear([r, d_input], generator);
    LowRank::from_factors(a, Matrix::zeros([d_output, r]))
}

/// A normal with deviation 1/r, B zero.
pub fn gaussian(dims: [usize; 2], r: usize, generator: &mut TorchGenerator) -> LowRank {
    random(dims, r, generator);
    let [d_output, d_input] = dims;
    let deviation = (r as f32).recip();
    let mut values = generator.normal(r * d_input);
    values.iter_mut().for_each(|value| *value *= deviation);
    let a = Matrix::filled([r, d_input], values);
    LowRank::from_factors(a, Matrix::zeros([d_output, r]))
}

/// A and B over the even and the odd rows of a random rotation: neither is zero, and
/// `B · A` is.
///
/// Source: <https://datta0.github.io/posts/rethink-lora-init/>
///
/// # Errors
/// [`AdapterError::InvalidField`] if r is odd.
pub fn orthogonal(dims: [usize; 2], r: usize, generator: &mut TorchGenerator) -> Result<LowRank> {
    if !r.is_multiple_of(2) {
        return Err(AdapterError::InvalidField {
            field: "r".to_owned(),
            expected: format!("an even rank with {FIELD} `orthogonal`"),
            found: r.to_string(),
        }
        .into());
    }
    random(dims, r, generator);
    let ([d_output, d_input], half) = (dims, r / 2);
    let rotation = orthonormal_basis(normal([r, r], generator).as_ref());
    let rows = |first| Mat::from_fn(half, r, |row, column| rotation[(2 * row + first, column)]);
    let a = (normal([d_input, half], generator) * rows(0)) * faer::Scale(0.1);
    let b = (normal([half, d_output], generator).transpose() * rows(1)) * faer::Scale(0.1);
    Ok(LowRank::from_factors(
        Matrix::from_f64(a.transpose()),
        Matrix::from_f64(b.as_ref()),
    ))
}

/// PiSSA: the weight's first r singular values and vectors, halved between A and B. The
/// update `scaling · B · A` is the caller's to subtract from the weight.
///
/// A row of A and the same column of B may both have either sign; the update has not.
///
/// Source: <https://arxiv.org/abs/2404.02948>
///
/// # Errors
/// [`AdapterError::InvalidField`] if r is above the weight's smaller side,
/// [`AdapterError::NoDecomposition`] if the weight is not finite.
pub fn pissa(weight: &Matrix, r: usize, scaling: f64) -> Result<LowRank> {
    require_rank(weight, r, "pissa")?;
    let svd = thin_svd(weight.to_f64().as_ref())?;
    Ok(principal(&svd, r, scaling))
}

/// PiSSA by `niter` rounds of randomised subspace iteration: faster, approximate, and
/// with another update for another seed.
///
/// # Errors
/// As [`pissa`].
pub fn pissa_niter(
    weight: &Matrix,
    r: usize,
    scaling: f64,
    niter: usize,
    generator: &mut TorchGenerator,
) -> Result<LowRank> {
    require_rank(weight, r, PISSA_NITER)?;
    random(weight.shape(), r, generator);
    let test = |shape| normal(shape, generator);
    let svd = svd_lowrank(weight.to_f64().as_ref(), r, niter, test)?;
    Ok(principal(&svd, r, scaling))
}

/// OLoRA: the first r columns of Q and rows of R of the weight `Q · R`. The update
/// `scaling · B · A` is the caller's to subtract from the weight.
///
/// The signs are LAPACK's. Another library's may differ in a row of A together with the
/// same column of B, which leaves the update as it is.
///
/// Source: <https://arxiv.org/abs/2406.01775>
///
/// # Errors
/// [`AdapterError::InvalidField`] if r is above the weight's smaller side,
/// [`AdapterError::NoDecomposition`] if the weight is not finite.
pub fn olora(weight: &Matrix, r: usize) -> Result<LowRank> {
    require_rank(weight, r, "olora")?;
    if !weight.values().iter().all(|value| value.is_finite()) {
        return Err(AdapterError::NoDecomposition {
            shape: weight.shape(),
            reason: "it holds NaN or infinity",
        }
        .into());
    }
    // The reflections of the first columns are those of the whole weight.
    let q = orthonormal_basis(weight.first_columns(r).to_f64().as_ref());
    let product = q.transpose() * weight.to_f64();
    let triangle = Mat::from_fn(r, product.ncols(), |row, column| {
        if column < row {
            0.0
        } else {
            product[(row, column)]
        }
    });
    Ok(LowRank::from_factors(
        Matrix::from_f64(triangle.as_ref()),
        Matrix::from_f64(q.as_ref()),
    ))
}

fn principal(svd: &SingularValues, r: usize, scaling: f64) -> LowRank {
    let root = |k: usize| (svd.s[k] / scaling).sqrt();
    let a = Mat::from_fn(r, svd.v.nrows(), |k, column| root(k) * svd.v[(column, k)]);
    let b = Mat::from_fn(svd.u.nrows(), r, |row, k| svd.u[(row, k)] * root(k));
    LowRank::from_factors(Matrix::from_f64(a.as_ref()), Matrix::from_f64(b.as_ref()))
}

fn require_rank(weight: &Matrix, r: usize, scheme: &str) -> Result<()> {
    let [d_output, d_input] = weight.shape();
    if r > d_output.min(d_input) {
        return Err(AdapterError::InvalidField {
            field: "r".to_owned(),
            expected: format!(
                "at most the smaller side of a [{d_output}, {d_input}] weight with {FIELD} \
                 `{scheme}`"
            ),
            found: r.to_string(),
        }
        .into());
    }
    Ok(())
}

/// A linear layer's weight as PyTorch draws it.
fn linear(shape: [usize; 2], generator: &mut TorchGenerator) -> Matrix {
    let bound = (shape[1] as f64).sqrt().recip();
    Matrix::filled(shape, generator.uniform(-bound, bound, shape[0] * shape[1]))
}

fn normal([rows, columns]: [usize; 2], generator: &mut TorchGenerator) -> Mat<f64> {
    let values = generator.normal(rows * columns);
    Mat::from_fn(rows, columns, |row, column| {
        f64::from(values[row * columns + column])
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::golden::{Golden, difference};
    use crate::error::Error;

    /// The fixture's rank, and its scale: alpha is 6.
    const R: usize = 4;
    const SCALING: f64 = 1.5;
    const SEED: u64 = 7;
    const LAYERS: [&str; 2] = ["first", "second"];
    const TOLERANCE: f32 = 1e-5;

    type Scheme = fn(&Matrix, &mut TorchGenerator) -> Result<LowRank>;

    /// The fixture's layers in their order, by one generator.
    fn both(golden: &Golden, seed: u64, scheme: Scheme) -> Vec<LowRank> {
        let mut generator = TorchGenerator::new(seed);
        let mut init = |layer| {
            let weight = golden.matrix(&format!("{layer}.weight"));
            scheme(&weight, &mut generator).unwrap()
        };
        LAYERS.map(&mut init).to_vec()
    }

    /// The largest difference of A and of B from PEFT's, over both layers.
    fn factor_difference(golden: &Golden, name: &str, adapters: &[LowRank]) -> f32 {
        let layers = LAYERS.iter().zip(adapters);
        let differences = layers.flat_map(|(layer, adapter)| {
            [("a", adapter.a()), ("b", adapter.b())].map(|(factor, ours)| {
                let theirs = golden.values(&format!("{name}.{layer}.{factor}"));
                difference(ours.values(), &theirs)
            })
        });
        differences.fold(0.0, f32::max)
    }

    /// The same after each row of A has PEFT's sign, and the column of B with it.
    fn signed_difference(golden: &Golden, name: &str, adapters: &[LowRank]) -> f32 {
        let aligned: Vec<LowRank> = LAYERS
            .iter()
            .zip(adapters)
            .map(|(layer, adapter)| {
                let theirs = golden.matrix(&format!("{name}.{layer}.a"));
                let rows = adapter.a().rows().zip(theirs.rows());
                let signs: Vec<f32> = rows
                    .map(|(a, b)| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>().signum())
                    .collect();
                let mut a = Vec::new();
                for (row, sign) in adapter.a().rows().zip(&signs) {
                    a.extend(row.iter().map(|value| value * sign));
                }
                let mut b = Vec::new();
                for row in adapter.b().rows() {
                    b.extend(row.iter().zip(&signs).map(|(value, sign)| value * sign));
                }
                LowRank::from_factors(
                    Matrix::filled(adapter.a().shape(), a),
                    Matrix::filled(adapter.b().shape(), b),
                )
            })
            .collect();
        factor_difference(golden, name, &aligned)
    }

    /// The largest difference of the base layers' weights from PEFT's.
    fn base_difference(golden: &Golden, name: &str, adapters: &[LowRank], scaling: f64) -> f32 {
        let layers = LAYERS.iter().zip(adapters);
        let differences = layers.map(|(layer, adapter)| {
            let weight = golden.values(&format!("{layer}.weight"));
            let delta = adapter.delta(scaling);
            let base: Vec<f32> = weight
                .iter()
                .zip(delta.values())
                .map(|(w, d)| w - d)
                .collect();
            difference(&base, &golden.values(&format!("{name}.{layer}.base")))
        });
        differences.fold(0.0, f32::max)
    }

    #[test]
    fn what_is_drawn_is_what_peft_draws_from_the_same_seed() {
        let golden = Golden::read("init");
        let schemes: [(&str, Scheme); 4] = [
            ("default", |w, g| Ok(default(w.shape(), R, g))),
            ("random", |w, g| Ok(random(w.shape(), R, g))),
            ("gaussian", |w, g| Ok(gaussian(w.shape(), R, g))),
            ("orthogonal", |w, g| orthogonal(w.shape(), R, g)),
        ];
        for (name, scheme) in schemes {
            let ours = both(&golden, SEED, scheme);
            assert!(factor_difference(&golden, name, &ours) < 1e-6, "{name}");
            let other = both(&golden, SEED + 1, scheme);
            assert!(factor_difference(&golden, name, &other) > 1e-2, "{name}");
        }
    }

    #[test]
    fn pissa_takes_what_peft_takes_from_the_weight() {
        let golden = Golden::read("init");
        let ours = both(&golden, 0, |w, _| pissa(w, R, SCALING));
        assert!(signed_difference(&golden, "pissa", &ours) < TOLERANCE);
        assert!(base_difference(&golden, "pissa", &ours, SCALING) < TOLERANCE);
        // The scale counts, in the factors and in the base.
        let unscaled = both(&golden, 0, |w, _| pissa(w, R, 1.0));
        assert!(signed_difference(&golden, "pissa", &unscaled) > 1e-2);
        assert!(base_difference(&golden, "pissa", &ours, 1.0) > 1e-2);
    }

    #[test]
    fn a_randomised_pissa_is_peft_s_from_the_same_seed() {
        let golden = Golden::read("init");
        let name = "pissa_niter_2";
        let ours = both(&golden, SEED, |w, g| pissa_niter(w, R, SCALING, 2, g));
        assert!(signed_difference(&golden, name, &ours) < TOLERANCE);
        assert!(base_difference(&golden, name, &ours, SCALING) < TOLERANCE);
        for (seed, scheme) in [
            (
                SEED + 1,
                (|w, g| pissa_niter(w, R, SCALING, 2, g)) as Scheme,
            ),
            (SEED, |w, g| pissa_niter(w, R, SCALING, 0, g)),
            (SEED, |w, _| pissa(w, R, SCALING)),
        ] {
            let other = both(&golden, seed, scheme);
            assert!(base_difference(&golden, name, &other, SCALING) > 1e-4);
        }
        assert_eq!(
            ours,
            both(&golden, SEED, |w, g| pissa_niter(w, R, SCALING, 2, g))
        );
    }

    #[test]
    fn olora_has_lapack_s_signs_and_does_not_divide_by_the_scale() {
        let golden = Golden::read("init");
        let ours = both(&golden, 0, |w, _| olora(w, R));
        assert!(factor_difference(&golden, "olora", &ours) < TOLERANCE);
        assert!(base_difference(&golden, "olora", &ours, SCALING) < TOLERANCE);
        assert!(base_difference(&golden, "olora", &ours, 1.0) > 1e-2);
    }

    #[test]
    fn pissa_leaves_the_weight_s_smaller_singular_values() {
        let weight = Golden::read("init").matrix("second.weight");
        let whole = thin_svd(weight.to_f64().as_ref()).unwrap().s;
        let update = pissa(&weight, 5, SCALING).unwrap().delta(SCALING);
        let rest = weight.to_f64() - update.to_f64();
        let rest = thin_svd(rest.as_ref()).unwrap().s;
        for (left, kept) in rest.iter().zip(&whole[5..]) {
            assert!((left - kept).abs() < 1e-6);
        }
        assert!(rest[whole.len() - 5..].iter().all(|s| s.abs() < 1e-6));
    }

    #[test]
    fn the_largest_rank_takes_the_whole_weight() {
        let golden = Golden::read("init");
        for layer in LAYERS {
            let weight = golden.matrix(&format!("{layer}.weight"));
            let r = 12;
            for (update, scaling) in [
                (pissa(&weight, r, SCALING).unwrap(), SCALING),
                (olora(&weight, r).unwrap(), 1.0),
            ] {
                assert!(difference(update.delta(scaling).values(), weight.values()) < 1e-6);
            }
            let mut generator = TorchGenerator::new(0);
            for error in [
                pissa(&weight, r + 1, SCALING).unwrap_err(),
                olora(&weight, r + 1).unwrap_err(),
                pissa_niter(&weight, r + 1, SCALING, 2, &mut generator).unwrap_err(),
            ] {
                let error = error.to_string();
                assert!(
                    error.contains("`r` is 13") && error.contains("smaller side"),
                    "{error}"
                );
            }
        }
    }

    #[test]
    fn an_orthogonal_update_is_zero_of_two_that_are_not() {
        let adapter = orthogonal([9, 7], 6, &mut TorchGenerator::new(3)).unwrap();
        let largest = |matrix: &Matrix| {
            let values = matrix.values().iter();
            values.fold(0.0_f32, |largest, value| largest.max(value.abs()))
        };
        assert!(largest(adapter.a()) > 0.05 && largest(adapter.b()) > 0.05);
        assert!(largest(&adapter.delta(1.0)) < 1e-7);
        let error = orthogonal([9, 7], 5, &mut TorchGenerator::new(3)).unwrap_err();
        assert!(error.to_string().contains("even rank"), "{error}");
    }

    #[test]
    fn a_weight_that_is_not_finite_is_named() {
        let weight = Matrix::new([2, 2], vec![1.0, f32::NAN, 0.0, 1.0]).unwrap();
        for error in [
            pissa(&weight, 1, 1.0).unwrap_err(),
            olora(&weight, 1).unwrap_err(),
        ] {
            let named = matches!(error, Error::Adapter(AdapterError::NoDecomposition { .. }));
            assert!(named, "{error}");
        }
    }
}
