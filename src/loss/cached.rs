use std::marker::PhantomData;

use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};
use serde_json::json;

use super::{
    Columns, GISTEmbedLoss, Loss, LossData, LossInput, MultipleNegativesRankingLoss,
    MultipleNegativesSymmetricRankingLoss,
};
use crate::error::{LossError, Result};
use crate::model::CardLoss;

/// A loss whose batch is embedded in mini-batches, so that the batch may be far larger
/// than memory could hold at once (GradCache, Gao et al. 2021,
/// <https://arxiv.org/abs/2101.06983>).
///
/// Value and gradient are those of the loss inside, which may be any: it sees the whole
/// batch. Every text is embedded twice, the second time with the dropout masks of the
/// first.
#[derive(Module, Debug)]
pub struct CachedLoss<B: Backend, L> {
    loss: L,
    mini_batch_size: usize,
    backend: PhantomData<B>,
}

/// [`MultipleNegativesRankingLoss`] over batches larger than memory.
pub type CachedMultipleNegativesRankingLoss<B> = CachedLoss<B, MultipleNegativesRankingLoss>;

/// [`MultipleNegativesSymmetricRankingLoss`] over batches larger than memory.
pub type CachedMultipleNegativesSymmetricRankingLoss<B> =
    CachedLoss<B, MultipleNegativesSymmetricRankingLoss>;

/// [`GISTEmbedLoss`] over batches larger than memory.
pub type CachedGISTEmbedLoss<B> = CachedLoss<B, GISTEmbedLoss>;

impl<B: Backend, L: Loss<B>> CachedLoss<B, L> {
    /// The loss inside.
    pub fn inner(&self) -> &L {
        &self.loss
    }

    /// Wraps a loss; the reference's `mini_batch_size` is 32.
    ///
    /// # Errors
    /// [`LossError::InvalidOption`] if `mini_batch_size` is 0.
    pub fn new(loss: L, mini_batch_size: usize) -> Result<Self> {
        if mini_batch_size == 0 {
            return Err(LossError::option(loss.name(), "mini_batch_size", "at least 1", 0).into());
        }
        Ok(Self {
            loss,
            mini_batch_size,
            backend: PhantomData,
        })
    }
}

impl<B: Backend, L: Loss<B>> Loss<B> for CachedLoss<B, L> {
    fn name(&self) -> &'static str {
        self.loss.name()
    }

    fn describe(&self) -> CardLoss {
        let mut described = self.loss.describe();
        described.name = format!("Cached{}", described.name);
        let size = json!(self.mini_batch_size);
        described
            .parameters
            .insert("mini_batch_size".to_owned(), size);
        described
    }

    fn columns(&self) -> Columns {
        self.loss.columns()
    }

    fn check(&self, data: &LossData<'_>) -> Result<()> {
        self.loss.check(data)
    }

    fn forward(&self, input: LossInput<B>) -> Tensor<B, 1> {
        self.loss.forward(input)
    }

    fn mini_batch_size(&self) -> Option<usize> {
        Some(self.mini_batch_size)
    }

    fn needs_guide(&self) -> bool {
        self.loss.needs_guide()
    }

    fn needs_layers(&self) -> bool {
        self.loss.needs_layers()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::TestBackend;
    use crate::error::Error;
    use crate::loss::MultipleNegativesRankingLossConfig;

    #[test]
    fn names_a_mini_batch_size() {
        let loss = MultipleNegativesRankingLossConfig::default()
            .init()
            .unwrap();
        assert_eq!(Loss::<TestBackend>::mini_batch_size(&loss), None);
        let cached = CachedLoss::<TestBackend, _>::new(loss.clone(), 4).unwrap();
        assert_eq!(cached.mini_batch_size(), Some(4));
        assert!(matches!(
            CachedLoss::<TestBackend, _>::new(loss, 0),
            Err(Error::Loss(LossError::InvalidOption {
                option: "mini_batch_size",
                ..
            }))
        ));
    }
}
