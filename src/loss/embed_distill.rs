use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};
use serde_json::json;

use super::cosine_similarity::cosine_similarity;
use super::description::described;
use super::{Columns, LabelColumn, LinearHead, Loss, LossData, LossInput, TextColumns};
use crate::error::{LossError, Result};
use crate::model::CardLoss;
use crate::model::similarity::pairwise_euclidean_sim;

/// How far a student's embedding is from its teacher's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EmbedDistillMetric {
    /// The mean squared difference of their numbers.
    Mse,
    /// The Euclidean distance.
    L2,
    /// 1 minus the cosine.
    #[default]
    Cosine,
}

/// A linear layer from the student's embeddings to the size of the teacher's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProjectionConfig {
    /// The size of the student's embeddings.
    pub embedding_dimension: usize,
    /// The size of the teacher's embeddings.
    pub projection_dim: usize,
}

/// How [`EmbedDistillLoss`] is built.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct EmbedDistillLossConfig {
    /// How far a student's embedding is from its teacher's.
    pub distance_metric: EmbedDistillMetric,
    /// The layer between the two, where they are of different sizes.
    pub projection: Option<ProjectionConfig>,
}

impl EmbedDistillLossConfig {
    /// Builds the loss; a projection has fresh weights.
    ///
    /// # Errors
    /// [`LossError::InvalidOption`] if a projection reads or gives nothing.
    pub fn init<B: Backend>(&self, device: &B::Device) -> Result<EmbedDistillLoss<B>> {
        self.init_named(NAME, device)
    }

    pub(super) fn init_named<B: Backend>(
        &self,
        name: &'static str,
        device: &B::Device,
    ) -> Result<EmbedDistillLoss<B>> {
        let projection = self.projection.map(|projection| {
            let (from, to) = (projection.embedding_dimension, projection.projection_dim);
            for (option, size) in [("embedding_dimension", from), ("projection_dim", to)] {
                if size == 0 {
                    return Err(LossError::option(name, option, "at least 1", size));
                }
            }
            Ok(LinearHead::init(from, to, device))
        });
        Ok(EmbedDistillLoss {
            projection: projection.transpose()?,
            distance_metric: self.distance_metric,
            name,
        })
    }
}

const NAME: &str = "EmbedDistillLoss";

/// A student's embeddings near those of a teacher, computed beforehand (Kim et al. 2023,
/// <https://arxiv.org/abs/2301.12005>).
///
/// Reads any number of text columns and as label the teacher's embedding, one for all
/// columns or one a column behind each other. The loss is the mean distance, over the
/// texts of a column and then over the columns.
#[derive(Module, Debug)]
pub struct EmbedDistillLoss<B: Backend> {
    /// The layer between the student's embeddings and the teacher's.
    pub projection: Option<LinearHead<B>>,
    #[module(skip)]
    distance_metric: EmbedDistillMetric,
    #[module(skip)]
    name: &'static str,
}

impl<B: Backend> EmbedDistillLoss<B> {
    fn distance(&self, student: Tensor<B, 2>, teacher: Tensor<B, 2>) -> Tensor<B, 1> {
        let student = match &self.projection {
            Some(projection) => projection.forward(student),
            None => student,
        };
        match self.distance_metric {
            EmbedDistillMetric::Mse => (student - teacher).square().mean(),
            EmbedDistillMetric::L2 => pairwise_euclidean_sim(student, teacher).mean().neg(),
            EmbedDistillMetric::Cosine => {
                let cosines = cosine_similarity(student, teacher);
                cosines.neg().add_scalar(1.0).mean()
            }
        }
    }
}

