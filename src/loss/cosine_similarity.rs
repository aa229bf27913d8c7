use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};
use serde_json::json;

use super::description::described;
use super::{Columns, LabelColumn, Loss, LossInput, TextColumns};
use crate::model::CardLoss;

const NAME: &str = "CosineSimilarityLoss";

/// How far the cosine of two texts is from their score: `loss = mean((cos - score)²)`.
///
/// Reads (text, text) columns and a score a pair, from -1 to 1.
#[derive(Module, Debug, Clone, Default)]
pub struct CosineSimilarityLoss;

impl<B: Backend> Loss<B> for CosineSimilarityLoss {
    fn name(&self) -> &'static str {
        NAME
    }

    fn describe(&self) -> CardLoss {
        described(
            NAME,
            json!({
                "loss_fct": "torch.nn.modules.loss.MSELoss",
                "cos_score_transformation": "torch.nn.modules.linear.Identity",
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
        (cosine_similarity(a, b) - labels).square().mean()
    }
}

/// PyTorch's `cosine_similarity` of each row of `a` with the same row of `b`.
///
/// # Shapes
/// - a, b: `[rows, dim]`
/// - output: `[rows]`
pub(super) fn cosine_similarity<B: Backend>(a: Tensor<B, 2>, b: Tensor<B, 2>) -> Tensor<B, 1> {
    (unit_length(a) * unit_length(b)).sum_dim(1).squeeze_dim(1)
}

/// Each row at unit length, one shorter than 1e-8 divided by 1e-8: PyTorch's
/// `cosine_similarity` draws the line there, not at its `normalize`'s 1e-12.
pub(super) fn unit_length<B: Backend>(rows: Tensor<B, 2>) -> Tensor<B, 2> {
    let squares = rows.clone().square().sum_dim(1).clamp_min(1e-16);
    rows / squares.sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestAutodiffBackend, device};
    use crate::loss::Labels;

    fn tensor<const N: usize>(rows: [[f32; 2]; N]) -> Tensor<TestAutodiffBackend, 2> {
        Tensor::from_floats(rows, &device())
    }

    #[test]
    fn is_the_squared_distance_to_the_score() {
        let columns = vec![
            tensor([[3.0, 4.0], [1.0, 0.0]]),
            tensor([[2.0, 0.0], [0.0, 3.0]]),
        ];
        let scores = Tensor::from_floats([[0.5], [0.25]], &device());
        let input = LossInput::new(columns).with_labels(Some(Labels::new(scores)));
        let value = CosineSimilarityLoss.forward(input).into_scalar();
        assert!((value - (0.01 + 0.0625) / 2.0).abs() < 1e-6, "{value}");
    }

    #[test]
    fn a_zero_embedding_has_a_finite_gradient() {
        let zero = tensor([[0.0, 0.0]]).require_grad();
        let cosine = cosine_similarity(zero.clone(), tensor([[1.0, 0.0]]));
        let gradient = zero.grad(&cosine.backward()).unwrap();
        let gradient: Vec<f32> = gradient.into_data().iter().collect();
        assert_eq!((gradient[0] / 1e8).round(), 1.0);
        assert_eq!(gradient[1], 0.0);
    }
}
