use std::marker::PhantomData;

use burn::module::Module;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Tensor, backend::Backend};
use rand::rngs::StdRng;
use rand::seq::index;
use rand::{Rng, SeedableRng};
use serde_json::json;

use super::description::around;
use super::{Columns, Loss, LossData, LossInput, MiniBatch};
use crate::error::{LossError, Result};
use crate::model::CardLoss;

/// How much each layer before the last counts.
#[derive(Debug, Clone, Copy, Default)]
pub enum LayerWeighting {
    /// All alike.
    #[default]
    Uniform,
    /// Layer `l`, the encoder's input being 0, by `1 / (1 + ln(1 + l))`.
    Log,
    /// Layer `l` by `1 / (1 + l)`.
    Linear,
    /// As this says.
    Custom(fn(usize) -> f64),
}

impl LayerWeighting {
    fn weight(&self, layer: usize) -> f64 {
        let place = layer as f64;
        match self {
            Self::Uniform => 1.0,
            Self::Log => 1.0 / (1.0 + (1.0 + place).ln()),
            Self::Linear => 1.0 / (1.0 + place),
            Self::Custom(weight) => weight(layer),
        }
    }
}

/// How [`AdaptiveLayerLoss`] is built.
#[derive(Debug, Clone)]
pub struct AdaptiveLayerLossConfig {
    /// How many of the layers before the last each step trains, drawn anew; all of them
    /// if `None`.
    pub n_layers_per_step: Option<usize>,
    /// The weight of the last layer's loss.
    pub last_layer_weight: f64,
    /// The weight of the mean loss of the layers before.
    pub prior_layers_weight: f64,
    /// The weight of the divergence between the layers' embeddings and the last one's.
    pub kl_div_weight: f64,
    /// What embeddings are divided by before that; 0 leaves the divergence out.
    pub kl_temperature: f64,
    /// How much each layer before the last counts.
    pub layer_weighting: LayerWeighting,
}

impl Default for AdaptiveLayerLossConfig {
    fn default() -> Self {
        Self {
            n_layers_per_step: Some(1),
            last_layer_weight: 1.0,
            prior_layers_weight: 1.0,
            kl_div_weight: 1.0,
            kl_temperature: 0.3,
            layer_weighting: LayerWeighting::Uniform,
        }
    }
}

impl AdaptiveLayerLossConfig {
    /// Builds the loss around another one.
    ///
    /// # Errors
    /// [`LossError::InvalidOption`] if a weight is not a number, or no layer is to be
    /// trained in a step.
    pub fn init<B: Backend, L: Loss<B>>(&self, loss: L) -> Result<AdaptiveLayerLoss<B, L>> {
        for (option, value) in [
            ("last_layer_weight", self.last_layer_weight),
            ("prior_layers_weight", self.prior_layers_weight),
            ("kl_div_weight", self.kl_div_weight),
            ("kl_temperature", self.kl_temperature),
        ] {
            if !value.is_finite() {
                return Err(LossError::option(NAME, option, "a number", value).into());
            }
        }
        if self.n_layers_per_step == Some(0) {
            return Err(LossError::option(NAME, "n_layers_per_step", "at least 1", 0).into());
        }
        Ok(AdaptiveLayerLoss {
            loss,
            config: self.clone(),
            backend: PhantomData,
        })
    }
}

const NAME: &str = "AdaptiveLayerLoss";

/// Another loss over what earlier layers give as well, so that layers can be taken off
/// the model's end (Li et al. 2024, <https://arxiv.org/abs/2402.14776>).
///
/// Reads what the other loss reads. With the last layer `n`, some layers `l` before it
/// and a temperature `T`, `loss = w_n·loss(n) + mean_l(w·w_l·loss(l)) +
/// Σ_l w_kl·T·KL(softmax(n / T) ‖ softmax(l / T))`.
#[derive(Module, Debug)]
pub struct AdaptiveLayerLoss<B: Backend, L> {
    loss: L,
    #[module(skip)]
    config: AdaptiveLayerLossConfig,
    backend: PhantomData<B>,
}

