use std::ops::Range;

use burn::module::Module;
use burn::tensor::activation::relu;
use burn::tensor::{Tensor, backend::Backend};
use serde_json::json;

use super::contrastive::check_margin;
use super::description::described;
use super::in_batch::{own_mask_of, own_scores_of};
use super::{Columns, LabelColumn, Loss, LossInput, MiniBatch, TextColumns};
use crate::error::{LossError, Result};
use crate::model::CardLoss;
use crate::model::similarity::cos_sim;

/// How [`MegaBatchMarginLoss`] is built.
#[derive(Debug, Clone, PartialEq)]
pub struct MegaBatchMarginLossConfig {
    /// The cosine that a positive is to have at least.
    pub positive_margin: f64,
    /// The cosine that a negative is to have at most.
    pub negative_margin: f64,
    /// Whether a batch is embedded in mini-batches.
    pub use_mini_batched_version: bool,
    /// How many texts of a column are embedded at a time then.
    pub mini_batch_size: usize,
}

impl Default for MegaBatchMarginLossConfig {
    fn default() -> Self {
        Self {
            positive_margin: 0.8,
            negative_margin: 0.3,
            use_mini_batched_version: true,
            mini_batch_size: 50,
        }
    }
}

impl MegaBatchMarginLossConfig {
    /// Builds the loss.
    ///
    /// # Errors
    /// [`LossError::InvalidOption`] if a margin is not a number or the mini-batch size 0.
    pub fn init(&self) -> Result<MegaBatchMarginLoss> {
        check_margin(NAME, "positive_margin", self.positive_margin)?;
        check_margin(NAME, "negative_margin", self.negative_margin)?;
        if self.use_mini_batched_version && self.mini_batch_size == 0 {
            return Err(LossError::option(NAME, "mini_batch_size", "at least 1", 0).into());
        }
        Ok(MegaBatchMarginLoss {
            config: self.clone(),
        })
    }
}

const NAME: &str = "MegaBatchMarginLoss";

/// Each anchor near its positive and away from the nearest other positive of a large
/// batch (Wieting and Gimpel 2018, <https://aclanthology.org/P18-1042>).
///
/// Reads (anchor, positive) columns.
/// `loss = mean(max(0, m_p - cos(a_i, p_i)) + max(0, max_{j≠i} cos(a_i, p_j) - m_n))`.
#[derive(Module, Debug, Clone)]
pub struct MegaBatchMarginLoss {
    config: MegaBatchMarginLossConfig,
}

impl MegaBatchMarginLoss {
    /// What some rows of the batch add to the loss, `[1]`.
    fn of_rows<B: Backend>(
        &self,
        anchors: Tensor<B, 2>,
        positives: Tensor<B, 2>,
        rows: Range<usize>,
    ) -> Tensor<B, 1> {
        let (batch, device) = (anchors.dims()[0], anchors.device());
        let cosines = cos_sim(anchors.narrow(0, rows.start, rows.len()), positives);
        let positive = own_scores_of(cosines.clone(), rows.clone());
        let own = own_mask_of::<B>(rows, batch, 1, &device);
        let hardest = cosines.mask_fill(own, f32::NEG_INFINITY).max_dim(1);
        let missing = relu(positive.neg().add_scalar(self.config.positive_margin));
        let beyond = relu(hardest.sub_scalar(self.config.negative_margin));
        (missing + beyond).sum().div_scalar(batch as f64)
    }
}

impl<B: Backend> Loss<B> for MegaBatchMarginLoss {
    fn name(&self) -> &'static str {
        NAME
    }

    fn describe(&self) -> CardLoss {
        described(
            NAME,
            json!({
                "positive_margin": self.config.positive_margin,
                "negative_margin": self.config.negative_margin,
                "mini_batch_size": self.config.mini_batch_size,
            }),
        )
    }

    fn columns(&self) -> Columns {
        Columns {
            texts: TextColumns::Exactly(2),
            label: LabelColumn::Ignored,
        }
    }

    fn forward(&self, input: LossInput<B>) -> Tensor<B, 1> {
        let [anchors, positives] = input.columns(NAME);
        let batch = anchors.dims()[0];
        self.of_rows(anchors, positives, 0..batch)
    }

    fn forward_rows(&self, input: &LossInput<B>, rows: Range<usize>) -> Option<Tensor<B, 1>> {
        let [anchors, positives] = input.clone().columns(NAME);
        Some(self.of_rows(anchors, positives, rows))
    }

    fn mini_batch(&self) -> Option<MiniBatch> {
        let config = &self.config;
        let in_parts = config.use_mini_batched_version;
        in_parts.then_some(MiniBatch::rows(config.mini_batch_size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestAutodiffBackend, TestBackend, device};
    use crate::error::Error;

    fn value(anchors: &[[f32; 2]], positives: &[[f32; 2]]) -> f32 {
        let column = |rows: &[[f32; 2]]| {
            let rows = rows
                .iter()
                .map(|&row| Tensor::from_floats([row], &device()));
            Tensor::<TestBackend, 2>::cat(rows.collect(), 0)
        };
        let loss = MegaBatchMarginLossConfig::default().init().unwrap();
        loss.forward(LossInput::new(vec![column(anchors), column(positives)]))
            .into_scalar()
    }

    #[test]
    fn the_nearest_other_positive_counts() {
        let anchors = [[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]];
        let positives = [[0.6, 0.8], [0.0, 2.0], [3.0, 0.0]];
        // Own cosines 0.6, 1 and 1; the nearest others 1, 0.8 and 0.6.
        let expected = (0.2 + 0.7 + 0.5 + 0.3) / 3.0;
        assert!((value(&anchors, &positives) - expected).abs() < 1e-6);
    }

    #[test]
    fn a_batch_of_one_has_no_negative() {
        assert!((value(&[[1.0, 0.0]], &[[0.6, 0.8]]) - 0.2).abs() < 1e-6);
        let anchor = [[1.0, 0.0]];
        let anchor = Tensor::<TestAutodiffBackend, 2>::from_floats(anchor, &device());
        let anchor = anchor.require_grad();
        let positive = Tensor::from_floats([[0.6, 0.8]], &device());
        let loss = MegaBatchMarginLossConfig::default().init().unwrap();
        let value = loss.forward(LossInput::new(vec![anchor.clone(), positive]));
        let gradient = anchor.grad(&value.backward()).unwrap().into_data();
        assert!(gradient.iter::<f32>().all(f32::is_finite));
    }

    #[test]
    fn embeds_in_parts_unless_told_otherwise() {
        let config = MegaBatchMarginLossConfig::default();
        let size = |config: &MegaBatchMarginLossConfig| {
            Loss::<TestBackend>::mini_batch(&config.init().unwrap())
        };
        assert_eq!(size(&config), Some(MiniBatch::rows(50)));
        let at_once = MegaBatchMarginLossConfig {
            use_mini_batched_version: false,
            ..config.clone()
        };
        assert_eq!(size(&at_once), None);
        let nothing = MegaBatchMarginLossConfig {
            mini_batch_size: 0,
            ..config
        };
        assert!(matches!(
            nothing.init(),
            Err(Error::Loss(LossError::InvalidOption {
                option: "mini_batch_size",
                ..
            }))
        ));
    }
}
