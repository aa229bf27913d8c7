use faer::Mat;

use super::clamping::clamp_to_quantile;
use super::merging::{MajoritySignMethod, disjoint_mean, weighted_sum};
use super::method::{Combination, Pruning, Space};
use super::pruning::{keep_at_random, keep_largest};
use crate::adapter::decomposition::{SingularValues, svd_of_product, thin_svd};
use crate::adapter::{LowRank, Matrix, TorchGenerator};
use crate::error::{AdapterError, Result};

/// What the methods of [`Combination`] may be told.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct CombinationOptions {
    /// The part of the values that pruning keeps: 1 and above all. Needed by the methods
    /// that prune.
    pub density: Option<f64>,
    /// How `ties` and `dare_ties` elect signs.
    pub majority_sign_method: MajoritySignMethod,
    /// The new rank of the methods that decompose; `None` means the largest rank.
    pub svd_rank: Option<usize>,
    /// The quantile of the decomposition's values beyond which they are clamped. It
    /// counts signed values, so it depends on the signs that the decomposition happens to
    /// choose.
    pub svd_clamp: Option<f64>,
    /// The seed of what is pruned at random.
    pub seed: u64,
}

/// One adapter's part in one layer.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerFactors {
    /// A and B.
    pub factors: LowRank,
    /// The scale of their product.
    pub scaling: f64,
}

/// A checked call: combines the layers of weighted adapters, in the model's order.
#[derive(Debug, Clone)]
pub struct WeightedCombination {
    combination: Combination,
    weights: Vec<f64>,
    r: usize,
    options: CombinationOptions,
    generator: TorchGenerator,
}

impl WeightedCombination {
    /// Combines adapters by these weights, which may be negative. `ranks` are the
    /// adapters' largest ranks over all layers. One adapter alone is always combined by
    /// [`Combination::Linear`].
    ///
    /// # Errors
    /// [`AdapterError::InvalidOption`] naming the option,
    /// [`AdapterError::RankMismatch`] where the method needs adapters of one rank.
    pub fn new(
        combination: Combination,
        weights: &[f64],
        ranks: &[usize],
        options: CombinationOptions,
    ) -> Result<Self> {
        let combination = match ranks {
            [_] => Combination::Linear,
            _ => combination,
        };
        check_weights(weights, ranks)?;
        let method = combination.method();
        if let Some(pruning) = method.pruning {
            check_density(combination, pruning, options.density)?;
        }
        let largest = ranks.iter().copied().max().unwrap_or_default();
        let r = match method.space {
            Space::Factors if ranks.iter().any(|&rank| rank != largest) => {
                return Err(AdapterError::RankMismatch {
                    combination: combination.name(),
                    layer: None,
                    ranks: ranks.to_vec(),
                }
                .into());
            }
            Space::Factors => largest,
            Space::Concatenation => ranks.iter().sum(),
            Space::Updates => {
                check_decomposition(&options)?;
                options.svd_rank.unwrap_or(largest)
            }
        };
        Ok(Self {
            combination,
            weights: weights.to_vec(),
            r,
            generator: TorchGenerator::new(options.seed),
            options,
        })
    }

    /// The new adapter's rank, and its alpha.
    pub fn r(&self) -> usize {
        self.r
    }

    /// The new adapter's part in one layer, of rank [`r`](Self::r). `adapters` are in the
    /// weights' order; `None` has no part in the layer.
    ///
    /// # Errors
    /// Naming the layer, [`AdapterError::NoFactors`] if no adapter has a part in it,
    /// [`AdapterError::ShapeMismatch`] if the parts are not of one shape,
    /// [`AdapterError::RankMismatch`] if their ranks do not suit the method;
    /// [`AdapterError::NoDecomposition`] if they are not finite.
    pub fn combine(&mut self, layer: &str, adapters: &[Option<LayerFactors>]) -> Result<LowRank> {
        let weighted = adapters.iter().zip(&self.weights);
        let parts: Vec<(&LayerFactors, f64)> = weighted
            .filter_map(|(part, &weight)| Some((part.as_ref()?, weight)))
            .collect();
        self.check_layer(layer, adapters.len(), &parts)?;
        let factors = match self.combination.method().space {
            Space::Concatenation => concatenate(&parts),
            Space::Factors => self.combine_factors(&parts),
            Space::Updates => self.combine_updates(&parts)?,
        };
        let [d_output, d_input] = factors.dims();
        Ok(LowRank::from_factors(
            factors.a().padded([self.r, d_input]),
            factors.b().padded([d_output, self.r]),
        ))
    }

