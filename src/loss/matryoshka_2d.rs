use burn::tensor::backend::Backend;

use super::{
    AdaptiveLayerLoss, AdaptiveLayerLossConfig, Loss, MatryoshkaLoss, MatryoshkaLossConfig,
};
use crate::error::Result;

/// How [`Matryoshka2dLoss`] is built.
#[derive(Debug, Clone)]
pub struct Matryoshka2dLossConfig {
    /// The sizes, one of them a step unless told otherwise.
    pub matryoshka: MatryoshkaLossConfig,
    /// The layers, one before the last a step unless told otherwise.
    pub adaptive_layer: AdaptiveLayerLossConfig,
}

impl Matryoshka2dLossConfig {
    /// These sizes; one of them and one layer before the last in each step.
    pub fn new(matryoshka_dims: impl Into<Vec<usize>>) -> Self {
        Self {
            matryoshka: MatryoshkaLossConfig {
                n_dims_per_step: Some(1),
                ..MatryoshkaLossConfig::new(matryoshka_dims)
            },
            adaptive_layer: AdaptiveLayerLossConfig::default(),
        }
    }

    /// Builds the loss around another one.
    ///
    /// # Errors
    /// As [`MatryoshkaLossConfig::init`] and [`AdaptiveLayerLossConfig::init`].
    pub fn init<B: Backend, L: Loss<B>>(&self, loss: L) -> Result<Matryoshka2dLoss<B, L>> {
        self.adaptive_layer.init(self.matryoshka.init(loss)?)
    }
}

/// Another loss over earlier layers and smaller sizes as well, so that a model can be
/// made shorter and its embeddings smaller (Li et al. 2024,
/// <https://arxiv.org/abs/2402.14776>).
///
/// [`AdaptiveLayerLoss`] around [`MatryoshkaLoss`]: each layer's loss draws its own
/// sizes.
pub type Matryoshka2dLoss<B, L> = AdaptiveLayerLoss<B, MatryoshkaLoss<B, L>>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};
    use crate::loss::{LossInput, MultipleNegativesRankingLossConfig};
    use burn::tensor::Tensor;

    #[test]
    fn trains_one_size_of_one_layer_and_of_the_last() {
        let mnrl = MultipleNegativesRankingLossConfig::default()
            .init()
            .unwrap();
        let columns = |scale: f32| -> Vec<Tensor<TestBackend, 2>> {
            let a = [[0.5, -0.2, 0.3], [0.1, scale, -0.4]];
            let b = [[0.4, scale, 0.7], [-0.2, 0.5, 0.3]];
            let tensor = |rows| Tensor::from_floats(rows, &device());
            vec![tensor(a), tensor(b)]
        };
        let at = |scale: f32, dim: usize| {
            let cut = columns(scale)
                .into_iter()
                .map(|column| column.narrow(1, 0, dim));
            mnrl.forward(LossInput::new(cut.collect())).into_scalar()
        };
        let mut config = Matryoshka2dLossConfig::new([3, 2]);
        config.adaptive_layer.kl_temperature = 0.0;
        let loss = config.init(mnrl.clone()).unwrap();
        let mut seen = [[false; 2]; 2];
        for seed in 0..50 {
            let input = LossInput::new(columns(0.9)).with_layers(vec![columns(0.2)]);
            let found = loss.forward(input.with_seed(seed)).into_scalar();
            for (i, last) in [2, 3].into_iter().enumerate() {
                for (j, prior) in [2, 3].into_iter().enumerate() {
                    seen[i][j] |= (at(0.9, last) + at(0.2, prior) - found).abs() < 1e-5;
                }
            }
        }
        assert_eq!(seen, [[true; 2]; 2]);
    }
}
