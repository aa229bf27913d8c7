use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};
use serde_json::json;

use super::description::{described, pairwise_name};
use super::{Columns, LabelColumn, Loss, LossInput, TextColumns};
use crate::error::{LossError, Result};
use crate::model::CardLoss;
use crate::model::similarity::SimilarityFunction;

/// How [`CoSENTLoss`] is built.
#[derive(Debug, Clone, PartialEq)]
pub struct CoSENTLossConfig {
    /// What similarities are multiplied with: the inverse of the temperature.
    pub scale: f64,
    /// How the two texts of a pair are compared.
    pub similarity: SimilarityFunction,
}

impl Default for CoSENTLossConfig {
    fn default() -> Self {
        Self {
            scale: 20.0,
            similarity: SimilarityFunction::Cosine,
        }
    }
}

impl CoSENTLossConfig {
    /// Builds the loss.
    ///
    /// # Errors
    /// [`LossError::InvalidOption`] if `scale` is not a positive number.
    pub fn init(&self) -> Result<CoSENTLoss> {
        check_scale(NAME, self.scale)?;
        Ok(CoSENTLoss {
            config: self.clone(),
        })
    }
}

const NAME: &str = "CoSENTLoss";

/// Pairs in the order of their scores, by their similarities
/// (<https://kexue.fm/archives/8847>); the reference's default loss.
///
/// Reads (text, text) columns and a score a pair, of any range.
/// `loss = log(1 + Σ exp(s·(sim_k - sim_i)))` over all pairs `i` and `k` of which `i` has
/// the higher score.
#[derive(Module, Debug, Clone)]
pub struct CoSENTLoss {
    config: CoSENTLossConfig,
}

impl<B: Backend> Loss<B> for CoSENTLoss {
    fn name(&self) -> &'static str {
        NAME
    }

    fn describe(&self) -> CardLoss {
        described(
            NAME,
            json!({
                "scale": self.config.scale,
                "similarity_fct": pairwise_name(self.config.similarity),
            }),
        )
    }

    fn columns(&self) -> Columns {
        Columns {
            texts: TextColumns::Exactly(2),
            label: LabelColumn::Required { width: 1 },
        }
    }

    fn forward(&self, mut input: LossInput<B>) -> Tensor<B, 1> {
        let labels = input.take_labels(NAME).values();
        let [a, b] = input.columns(NAME);
        let similarities = self.config.similarity.to_similarity_pairwise_fn()(a, b);
        out_of_order(similarities.mul_scalar(self.config.scale), labels)
    }
}

pub(super) fn check_scale(loss: &'static str, scale: f64) -> Result<()> {
    if !(scale > 0.0 && scale.is_finite()) {
        return Err(LossError::option(loss, "scale", "a positive number", scale).into());
    }
    Ok(())
}

/// The logarithm of 1 and the exponentials of how far each score lies above each one
/// that should be higher.
///
/// # Shapes
/// - scores, labels: `[pairs]`
/// - output: `[1]`
pub(super) fn out_of_order<B: Backend>(scores: Tensor<B, 1>, labels: Tensor<B, 1>) -> Tensor<B, 1> {
    let pairs = scores.dims()[0];
    let square = [pairs, pairs];
    let column = |values: Tensor<B, 1>| values.reshape([pairs, 1]);
    let row = |values: Tensor<B, 1>| values.reshape([1, pairs]);
    let right = column(labels.clone())
        .expand(square)
        .greater_equal(row(labels).expand(square));
    let above = column(scores.clone()) - row(scores);
    let above: Tensor<B, 1> = above
        .mask_fill(right, f32::NEG_INFINITY)
        .reshape([pairs * pairs]);
    // The largest of all and of 0, whose exponential is the 1.
    let most = above.clone().detach().max().clamp_min(0.0);
    let sum = (above - most.clone()).exp().sum() + most.clone().neg().exp();
    sum.log() + most
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestAutodiffBackend, TestBackend, device};
    use crate::error::Error;

    fn value(scores: &[f32], labels: &[f32]) -> f32 {
        let tensor = |values: &[f32]| Tensor::<TestBackend, 1>::from_floats(values, &device());
        out_of_order(tensor(scores), tensor(labels)).into_scalar()
    }

    #[test]
    fn counts_the_pairs_that_should_be_the_other_way_round() {
        // 0 should be below 1 and 2, which should be equal.
        let sum = 1.0 + (3.0f32 - 1.0).exp() + (3.0f32 - 2.0).exp();
        assert!((value(&[3.0, 1.0, 2.0], &[0.0, 0.5, 0.5]) - sum.ln()).abs() < 1e-6);
        assert_eq!(value(&[3.0, 1.0, 2.0], &[0.5, 0.5, 0.5]), 0.0);
        assert!(value(&[-100.0, 0.0], &[0.0, 1.0]) < 1e-6);
    }

    #[test]
    fn stays_finite_far_out_of_order() {
        assert!((value(&[1e4, 0.0, 0.0], &[0.0, 1.0, 1.0]) - 1e4 - 2f32.ln()).abs() < 1e-2);
        let scores = [1e4, -1e4];
        let scores =
            Tensor::<TestAutodiffBackend, 1>::from_floats(scores, &device()).require_grad();
        let labels = Tensor::from_floats([0.0, 1.0], &device());
        let gradients = out_of_order(scores.clone(), labels).backward();
        let gradient: Vec<f32> = scores
            .grad(&gradients)
            .unwrap()
            .into_data()
            .iter()
            .collect();
        assert_eq!(gradient, [1.0, -1.0]);
    }

    #[test]
    fn rejects_a_scale_that_is_not_positive() {
        for scale in [0.0, f64::NAN] {
            let config = CoSENTLossConfig {
                scale,
                ..Default::default()
            };
            assert!(matches!(
                config.init(),
                Err(Error::Loss(LossError::InvalidOption {
                    option: "scale",
                    ..
                }))
            ));
        }
    }
}