    fn check_layer(
        &self,
        layer: &str,
        adapters: usize,
        parts: &[(&LayerFactors, f64)],
    ) -> Result<()> {
        let mismatch = |what: &str, expected: String, found: String| {
            Err(AdapterError::ShapeMismatch {
                what: format!("{what} in layer `{layer}`"),
                expected,
                found,
            }
            .into())
        };
        if adapters != self.weights.len() {
            let expected = format!("{}, one a weight", self.weights.len());
            return mismatch("the number of adapters", expected, adapters.to_string());
        }
        let Some((first, _)) = parts.first() else {
            return Err(AdapterError::NoFactors {
                layer: layer.to_owned(),
            }
            .into());
        };
        let dims = first.factors.dims();
        let other = parts.iter().map(|(part, _)| part.factors.dims());
        if let Some(other) = other.into_iter().find(|&other| other != dims) {
            return mismatch("an update", format!("{dims:?}"), format!("{other:?}"));
        }
        let ranks: Vec<usize> = parts.iter().map(|(part, _)| part.factors.r()).collect();
        let suits = match self.combination.method().space {
            Space::Factors => ranks.iter().all(|&r| r == ranks[0] && r <= self.r),
            Space::Concatenation => ranks.iter().sum::<usize>() <= self.r,
            Space::Updates => true,
        };
        if !suits {
            return Err(AdapterError::RankMismatch {
                combination: self.combination.name(),
                layer: Some(layer.to_owned()),
                ranks,
            }
            .into());
        }
        Ok(())
    }

    /// On A and on B alone: the root of each weight goes to both, its sign to A.
    fn combine_factors(&mut self, parts: &[(&LayerFactors, f64)]) -> LowRank {
        let scales: Vec<f64> = parts
            .iter()
            .map(|(part, weight)| weight * part.scaling)
            .collect();
        let roots = scales.iter().map(|scale| scale.abs().sqrt());
        let root_b: Vec<f32> = roots.clone().map(|root| root as f32).collect();
        let root_a: Vec<f32> = roots
            .zip(&scales)
            .map(|(root, &scale)| {
                if scale >= 0.0 {
                    root as f32
                } else {
                    -root as f32
                }
            })
            .collect();
        let factors = parts.iter().map(|(part, _)| &part.factors);
        let values = |matrix: &Matrix| matrix.values().to_vec();
        let a = factors.clone().map(|factors| values(factors.a())).collect();
        let a = self.merge(a, &root_a);
        let b = factors.clone().map(|factors| values(factors.b())).collect();
        let b = self.merge(b, &root_b);
        let first = &parts[0].0.factors;
        LowRank::from_factors(
            Matrix::filled(first.a().shape(), a),
            Matrix::filled(first.b().shape(), b),
        )
    }

    /// On the updates, decomposed.
    fn combine_updates(&mut self, parts: &[(&LayerFactors, f64)]) -> Result<LowRank> {
        let dims = parts[0].0.factors.dims();
        let total_r: usize = parts.iter().map(|(part, _)| part.factors.r()).sum();
        let svd = if self.combination == Combination::Svd && total_r < dims[0].min(dims[1]) {
            // The sum has at most so many singular values: there is no need to form it.
            let factors = concatenate(parts);
            svd_of_product(&factors.b().to_f64(), &factors.a().to_f64())?
        } else {
            let updates = parts
                .iter()
                .map(|(part, _)| part.factors.delta(part.scaling).values().to_vec())
                .collect();
            let weights: Vec<f32> = parts.iter().map(|&(_, weight)| weight as f32).collect();
            let merged = Matrix::filled(dims, self.merge(updates, &weights));
            thin_svd(merged.to_f64().as_ref())?
        };
        let factors = truncate(&svd, self.r);
        Ok(match self.options.svd_clamp {
            Some(quantile) => clamp_to_quantile(&factors, quantile),
            None => factors,
        })
    }

