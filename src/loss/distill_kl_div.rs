use burn::module::Module;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Tensor, backend::Backend};
use serde_json::json;

use super::description::{described, pairwise_name};
use super::{Columns, LabelColumn, Loss, LossData, LossInput, TextColumns};
use crate::error::{LossError, Result};
use crate::model::CardLoss;
use crate::model::similarity::SimilarityFunction;

/// How [`DistillKLDivLoss`] is built.
#[derive(Debug, Clone, PartialEq)]
pub struct DistillKLDivLossConfig {
    /// How a query is compared with a passage.
    pub similarity: SimilarityFunction,
    /// What scores are divided by.
    pub temperature: f64,
    /// What the student's scores are divided by, if by something else.
    pub student_temperature: Option<f64>,
    /// What the teacher's scores are divided by, if by something else.
    pub teacher_temperature: Option<f64>,
}

impl Default for DistillKLDivLossConfig {
    fn default() -> Self {
        Self {
            similarity: SimilarityFunction::Dot,
            temperature: 1.0,
            student_temperature: None,
            teacher_temperature: None,
        }
    }
}

impl DistillKLDivLossConfig {
    /// Builds the loss.
    ///
    /// # Errors
    /// [`LossError::InvalidOption`] if a temperature is not a positive number.
    pub fn init(&self) -> Result<DistillKLDivLoss> {
        let student_temperature = self.student_temperature.unwrap_or(self.temperature);
        let teacher_temperature = self.teacher_temperature.unwrap_or(self.temperature);
        for (option, value) in [
            ("temperature", self.temperature),
            ("student_temperature", student_temperature),
            ("teacher_temperature", teacher_temperature),
        ] {
            if !(value > 0.0 && value.is_finite()) {
                return Err(LossError::option(NAME, option, "a positive number", value).into());
            }
        }
        Ok(DistillKLDivLoss {
            similarity: self.similarity,
            student_temperature,
            teacher_temperature,
        })
    }
}

const NAME: &str = "DistillKLDivLoss";

/// A teacher's distribution over the passages of each query (Lin et al. 2020,
/// <https://arxiv.org/abs/2010.11386>).
///
/// Reads (query, positive, negative…) columns and as label the teacher's score for each
/// passage; a score of -∞ leaves a passage out. With `s` and `t` the student's and the
/// teacher's scores,
/// `loss = T_s² · mean(KL(softmax(t / T_t) ‖ softmax(s / T_s)))`.
#[derive(Module, Debug, Clone)]
pub struct DistillKLDivLoss {
    similarity: SimilarityFunction,
    student_temperature: f64,
    teacher_temperature: f64,
}

impl<B: Backend> Loss<B> for DistillKLDivLoss {
    fn name(&self) -> &'static str {
        NAME
    }

    fn describe(&self) -> CardLoss {
        described(
            NAME,
            json!({
                "similarity_fct": pairwise_name(self.similarity),
                "student_temperature": self.student_temperature,
                "teacher_temperature": self.teacher_temperature,
            }),
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
        if data.label_width != Some(data.texts - 1) {
            return Err(LossError::Label {
                loss: NAME,
                expected: data.texts - 1,
                found: data.label_width,
            }
            .into());
        }
        match data.find_label(|score| !score.is_nan()) {
            Some((sample, found)) => Err(LossError::LabelValue {
                loss: NAME,
                sample,
                expected: "a teacher's score".to_owned(),
                found,
            }
            .into()),
            None => Ok(()),
        }
    }

    fn forward(&self, mut input: LossInput<B>) -> Tensor<B, 1> {
        let teacher = input.take_labels(NAME).rows().detach();
        assert!(
            input.embeddings.len() >= 3,
            "{NAME} needs two passages a query"
        );
        let passages = input.embeddings.split_off(1);
        let [queries] = input.columns(NAME);
        let batch = queries.dims()[0];
        let compare = self.similarity.to_similarity_pairwise_fn();
        let scores = |passages| compare(queries.clone(), passages).unsqueeze_dim::<2>(1);
        let student = Tensor::cat(passages.into_iter().map(scores).collect(), 1);
        let student = log_softmax(student.div_scalar(self.student_temperature), 1);
        let teacher = log_softmax(teacher.div_scalar(self.teacher_temperature), 1);
        // Of probabilities that are 0, no logarithm counts.
        let probabilities = teacher.clone().exp();
        let divergence = probabilities * (teacher.clamp_min(-1e4) - student);
        let scale = self.student_temperature * self.student_temperature / batch as f64;
        divergence.sum().mul_scalar(scale)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};
    use crate::error::Error;
    use crate::loss::Labels;

    fn value(teacher: [f32; 3], config: &DistillKLDivLossConfig) -> f32 {
        let tensor = |row: [f32; 2]| Tensor::<TestBackend, 2>::from_floats([row], &device());
        let rows = [[1.0, 2.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]];
        let labels = Labels::new(Tensor::from_floats([teacher], &device()));
        let columns = rows.into_iter().map(tensor).collect();
        let input = LossInput::new(columns).with_labels(Some(labels));
        config.init().unwrap().forward(input).into_scalar()
    }

    #[test]
    fn is_zero_for_the_teachers_own_distribution() {
        // The student's scores are 1, 2 and 3.
        let config = DistillKLDivLossConfig::default();
        assert!(value([4.0, 5.0, 6.0], &config).abs() < 1e-6);
        assert!(value([5.0, 4.0, 6.0], &config) > 0.1);
        let cold = DistillKLDivLossConfig {
            student_temperature: Some(0.5),
            ..config
        };
        assert!(value([2.0, 4.0, 6.0], &cold).abs() < 1e-6);
        assert!(value([1.0, 2.0, 3.0], &cold) > 0.01);
    }

    #[test]
    fn a_passage_may_be_left_out() {
        let config = DistillKLDivLossConfig::default();
        let (without, last) = (
            value([1.0, 2.0, f32::NEG_INFINITY], &config),
            1.0 + 1f32.exp(),
        );
        // The teacher's two against the student's three.
        let expected = (1.0 + 1f32.exp() + 2f32.exp()).ln() - last.ln();
        assert!(
            (without - expected).abs() < 1e-5,
            "{without} for {expected}"
        );
    }

    #[test]
    fn a_label_has_a_score_for_each_passage() {
        let loss = DistillKLDivLossConfig::default().init().unwrap();
        let check = |texts, label: &[f32]| {
            let labels = [label.to_vec()];
            let data = LossData::new(texts, 8).with_labels(Some(&labels));
            Loss::<TestBackend>::check(&loss, &data)
        };
        assert!(check(3, &[1.0, f32::NEG_INFINITY]).is_ok());
        assert!(matches!(
            check(4, &[1.0, 2.0]),
            Err(Error::Loss(LossError::Label { expected: 3, .. }))
        ));
        assert!(matches!(
            check(3, &[1.0, f32::NAN]),
            Err(Error::Loss(LossError::LabelValue { .. }))
        ));
        assert!(check(2, &[1.0]).is_err());
    }

    #[test]
    fn rejects_a_temperature_that_is_not_positive() {
        let config = DistillKLDivLossConfig {
            teacher_temperature: Some(0.0),
            ..Default::default()
        };
        assert!(matches!(
            config.init(),
            Err(Error::Loss(LossError::InvalidOption {
                option: "teacher_temperature",
                ..
            }))
        ));
    }
}
