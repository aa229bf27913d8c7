use burn::module::Module;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Tensor, backend::Backend};
use serde_json::json;

use super::description::described;
use super::{Columns, LabelColumn, LinearHead, Loss, LossData, LossInput, TextColumns};
use crate::error::{LossError, Result};
use crate::model::CardLoss;

/// How [`SoftmaxLoss`] is built.
#[derive(Debug, Clone, PartialEq)]
pub struct SoftmaxLossConfig {
    /// The size of an embedding.
    pub embedding_dimension: usize,
    /// The number of classes.
    pub num_labels: usize,
    /// Whether the classifier reads both embeddings.
    pub concatenation_sent_rep: bool,
    /// Whether it reads their absolute difference.
    pub concatenation_sent_difference: bool,
    /// Whether it reads their product, number by number.
    pub concatenation_sent_multiplication: bool,
}

impl SoftmaxLossConfig {
    /// A classifier that reads both embeddings and their absolute difference.
    pub fn new(embedding_dimension: usize, num_labels: usize) -> Self {
        Self {
            embedding_dimension,
            num_labels,
            concatenation_sent_rep: true,
            concatenation_sent_difference: true,
            concatenation_sent_multiplication: false,
        }
    }

    /// Builds the loss, with a fresh classifier.
    ///
    /// # Errors
    /// [`LossError::InvalidOption`] if there is nothing to classify or to read.
    pub fn init<B: Backend>(&self, device: &B::Device) -> Result<SoftmaxLoss<B>> {
        let invalid = |option, expected, found: usize| {
            Err(LossError::option(NAME, option, expected, found).into())
        };
        let vectors = 2 * usize::from(self.concatenation_sent_rep)
            + usize::from(self.concatenation_sent_difference)
            + usize::from(self.concatenation_sent_multiplication);
        if vectors == 0 {
            return Err(
                LossError::option(NAME, "concatenation_sent_*", "one of them", "none").into(),
            );
        }
        if self.embedding_dimension == 0 {
            return invalid("embedding_dimension", "at least 1", 0);
        }
        if self.num_labels < 2 {
            return invalid("num_labels", "at least 2", self.num_labels);
        }
        let features = vectors * self.embedding_dimension;
        Ok(SoftmaxLoss {
            classifier: LinearHead::init(features, self.num_labels, device),
            config: self.clone(),
        })
    }
}

const NAME: &str = "SoftmaxLoss";

/// A classifier of pairs on top of their embeddings `u` and `v`, trained with them
/// (Reimers and Gurevych 2019, <https://arxiv.org/abs/1908.10084>).
///
/// Reads (text, text) columns and a class a pair, counted from 0. The loss is the cross
/// entropy of a linear layer over `[u; v; |u - v|]`.
#[derive(Module, Debug)]
pub struct SoftmaxLoss<B: Backend> {
    /// The linear layer.
    pub classifier: LinearHead<B>,
    #[module(skip)]
    config: SoftmaxLossConfig,
}

impl<B: Backend> SoftmaxLoss<B> {
    /// How the loss was built.
    pub fn config(&self) -> &SoftmaxLossConfig {
        &self.config
    }

    /// What the classifier makes of pairs, before the softmax.
    ///
    /// # Shapes
    /// - u, v: `[pairs, dim]`
    /// - output: `[pairs, num_labels]`
    pub fn classify(&self, u: Tensor<B, 2>, v: Tensor<B, 2>) -> Tensor<B, 2> {
        let mut vectors = Vec::with_capacity(4);
        if self.config.concatenation_sent_rep {
            vectors.extend([u.clone(), v.clone()]);
        }
        if self.config.concatenation_sent_difference {
            vectors.push((u.clone() - v.clone()).abs());
        }
        if self.config.concatenation_sent_multiplication {
            vectors.push(u * v);
        }
        self.classifier.forward(Tensor::cat(vectors, 1))
    }
}

