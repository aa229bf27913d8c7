use burn::module::Module;
use burn::tensor::activation::relu;
use burn::tensor::{Tensor, backend::Backend};
use serde_json::json;

use super::batch_hard_triplet::{TEXTS_WITH_CLASSES, hardest_triplets};
use super::description::described;
use super::{BatchHardTripletLossDistanceFunction, Columns, Loss, LossInput};
use crate::model::CardLoss;

/// How [`BatchHardSoftMarginTripletLoss`] is built.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct BatchHardSoftMarginTripletLossConfig {
    /// How far the texts of a batch are from each other.
    pub distance_metric: BatchHardTripletLossDistanceFunction,
}

impl BatchHardSoftMarginTripletLossConfig {
    /// Builds the loss.
    pub fn init(&self) -> BatchHardSoftMarginTripletLoss {
        BatchHardSoftMarginTripletLoss {
            config: self.clone(),
        }
    }
}

const NAME: &str = "BatchHardSoftMarginTripletLoss";

/// [`BatchHardTripletLoss`](super::BatchHardTripletLoss) without a margin
/// (<https://arxiv.org/abs/1703.07737>).
///
/// Reads one text column and a class a text, a whole number.
/// `loss = mean(log(1 + exp(d(a, p) - d(a, n))))` with each text's hardest positive and
/// negative.
#[derive(Module, Debug, Clone)]
pub struct BatchHardSoftMarginTripletLoss {
    config: BatchHardSoftMarginTripletLossConfig,
}

impl<B: Backend> Loss<B> for BatchHardSoftMarginTripletLoss {
    fn name(&self) -> &'static str {
        NAME
    }

    fn describe(&self) -> CardLoss {
        described(
            NAME,
            json!({ "distance_metric": self.config.distance_metric.name() }),
        )
    }

    fn columns(&self) -> Columns {
        TEXTS_WITH_CLASSES
    }

    fn forward(&self, mut input: LossInput<B>) -> Tensor<B, 1> {
        let classes = input.take_labels(NAME).values();
        let [embeddings] = input.columns(NAME);
        let distances = self.config.distance_metric.distances(embeddings);
        softplus(hardest_triplets(distances, classes)).mean()
    }
}

/// `log(1 + exp(x))`, without ever raising to a large power.
fn softplus<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 2> {
    relu(x.clone()) + x.abs().neg().exp().log1p()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestAutodiffBackend, device};

    #[test]
    fn is_smooth_and_never_overflows() {
        let x = [[-500.0, -1.0, 0.5, 500.0]];
        let x = Tensor::<TestAutodiffBackend, 2>::from_floats(x, &device()).require_grad();
        let found = softplus(x.clone());
        let values: Vec<f32> = found.clone().into_data().iter().collect();
        for (value, expected) in values.iter().zip([0.0, 0.313_261_7, 0.974_077, 500.0]) {
            assert!((value - expected).abs() < 1e-6, "{value} for {expected}");
        }
        let slopes = x.grad(&found.sum().backward()).unwrap();
        let slopes: Vec<f32> = slopes.into_data().iter().collect();
        for (slope, expected) in slopes.iter().zip([0.0, 0.268_941_4, 0.622_459_3, 1.0]) {
            assert!((slope - expected).abs() < 1e-6, "{slope} for {expected}");
        }
    }
}
