use burn::module::Module;
use burn::tensor::activation::relu;
use burn::tensor::{Tensor, backend::Backend};
use serde_json::json;

use super::contrastive::check_margin;
use super::description::described;
use super::{Columns, LabelColumn, Loss, LossInput, TextColumns};
use crate::error::Result;
use crate::model::CardLoss;
use crate::model::similarity::{pairwise_cos_sim, pairwise_euclidean_sim, pairwise_manhattan_sim};

/// How far an anchor is from another text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TripletDistanceMetric {
    /// 1 minus the cosine.
    Cosine,
    /// The Euclidean distance.
    #[default]
    Euclidean,
    /// The sum of the absolute differences.
    Manhattan,
}

/// How [`TripletLoss`] is built.
#[derive(Debug, Clone, PartialEq)]
pub struct TripletLossConfig {
    /// How far an anchor is from another text.
    pub distance_metric: TripletDistanceMetric,
    /// By how much the negative is to be further away than the positive.
    pub triplet_margin: f64,
}

impl Default for TripletLossConfig {
    fn default() -> Self {
        Self {
            distance_metric: TripletDistanceMetric::Euclidean,
            triplet_margin: 5.0,
        }
    }
}

impl TripletLossConfig {
    /// Builds the loss.
    ///
    /// # Errors
    /// [`LossError::InvalidOption`](crate::error::LossError) if `triplet_margin` is not a
    /// number.
    pub fn init(&self) -> Result<TripletLoss> {
        check_margin(NAME, "triplet_margin", self.triplet_margin)?;
        Ok(TripletLoss {
            config: self.clone(),
        })
    }
}

const NAME: &str = "TripletLoss";

/// Each anchor nearer to its positive than to its negative, by a margin.
///
/// Reads (anchor, positive, negative) columns.
/// `loss = mean(max(0, d(a, p) - d(a, n) + margin))`.
#[derive(Module, Debug, Clone)]
pub struct TripletLoss {
    config: TripletLossConfig,
}

impl<B: Backend> Loss<B> for TripletLoss {
    fn name(&self) -> &'static str {
        NAME
    }

    fn describe(&self) -> CardLoss {
        described(
            NAME,
            json!({
                "distance_metric": match self.config.distance_metric {
                    TripletDistanceMetric::Cosine => "TripletDistanceMetric.COSINE",
                    TripletDistanceMetric::Euclidean => "TripletDistanceMetric.EUCLIDEAN",
                    TripletDistanceMetric::Manhattan => "TripletDistanceMetric.MANHATTAN",
                },
                "triplet_margin": self.config.triplet_margin,
            }),
        )
    }

    fn columns(&self) -> Columns {
        Columns {
            texts: TextColumns::Exactly(3),
            label: LabelColumn::Ignored,
        }
    }

    fn forward(&self, input: LossInput<B>) -> Tensor<B, 1> {
        let [anchors, positives, negatives] = input.columns(NAME);
        let nearness = match self.config.distance_metric {
            TripletDistanceMetric::Cosine => pairwise_cos_sim,
            TripletDistanceMetric::Euclidean => pairwise_euclidean_sim,
            TripletDistanceMetric::Manhattan => pairwise_manhattan_sim,
        };
        let ahead = nearness(anchors.clone(), positives) - nearness(anchors, negatives);
        relu(ahead.neg().add_scalar(self.config.triplet_margin)).mean()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestAutodiffBackend, TestBackend, device};
    use crate::error::{Error, LossError};

    fn columns() -> Vec<Tensor<TestBackend, 2>> {
        let tensor = |rows: [[f32; 2]; 2]| Tensor::from_floats(rows, &device());
        vec![
            tensor([[1.0, 0.0], [1.0, 0.0]]),
            tensor([[1.0, 2.0], [1.0, 0.0]]),
            tensor([[4.0, 4.0], [1.0, 0.0]]),
        ]
    }

    #[test]
    fn is_the_formula_for_every_distance() {
        let cosines = (0.2f32.sqrt(), 0.5f32.sqrt());
        for (distance_metric, first) in [
            (TripletDistanceMetric::Euclidean, 2.0 - 5.0 + 3.5),
            (TripletDistanceMetric::Manhattan, 0.0),
            (TripletDistanceMetric::Cosine, cosines.1 - cosines.0 + 3.5),
        ] {
            let config = TripletLossConfig {
                distance_metric,
                triplet_margin: 3.5,
            };
            let value = config
                .init()
                .unwrap()
                .forward(LossInput::new(columns()))
                .into_scalar();
            let expected = (first + 3.5) / 2.0;
            assert!(
                (value - expected).abs() < 1e-5,
                "{distance_metric:?}: {value}"
            );
        }
    }

    #[test]
    fn a_positive_that_is_the_anchor_has_a_finite_gradient() {
        let tracked = |columns: Vec<Tensor<TestBackend, 2>>| -> Vec<_> {
            let tracked = columns
                .into_iter()
                .map(Tensor::<TestAutodiffBackend, 2>::from_inner);
            tracked.map(Tensor::require_grad).collect()
        };
        let columns = tracked(columns());
        let loss = TripletLossConfig::default().init().unwrap();
        let gradients = loss.forward(LossInput::new(columns.clone())).backward();
        for column in columns {
            let gradient = column.grad(&gradients).unwrap().into_data();
            assert!(gradient.iter::<f32>().all(f32::is_finite));
        }
    }

    #[test]
    fn rejects_a_margin_that_is_no_number() {
        let config = TripletLossConfig {
            triplet_margin: f64::INFINITY,
            ..Default::default()
        };
        assert!(matches!(
            config.init(),
            Err(Error::Loss(LossError::InvalidOption {
                option: "triplet_margin",
                ..
            }))
        ));
    }
}
