use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};
use serde_json::json;

use super::description::{described, pairwise_name};
use super::{Columns, LabelColumn, Loss, LossData, LossInput, TextColumns};
use crate::error::{LossError, Result};
use crate::model::CardLoss;
use crate::model::similarity::SimilarityFunction;

/// How [`MarginMSELoss`] is built.
#[derive(Debug, Clone, PartialEq)]
pub struct MarginMSELossConfig {
    /// How a query is compared with a passage.
    pub similarity: SimilarityFunction,
}

impl Default for MarginMSELossConfig {
    fn default() -> Self {
        Self {
            similarity: SimilarityFunction::Dot,
        }
    }
}

impl MarginMSELossConfig {
    /// Builds the loss.
    pub fn init(&self) -> MarginMSELoss {
        MarginMSELoss {
            config: self.clone(),
        }
    }
}

const NAME: &str = "MarginMSELoss";

/// A teacher's margins between positives and negatives (Hofstätter et al. 2020,
/// <https://arxiv.org/abs/2010.02666>).
///
/// Reads (query, positive, negative…) columns and as label the teacher's margin for each
/// negative, or its scores for the positive and each negative.
/// `loss = mean((sim(q, p) - sim(q, n) - margin)²)`.
#[derive(Module, Debug, Clone)]
pub struct MarginMSELoss {
    config: MarginMSELossConfig,
}

impl<B: Backend> Loss<B> for MarginMSELoss {
    fn name(&self) -> &'static str {
        NAME
    }

    fn describe(&self) -> CardLoss {
        described(
            NAME,
            json!({ "similarity_fct": pairwise_name(self.config.similarity) }),
        )
    }

    fn columns(&self) -> Columns {
        Columns {
            texts: TextColumns::AtLeast(3),
            label: LabelColumn::Dependent,
        }
    }

    fn check(&self, data: &LossData<'_>) -> Result<()> {
        let columns = Loss::<B>::columns(self);
        columns.check(NAME, data.texts, data.label_width)?;
        let negatives = data.texts - 2;
        match data.label_width {
            Some(found) if found != negatives && found != negatives + 1 => {
                Err(LossError::LabelWidth {
                    loss: NAME,
                    expected: format!(
                        "{negatives} margins, or {} scores of the positive and the negatives",
                        negatives + 1
                    ),
                    found,
                }
                .into())
            }
            _ => Ok(()),
        }
    }

    fn forward(&self, mut input: LossInput<B>) -> Tensor<B, 1> {
        let labels = input.take_labels(NAME).rows().detach();
        assert!(input.embeddings.len() >= 3, "{NAME} needs negatives");
        let negatives = input.embeddings.split_off(2);
        let [queries, positives] = input.columns(NAME);
        let count = negatives.len();
        let margins = match labels.dims()[1] == count {
            true => labels,
            false => labels.clone().narrow(1, 0, 1) - labels.narrow(1, 1, count),
        };
        let compare = self.config.similarity.to_similarity_pairwise_fn();
        let scores = |passages| compare(queries.clone(), passages).unsqueeze_dim::<2>(1);
        let positives = scores(positives);
        let negatives = Tensor::cat(negatives.into_iter().map(scores).collect(), 1);
        (positives - negatives - margins).square().mean()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};
    use crate::error::Error;
    use crate::loss::Labels;

    fn value<const W: usize>(labels: [f32; W], negatives: usize) -> f32 {
        let tensor = |row: [f32; 2]| Tensor::<TestBackend, 2>::from_floats([row], &device());
        let mut columns = vec![tensor([1.0, 2.0]), tensor([3.0, 1.0])];
        columns.extend(
            [tensor([1.0, 1.0]), tensor([0.0, -1.0])]
                .into_iter()
                .take(negatives),
        );
        let labels = Labels::new(Tensor::from_floats([labels], &device()));
        let input = LossInput::new(columns).with_labels(Some(labels));
        MarginMSELossConfig::default()
            .init()
            .forward(input)
            .into_scalar()
    }

    #[test]
    fn labels_are_margins_or_scores() {
        // Scores 5, 3 and -2: margins 2 and 7.
        assert!((value([2.5], 1) - 0.25).abs() < 1e-6);
        assert!((value([10.0, 7.5], 1) - 0.25).abs() < 1e-6);
        assert!((value([2.5, 6.0], 2) - 0.625).abs() < 1e-6);
        assert!((value([10.0, 7.5, 4.0], 2) - 0.625).abs() < 1e-6);
    }

    #[test]
    fn a_label_goes_with_the_negatives() {
        let loss = MarginMSELossConfig::default().init();
        let check = |texts, width: usize| {
            let labels = [vec![0.0; width]];
            let data = LossData::new(texts, 8).with_labels(Some(&labels));
            Loss::<TestBackend>::check(&loss, &data)
        };
        for (texts, width) in [(3, 1), (3, 2), (5, 3), (5, 4)] {
            assert!(check(texts, width).is_ok());
        }
        assert!(matches!(
            check(4, 1),
            Err(Error::Loss(LossError::LabelWidth { found: 1, .. }))
        ));
        assert!(check(2, 1).is_err());
    }
}