    fn merge(&mut self, mut tensors: Vec<Vec<f32>>, weights: &[f32]) -> Vec<f32> {
        let method = self.combination.method();
        let density = self.options.density.unwrap_or(1.0);
        if density < 1.0 {
            for tensor in &mut tensors {
                match method.pruning {
                    Some(Pruning::Smallest) => keep_largest(tensor, density),
                    Some(Pruning::Random) => keep_at_random(tensor, density, &mut self.generator),
                    None => {}
                }
            }
        }
        if method.elects {
            disjoint_mean(&tensors, weights, self.options.majority_sign_method)
        } else {
            weighted_sum(&tensors, weights)
        }
    }
}

fn check_weights(weights: &[f64], ranks: &[usize]) -> Result<()> {
    let finite = weights.iter().all(|weight| weight.is_finite());
    if weights.is_empty() || weights.len() != ranks.len() || !finite {
        return Err(AdapterError::InvalidOption {
            option: "weights",
            expected: format!(
                "a finite number for each of at least one adapter, {}",
                ranks.len()
            ),
            found: format!("{weights:?}"),
        }
        .into());
    }
    Ok(())
}

fn check_density(combination: Combination, pruning: Pruning, density: Option<f64>) -> Result<()> {
    let (valid, range) = match (pruning, density) {
        // What is kept at random is divided by the density.
        (Pruning::Random, density) => (density.is_some_and(|d| d > 0.0), "above 0"),
        (Pruning::Smallest, density) => (density.is_some_and(|d| d >= 0.0), "of at least 0"),
    };
    if valid {
        return Ok(());
    }
    Err(AdapterError::InvalidOption {
        option: "density",
        expected: format!("a number {range} with `{combination}`"),
        found: density.map_or("not given".to_owned(), |density| density.to_string()),
    }
    .into())
}

fn check_decomposition(options: &CombinationOptions) -> Result<()> {
    let invalid = |option, expected: &str, found: String| {
        Err(AdapterError::InvalidOption {
            option,
            expected: expected.to_owned(),
            found,
        }
        .into())
    };
    if options.svd_rank == Some(0) {
        return invalid("svd_rank", "a rank of at least 1", "0".to_owned());
    }
    match options.svd_clamp {
        Some(clamp) if !(0.0..=1.0).contains(&clamp) => {
            invalid("svd_clamp", "a quantile in [0, 1]", clamp.to_string())
        }
        _ => Ok(()),
    }
}

/// The As, each times its weight and its scale, and the Bs side by side.
fn concatenate(parts: &[(&LayerFactors, f64)]) -> LowRank {
    let [d_output, d_input] = parts[0].0.factors.dims();
    let r = parts.iter().map(|(part, _)| part.factors.r()).sum();
    let a = parts.iter().flat_map(|(part, weight)| {
        let scale = (weight * part.scaling) as f32;
        part.factors
            .a()
            .values()
            .iter()
            .map(move |value| value * scale)
    });
    let a = a.collect();
    let mut b = Vec::with_capacity(d_output * r);
    let mut rows: Vec<_> = parts
        .iter()
        .map(|(part, _)| part.factors.b().rows())
        .collect();
    for _ in 0..d_output {
        for rows in &mut rows {
            b.extend_from_slice(rows.next().unwrap_or_default());
        }
    }
    LowRank::from_factors(
        Matrix::filled([r, d_input], a),
        Matrix::filled([d_output, r], b),
    )
}