impl<B: Backend, L: Loss<B>> AdaptiveLayerLoss<B, L> {
    /// The loss inside.
    pub fn inner(&self) -> &L {
        &self.loss
    }

    /// The logarithms of what softmax makes of all columns' embeddings, one below the
    /// other.
    fn distributions(&self, columns: Vec<Tensor<B, 2>>) -> Option<Tensor<B, 2>> {
        let temperature = self.config.kl_temperature;
        (temperature > 0.0).then(|| log_softmax(Tensor::cat(columns, 0).div_scalar(temperature), 1))
    }

    /// The layers of a step, out of so many before the last.
    fn layers_of_step(&self, layers: usize, rng: &mut StdRng) -> Vec<usize> {
        match self.config.n_layers_per_step {
            Some(count) if count < layers => index::sample(rng, layers, count).into_vec(),
            _ => (0..layers).collect(),
        }
    }
}

impl<B: Backend, L: Loss<B>> Loss<B> for AdaptiveLayerLoss<B, L> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn describe(&self) -> CardLoss {
        let inner = self.loss.describe();
        let parameters = json!({
            "loss": inner.name,
            "n_layers_per_step": self.config.n_layers_per_step.map_or(json!(-1), |count| json!(count)),
            "last_layer_weight": self.config.last_layer_weight,
            "prior_layers_weight": self.config.prior_layers_weight,
            "kl_div_weight": self.config.kl_div_weight,
            "kl_temperature": self.config.kl_temperature,
            "layer_weighting": match self.config.layer_weighting {
                LayerWeighting::Uniform => "uniform",
                LayerWeighting::Log => "log",
                LayerWeighting::Linear => "linear",
                LayerWeighting::Custom(_) => "custom",
            },
        });
        around(NAME, parameters, inner)
    }

    fn columns(&self) -> Columns {
        self.loss.columns()
    }

    fn check(&self, data: &LossData<'_>) -> Result<()> {
        self.loss.check(data)
    }

    fn forward(&self, mut input: LossInput<B>) -> Tensor<B, 1> {
        let config = &self.config;
        let mut rng = StdRng::seed_from_u64(input.seed);
        let layers = std::mem::take(&mut input.layers);
        let last = self.distributions(input.embeddings.clone());
        let mut loss = self
            .loss
            .forward(input.clone())
            .mul_scalar(config.last_layer_weight);
        let drawn = self.layers_of_step(layers.len(), &mut rng);
        let share = config.prior_layers_weight / drawn.len().max(1) as f64;
        for layer in drawn {
            let embeddings = layers[layer].clone();
            let of_layer = LossInput {
                embeddings: embeddings.clone(),
                seed: rng.random(),
                ..input.clone()
            };
            let weight = config.layer_weighting.weight(layer) * share;
            loss = loss + self.loss.forward(of_layer).mul_scalar(weight);
            if let (Some(last), Some(found)) = (&last, self.distributions(embeddings)) {
                let divergence = kl_div(last.clone().detach(), found);
                loss = loss + divergence.mul_scalar(config.kl_temperature * config.kl_div_weight);
            }
        }
        loss
    }

    fn mini_batch(&self) -> Option<MiniBatch> {
        self.loss.mini_batch()
    }

    fn needs_guide(&self) -> bool {
        self.loss.needs_guide()
    }

    fn needs_layers(&self) -> bool {
        true
    }
}

