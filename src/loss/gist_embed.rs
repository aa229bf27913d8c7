use std::ops::Range;

use burn::module::Module;
use burn::tensor::{Bool, Tensor, backend::Backend};
use serde_json::json;

use super::cosine_similarity::unit_length;
use super::description::described;
use super::in_batch::{log_sum_exp, own_mask_of, own_scores_of};
use super::{Columns, LabelColumn, Loss, LossData, LossInput, TextColumns};
use crate::error::{LossError, Result};
use crate::model::CardLoss;
use crate::model::similarity::dot_score;

/// What a margin is measured in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MarginStrategy {
    /// In similarity.
    #[default]
    Absolute,
    /// In shares of the positive's similarity.
    Relative,
}

/// How [`GISTEmbedLoss`] is built.
#[derive(Debug, Clone, PartialEq)]
pub struct GISTEmbedLossConfig {
    /// What similarities are divided by.
    pub temperature: f64,
    /// What the margin is measured in.
    pub margin_strategy: MarginStrategy,
    /// By how much less than the positive the guide must find a text similar, for it to
    /// count as a negative.
    pub margin: f64,
    /// Whether other anchors are negatives too.
    pub contrast_anchors: bool,
    /// Whether positives are also each other's negatives.
    pub contrast_positives: bool,
}

impl Default for GISTEmbedLossConfig {
    fn default() -> Self {
        Self {
            temperature: 0.01,
            margin_strategy: MarginStrategy::Absolute,
            margin: 0.0,
            contrast_anchors: true,
            contrast_positives: true,
        }
    }
}

impl GISTEmbedLossConfig {
    /// Builds the loss.
    ///
    /// # Errors
    /// [`LossError::InvalidOption`] if the temperature is not a positive number or the
    /// margin none at all.
    pub fn init(&self) -> Result<GISTEmbedLoss> {
        let temperature = self.temperature;
        if !(temperature > 0.0 && temperature.is_finite()) {
            let expected = "a positive number";
            return Err(LossError::option(NAME, "temperature", expected, temperature).into());
        }
        if !self.margin.is_finite() {
            return Err(LossError::option(NAME, "margin", "a number", self.margin).into());
        }
        Ok(GISTEmbedLoss {
            config: self.clone(),
        })
    }
}

const NAME: &str = "GISTEmbedLoss";

/// In-batch negatives without those that a guide model holds for positives: a text that
/// it finds more similar than the anchor's own positive is left out (Solatorio 2024,
/// <https://arxiv.org/abs/2402.16829>).
///
/// Reads (anchor, positive) or (anchor, positive, negative…) columns and the guide's
/// embeddings of them. The loss is the cross entropy of each anchor's positive among all
/// positives, anchors and negatives and its positive's similarities to other positives,
/// by cosine over temperature.
#[derive(Module, Debug, Clone)]
pub struct GISTEmbedLoss {
    config: GISTEmbedLossConfig,
}

impl GISTEmbedLoss {
    /// The guide's similarity from which on a text is left out, of each anchor.
    fn threshold<B: Backend>(&self, positive: Tensor<B, 2>) -> Tensor<B, 2> {
        let margin = self.config.margin;
        match self.config.margin_strategy {
            MarginStrategy::Absolute => positive.sub_scalar(margin),
            MarginStrategy::Relative => positive.clone() - positive.abs().mul_scalar(margin),
        }
    }

    /// What some rows of the batch add to the loss, `[1]`.
    fn of_rows<B: Backend>(&self, input: &LossInput<B>, rows: Range<usize>) -> Tensor<B, 1> {
        let columns = input.embeddings.len();
        assert!(columns >= 2, "{NAME} needs anchors and positives");
        assert!(
            columns == input.guide.len(),
            "{NAME} needs the guide's embeddings"
        );
        let unit = |columns: &[Tensor<B, 2>]| -> Vec<Tensor<B, 2>> {
            columns.iter().cloned().map(unit_length).collect()
        };
        let (texts, guide) = (unit(&input.embeddings), unit(&input.guide));
        let (batch, device) = (texts[0].dims()[0], texts[0].device());

        // Which columns are compared: anchors with positives, then as told.
        let mut compared = vec![(0, 1)];
        if self.config.contrast_anchors {
            compared.push((0, 0));
        }
        if self.config.contrast_positives {
            compared.push((1, 1));
        }
        compared.extend((2..columns).map(|negative| (0, negative)));

        let cosines = |texts: &[Tensor<B, 2>], (row, column): (usize, usize)| {
            let of_rows = texts[row].clone().narrow(0, rows.start, rows.len());
            dot_score(of_rows, texts[column].clone())
        };
        let own = own_scores_of(cosines(&guide, (0, 1)), rows.clone());
        let threshold = self.threshold(own).expand([rows.len(), batch]);
        let scores = compared.into_iter().map(|pair| {
            let mut left_out: Tensor<B, 2, Bool> = cosines(&guide, pair).greater(threshold.clone());
            if pair == (0, 1) {
                let own = own_mask_of::<B>(rows.clone(), batch, 1, &device);
                left_out = left_out.bool_and(own.bool_not());
            }
            let scores = cosines(&texts, pair).div_scalar(self.config.temperature);
            scores.mask_fill(left_out, f32::NEG_INFINITY)
        });
        let scores = Tensor::cat(scores.collect(), 1);
        let losses = log_sum_exp(scores.clone()) - own_scores_of(scores, rows.clone());
        losses.sum().div_scalar(batch as f64)
    }
}