impl<B: Backend> Loss<B> for SoftmaxLoss<B> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn describe(&self) -> CardLoss {
        described(
            NAME,
            json!({
                "num_labels": self.config.num_labels,
                "concatenation_sent_rep": self.config.concatenation_sent_rep,
                "concatenation_sent_difference": self.config.concatenation_sent_difference,
                "concatenation_sent_multiplication": self.config.concatenation_sent_multiplication,
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
        let columns = self.columns();
        columns.check(NAME, data.texts, data.label_width)?;
        if data.embedding_dim != self.config.embedding_dimension {
            return Err(LossError::Dimension {
                loss: NAME,
                expected: format!("{} dimensions", self.config.embedding_dimension),
                found: data.embedding_dim,
            }
            .into());
        }
        let classes = self.config.num_labels;
        let is_class = |label: f32| label >= 0.0 && label < classes as f32 && label.fract() == 0.0;
        match data.find_label(is_class) {
            Some((sample, found)) => Err(LossError::LabelValue {
                loss: NAME,
                sample,
                expected: format!("a class from 0 to {}", classes - 1),
                found,
            }
            .into()),
            None => Ok(()),
        }
    }

    fn forward(&self, mut input: LossInput<B>) -> Tensor<B, 1> {
        let classes = input.take_labels(NAME).rows().narrow(1, 0, 1).int();
        let [u, v] = input.columns(NAME);
        let logarithms = log_softmax(self.classify(u, v), 1);
        logarithms.gather(1, classes).mean().neg()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};
    use crate::error::Error;
    use crate::loss::Labels;
    use burn::module::Param;

    #[test]
    fn reads_what_it_is_told_to() {
        let u = || Tensor::<TestBackend, 2>::from_floats([[1.0, -2.0]], &device());
        let v = || Tensor::<TestBackend, 2>::from_floats([[3.0, 0.5]], &device());
        for (rep, difference, product, expected) in [
            (true, true, false, 1.0 - 2.0 + 3.0 + 0.5 + 2.0 + 2.5),
            (false, true, false, 4.5),
            (false, false, true, 2.0),
        ] {
            let config = SoftmaxLossConfig {
                concatenation_sent_rep: rep,
                concatenation_sent_difference: difference,
                concatenation_sent_multiplication: product,
                ..SoftmaxLossConfig::new(2, 2)
            };
            let mut loss = config.init::<TestBackend>(&device()).unwrap();
            let features = loss.classifier.in_features();
            let ones = Tensor::ones([2, features], &device());
            let bias = Tensor::zeros([2], &device());
            loss.classifier =
                LinearHead::from_weights(Param::from_tensor(ones), Param::from_tensor(bias));
            let scores: Vec<f32> = loss.classify(u(), v()).into_data().iter().collect();
            assert_eq!(scores, [expected, expected]);
            // Two classes of equal scores.
            let class = Labels::new(Tensor::from_floats([[1.0]], &device()));
            let input = LossInput::new(vec![u(), v()]).with_labels(Some(class));
            assert!((loss.forward(input).into_scalar() - 2f32.ln()).abs() < 1e-6);
        }
    }

    #[test]
    fn labels_must_be_classes_and_embeddings_of_its_size() {
        let loss = SoftmaxLossConfig::new(4, 3)
            .init::<TestBackend>(&device())
            .unwrap();
        let check = |label: f32, dim| {
            let labels = [vec![0.0], vec![label]];
            loss.check(&LossData::new(2, dim).with_labels(Some(&labels)))
        };
        assert!(check(2.0, 4).is_ok());
        for label in [3.0, -1.0, 0.5, f32::NAN] {
            assert!(matches!(
                check(label, 4),
                Err(Error::Loss(LossError::LabelValue { sample: 1, .. }))
            ));
        }
        assert!(matches!(
            check(2.0, 5),
            Err(Error::Loss(LossError::Dimension { found: 5, .. }))
        ));
    }

    #[test]
    fn rejects_options_that_leave_nothing_to_read_or_to_tell() {
        let option = |config: SoftmaxLossConfig| match config.init::<TestBackend>(&device()) {
            Err(Error::Loss(LossError::InvalidOption { option, .. })) => option,
            other => panic!("{other:?}"),
        };
        let blind = SoftmaxLossConfig {
            concatenation_sent_rep: false,
            concatenation_sent_difference: false,
            ..SoftmaxLossConfig::new(4, 3)
        };
        assert_eq!(option(blind), "concatenation_sent_*");
        assert_eq!(option(SoftmaxLossConfig::new(4, 1)), "num_labels");
        assert_eq!(option(SoftmaxLossConfig::new(0, 2)), "embedding_dimension");
    }
}
