use burn::module::Module;
use burn::tensor::activation::relu;
use burn::tensor::{Bool, Tensor, backend::Backend};
use serde_json::json;

use super::contrastive::{check_margin, is_binary};
use super::description::described;
use super::{Columns, LabelColumn, Loss, LossData, LossInput, SiameseDistanceMetric, TextColumns};
use crate::error::Result;
use crate::model::CardLoss;

/// How [`OnlineContrastiveLoss`] is built.
#[derive(Debug, Clone, PartialEq)]
pub struct OnlineContrastiveLossConfig {
    /// How far apart the two texts of a pair are.
    pub distance_metric: SiameseDistanceMetric,
    /// How far apart texts that do not belong together are to be.
    pub margin: f64,
}

impl Default for OnlineContrastiveLossConfig {
    fn default() -> Self {
        Self {
            distance_metric: SiameseDistanceMetric::CosineDistance,
            margin: 0.5,
        }
    }
}

impl OnlineContrastiveLossConfig {
    /// Builds the loss.
    ///
    /// # Errors
    /// [`LossError::InvalidOption`](crate::error::LossError) if `margin` is not a number.
    pub fn init(&self) -> Result<OnlineContrastiveLoss> {
        check_margin(NAME, "margin", self.margin)?;
        Ok(OnlineContrastiveLoss {
            config: self.clone(),
        })
    }
}

const NAME: &str = "OnlineContrastiveLoss";

/// [`ContrastiveLoss`](super::ContrastiveLoss) of a batch's hard pairs alone: those that
/// belong together but lie further apart than some pair that does not, and the other way
/// round.
///
/// Reads (text, text) columns and a label a pair, 1 where they belong together and 0
/// where they do not. `loss = Σ d² + Σ max(0, margin - d)²`, added up over the hard pairs
/// of either kind. In a batch of one kind alone, hard is what lies beyond the mean.
#[derive(Module, Debug, Clone)]
pub struct OnlineContrastiveLoss {
    config: OnlineContrastiveLossConfig,
}

impl<B: Backend> Loss<B> for OnlineContrastiveLoss {
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
                "{NAME}: the label of sample {sample} is {label}, neither 0 nor 1; such pairs \
                 are left out"
            );
        }
        Ok(())
    }

    fn forward(&self, mut input: LossInput<B>) -> Tensor<B, 1> {
        let labels = input.take_labels(NAME).values();
        let [a, b] = input.columns(NAME);
        let distances = self.config.distance_metric.distance(a, b);
        let positive = labels.clone().equal_elem(1.0);
        let negative = labels.equal_elem(0.0);

        let values = distances.clone().detach();
        let furthest = bound(
            &values,
            &positive,
            &negative,
            |masked| masked.max(),
            f32::MIN,
        );
        let nearest = bound(
            &values,
            &negative,
            &positive,
            |masked| masked.min(),
            f32::MAX,
        );
        let far = positive.bool_and(values.clone().greater(nearest));
        let near = negative.bool_and(values.lower(furthest));

        let together = distances.clone().square() * far.float();
        let missing = relu(distances.neg().add_scalar(self.config.margin));
        (together + missing.square() * near.float()).sum()
    }
}

/// The extreme distance of one kind of pairs, which the other kind is held against; the
/// mean of the other kind where this one is not there.
fn bound<B: Backend>(
    distances: &Tensor<B, 1>,
    kind: &Tensor<B, 1, Bool>,
    other: &Tensor<B, 1, Bool>,
    extreme: impl Fn(Tensor<B, 1>) -> Tensor<B, 1>,
    least: f32,
) -> Tensor<B, 1> {
    let (kind, other) = (kind.clone(), other.clone().float());
    let count = other.clone().sum().clamp_min(1.0);
    let mean = (distances.clone() * other).sum() / count;
    let found = extreme(distances.clone().mask_fill(kind.clone().bool_not(), least));
    let bound = mean.mask_where(kind.any(), found);
    bound.expand([distances.dims()[0]])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};
    use crate::loss::Labels;

    /// The loss of pairs of those Euclidean distances, with a margin of 10.
    fn value(distances: [f32; 4], labels: [f32; 4]) -> f32 {
        let config = OnlineContrastiveLossConfig {
            distance_metric: SiameseDistanceMetric::Manhattan,
            margin: 10.0,
        };
        let zeros = Tensor::<TestBackend, 2>::zeros([4, 1], &device());
        let others = Tensor::<TestBackend, 1>::from_floats(distances, &device()).neg();
        let labels = Tensor::<TestBackend, 1>::from_floats(labels, &device());
        let labels = Labels::new(labels.unsqueeze_dim(1));
        let columns = vec![zeros, others.unsqueeze_dim(1)];
        let input = LossInput::new(columns).with_labels(Some(labels));
        config.init().unwrap().forward(input).into_scalar()
    }

    #[test]
    fn only_hard_pairs_count() {
        // 3 lies beyond the negative at 2, which lies within the positive at 3.
        let found = value([1.0, 3.0, 2.0, 4.0], [1.0, 1.0, 0.0, 0.0]);
        assert!((found - (9.0 + 64.0)).abs() < 1e-3, "{found}");
        // A label of neither kind is left out.
        let found = value([1.0, 3.0, 2.0, 4.0], [1.0, 1.0, 0.0, 0.5]);
        assert!((found - (9.0 + 64.0)).abs() < 1e-3, "{found}");
        assert_eq!(value([1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 0.0, 0.0]), 0.0);
    }

    #[test]
    fn of_one_kind_alone_those_beyond_the_mean_count() {
        let found = value([1.0, 2.0, 3.0, 4.0], [1.0; 4]);
        assert!((found - 25.0).abs() < 1e-3, "{found}");
        let found = value([1.0, 2.0, 3.0, 4.0], [0.0; 4]);
        assert!((found - (81.0 + 64.0)).abs() < 1e-3, "{found}");
    }
}
