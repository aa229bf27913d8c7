use burn::tensor::backend::Backend;

use super::{EmbedDistillLoss, EmbedDistillLossConfig, EmbedDistillMetric, ProjectionConfig};
use crate::error::Result;

/// How [`MSELoss`] is built.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MSELossConfig {
    /// The layer between the student's embeddings and the teacher's, where they are of
    /// different sizes.
    pub projection: Option<ProjectionConfig>,
}

impl MSELossConfig {
    /// Builds the loss; a projection has fresh weights.
    ///
    /// # Errors
    /// [`LossError::InvalidOption`](crate::error::LossError) if a projection reads or
    /// gives nothing.
    pub fn init<B: Backend>(&self, device: &B::Device) -> Result<MSELoss<B>> {
        let config = EmbedDistillLossConfig {
            distance_metric: EmbedDistillMetric::Mse,
            projection: self.projection,
        };
        config.init_named("MSELoss", device)
    }
}

/// The mean squared difference to a teacher's embeddings, as for giving a model more
/// languages (Reimers and Gurevych 2020, <https://arxiv.org/abs/2004.09813>).
///
/// Reads any number of text columns and as label the teacher's embedding, one for all
/// columns or one a column behind each other.
pub type MSELoss<B> = EmbedDistillLoss<B>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};
    use crate::loss::{Labels, Loss, LossInput};
    use burn::tensor::Tensor;

    #[test]
    fn is_the_mean_squared_difference_under_its_own_name() {
        let loss = MSELossConfig::default()
            .init::<TestBackend>(&device())
            .unwrap();
        let tensor = |rows: [[f32; 2]; 2]| Tensor::<TestBackend, 2>::from_floats(rows, &device());
        let teacher = Labels::new(tensor([[1.0, 2.0], [3.0, 4.0]]));
        let student = vec![tensor([[1.0, 0.0], [0.0, 4.0]])];
        let value = loss.forward(LossInput::new(student).with_labels(Some(teacher)));
        assert!((value.into_scalar() - 13.0 / 4.0).abs() < 1e-6);
        assert_eq!(loss.name(), "MSELoss");
    }
}
