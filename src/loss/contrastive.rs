use burn::module::Module;
use burn::tensor::activation::relu;
use burn::tensor::{Tensor, backend::Backend};
use serde_json::json;

use super::cosine_similarity::cosine_similarity;
use super::description::described;
use super::{Columns, LabelColumn, Loss, LossData, LossInput, TextColumns};
use crate::error::{LossError, Result};
use crate::model::CardLoss;

/// How far apart the two texts of a pair are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SiameseDistanceMetric {
    /// The length of the difference, to each number of which 1e-6 is added (PyTorch's
    /// `pairwise_distance`).
    Euclidean,
    /// The sum of the absolute differences, likewise.
    Manhattan,
    /// 1 minus the cosine.
    #[default]
    CosineDistance,
}

impl SiameseDistanceMetric {
    /// The name that Python gives it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Euclidean => "SiameseDistanceMetric.EUCLIDEAN",
            Self::Manhattan => "SiameseDistanceMetric.MANHATTAN",
            Self::CosineDistance => "SiameseDistanceMetric.COSINE_DISTANCE",
        }
    }

    /// The distance of each row of `a` to the same row of `b`.
    ///
    /// # Shapes
    /// - a, b: `[pairs, dim]`
    /// - output: `[pairs]`
    pub(super) fn distance<B: Backend>(self, a: Tensor<B, 2>, b: Tensor<B, 2>) -> Tensor<B, 1> {
        let differences = |a: Tensor<B, 2>, b: Tensor<B, 2>| (a - b).add_scalar(1e-6);
        let distances = match self {
            Self::Euclidean => differences(a, b).square().sum_dim(1).sqrt(),
            Self::Manhattan => differences(a, b).abs().sum_dim(1),
            Self::CosineDistance => return cosine_similarity(a, b).neg().add_scalar(1.0),
        };
        distances.squeeze_dim(1)
    }
}

/// How [`ContrastiveLoss`] is built.
#[derive(Debug, Clone, PartialEq)]
pub struct ContrastiveLossConfig {
    /// How far apart the two texts of a pair are.
    pub distance_metric: SiameseDistanceMetric,
    /// How far apart texts that do not belong together are to be.
    pub margin: f64,
    /// Whether the pairs' losses are averaged; added up if not.
    pub size_average: bool,
}

impl Default for ContrastiveLossConfig {
    fn default() -> Self {
        Self {
            distance_metric: SiameseDistanceMetric::CosineDistance,
            margin: 0.5,
            size_average: true,
        }
    }
}

impl ContrastiveLossConfig {
    /// Builds the loss.
    ///
    /// # Errors
    /// [`LossError::InvalidOption`] if `margin` is not a number.
    pub fn init(&self) -> Result<ContrastiveLoss> {
        check_margin(NAME, "margin", self.margin)?;
        Ok(ContrastiveLoss {
            config: self.clone(),
        })
    }
}

const NAME: &str = "ContrastiveLoss";

/// Texts that belong together near each other, others at least a margin apart (Hadsell
/// et al. 2006, <https://doi.org/10.1109/CVPR.2006.100>).
///
/// Reads (text, text) columns and a label a pair, 1 where they belong together and 0
/// where they do not. With `d` a pair's distance,
/// `loss = mean(½·(y·d² + (1 - y)·max(0, margin - d)²))`.
#[derive(Module, Debug, Clone)]
pub struct ContrastiveLoss {
    config: ContrastiveLossConfig,
}

impl<B: Backend> Loss<B> for ContrastiveLoss {
    fn name(&self) -> &'static str {
        NAME
    }

    fn describe(&self) -> CardLoss {
        described(
            NAME,
            json!({
                "distance_metric": self.config.distance_metric.name(),
                "margin": self.config.margin,
                "size_average": self.config.size_average,
            }),
        )
    }

    fn columns(&self) -> Columns {
        Columns {
            texts: TextColumns::Exactly(2),
            label: LabelColumn::Required { width: 1 },
        }
    }

    fn check(&self, data: &LossData<'_>) -> Result<()> {
        let columns = Loss::<B>::columns(self);
        columns.check(NAME, data.texts, data.label_width)?;
        if let Some((sample, label)) = data.find_label(is_binary) {
            log::warn!(
                "{NAME}: the label of sample {sample} is {label}, neither 0 nor 1; such labels \
                 weigh the two terms"
            );
        }
        Ok(())
    }

    fn forward(&self, mut input: LossInput<B>) -> Tensor<B, 1> {
        let labels = input.take_labels(NAME).values();
        let [a, b] = input.columns(NAME);
        let distances = self.config.distance_metric.distance(a, b);
        let missing = relu(distances.clone().neg().add_scalar(self.config.margin));
        let apart = labels.clone().neg().add_scalar(1.0) * missing.square();
        let losses = (labels * distances.square() + apart).mul_scalar(0.5);
        match self.config.size_average {
            true => losses.mean(),
            false => losses.sum(),
        }
    }
}

pub(super) fn is_binary(label: f32) -> bool {
    label == 0.0 || label == 1.0
}

pub(super) fn check_margin(loss: &'static str, option: &'static str, margin: f64) -> Result<()> {
    if !margin.is_finite() {
        return Err(LossError::option(loss, option, "a number", margin).into());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};
    use crate::error::Error;
    use crate::loss::Labels;

    fn tensor(rows: [[f32; 2]; 2]) -> Tensor<TestBackend, 2> {
        Tensor::from_floats(rows, &device())
    }

    #[test]
    fn distances_are_pytorchs() {
        let (a, b) = (
            tensor([[3.0, 4.0], [1.0, 1.0]]),
            tensor([[0.0, 0.0], [1.0, 1.0]]),
        );
        for (metric, expected) in [
            (SiameseDistanceMetric::Euclidean, [5.0, 2f32.sqrt() * 1e-6]),
            (SiameseDistanceMetric::Manhattan, [7.0, 2e-6]),
            (SiameseDistanceMetric::CosineDistance, [1.0, 0.0]),
        ] {
            let found: Vec<f32> = metric
                .distance(a.clone(), b.clone())
                .into_data()
                .iter()
                .collect();
            assert!(
                (found[0] - expected[0]).abs() < 1e-5,
                "{metric:?}: {found:?}"
            );
            assert!(
                (found[1] - expected[1]).abs() < 1e-7,
                "{metric:?}: {found:?}"
            );
        }
    }

    #[test]
    fn pulls_pairs_together_and_pushes_others_apart() {
        let value = |labels: [[f32; 1]; 2], size_average| {
            let config = ContrastiveLossConfig {
                margin: 1.5,
                size_average,
                ..Default::default()
            };
            let columns = vec![
                tensor([[1.0, 0.0], [1.0, 0.0]]),
                tensor([[0.0, 1.0], [0.0, 1.0]]),
            ];
            let labels = Labels::new(Tensor::from_floats(labels, &device()));
            let input = LossInput::new(columns).with_labels(Some(labels));
            config.init().unwrap().forward(input).into_scalar()
        };
        assert!((value([[1.0], [1.0]], true) - 0.5).abs() < 1e-6);
        assert!((value([[0.0], [0.0]], true) - 0.125).abs() < 1e-6);
        assert!((value([[1.0], [0.0]], false) - 0.625).abs() < 1e-6);
    }

    #[test]
    fn rejects_a_margin_that_is_no_number() {
        let config = ContrastiveLossConfig {
            margin: f64::NAN,
            ..Default::default()
        };
        assert!(matches!(
            config.init(),
            Err(Error::Loss(LossError::InvalidOption {
                option: "margin",
                ..
            }))
        ));
    }
}
