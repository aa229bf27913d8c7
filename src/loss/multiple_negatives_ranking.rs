use burn::module::Module;
use burn::tensor::activation::log_softmax;
use burn::tensor::{Int, Tensor, backend::Backend};

use super::{Columns, LabelColumn, Labels, Loss, TextColumns};
use crate::error::{LossError, Result};
use crate::model::similarity::{
    SimilarityFunction, cos_sim, dot_score, euclidean_sim, manhattan_sim,
};

/// How [`MultipleNegativesRankingLoss`] is built.
#[derive(Debug, Clone, PartialEq)]
pub struct MultipleNegativesRankingLossConfig {
    /// What similarities are multiplied with: the inverse of the temperature.
    pub scale: f64,
    /// How an anchor is compared with a candidate.
    pub similarity: SimilarityFunction,
}

impl Default for MultipleNegativesRankingLossConfig {
    fn default() -> Self {
        Self {
            scale: 20.0,
            similarity: SimilarityFunction::Cosine,
        }
    }
}

impl MultipleNegativesRankingLossConfig {
    /// Builds the loss.
    ///
    /// # Errors
    /// [`LossError::InvalidOption`] if `scale` is not a positive number.
    pub fn init(&self) -> Result<MultipleNegativesRankingLoss> {
        if !(self.scale > 0.0 && self.scale.is_finite()) {
            return Err(LossError::InvalidOption {
                loss: NAME,
                option: "scale",
                expected: "a positive number",
                found: self.scale.to_string(),
            }
            .into());
        }
        Ok(MultipleNegativesRankingLoss {
            scale: self.scale,
            similarity: self.similarity,
        })
    }
}

const NAME: &str = "MultipleNegativesRankingLoss";

/// Each anchor's positive against all other candidates of the batch (Henderson et al.
/// 2017, <https://arxiv.org/abs/1705.00652>; also InfoNCE, in-batch negatives).
///
/// Reads (anchor, positive) or (anchor, positive, negative…) columns. With `d` all
/// positives of the batch followed by all negatives,
/// `loss = -mean_i[s·sim(a_i, p_i) - logsumexp_j s·sim(a_i, d_j)]`.
#[derive(Module, Debug, Clone)]
pub struct MultipleNegativesRankingLoss {
    scale: f64,
    similarity: SimilarityFunction,
}

