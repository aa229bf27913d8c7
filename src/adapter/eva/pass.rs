use std::hash::{DefaultHasher, Hash, Hasher};

use indexmap::IndexMap;

use super::{EvaConfig, ExplainedVariance, LayerSvd, redistribute_ranks};
use crate::adapter::Matrix;
use crate::error::{AdapterError, Result};

/// One layer to adapt, as an [`EvaPass`] starts with it.
#[derive(Debug, Clone)]
pub struct EvaLayer {
    /// The layer's path.
    pub name: String,
    /// Its rank without redistribution.
    pub r: usize,
    /// The size of its input features.
    pub d_input: usize,
    /// [`inputs_digest`] of its inputs in one forward pass over the first batch: layers
    /// that agree share one decomposition.
    pub digest: u64,
}

/// One layer's fresh adapter; B is zero.
#[derive(Debug, Clone)]
pub struct EvaAdapter {
    /// The layer's path.
    pub name: String,
    /// Its new rank. A layer of rank 0 is not adapted at all.
    pub r: usize,
    /// `[r, d_input]`
    pub a: Matrix,
}

/// A number that two layers have in common when they see the same inputs.
pub fn inputs_digest(inputs: &Matrix) -> u64 {
    let mut hasher = DefaultHasher::new();
    inputs.shape().hash(&mut hasher);
    for &value in inputs.values() {
        // Adding zero makes −0 the zero it equals.
        (value + 0.0).to_bits().hash(&mut hasher);
    }
    hasher.finish()
}

/// EVA over the layers of a model, a batch at a time:
///
/// 1. for every layer that [`needs`](Self::needs) it, [`update`](Self::update) with its
///    inputs, padding left out, the adapters switched off;
/// 2. [`finish_batch`](Self::finish_batch), until it says that all have converged; start
///    over with the first batch after the last;
/// 3. [`finish`](Self::finish).
///
/// Nothing forces batches to converge: bound their number.
#[derive(Debug)]
pub struct EvaPass {
    layers: IndexMap<String, Layer>,
    groups: Vec<Group>,
    budget: usize,
    whiten: bool,
}

#[derive(Debug)]
struct Layer {
    group: usize,
    rank: usize,
}

/// Layers that see the same inputs.
#[derive(Debug)]
struct Group {
    /// The place of the first of them, whose inputs are taken.
    leader: usize,
    svd: LayerSvd,
    converged: bool,
}

impl EvaPass {
    /// Starts with the layers in the model's order; `r` is the adapter's rank and
    /// `largest_dim` the longest side of any of the encoder's tensors.
    ///
    /// # Errors
    /// [`AdapterError::InvalidField`] for a configuration out of range, or one by which a
    /// layer's rank may become larger than its inputs are wide.
    pub fn new(
        config: &EvaConfig,
        r: usize,
        largest_dim: usize,
        layers: &[EvaLayer],
    ) -> Result<Self> {
        config.validate()?;
        let mut by_digest: IndexMap<u64, Vec<usize>> = IndexMap::new();
        for (place, layer) in layers.iter().enumerate() {
            by_digest.entry(layer.digest).or_default().push(place);
        }
        let mut groups = Vec::new();
        let mut ranks = vec![(0, 0); layers.len()];
        for members in by_digest.into_values() {
            let leader = members[0];
            let n_components = members
                .iter()
                .map(|&place| config.n_components(layers[place].r, r, largest_dim))
                .max()
                .unwrap_or_default();
            for place in members {
                ranks[place] = (groups.len(), n_components);
            }
            groups.push(Group {
                leader,
                svd: LayerSvd::new(layers[leader].d_input, n_components, config.tau)?,
                converged: false,
            });
        }
        let layer = |(layer, (group, rank)): (&EvaLayer, (usize, usize))| {
            (layer.name.clone(), Layer { group, rank })
        };
        Ok(Self {
            layers: layers.iter().zip(ranks).map(layer).collect(),
            groups,
            budget: layers.iter().map(|layer| layer.r).sum(),
            whiten: config.whiten,
        })
    }

    /// Whether the layer's inputs of the next batch are asked for.
    pub fn needs(&self, name: &str) -> bool {
        self.layers
            .get_full(name)
            .is_some_and(|(place, _, layer)| self.groups[layer.group].needs(place))
    }

    /// Takes a layer's inputs, `[tokens, d_input]`; of a layer that does not
    /// [need](Self::needs) them, ignores them.
    ///
    /// # Errors
    /// As [`LayerSvd::update`].
    pub fn update(&mut self, name: &str, inputs: &Matrix) -> Result<()> {
        let Some((place, _, layer)) = self.layers.get_full(name) else {
            return Ok(());
        };
        let group = &mut self.groups[layer.group];
        if group.needs(place) && !group.svd.update(inputs)? {
            log::warn!("EVA skips a batch for `{name}`: it has fewer tokens than components");
        }
        Ok(())
    }

    /// Ends a batch: redistributes the ranks and says whether every layer's vectors up to
    /// its rank are found. A layer may need inputs again when its rank has grown.
    pub fn finish_batch(&mut self) -> bool {
        if self.groups.iter().all(|group| group.svd.is_fitted()) {
            let explained: Vec<ExplainedVariance<'_>> = self
                .layers
                .values()
                .map(|layer| &self.groups[layer.group])
                .map(|group| ExplainedVariance {
                    leader: group.leader,
                    ratios: group.svd.explained_variance_ratio(),
                })
                .collect();
            let ranks = redistribute_ranks(&explained, self.budget);
            for (layer, rank) in self.layers.values_mut().zip(ranks) {
                layer.rank = rank;
            }
        }
        for group in &mut self.groups {
            // Of its layers, the leader has the largest rank.
            group.converged = group.svd.has_converged(self.layers[group.leader].rank);
        }
        self.groups.iter().all(|group| group.converged)
    }

