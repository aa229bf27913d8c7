use burn::module::Module;
use burn::tensor::activation::relu;
use burn::tensor::{Bool, Tensor, backend::Backend};
use serde_json::json;

use super::batch_hard_triplet::TEXTS_WITH_CLASSES;
use super::contrastive::check_margin;
use super::description::described;
use super::in_batch::{equal_labels, own_mask};
use super::{BatchHardTripletLossDistanceFunction, Columns, Loss, LossInput};
use crate::error::Result;
use crate::model::CardLoss;

/// How [`BatchAllTripletLoss`] is built.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchAllTripletLossConfig {
    /// How far the texts of a batch are from each other.
    pub distance_metric: BatchHardTripletLossDistanceFunction,
    /// By how much texts of other classes are to be further away.
    pub margin: f64,
}

impl Default for BatchAllTripletLossConfig {
    fn default() -> Self {
        Self {
            distance_metric: BatchHardTripletLossDistanceFunction::EuclideanDistance,
            margin: 5.0,
        }
    }
}

impl BatchAllTripletLossConfig {
    /// Builds the loss.
    ///
    /// # Errors
    /// [`LossError::InvalidOption`](crate::error::LossError) if `margin` is not a number.
    pub fn init(&self) -> Result<BatchAllTripletLoss> {
        check_margin(NAME, "margin", self.margin)?;
        Ok(BatchAllTripletLoss {
            config: self.clone(),
        })
    }
}

const NAME: &str = "BatchAllTripletLoss";

/// [`TripletLoss`](super::TripletLoss) over all triplets that a batch of classified texts
/// holds (<https://arxiv.org/abs/1703.07737>).
///
/// Reads one text column and a class a text, a whole number.
/// `loss = mean(max(0, d(a, p) - d(a, n) + margin))`, over the triplets where this is
/// not 0.
#[derive(Module, Debug, Clone)]
pub struct BatchAllTripletLoss {
    config: BatchAllTripletLossConfig,
}

impl<B: Backend> Loss<B> for BatchAllTripletLoss {
    fn name(&self) -> &'static str {
        NAME
    }

    fn describe(&self) -> CardLoss {
        described(
            NAME,
            json!({
                "distance_metric": self.config.distance_metric.name(),
                "margin": self.config.margin,
            }),
        )
    }

    fn columns(&self) -> Columns {
        TEXTS_WITH_CLASSES
    }

    fn forward(&self, mut input: LossInput<B>) -> Tensor<B, 1> {
        let classes = input.take_labels(NAME).values();
        let [embeddings] = input.columns(NAME);
        let distances = self.config.distance_metric.distances(embeddings);
        let Some(pairs) = PositivePairs::of(distances.clone(), classes) else {
            return distances.sum().mul_scalar(0.0);
        };
        let candidates = pairs.anchors.dims();
        let behind = pairs.distances.expand(candidates) - pairs.anchors;
        let losses = relu(behind.add_scalar(self.config.margin));
        let losses = losses.mask_fill(pairs.same, 0.0);
        let counted = losses.clone().detach().greater_elem(1e-16).float().sum();
        losses.sum() / counted.clamp_min(1.0)
    }
}

/// The pairs of a batch that are of one class, in either order.
pub(super) struct PositivePairs<B: Backend> {
    /// How far apart the two are, `[pairs, 1]`.
    pub(super) distances: Tensor<B, 2>,
    /// How far the first one is from every text, `[pairs, batch]`.
    pub(super) anchors: Tensor<B, 2>,
    /// Which texts are of the first one's class, itself too, `[pairs, batch]`.
    pub(super) same: Tensor<B, 2, Bool>,
}

impl<B: Backend> PositivePairs<B> {
    /// The pairs of that batch, if there are any.
    ///
    /// # Shapes
    /// - distances: `[batch, batch]`
    /// - classes: `[batch]`
    pub(super) fn of(distances: Tensor<B, 2>, classes: Tensor<B, 1>) -> Option<Self> {
        let (batch, device) = (classes.dims()[0], classes.device());
        let same = equal_labels(classes);
        let positive = same
            .clone()
            .bool_and(own_mask(batch, 1, &device).bool_not());
        let mut places = positive.nonzero().into_iter();
        let (anchors, positives) = (places.next()?, places.next()?);
        let of_anchors = distances.select(0, anchors.clone());
        Some(Self {
            distances: of_anchors.clone().gather(1, positives.unsqueeze_dim(1)),
            anchors: of_anchors,
            same: same.select(0, anchors),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};
    use crate::loss::Labels;

    fn value(classes: [f32; 4], margin: f64) -> f32 {
        let config = BatchAllTripletLossConfig {
            margin,
            ..Default::default()
        };
        let column = |values: [f32; 4]| {
            let values = Tensor::<TestBackend, 1>::from_floats(values, &device());
            values.unsqueeze_dim(1)
        };
        let labels = Labels::new(column(classes));
        let input = LossInput::new(vec![column([0.0, 2.0, 5.0, 9.0])]).with_labels(Some(labels));
        config.init().unwrap().forward(input).into_scalar()
    }

    #[test]
    fn all_triplets_that_are_out_of_order_count() {
        // Each of four pairs, (0, 2), (2, 0), (5, 9) and (9, 5), against the two others.
        let triplets = [
            2.0 - 5.0,
            2.0 - 9.0,
            2.0 - 3.0,
            2.0 - 7.0,
            4.0 - 5.0,
            4.0 - 3.0,
            4.0 - 9.0,
            4.0 - 7.0,
        ];
        for margin in [1.5f32, 4.0] {
            let losses: Vec<f32> = triplets
                .iter()
                .map(|t| t + margin)
                .filter(|&l| l > 0.0)
                .collect();
            let expected = losses.iter().sum::<f32>() / losses.len() as f32;
            let found = value([0.0, 0.0, 1.0, 1.0], f64::from(margin));
            assert!((found - expected).abs() < 1e-6, "{found} for {expected}");
        }
    }

    #[test]
    fn without_a_triplet_out_of_order_there_is_nothing_to_learn() {
        assert_eq!(value([0.0, 0.0, 1.0, 1.0], -100.0), 0.0);
        assert_eq!(value([0.0, 1.0, 2.0, 3.0], 5.0), 0.0);
        assert_eq!(value([0.0; 4], 5.0), 0.0);
    }
}