impl<B: Backend> Loss<B> for MultipleNegativesRankingLoss {
    fn name(&self) -> &'static str {
        NAME
    }

    fn columns(&self) -> Columns {
        Columns {
            texts: TextColumns::AtLeast(2),
            label: LabelColumn::Ignored,
        }
    }

    fn forward(
        &self,
        mut embeddings: Vec<Tensor<B, 2>>,
        _labels: Option<Labels<B>>,
    ) -> Tensor<B, 1> {
        assert!(embeddings.len() >= 2, "{NAME} needs anchors and positives");
        let candidates = embeddings.split_off(1);
        let anchors = embeddings.remove(0);
        let batch = anchors.dims()[0];
        let device = anchors.device();

        let compare = match self.similarity {
            SimilarityFunction::Cosine => cos_sim,
            SimilarityFunction::Dot => dot_score,
            SimilarityFunction::Euclidean => euclidean_sim,
            SimilarityFunction::Manhattan => manhattan_sim,
        };
        let scores = compare(anchors, Tensor::cat(candidates, 0)).mul_scalar(self.scale);
        let own = Tensor::<B, 1, Int>::arange(0..batch as i64, &device).unsqueeze_dim(1);
        log_softmax(scores, 1).gather(1, own).mean().neg()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestAutodiffBackend, TestBackend, device};
    use crate::error::Error;

    type T = Tensor<TestAutodiffBackend, 2>;

    fn tensor(rows: &[[f32; 3]]) -> T {
        let flat: Vec<f32> = rows.iter().flatten().copied().collect();
        let flat = Tensor::<TestAutodiffBackend, 1>::from_floats(&flat[..], &device());
        flat.reshape([rows.len(), 3])
    }

    const ANCHORS: [[f32; 3]; 2] = [[0.3, -0.2, 0.9], [1.1, 0.4, -0.5]];
    const POSITIVES: [[f32; 3]; 2] = [[0.5, 0.1, 0.7], [0.9, -0.3, 0.2]];
    const NEGATIVES: [[f32; 3]; 2] = [[-0.4, 0.8, 0.6], [0.2, 0.2, -1.0]];

    fn config(scale: f64, similarity: SimilarityFunction) -> MultipleNegativesRankingLossConfig {
        MultipleNegativesRankingLossConfig { scale, similarity }
    }

    /// The formula of the documentation, in double precision on the host.
    fn by_hand(anchors: &[[f64; 3]], candidates: &[[f64; 3]], scale: f64, cosine: bool) -> f64 {
        let dot = |a: &[f64; 3], b: &[f64; 3]| -> f64 { a.iter().zip(b).map(|(x, y)| x * y).sum() };
        let sim = |a, b| match cosine {
            true => dot(a, b) / (dot(a, a) * dot(b, b)).sqrt(),
            false => dot(a, b),
        };
        let losses = anchors.iter().enumerate().map(|(i, a)| {
            let all: f64 = candidates.iter().map(|d| (scale * sim(a, d)).exp()).sum();
            all.ln() - scale * sim(a, &candidates[i])
        });
        losses.sum::<f64>() / anchors.len() as f64
    }

    fn widen(rows: &[[f32; 3]]) -> Vec<[f64; 3]> {
        rows.iter().map(|row| row.map(f64::from)).collect()
    }

    fn value(config: &MultipleNegativesRankingLossConfig, columns: Vec<T>) -> f64 {
        let loss: Tensor<TestAutodiffBackend, 1> = config.init().unwrap().forward(columns, None);
        assert_eq!(loss.dims(), [1]);
        f64::from(loss.into_scalar())
    }

    #[test]
    fn is_the_formula_for_pairs_and_triplets() {
        for (scale, similarity, cosine) in [
            (20.0, SimilarityFunction::Cosine, true),
            (1.0, SimilarityFunction::Dot, false),
        ] {
            let config = config(scale, similarity);
            let pairs = value(&config, vec![tensor(&ANCHORS), tensor(&POSITIVES)]);
            let expected = by_hand(&widen(&ANCHORS), &widen(&POSITIVES), scale, cosine);
            assert!((pairs - expected).abs() < 1e-5, "{pairs} for {expected}");

            let triplets = vec![tensor(&ANCHORS), tensor(&POSITIVES), tensor(&NEGATIVES)];
            let triplets = value(&config, triplets);
            let all = [widen(&POSITIVES), widen(&NEGATIVES)].concat();
            let expected_all = by_hand(&widen(&ANCHORS), &all, scale, cosine);
            assert!((triplets - expected_all).abs() < 1e-5);
            assert!(
                (expected_all - expected).abs() > 1e-3,
                "negatives must count"
            );
        }
    }

    #[test]
    fn gradient_is_the_slope() {
        let config = config(3.0, SimilarityFunction::Cosine);
        let loss = config.init().unwrap();
        let anchors = tensor(&ANCHORS).require_grad();
        let columns = vec![anchors.clone(), tensor(&POSITIVES), tensor(&NEGATIVES)];
        let grads = Loss::<TestAutodiffBackend>::forward(&loss, columns, None).backward();
        let gradient: Vec<f32> = anchors.grad(&grads).unwrap().into_data().iter().collect();

        let candidates = [widen(&POSITIVES), widen(&NEGATIVES)].concat();
        let step = 1e-5;
        for (i, &found) in gradient.iter().enumerate() {
            let at = |delta: f64| {
                let mut moved = widen(&ANCHORS);
                moved[i / 3][i % 3] += delta;
                by_hand(&moved, &candidates, 3.0, true)
            };
            let slope = (at(step) - at(-step)) / (2.0 * step);
            assert!(
                (f64::from(found) - slope).abs() < 1e-5,
                "{found} for {slope}"
            );
        }
        assert!(gradient.iter().any(|g| g.abs() > 1e-2));
    }

    #[test]
    fn stays_finite_at_large_scores() {
        let config = config(1e4, SimilarityFunction::Cosine);
        let loss = value(&config, vec![tensor(&POSITIVES), tensor(&ANCHORS)]);
        assert!(loss.is_finite());
    }

    #[test]
    fn rejects_a_scale_that_is_not_positive() {
        for scale in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(matches!(
                config(scale, SimilarityFunction::Cosine).init(),
                Err(Error::Loss(LossError::InvalidOption {
                    option: "scale",
                    ..
                }))
            ));
        }
    }

    #[test]
    fn reads_two_columns_or_more() {
        let loss = MultipleNegativesRankingLossConfig::default()
            .init()
            .unwrap();
        let columns = Loss::<TestBackend>::columns(&loss);
        assert!(columns.check(NAME, 4, None).is_ok());
        assert!(columns.check(NAME, 1, None).is_err());
    }
}