/// The best update of rank r: B is U · diag(S), A is Vᵀ.
fn truncate(svd: &SingularValues, r: usize) -> LowRank {
    let r = r.min(svd.s.len());
    let b = Mat::from_fn(svd.u.nrows(), r, |row, k| svd.u[(row, k)] * svd.s[k]);
    let a = svd.v.subcols(0, r).transpose();
    LowRank::from_factors(Matrix::from_f64(a), Matrix::from_f64(b.as_ref()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::golden::{Golden, difference};
    use crate::error::Error;

    /// The fixture's weights and alphas; its adapter c has no part in the second layer.
    const WEIGHTS: [f64; 3] = [0.7, -0.4, 1.2];
    const ALPHAS: [f64; 3] = [6.0, 4.0, 10.0];
    const LAYERS: [&str; 2] = ["first", "second"];

    fn part(golden: &Golden, layer: &str, place: usize) -> Option<LayerFactors> {
        let name = ["a", "b", "c"][place];
        if (layer, name) == ("second", "c") {
            return None;
        }
        let matrix = |factor| golden.matrix(&format!("{layer}.{name}.{factor}"));
        let factors = LowRank::new(matrix("a"), matrix("b")).unwrap();
        let scaling = ALPHAS[place] / factors.r() as f64;
        Some(LayerFactors { factors, scaling })
    }

    fn parts(golden: &Golden, layer: &str) -> Vec<Option<LayerFactors>> {
        (0..3).map(|place| part(golden, layer, place)).collect()
    }

    fn options() -> CombinationOptions {
        CombinationOptions {
            density: Some(0.6),
            seed: 9,
            ..CombinationOptions::default()
        }
    }

    fn combine(
        golden: &Golden,
        ranks: &[usize],
        combination: Combination,
        weights: &[f64],
        options: CombinationOptions,
    ) -> Vec<LowRank> {
        let mut combined = WeightedCombination::new(combination, weights, ranks, options).unwrap();
        let layers = LAYERS.iter();
        layers
            .map(|layer| combined.combine(layer, &parts(golden, layer)).unwrap())
            .collect()
    }

    /// The largest difference from PEFT's: of the updates where they are decomposed, else
    /// of A and of B.
    fn worst(golden: &Golden, name: &str, combined: &[LowRank]) -> f32 {
        let decomposed = name
            .split('.')
            .next()
            .is_some_and(|name| name.ends_with("svd"));
        let mut worst = 0.0_f32;
        for (layer, combined) in LAYERS.iter().zip(combined) {
            let expected = |what| golden.values(&format!("{name}.{layer}.{what}"));
            if decomposed {
                let delta = combined.delta(1.0);
                worst = worst.max(difference(delta.values(), &expected("delta")));
            } else {
                worst = worst.max(difference(combined.a().values(), &expected("a")));
                worst = worst.max(difference(combined.b().values(), &expected("b")));
            }
        }
        worst
    }

    #[test]
    fn every_method_combines_as_peft_does() {
        let golden = Golden::read("combine");
        let frequency = CombinationOptions {
            majority_sign_method: MajoritySignMethod::Frequency,
            ..options()
        };
        let rank_2 = CombinationOptions {
            svd_rank: Some(2),
            ..options()
        };
        let plain = Combination::ALL.map(|combination| (combination.name(), options()));
        let special = [("ties.frequency", frequency), ("svd.rank_2", rank_2)];
        for (name, options) in plain.into_iter().chain(special) {
            let combination: Combination = name.split('.').next().unwrap().parse().unwrap();
            let ranks = [4, 4, 4];
            let ours = combine(&golden, &ranks, combination, &WEIGHTS, options.clone());
            assert!(worst(&golden, name, &ours) < 1e-5, "{name}");
            assert_eq!([ours[0].r() as f32], *golden.values(&format!("{name}.r")));
            // The sign of a weight counts.
            let positive = WEIGHTS.map(f64::abs);
            let control = combine(&golden, &ranks, combination, &positive, options);
            assert!(worst(&golden, name, &control) > 1e-2, "{name}");
        }
    }

    #[test]
    fn density_seed_and_election_count() {
        let golden = Golden::read("combine");
        let ranks = [4, 4, 4];
        for name in ["ties", "dare_linear", "dare_ties_svd", "magnitude_prune"] {
            let combination: Combination = name.parse().unwrap();
            let other = CombinationOptions {
                density: Some(0.5),
                ..options()
            };
            let control = combine(&golden, &ranks, combination, &WEIGHTS, other);
            assert!(worst(&golden, name, &control) > 1e-2, "{name}");
        }
        for name in [
            "dare_linear",
            "dare_ties",
            "dare_linear_svd",
            "dare_ties_svd",
        ] {
            let combination: Combination = name.parse().unwrap();
            let other = CombinationOptions {
                seed: 10,
                ..options()
            };
            let control = combine(&golden, &ranks, combination, &WEIGHTS, other);
            assert!(worst(&golden, name, &control) > 1e-2, "{name}");
        }
        let total = combine(&golden, &ranks, Combination::Ties, &WEIGHTS, options());
        assert!(worst(&golden, "ties.frequency", &total) > 1e-2);
    }

    #[test]
    fn adapters_of_different_ranks_combine_as_in_peft() {
        let golden = Golden::read("mixed");
        for (combination, r) in [(Combination::Cat, 9), (Combination::Svd, 4)] {
            let ours = combine(&golden, &[4, 2, 3], combination, &WEIGHTS, options());
            assert!(worst(&golden, combination.name(), &ours) < 1e-5);
            assert!(ours.iter().all(|layer| layer.r() == r));
            assert_eq!([r as f32], *golden.values(&format!("{combination}.r")));
        }
    }

    fn weighted_updates(parts: &[Option<LayerFactors>]) -> Vec<f32> {
        let parts = parts.iter().zip(WEIGHTS);
        let updates = parts.filter_map(|(part, weight)| {
            let part = part.as_ref()?;
            Some(part.factors.delta(part.scaling * weight).values().to_vec())
        });
        updates
            .reduce(|sum, update| sum.iter().zip(update).map(|(a, b)| a + b).collect())
            .unwrap()
    }

    #[test]
    fn side_by_side_or_at_full_rank_the_update_is_the_weighted_sum() {
        let golden = Golden::read("mixed");
        for layer in LAYERS {
            let parts = parts(&golden, layer);
            let expected = weighted_updates(&parts);
            // 9 and 6 are the ranks' sums: below the sides' lengths. 20 and more are above.
            for (combination, svd_rank, exact) in [
                (Combination::Cat, None, true),
                (Combination::Svd, Some(9), true),
                (Combination::Svd, Some(30), true),
                (Combination::Svd, Some(2), false),
            ] {
                let options = CombinationOptions {
                    svd_rank,
                    ..CombinationOptions::default()
                };
                let ranks = [4, 2, 3];
                let mut combined =
                    WeightedCombination::new(combination, &WEIGHTS, &ranks, options).unwrap();
                let update = combined.combine(layer, &parts).unwrap();
                assert_eq!(update.r(), svd_rank.unwrap_or(9));
                let difference = difference(update.delta(1.0).values(), &expected);
                assert_eq!(difference < 1e-5, exact, "{combination} {difference}");
            }
        }
    }

    #[test]
    fn the_short_way_to_a_sum_s_singular_values_is_exact() {
        let golden = Golden::read("combine");
        let parts = parts(&golden, "first");
        let factors: Vec<(&LayerFactors, f64)> = parts.iter().flatten().zip(WEIGHTS).collect();
        let joined = concatenate(&factors[..2]);
        let short = svd_of_product(&joined.b().to_f64(), &joined.a().to_f64()).unwrap();
        let long = thin_svd(joined.delta(1.0).to_f64().as_ref()).unwrap();
        let (short, long) = (truncate(&short, 3), truncate(&long, 3));
        let difference = difference(short.delta(1.0).values(), long.delta(1.0).values());
        assert!(difference < 1e-6);
    }

    #[test]
    fn at_full_density_nothing_is_pruned() {
        let golden = Golden::read("combine");
        let full = || CombinationOptions {
            density: Some(1.0),
            ..CombinationOptions::default()
        };
        let ranks = [4, 4, 4];
        for (pruned, plain) in [
            (Combination::MagnitudePrune, Combination::Linear),
            (Combination::DareLinear, Combination::Linear),
            (Combination::DareTies, Combination::Ties),
            (Combination::DareTiesSvd, Combination::TiesSvd),
        ] {
            let pruned = combine(&golden, &ranks, pruned, &WEIGHTS, full());
            assert_eq!(pruned, combine(&golden, &ranks, plain, &WEIGHTS, full()));
        }
    }

    #[test]
    fn one_adapter_alone_is_scaled() {
        let golden = Golden::read("combine");
        let mut combined =
            WeightedCombination::new(Combination::TiesSvd, &[-0.5], &[4], options()).unwrap();
        let part = part(&golden, "first", 0).unwrap();
        let update = combined.combine("first", &[Some(part.clone())]).unwrap();
        let expected = part.factors.delta(part.scaling * -0.5);
        assert!(difference(update.delta(1.0).values(), expected.values()) < 1e-6);
    }

    #[test]
    fn options_that_cannot_be_are_named() {
        let with = |density, svd_rank, svd_clamp| CombinationOptions {
            density,
            svd_rank,
            svd_clamp,
            ..CombinationOptions::default()
        };
        let weights = [1.0, 1.0];
        for (option, combination, weights, options) in [
            (
                "density",
                Combination::Ties,
                &weights[..],
                with(None, None, None),
            ),
            (
                "density",
                Combination::Ties,
                &weights,
                with(Some(-0.1), None, None),
            ),
            (
                "density",
                Combination::Ties,
                &weights,
                with(Some(f64::NAN), None, None),
            ),
            (
                "density",
                Combination::DareTies,
                &weights,
                with(Some(0.0), None, None),
            ),
            (
                "svd_rank",
                Combination::Svd,
                &weights,
                with(None, Some(0), None),
            ),
            (
                "svd_clamp",
                Combination::Svd,
                &weights,
                with(None, None, Some(1.1)),
            ),
            (
                "weights",
                Combination::Svd,
                &weights[..1],
                with(None, None, None),
            ),
            (
                "weights",
                Combination::Svd,
                &[1.0, f64::NAN],
                with(None, None, None),
            ),
        ] {
            let error = WeightedCombination::new(combination, weights, &[4, 4], options);
            assert!(
                matches!(&error, Err(Error::Adapter(AdapterError::InvalidOption { option: o, .. })) if *o == option),
                "{option}: {error:?}"
            );
        }
        let none = WeightedCombination::new(Combination::Svd, &[], &[], options());
        assert!(none.is_err());
    }

    #[test]
    fn ranks_and_shapes_that_do_not_fit_are_named() {
        let golden = Golden::read("mixed");
        let error = WeightedCombination::new(Combination::Ties, &WEIGHTS, &[4, 2, 3], options());
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("[4, 2, 3]") && error.contains("`ties`"),
            "{error}"
        );

        // The configurations' ranks agree, one layer's do not.
        let mut linear =
            WeightedCombination::new(Combination::Linear, &WEIGHTS, &[4, 4, 4], options()).unwrap();
        let error = linear
            .combine("first", &parts(&golden, "first"))
            .unwrap_err();
        assert!(error.to_string().contains("layer `first`"), "{error}");

        let mut cat =
            WeightedCombination::new(Combination::Cat, &WEIGHTS, &[4, 2, 3], options()).unwrap();
        let error = cat.combine("x", &[None, None, None]).unwrap_err();
        assert!(matches!(
            error,
            Error::Adapter(AdapterError::NoFactors { .. })
        ));
        let error = cat.combine("x", &parts(&golden, "first")[..2]).unwrap_err();
        assert!(matches!(
            error,
            Error::Adapter(AdapterError::ShapeMismatch { .. })
        ));
        let mixed = [part(&golden, "first", 0), part(&golden, "second", 1), None];
        let error = cat.combine("x", &mixed).unwrap_err();
        assert!(error.to_string().contains("layer `x`"), "{error}");
    }
}