    /// The layers' ranks as they are now, in the model's order.
    pub fn ranks(&self) -> impl Iterator<Item = (&str, usize)> {
        let layers = self.layers.iter();
        layers.map(|(name, layer)| (name.as_str(), layer.rank))
    }

    /// The adapters, in the model's order.
    ///
    /// # Errors
    /// [`AdapterError::NotConverged`] naming a layer whose vectors are not found yet.
    pub fn finish(&self) -> Result<Vec<EvaAdapter>> {
        let adapter = |(name, &Layer { group, rank }): (&String, &Layer)| {
            let svd = &self.groups[group].svd;
            match svd.components(rank, self.whiten) {
                Some(a) if svd.has_converged(rank) => Ok(EvaAdapter {
                    name: name.clone(),
                    r: rank,
                    a,
                }),
                _ => Err(AdapterError::NotConverged {
                    layer: name.clone(),
                    r: rank,
                }
                .into()),
            }
        };
        self.layers.iter().map(adapter).collect()
    }
}

impl Group {
    fn needs(&self, place: usize) -> bool {
        self.leader == place && !self.converged
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::golden::{Golden, difference};

    const LAYERS: [&str; 4] = ["query", "key", "dense", "output"];
    const BATCHES: usize = 3;
    /// The fixture's rank and alpha.
    const R: usize = 2;
    const ALPHA: f64 = 3.0;

    fn config(whiten: bool) -> EvaConfig {
        EvaConfig {
            tau: 0.95,
            whiten,
            ..EvaConfig::default()
        }
    }

    fn inputs(golden: &Golden, layer: &str, step: usize) -> Matrix {
        golden.matrix(&format!("{layer}.{step}"))
    }

    fn start(golden: &Golden, config: &EvaConfig) -> EvaPass {
        let layers = LAYERS.map(|name| {
            let first = inputs(golden, name, 0);
            EvaLayer {
                name: name.to_owned(),
                r: R,
                d_input: first.shape()[1],
                digest: inputs_digest(&first),
            }
        });
        EvaPass::new(config, R, 12, &layers).unwrap()
    }

    fn run(golden: &Golden, pass: &mut EvaPass) {
        for step in 0..30 {
            for layer in LAYERS {
                pass.update(layer, &inputs(golden, layer, step % BATCHES))
                    .unwrap();
            }
            if pass.finish_batch() {
                return;
            }
        }
        panic!("the fixture's batches converge");
    }

    #[test]
    fn a_model_s_adapters_are_peft_s() {
        let golden = Golden::read("eva");
        for (name, whiten) in [("plain", false), ("whitened", true)] {
            let config = config(whiten);
            let mut pass = start(&golden, &config);
            run(&golden, &mut pass);
            let adapters = pass.finish().unwrap();
            let ranks: Vec<f32> = adapters.iter().map(|adapter| adapter.r as f32).collect();
            assert_eq!(ranks, golden.values(&format!("{name}.ranks")));
            for (place, adapter) in adapters.iter().enumerate() {
                // A layer without rank has no alpha in the fixture.
                if adapter.r > 0 {
                    let alpha = config.adjusted_alpha(ALPHA, R, adapter.r) as f32;
                    assert_eq!(alpha, golden.values(&format!("{name}.alphas"))[place]);
                }
                let shared = ["query", "key"].contains(&adapter.name.as_str());
                if adapter.r > 0 && !(whiten && shared) {
                    let expected = golden.values(&format!("{name}.{}", adapter.name));
                    assert!(difference(adapter.a.values(), &expected) < 1e-5);
                    let control = &pass.groups[pass.layers[place].group].svd;
                    let control = control.components(adapter.r, !whiten).unwrap();
                    assert!(difference(control.values(), &expected) > 1e-2);
                }
            }
        }
    }

    #[test]
    fn layers_with_the_same_inputs_share_one_decomposition() {
        let golden = Golden::read("eva");
        let mut pass = start(&golden, &config(false));
        assert_eq!(pass.groups.len(), 3);
        assert!(pass.needs("query") && !pass.needs("key") && pass.needs("dense"));
        assert!(!pass.needs("value"));
        run(&golden, &mut pass);
        assert!(LAYERS.iter().all(|layer| !pass.needs(layer)));
        assert_eq!(pass.ranks().map(|(_, rank)| rank).sum::<usize>(), 4 * R);
        // Whitened or not, both have the first rows of one matrix.
        for whiten in [false, true] {
            let mut pass = start(&golden, &config(whiten));
            run(&golden, &mut pass);
            let adapters = pass.finish().unwrap();
            let [query, key] = [&adapters[0], &adapters[1]].map(|adapter| adapter.a.values());
            assert!(key.len() <= query.len());
            assert_eq!(&query[..key.len()], key);
        }
    }

    #[test]
    fn ending_early_names_the_layer() {
        let golden = Golden::read("eva");
        let mut pass = start(&golden, &config(false));
        for layer in LAYERS {
            pass.update(layer, &inputs(&golden, layer, 0)).unwrap();
        }
        assert!(!pass.finish_batch());
        let error = pass.finish().unwrap_err().to_string();
        assert!(error.contains("layer `query`"), "{error}");
    }

    #[test]
    fn equal_inputs_have_equal_digests() {
        let digest = |values: &[f32]| {
            inputs_digest(&Matrix::new([1, values.len()], values.to_vec()).unwrap())
        };
        assert_eq!(digest(&[0.0, 1.0]), digest(&[-0.0, 1.0]));
        assert_ne!(digest(&[0.0, 1.0]), digest(&[1.0, 0.0]));
    }
}
