use burn::module::Module;
use burn::tensor::activation::relu;
use burn::tensor::{Tensor, backend::Backend};
use serde_json::json;

use super::description::{described, similarity_name};
use super::in_batch::own_mask;
use super::{Columns, LabelColumn, Loss, LossInput, TextColumns};
use crate::error::{LossError, Result};
use crate::model::CardLoss;
use crate::model::similarity::SimilarityFunction;

/// How the terms of several columns become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum GorAggregation {
    /// By their mean.
    #[default]
    Mean,
    /// By their sum.
    Sum,
}

/// How [`GlobalOrthogonalRegularizationLoss`] is built.
#[derive(Debug, Clone, PartialEq)]
pub struct GlobalOrthogonalRegularizationLossConfig {
    /// How two texts of a column are compared.
    pub similarity: SimilarityFunction,
    /// The weight of the mean term; 0 leaves it out.
    pub mean_weight: f64,
    /// The weight of the second-moment term; 0 leaves it out.
    pub second_moment_weight: f64,
    /// How the terms of several columns become one.
    pub aggregation: GorAggregation,
}

impl Default for GlobalOrthogonalRegularizationLossConfig {
    fn default() -> Self {
        Self {
            similarity: SimilarityFunction::Cosine,
            mean_weight: 1.0,
            second_moment_weight: 1.0,
            aggregation: GorAggregation::Mean,
        }
    }
}

impl GlobalOrthogonalRegularizationLossConfig {
    /// Builds the loss.
    ///
    /// # Errors
    /// [`LossError::InvalidOption`] if a weight is not a number or both are 0.
    pub fn init(&self) -> Result<GlobalOrthogonalRegularizationLoss> {
        let invalid = |option, expected, found: f64| {
            Err(LossError::option(NAME, option, expected, found).into())
        };
        if !self.mean_weight.is_finite() {
            return invalid("mean_weight", "a number", self.mean_weight);
        }
        if !self.second_moment_weight.is_finite() {
            return invalid(
                "second_moment_weight",
                "a number",
                self.second_moment_weight,
            );
        }
        if self.mean_weight == 0.0 && self.second_moment_weight == 0.0 {
            let expected = "not 0, as mean_weight is";
            return invalid("second_moment_weight", expected, 0.0);
        }
        Ok(GlobalOrthogonalRegularizationLoss {
            config: self.clone(),
        })
    }
}

const NAME: &str = "GlobalOrthogonalRegularizationLoss";

/// The texts of a column spread out: as far from each other as random directions (Zhang
/// et al. 2017, <https://arxiv.org/abs/1708.06320>).
///
/// Reads any number of text columns. With the similarities `s` of all pairs of different
/// texts of a column, `loss = mean(s)² + max(0, mean(s²) - 1/dim)`. Meant to be added to
/// another loss.
#[derive(Module, Debug, Clone)]
pub struct GlobalOrthogonalRegularizationLoss {
    config: GlobalOrthogonalRegularizationLossConfig,
}

impl GlobalOrthogonalRegularizationLoss {
    /// The weighted terms of one column, `[1]`.
    fn of_column<B: Backend>(&self, embeddings: Tensor<B, 2>) -> Tensor<B, 1> {
        let ([batch, dim], device) = (embeddings.dims(), embeddings.device());
        let compare = self.config.similarity.to_similarity_fn();
        let similarities = compare(embeddings.clone(), embeddings);
        let similarities = similarities.mask_fill(own_mask(batch, 1, &device), 0.0);
        let pairs = (batch * (batch - 1)).max(1) as f64;
        let mean = similarities.clone().sum().div_scalar(pairs).square();
        let second_moment = similarities.square().sum().div_scalar(pairs);
        let excess = relu(second_moment.sub_scalar(1.0 / dim as f64));
        mean.mul_scalar(self.config.mean_weight)
            + excess.mul_scalar(self.config.second_moment_weight)
    }
}

impl<B: Backend> Loss<B> for GlobalOrthogonalRegularizationLoss {
    fn name(&self) -> &'static str {
        NAME
    }

    fn describe(&self) -> CardLoss {
        described(
            NAME,
            json!({
                "similarity_fct": similarity_name(self.config.similarity),
                "mean_weight": self.config.mean_weight,
                "second_moment_weight": self.config.second_moment_weight,
                "aggregation": match self.config.aggregation {
                    GorAggregation::Mean => "mean",
                    GorAggregation::Sum => "sum",
                },
            }),
        )
    }

    fn columns(&self) -> Columns {
        Columns {
            texts: TextColumns::AtLeast(1),
            label: LabelColumn::Ignored,
        }
    }

    fn forward(&self, input: LossInput<B>) -> Tensor<B, 1> {
        let terms = input
            .embeddings
            .into_iter()
            .map(|column| self.of_column(column));
        let terms = Tensor::cat(terms.collect(), 0);
        match self.config.aggregation {
            GorAggregation::Mean => terms.mean(),
            GorAggregation::Sum => terms.sum(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};
    use crate::error::Error;

    fn value(config: &GlobalOrthogonalRegularizationLossConfig, columns: usize) -> f32 {
        let rows = [[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]];
        let column = Tensor::<TestBackend, 2>::from_floats(rows, &device());
        let input = LossInput::new(vec![column; columns]);
        config.init().unwrap().forward(input).into_scalar()
    }

    #[test]
    fn is_the_mean_and_the_second_moment() {
        // Similarities 0.6, 0 and 0.8, twice each.
        let (mean, second_moment) = ((1.4f32 / 3.0).powi(2), 1.0 / 3.0);
        let config = GlobalOrthogonalRegularizationLossConfig::default();
        // The second moment lies below that of random directions, 1/2.
        assert!(second_moment < 0.5);
        assert!((value(&config, 1) - mean).abs() < 1e-6);
        assert!((value(&config, 3) - mean).abs() < 1e-6);
        let sum = GlobalOrthogonalRegularizationLossConfig {
            aggregation: GorAggregation::Sum,
            similarity: SimilarityFunction::Dot,
            mean_weight: 0.5,
            ..config
        };
        assert!((value(&sum, 3) - 1.5 * mean).abs() < 1e-6);
    }

    #[test]
    fn rejects_weights_that_leave_nothing() {
        let config = GlobalOrthogonalRegularizationLossConfig {
            mean_weight: 0.0,
            second_moment_weight: 0.0,
            ..Default::default()
        };
        assert!(matches!(
            config.init(),
            Err(Error::Loss(LossError::InvalidOption {
                option: "second_moment_weight",
                ..
            }))
        ));
    }
}