impl<B: Backend> Loss<B> for EmbedDistillLoss<B> {
    fn name(&self) -> &'static str {
        self.name
    }

    fn describe(&self) -> CardLoss {
        let projection_dim = self.projection.as_ref().map(|head| head.weight.dims()[0]);
        let mut parameters = json!({ "projection_dim": projection_dim });
        if self.name == NAME {
            parameters = json!({
                "distance_metric": match self.distance_metric {
                    EmbedDistillMetric::Mse => "mse",
                    EmbedDistillMetric::L2 => "l2",
                    EmbedDistillMetric::Cosine => "cosine",
                },
                "projection_dim": projection_dim,
            });
        }
        described(self.name, parameters)
    }

    fn columns(&self) -> Columns {
        Columns {
            texts: TextColumns::AtLeast(1),
            label: LabelColumn::Dependent,
        }
    }

    fn check(&self, data: &LossData<'_>) -> Result<()> {
        let columns = self.columns();
        columns.check(self.name, data.texts, data.label_width)?;
        let mut dim = data.embedding_dim;
        if let Some(projection) = &self.projection {
            let expected = projection.in_features();
            if dim != expected {
                return Err(LossError::Dimension {
                    loss: self.name,
                    expected: format!("{expected} dimensions"),
                    found: dim,
                }
                .into());
            }
            dim = projection.out_features();
        }
        match data.label_width {
            Some(width) if width != dim && width != data.texts * dim => {
                Err(LossError::LabelWidth {
                    loss: self.name,
                    expected: format!("{dim} numbers, or as many for each column"),
                    found: width,
                }
                .into())
            }
            _ => Ok(()),
        }
    }

    fn forward(&self, mut input: LossInput<B>) -> Tensor<B, 1> {
        let teacher = input.take_labels(self.name).rows().detach();
        let columns = input.embeddings.len();
        let dim = match (&self.projection, input.embeddings.first()) {
            (Some(projection), _) => projection.out_features(),
            (None, Some(column)) => column.dims()[1],
            (None, None) => panic!("{} reads text columns", self.name),
        };
        let each = teacher.dims()[1] != dim;
        let losses = input
            .embeddings
            .into_iter()
            .enumerate()
            .map(|(place, student)| {
                let start = if each { place * dim } else { 0 };
                self.distance(student, teacher.clone().narrow(1, start, dim))
            });
        Tensor::cat(losses.collect(), 0)
            .sum()
            .div_scalar(columns as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};
    use crate::error::Error;
    use crate::loss::Labels;

    fn loss(distance_metric: EmbedDistillMetric) -> EmbedDistillLoss<TestBackend> {
        let config = EmbedDistillLossConfig {
            distance_metric,
            projection: None,
        };
        config.init(&device()).unwrap()
    }

    fn tensor<const D: usize>(row: [f32; D]) -> Tensor<TestBackend, 2> {
        Tensor::from_floats([row], &device())
    }

    #[test]
    fn distances_are_the_formulas() {
        for (metric, expected) in [
            (EmbedDistillMetric::Mse, (9.0 + 16.0) / 2.0),
            (EmbedDistillMetric::L2, 5.0),
            (EmbedDistillMetric::Cosine, 1.0 - 3.0 / 5.0),
        ] {
            let student = vec![tensor([3.0, 4.0]).mul_scalar(2.0)];
            let labels = Labels::new(tensor([3.0, 4.0]));
            let same = LossInput::new(student).with_labels(Some(labels));
            let value = loss(EmbedDistillMetric::Cosine).forward(same).into_scalar();
            assert!(value.abs() < 1e-6);
            let (student, teacher) = match metric {
                EmbedDistillMetric::Cosine => ([3.0, 4.0], [2.0, 0.0]),
                _ => ([4.0, 6.0], [1.0, 2.0]),
            };
            let labels = Labels::new(tensor(teacher));
            let input = LossInput::new(vec![tensor(student)]).with_labels(Some(labels));
            let value = loss(metric).forward(input).into_scalar();
            assert!((value - expected).abs() < 1e-5, "{metric:?}: {value}");
        }
    }

    #[test]
    fn a_label_is_for_all_columns_or_for_each() {
        let columns = || vec![tensor([1.0, 1.0]), tensor([2.0, 2.0])];
        let value = |labels| {
            let input = LossInput::new(columns()).with_labels(Some(Labels::new(labels)));
            loss(EmbedDistillMetric::Mse).forward(input).into_scalar()
        };
        assert!((value(tensor([1.0, 1.0])) - 0.5).abs() < 1e-6);
        assert!((value(tensor([1.0, 1.0, 2.0, 3.0])) - 0.25).abs() < 1e-6);
    }

    #[test]
    fn sizes_must_meet() {
        let labels = |width: usize| [vec![0.0; width]];
        let check = |loss: &EmbedDistillLoss<TestBackend>, dim, width| {
            loss.check(&LossData::new(2, dim).with_labels(Some(&labels(width))))
        };
        let plain = loss(EmbedDistillMetric::Mse);
        assert!(check(&plain, 4, 4).is_ok() && check(&plain, 4, 8).is_ok());
        assert!(matches!(
            check(&plain, 4, 6),
            Err(Error::Loss(LossError::LabelWidth { found: 6, .. }))
        ));
        let config = EmbedDistillLossConfig {
            projection: Some(ProjectionConfig {
                embedding_dimension: 4,
                projection_dim: 6,
            }),
            ..Default::default()
        };
        let projected = config.init(&device()).unwrap();
        assert!(check(&projected, 4, 6).is_ok() && check(&projected, 4, 4).is_err());
        assert!(matches!(
            check(&projected, 6, 6),
            Err(Error::Loss(LossError::Dimension { found: 6, .. }))
        ));
    }
}
