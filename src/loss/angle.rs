use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};
use serde_json::json;

use super::cosent::{check_scale, out_of_order};
use super::description::described;
use super::{Columns, LabelColumn, Loss, LossData, LossInput, TextColumns};
use crate::error::{LossError, Result};
use crate::kernel::normalize;
use crate::model::CardLoss;

/// How [`AnglELoss`] is built.
#[derive(Debug, Clone, PartialEq)]
pub struct AnglELossConfig {
    /// What similarities are multiplied with: the inverse of the temperature.
    pub scale: f64,
}

impl Default for AnglELossConfig {
    fn default() -> Self {
        Self { scale: 20.0 }
    }
}

impl AnglELossConfig {
    /// Builds the loss.
    ///
    /// # Errors
    /// [`LossError::InvalidOption`] if `scale` is not a positive number.
    pub fn init(&self) -> Result<AnglELoss> {
        check_scale(NAME, self.scale)?;
        Ok(AnglELoss { scale: self.scale })
    }
}

const NAME: &str = "AnglELoss";

/// [`CoSENTLoss`](super::CoSENTLoss) by the angle between two embeddings read as complex
/// numbers, which keeps a gradient where the cosine's vanishes
/// (<https://arxiv.org/abs/2309.12871>).
///
/// Reads (text, text) columns and a score a pair, or (anchor, positive, negative…)
/// columns, whose score is 1 where there is no label; a negative's is 1 minus its
/// positive's.
#[derive(Module, Debug, Clone)]
pub struct AnglELoss {
    scale: f64,
}

impl<B: Backend> Loss<B> for AnglELoss {
    fn name(&self) -> &'static str {
        NAME
    }

    fn describe(&self) -> CardLoss {
        described(
            NAME,
            json!({ "scale": self.scale, "similarity_fct": "pairwise_angle_sim" }),
        )
    }

    fn columns(&self) -> Columns {
        Columns {
            texts: TextColumns::AtLeast(2),
            label: LabelColumn::Optional { width: 1 },
        }
    }

    fn check(&self, data: &LossData<'_>) -> Result<()> {
        let columns = Loss::<B>::columns(self);
        columns.check(NAME, data.texts, data.label_width)?;
        if data.texts == 2 && data.label_width.is_none() {
            return Err(LossError::Label {
                loss: NAME,
                expected: 1,
                found: None,
            }
            .into());
        }
        Ok(())
    }

    fn forward(&self, mut input: LossInput<B>) -> Tensor<B, 1> {
        let candidates = input.embeddings.split_off(1);
        let (anchors, columns) = (input.embeddings.remove(0), candidates.len());
        let labels = match input.labels {
            Some(labels) => labels.values(),
            None if columns > 1 => Tensor::ones([anchors.dims()[0]], &anchors.device()),
            None => panic!("{NAME} reads labels where there are no negatives"),
        };
        let mut scores = vec![labels.clone().neg().add_scalar(1.0); columns];
        scores[0] = labels;
        let anchors = Tensor::cat(vec![anchors; columns], 0);
        let similarities = pairwise_angle_sim(anchors, Tensor::cat(candidates, 0));
        out_of_order(similarities.mul_scalar(self.scale), Tensor::cat(scores, 0))
    }
}

/// How near two embeddings are in angle, each half real and half imaginary
/// (`pairwise_angle_sim` of the reference).
///
/// # Shapes
/// - a, b: `[pairs, dim]`
/// - output: `[pairs]`
fn pairwise_angle_sim<B: Backend>(a: Tensor<B, 2>, b: Tensor<B, 2>) -> Tensor<B, 1> {
    let (a, b) = (normalize(even(a)), normalize(even(b)));
    let half = a.dims()[1] / 2;
    let halves = |x: &Tensor<B, 2>| {
        (
            x.clone().narrow(1, 0, half),
            x.clone().narrow(1, half, half),
        )
    };
    let ((a_first, a_last), (b_first, b_last)) = (halves(&a), halves(&b));
    let cosines = (a * b).sum_dim(1);
    let sines = (a_last * b_first - a_first * b_last).sum_dim(1);
    (cosines + sines).abs().squeeze_dim(1)
}

/// Embeddings of an even size, a zero behind those of an odd one.
fn even<B: Backend>(embeddings: Tensor<B, 2>) -> Tensor<B, 2> {
    let [texts, dim] = embeddings.dims();
    match dim % 2 {
        0 => embeddings,
        _ => {
            let zeros = Tensor::zeros([texts, 1], &embeddings.device());
            Tensor::cat(vec![embeddings, zeros], 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};
    use crate::error::Error;
    use crate::loss::Labels;

    fn tensor(rows: [[f32; 3]; 2]) -> Tensor<TestBackend, 2> {
        Tensor::from_floats(rows, &device())
    }

    #[test]
    fn an_odd_size_has_a_zero_behind() {
        let a = Tensor::<TestBackend, 2>::from_floats([[3.0, 0.0, 4.0]], &device());
        let b = Tensor::<TestBackend, 2>::from_floats([[0.0, 0.0, 2.0]], &device());
        // (3 + 4i, 0) / 5 and (0 + 1i, 0): cosine 0.8, sine -0.6.
        let similarity = pairwise_angle_sim(a, b).into_scalar();
        assert!((similarity - 0.2).abs() < 1e-6, "{similarity}");
    }

    #[test]
    fn triplets_are_pairs_of_opposite_scores() {
        let loss = AnglELossConfig::default().init().unwrap();
        let (a, p) = (
            [[1.0, 0.5, 0.1], [0.2, 0.9, -0.3]],
            [[0.7, 0.1, 0.4], [0.1, 0.4, 0.9]],
        );
        let n = [[-0.3, 0.8, 0.2], [0.9, -0.1, 0.3]];
        let triplets = LossInput::new(vec![tensor(a), tensor(p), tensor(n)]);
        let anchors = Tensor::cat(vec![tensor(a), tensor(a)], 0);
        let others = Tensor::cat(vec![tensor(p), tensor(n)], 0);
        let scores = Tensor::from_floats([[1.0], [1.0], [0.0], [0.0]], &device());
        let pairs = LossInput::new(vec![anchors, others]).with_labels(Some(Labels::new(scores)));
        let (triplets, pairs) = (loss.forward(triplets), loss.forward(pairs));
        assert!((triplets.into_scalar() - pairs.into_scalar()).abs() < 1e-6);
    }

    #[test]
    fn pairs_alone_need_a_label() {
        let loss = AnglELossConfig::default().init().unwrap();
        let check = |data: LossData<'_>| Loss::<TestBackend>::check(&loss, &data);
        assert!(check(LossData::new(3, 8)).is_ok());
        assert!(check(LossData::new(2, 8).with_labels(Some(&[vec![0.5]]))).is_ok());
        assert!(matches!(
            check(LossData::new(2, 8)),
            Err(Error::Loss(LossError::Label { found: None, .. }))
        ));
    }
}