impl<B: Backend> Loss<B> for GISTEmbedLoss {
    fn name(&self) -> &'static str {
        NAME
    }

    fn describe(&self) -> CardLoss {
        described(
            NAME,
            json!({
                "temperature": self.config.temperature,
                "margin_strategy": match self.config.margin_strategy {
                    MarginStrategy::Absolute => "absolute",
                    MarginStrategy::Relative => "relative",
                },
                "margin": self.config.margin,
                "contrast_anchors": self.config.contrast_anchors,
                "contrast_positives": self.config.contrast_positives,
            }),
        )
    }

    fn columns(&self) -> Columns {
        Columns {
            texts: TextColumns::AtLeast(2),
            label: LabelColumn::Ignored,
        }
    }

    fn check(&self, data: &LossData<'_>) -> Result<()> {
        let columns = Loss::<B>::columns(self);
        columns.check(NAME, data.texts, data.label_width)?;
        match data.guide {
            true => Ok(()),
            false => Err(LossError::NoGuide { loss: NAME }.into()),
        }
    }

    fn forward(&self, input: LossInput<B>) -> Tensor<B, 1> {
        let batch = input
            .embeddings
            .first()
            .map_or(0, |column| column.dims()[0]);
        self.of_rows(&input, 0..batch)
    }

    fn forward_rows(&self, input: &LossInput<B>, rows: Range<usize>) -> Option<Tensor<B, 1>> {
        Some(self.of_rows(input, rows))
    }

    fn needs_guide(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};
    use crate::error::Error;

    /// The embedding at that angle, in degrees.
    fn at(angles: [f32; 2]) -> Tensor<TestBackend, 2> {
        let rows = angles.map(|angle| {
            let (sin, cos) = angle.to_radians().sin_cos();
            [cos, sin]
        });
        Tensor::from_floats(rows, &device())
    }

    fn value(change: fn(&mut GISTEmbedLossConfig), guide: [[f32; 2]; 2]) -> f32 {
        let mut config = GISTEmbedLossConfig {
            temperature: 1.0,
            contrast_anchors: false,
            contrast_positives: false,
            ..Default::default()
        };
        change(&mut config);
        let input = LossInput::new(vec![at([0.0, 90.0]), at([60.0, 30.0])]);
        let input = input.with_guide(guide.map(at).into());
        config.init().unwrap().forward(input).into_scalar()
    }

    /// The cross entropy of a score against others.
    fn entropy(own: f32, others: &[f32]) -> f32 {
        let all: f32 = others.iter().map(|other| other.exp()).sum();
        (own.exp() + all).ln() - own
    }

    const COS_30: f32 = 0.866_025_4;

    #[test]
    fn what_the_guide_finds_nearer_is_left_out() {
        // Own cosines 1/2; the other positive at cos 30° of either anchor.
        let both = entropy(0.5, &[COS_30]);
        assert!((value(|_| (), [[0.0, 90.0], [0.0, 90.0]]) - both).abs() < 1e-6);
        // To the guide, the second positive is nearer to the first anchor.
        let second = value(|_| (), [[0.0, 20.0], [40.0, 30.0]]);
        assert!((second - both / 2.0).abs() < 1e-6, "{second}");
    }

    #[test]
    fn a_margin_leaves_out_more() {
        let both = entropy(0.5, &[COS_30]);
        // Guide: cosines 1 of either pair, 0.5 of either other.
        let guide = [[0.0, 60.0], [0.0, 60.0]];
        assert!((value(|_| (), guide) - both).abs() < 1e-6);
        assert_eq!(value(|config| config.margin = 0.6, guide), 0.0);
        let relative = |config: &mut GISTEmbedLossConfig| {
            config.margin_strategy = MarginStrategy::Relative;
            config.margin = 0.6;
        };
        assert_eq!(value(relative, guide), 0.0);
        // A share of a negative similarity lowers the threshold too.
        let opposed = [[0.0, 0.0], [120.0, 130.0]];
        let expected = value(|config| config.margin = 0.3, opposed);
        assert!((value(relative, opposed) - expected).abs() < 1e-6);
    }

    #[test]
    fn anchors_and_positives_may_stand_against_each_other() {
        // To the guide, each text is nearer to itself than an anchor to its positive.
        let guide = [[0.0, 90.0], [10.0, 80.0]];
        let anchors = value(|config| config.contrast_anchors = true, guide);
        assert!((anchors - entropy(0.5, &[COS_30, 0.0])).abs() < 1e-6);
        let positives = value(|config| config.contrast_positives = true, guide);
        assert!((positives - entropy(0.5, &[COS_30, COS_30])).abs() < 1e-6);
    }

    #[test]
    fn needs_a_guide() {
        let loss = GISTEmbedLossConfig::default().init().unwrap();
        let check = |data| Loss::<TestBackend>::check(&loss, &data);
        assert!(Loss::<TestBackend>::needs_guide(&loss));
        assert!(check(LossData::new(3, 8).with_guide(true)).is_ok());
        assert!(matches!(
            check(LossData::new(3, 8)),
            Err(Error::Loss(LossError::NoGuide { .. }))
        ));
    }

    #[test]
    fn rejects_a_temperature_that_is_not_positive() {
        let config = GISTEmbedLossConfig {
            temperature: 0.0,
            ..Default::default()
        };
        assert!(matches!(
            config.init(),
            Err(Error::Loss(LossError::InvalidOption {
                option: "temperature",
                ..
            }))
        ));
    }
}
