use burn::module::Module;
use burn::tensor::activation::relu;
use burn::tensor::{Tensor, backend::Backend};
use serde_json::json;

use super::batch_all_triplet::PositivePairs;
use super::batch_hard_triplet::TEXTS_WITH_CLASSES;
use super::contrastive::check_margin;
use super::description::described;
use super::{BatchHardTripletLossDistanceFunction, Columns, Loss, LossInput};
use crate::error::Result;
use crate::model::CardLoss;

/// How [`BatchSemiHardTripletLoss`] is built.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchSemiHardTripletLossConfig {
    /// How far the texts of a batch are from each other.
    pub distance_metric: BatchHardTripletLossDistanceFunction,
    /// By how much texts of other classes are to be further away.
    pub margin: f64,
}

impl Default for BatchSemiHardTripletLossConfig {
    fn default() -> Self {
        Self {
            distance_metric: BatchHardTripletLossDistanceFunction::EuclideanDistance,
            margin: 5.0,
        }
    }
}

impl BatchSemiHardTripletLossConfig {
    /// Builds the loss.
    ///
    /// # Errors
    /// [`LossError::InvalidOption`](crate::error::LossError) if `margin` is not a number.
    pub fn init(&self) -> Result<BatchSemiHardTripletLoss> {
        check_margin(NAME, "margin", self.margin)?;
        Ok(BatchSemiHardTripletLoss {
            config: self.clone(),
        })
    }
}

const NAME: &str = "BatchSemiHardTripletLoss";

/// The distance of no text: finite, as a GPU's least of infinities is its largest number.
const NONE: f32 = f32::MAX;

/// [`TripletLoss`](super::TripletLoss) of each pair of a class with its semi-hard
/// negative: the nearest one that is further away than the positive, or the furthest one
/// if none is (Schroff et al. 2015, <https://arxiv.org/abs/1503.03832>).
///
/// Reads one text column and a class a text, a whole number.
/// `loss = mean(max(0, d(a, p) - d(a, n) + margin))` over the pairs of a class.
#[derive(Module, Debug, Clone)]
pub struct BatchSemiHardTripletLoss {
    config: BatchSemiHardTripletLossConfig,
}

impl<B: Backend> Loss<B> for BatchSemiHardTripletLoss {
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
        let PositivePairs {
            distances,
            anchors,
            same,
        } = pairs;
        let nearer = anchors
            .clone()
            .lower_equal(distances.clone().expand(anchors.dims()));
        let outside = anchors
            .clone()
            .mask_fill(nearer.bool_or(same.clone()), NONE);
        let outside = outside.min_dim(1);
        // The distances count from the nearest text on, so that none of the class is further.
        let nearest = anchors.clone().min_dim(1);
        let inside = (anchors - nearest.clone()).mask_fill(same, 0.0).max_dim(1) + nearest;
        let none_outside = outside.clone().greater_equal_elem(NONE);
        let negatives = outside.mask_where(none_outside, inside);
        relu((distances - negatives).add_scalar(self.config.margin)).mean()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestAutodiffBackend, device};
    use crate::loss::Labels;

    fn value(classes: [f32; 4], margin: f64) -> (f32, Vec<f32>) {
        let config = BatchSemiHardTripletLossConfig {
            margin,
            ..Default::default()
        };
        let column = |values: [f32; 4]| {
            let values = Tensor::<TestAutodiffBackend, 1>::from_floats(values, &device());
            values.unsqueeze_dim(1)
        };
        let labels = Labels::new(column(classes));
        let texts = column([0.0, 2.0, 5.0, 9.0]).require_grad();
        let input = LossInput::new(vec![texts.clone()]).with_labels(Some(labels));
        let loss = config.init().unwrap().forward(input);
        let gradient = texts.grad(&loss.backward()).unwrap().into_data();
        (loss.into_scalar(), gradient.iter().collect())
    }

    #[test]
    fn the_nearest_negative_beyond_the_positive_counts() {
        // 2 - 5, 2 - 3, 4 - 5 and 4 - 7; from 5, the text at 2 is nearer than the one at 9.
        let (found, gradient) = value([0.0, 0.0, 1.0, 1.0], 5.0);
        let expected = (2.0 + 4.0 + 4.0 + 2.0) / 4.0;
        assert!((found - expected).abs() < 1e-6, "{found}");
        assert!(gradient.iter().all(|g| g.is_finite()));
    }

    #[test]
    fn the_furthest_negative_counts_where_all_are_nearer() {
        // Class (0, 9) against 2 and 5: 9 - 5 from the left, 9 - 7 from the right.
        // Class (2, 5): 3 - 7 and 3 - 4.
        let (found, gradient) = value([0.0, 1.0, 1.0, 0.0], 5.0);
        let expected = (9.0 + 7.0 + 1.0 + 4.0) / 4.0;
        assert!((found - expected).abs() < 1e-6, "{found}");
        assert!(gradient.iter().all(|g| g.is_finite()));
    }

    #[test]
    fn classes_of_one_text_have_nothing_to_learn() {
        let (found, gradient) = value([0.0, 1.0, 2.0, 3.0], 5.0);
        assert_eq!((found, gradient), (0.0, vec![0.0; 4]));
    }
}
