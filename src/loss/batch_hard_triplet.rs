use burn::module::Module;
use burn::tensor::activation::relu;
use burn::tensor::{Tensor, backend::Backend};
use serde_json::json;

use super::contrastive::check_margin;
use super::description::described;
use super::in_batch::{equal_labels, own_mask, own_scores};
use super::{Columns, LabelColumn, Loss, LossInput, TextColumns};
use crate::error::Result;
use crate::model::CardLoss;
use crate::model::similarity::{cos_sim, dot_score};

/// How far the texts of a batch are from each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BatchHardTripletLossDistanceFunction {
    /// 1 minus the cosine.
    CosineDistance,
    /// The Euclidean distance, by way of the dot products.
    #[default]
    EuclideanDistance,
}

impl BatchHardTripletLossDistanceFunction {
    /// The name that Python gives it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::CosineDistance => "cosine_distance",
            Self::EuclideanDistance => "euclidean_distance",
        }
    }

    /// The distances between all texts of a batch.
    ///
    /// # Shapes
    /// - embeddings: `[batch, dim]`
    /// - output: `[batch, batch]`
    pub(super) fn distances<B: Backend>(self, embeddings: Tensor<B, 2>) -> Tensor<B, 2> {
        if self == Self::CosineDistance {
            return cos_sim(embeddings.clone(), embeddings)
                .neg()
                .add_scalar(1.0);
        }
        let products = dot_score(embeddings.clone(), embeddings);
        let squares = own_scores(products.clone());
        let squared = squares.clone().transpose() - products.mul_scalar(2.0) + squares;
        // The root's gradient at zero, where every text meets itself, is infinite.
        let zero = squared.clone().lower_equal_elem(0.0);
        let roots = squared.mask_fill(zero.clone(), 1.0).sqrt();
        roots.mask_fill(zero, 0.0)
    }
}

/// How [`BatchHardTripletLoss`] is built.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchHardTripletLossConfig {
    /// How far the texts of a batch are from each other.
    pub distance_metric: BatchHardTripletLossDistanceFunction,
    /// By how much texts of other classes are to be further away.
    pub margin: f64,
}

impl Default for BatchHardTripletLossConfig {
    fn default() -> Self {
        Self {
            distance_metric: BatchHardTripletLossDistanceFunction::EuclideanDistance,
            margin: 5.0,
        }
    }
}

impl BatchHardTripletLossConfig {
    /// Builds the loss.
    ///
    /// # Errors
    /// [`LossError::InvalidOption`](crate::error::LossError) if `margin` is not a number.
    pub fn init(&self) -> Result<BatchHardTripletLoss> {
        check_margin(NAME, "margin", self.margin)?;
        Ok(BatchHardTripletLoss {
            config: self.clone(),
        })
    }
}

const NAME: &str = "BatchHardTripletLoss";

/// The furthest text of its own class nearer to each text than the nearest one of
/// another class, by a margin (Hermans et al. 2017, <https://arxiv.org/abs/1703.07737>).
///
/// Reads one text column and a class a text, a whole number; a batch should hold several
/// texts of a class. `loss = mean(max(0, d(a, p) - d(a, n) + margin))`.
#[derive(Module, Debug, Clone)]
pub struct BatchHardTripletLoss {
    config: BatchHardTripletLossConfig,
}

/// One text column with classes.
pub(super) const TEXTS_WITH_CLASSES: Columns = Columns {
    texts: TextColumns::Exactly(1),
    label: LabelColumn::Required { width: 1 },
};

impl<B: Backend> Loss<B> for BatchHardTripletLoss {
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
        let behind = hardest_triplets(distances, classes);
        relu(behind.add_scalar(self.config.margin)).mean()
    }
}

/// By how much each text's hardest positive is further away than its hardest negative.
///
/// # Shapes
/// - distances: `[batch, batch]`
/// - classes: `[batch]`
/// - output: `[batch, 1]`
pub(super) fn hardest_triplets<B: Backend>(
    distances: Tensor<B, 2>,
    classes: Tensor<B, 1>,
) -> Tensor<B, 2> {
    let (batch, device) = (classes.dims()[0], classes.device());
    let same = equal_labels(classes);
    let positive = same
        .clone()
        .bool_and(own_mask(batch, 1, &device).bool_not());
    let hardest_positive = distances
        .clone()
        .mask_fill(positive.bool_not(), 0.0)
        .max_dim(1);
    // Out of reach for the minimum, unless there is no negative at all: as the reference.
    let furthest = distances.clone().max_dim(1).expand([batch, batch]);
    let hardest_negative = (distances + furthest * same.float()).min_dim(1);
    hardest_positive - hardest_negative
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestAutodiffBackend, TestBackend, device};
    use crate::loss::Labels;

    fn line(places: [f32; 4]) -> Tensor<TestBackend, 2> {
        let places = Tensor::<TestBackend, 1>::from_floats(places, &device());
        places.unsqueeze_dim(1)
    }

    #[test]
    fn distances_are_exact_and_their_gradients_finite() {
        let texts = Tensor::<TestAutodiffBackend, 2>::from_inner(line([0.0, 3.0, 3.0, 7.0]));
        let texts = texts.require_grad();
        let euclidean = BatchHardTripletLossDistanceFunction::EuclideanDistance;
        let distances = euclidean.distances(texts.clone());
        let values: Vec<f32> = distances.clone().into_data().iter().collect();
        let rows = [
            [0., 3., 3., 7.],
            [3., 0., 0., 4.],
            [3., 0., 0., 4.],
            [7., 4., 4., 0.],
        ];
        assert_eq!(values, rows.concat());
        let gradient = texts.grad(&distances.sum().backward()).unwrap();
        let gradient: Vec<f32> = gradient.into_data().iter().collect();
        for (found, expected) in gradient.iter().zip([-6.0, 0.0, 0.0, 6.0]) {
            assert!((found - expected).abs() < 1e-5, "{gradient:?}");
        }
    }

    #[test]
    fn the_hardest_of_either_class_count() {
        let classes = Tensor::<TestBackend, 1>::from_floats([0.0, 0.0, 1.0, 1.0], &device());
        let config = BatchHardTripletLossConfig {
            margin: 1.0,
            ..Default::default()
        };
        let labels = Labels::new(classes.unsqueeze_dim(1));
        let input = LossInput::new(vec![line([0.0, 2.0, 5.0, 9.0])]).with_labels(Some(labels));
        let value = config.init().unwrap().forward(input).into_scalar();
        // 2 - 5 + 1, 2 - 3 + 1, 4 - 3 + 1 and 4 - 7 + 1, none below 0.
        assert!((value - 2.0 / 4.0).abs() < 1e-6, "{value}");
    }
}
