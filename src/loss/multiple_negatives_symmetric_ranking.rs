use super::{
    Direction, MultipleNegativesRankingLoss, MultipleNegativesRankingLossConfig, PartitionMode,
};
use crate::error::Result;
use crate::model::similarity::SimilarityFunction;

/// How [`MultipleNegativesSymmetricRankingLoss`] is built.
#[derive(Debug, Clone, PartialEq)]
pub struct MultipleNegativesSymmetricRankingLossConfig {
    /// What similarities are multiplied with: the inverse of the temperature.
    pub scale: f64,
    /// How an anchor is compared with a candidate.
    pub similarity: SimilarityFunction,
}

impl Default for MultipleNegativesSymmetricRankingLossConfig {
    fn default() -> Self {
        let MultipleNegativesRankingLossConfig {
            scale, similarity, ..
        } = Default::default();
        Self { scale, similarity }
    }
}

impl MultipleNegativesSymmetricRankingLossConfig {
    /// Builds the loss.
    ///
    /// # Errors
    /// [`LossError::InvalidOption`](crate::error::LossError) if `scale` is not a positive
    /// number.
    pub fn init(&self) -> Result<MultipleNegativesSymmetricRankingLoss> {
        let config = MultipleNegativesRankingLossConfig {
            scale: self.scale,
            similarity: self.similarity,
            directions: vec![Direction::QueryToDoc, Direction::DocToQuery],
            partition_mode: PartitionMode::PerDirection,
            ..Default::default()
        };
        config.init()
    }
}

/// [`MultipleNegativesRankingLoss`] both ways: also each positive's anchor against all
/// other anchors of the batch.
pub type MultipleNegativesSymmetricRankingLoss = MultipleNegativesRankingLoss;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};
    use crate::loss::{Loss, LossInput};
    use burn::tensor::Tensor;

    fn value(loss: &MultipleNegativesRankingLoss, columns: [[[f32; 2]; 2]; 2]) -> f32 {
        let columns = columns.map(|rows| Tensor::<TestBackend, 2>::from_floats(rows, &device()));
        loss.forward(LossInput::new(columns.into())).into_scalar()
    }

    #[test]
    fn is_the_mean_of_both_ways() {
        let (a, b) = ([[1.0, 0.2], [0.3, 1.0]], [[0.7, -0.4], [0.9, 0.8]]);
        let one_way = MultipleNegativesRankingLossConfig::default()
            .init()
            .unwrap();
        let symmetric = MultipleNegativesSymmetricRankingLossConfig::default();
        let symmetric = symmetric.init().unwrap();
        let (forth, back) = (value(&one_way, [a, b]), value(&one_way, [b, a]));
        assert!((forth - back).abs() > 1e-2);
        let found = value(&symmetric, [a, b]);
        assert!((found - (forth + back) / 2.0).abs() < 1e-5);
        assert!((found - value(&symmetric, [b, a])).abs() < 1e-5);
    }
}