/// The mean divergence between distributions given by their logarithms.
///
/// # Shapes
/// - target, found: `[texts, dim]`
/// - output: `[1]`
fn kl_div<B: Backend>(target: Tensor<B, 2>, found: Tensor<B, 2>) -> Tensor<B, 1> {
    let texts = target.dims()[0] as f64;
    let divergence = target.clone().exp() * (target - found);
    divergence.sum().div_scalar(texts)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};
    use crate::error::Error;
    use crate::loss::{MultipleNegativesRankingLoss, MultipleNegativesRankingLossConfig};

    type Adaptive = AdaptiveLayerLoss<TestBackend, MultipleNegativesRankingLoss>;

    fn mnrl() -> MultipleNegativesRankingLoss {
        MultipleNegativesRankingLossConfig::default()
            .init()
            .unwrap()
    }

    /// Two columns of two texts, others for each seed.
    fn columns(seed: u32) -> Vec<Tensor<TestBackend, 2>> {
        let number = |place: u32| ((seed * 31 + place) as f32 * 1.7).sin();
        let column = |first: u32| {
            let rows = [0, 3].map(|row| [0, 1, 2].map(|place: u32| number(first + row + place)));
            Tensor::from_floats(rows, &device())
        };
        vec![column(0), column(6)]
    }

    fn input(layers: u32) -> LossInput<TestBackend> {
        LossInput::new(columns(layers)).with_layers((0..layers).map(columns).collect())
    }

    fn at(seed: u32) -> f32 {
        mnrl().forward(LossInput::new(columns(seed))).into_scalar()
    }

    fn value(config: &AdaptiveLayerLossConfig, input: LossInput<TestBackend>) -> f32 {
        let loss: Adaptive = config.init(mnrl()).unwrap();
        loss.forward(input).into_scalar()
    }

    fn all_layers() -> AdaptiveLayerLossConfig {
        AdaptiveLayerLossConfig {
            n_layers_per_step: None,
            kl_temperature: 0.0,
            ..Default::default()
        }
    }

    #[test]
    fn layers_before_the_last_are_averaged_by_their_weights() {
        for (layer_weighting, weights) in [
            (LayerWeighting::Uniform, [1.0, 1.0]),
            (LayerWeighting::Linear, [1.0, 0.5]),
            (LayerWeighting::Log, [1.0, 1.0 / (1.0 + 2f32.ln())]),
            (LayerWeighting::Custom(|layer| layer as f64), [0.0, 1.0]),
        ] {
            let config = AdaptiveLayerLossConfig {
                last_layer_weight: 2.0,
                prior_layers_weight: 3.0,
                layer_weighting,
                ..all_layers()
            };
            let prior = (weights[0] * at(0) + weights[1] * at(1)) / 2.0;
            let expected = 2.0 * at(2) + 3.0 * prior;
            let found = value(&config, input(2));
            assert!((found - expected).abs() < 1e-4, "{found} for {expected}");
        }
    }

    #[test]
    fn embeddings_that_are_the_last_layers_do_not_diverge() {
        let with_divergence = AdaptiveLayerLossConfig {
            kl_temperature: 0.3,
            ..all_layers()
        };
        let same = || LossInput::new(columns(1)).with_layers(vec![columns(1)]);
        let difference = value(&with_divergence, same()) - value(&all_layers(), same());
        assert!(difference.abs() < 1e-5, "{difference}");
        let difference = value(&with_divergence, input(1)) - value(&all_layers(), input(1));
        assert!(difference > 1e-2, "{difference}");
    }

    #[test]
    fn a_step_draws_its_layers() {
        let config = AdaptiveLayerLossConfig {
            n_layers_per_step: Some(1),
            ..all_layers()
        };
        let each: Vec<f32> = (0..4).map(|layer| at(4) + at(layer)).collect();
        let mut drawn = [false; 4];
        for seed in 0..50 {
            let found = value(&config, input(4).with_seed(seed));
            assert_eq!(found, value(&config, input(4).with_seed(seed)));
            let place = each.iter().position(|e| (e - found).abs() < 1e-4).unwrap();
            drawn[place] = true;
        }
        assert_eq!(drawn, [true; 4]);
    }

    #[test]
    fn a_model_of_one_layer_has_nothing_before_it() {
        assert!((value(&all_layers(), LossInput::new(columns(3))) - at(3)).abs() < 1e-6);
    }

    #[test]
    fn rejects_weights_that_are_no_numbers() {
        let config = AdaptiveLayerLossConfig {
            kl_div_weight: f64::NAN,
            ..Default::default()
        };
        assert!(matches!(
            config.init::<TestBackend, _>(mnrl()),
            Err(Error::Loss(LossError::InvalidOption {
                option: "kl_div_weight",
                ..
            }))
        ));
    }
}
