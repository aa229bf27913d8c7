use std::marker::PhantomData;
use std::ops::Range;

use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};
use serde_json::json;

use super::{
    Columns, GISTEmbedLoss, Loss, LossData, LossInput, MiniBatch, MultipleNegativesRankingLoss,
    MultipleNegativesSymmetricRankingLoss,
};
use crate::error::{LossError, Result};
use crate::model::CardLoss;

/// A loss whose batch is embedded in mini-batches, so that the batch may be far larger
/// than memory could hold at once (GradCache, Gao et al. 2021,
/// <https://arxiv.org/abs/2101.06983>).
///
/// Value and gradient are those of the loss inside, which may be any. Every text is
/// embedded twice, the second time with the dropout masks of the first. The matrix of
/// scores of a loss that is a [sum over rows](Loss::forward_rows), as the ranking losses
/// are, is never there as a whole.
#[derive(Module, Debug)]
pub struct CachedLoss<B: Backend, L> {
    loss: L,
    #[module(skip)]
    mini_batch: MiniBatch,
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
            mini_batch: MiniBatch::rows(mini_batch_size),
            backend: PhantomData,
        })
    }

    /// Embeds as many texts at a time as have no more than so many tokens together, instead
    /// of `mini_batch_size` texts: the reference's `mini_batch_num_tokens`. A text with more
    /// goes alone. The matrix of scores is still computed `mini_batch_size` rows at a time.
    ///
    /// # Errors
    /// [`LossError::InvalidOption`] if `tokens` is 0.
    pub fn with_mini_batch_num_tokens(mut self, tokens: usize) -> Result<Self> {
        if tokens == 0 {
            let option = "mini_batch_num_tokens";
            return Err(LossError::option(self.loss.name(), option, "at least 1", 0).into());
        }
        self.mini_batch.tokens = Some(tokens);
        Ok(self)
    }
}

impl<B: Backend, L: Loss<B>> Loss<B> for CachedLoss<B, L> {
    fn name(&self) -> &'static str {
        self.loss.name()
    }

    fn describe(&self) -> CardLoss {
        let mut described = self.loss.describe();
        described.name = format!("Cached{}", described.name);
        let MiniBatch { rows, tokens } = self.mini_batch;
        let sizes = [
            ("mini_batch_size", json!(rows)),
            ("mini_batch_num_tokens", json!(tokens)),
        ];
        let sizes = sizes.map(|(name, size)| (name.to_owned(), size));
        described.parameters.extend(sizes);
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

    fn forward_rows(&self, input: &LossInput<B>, rows: Range<usize>) -> Option<Tensor<B, 1>> {
        self.loss.forward_rows(input, rows)
    }

    fn mini_batch(&self) -> Option<MiniBatch> {
        Some(self.mini_batch)
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
        assert_eq!(Loss::<TestBackend>::mini_batch(&loss), None);
        let cached = CachedLoss::<TestBackend, _>::new(loss.clone(), 4).unwrap();
        assert_eq!(cached.mini_batch(), Some(MiniBatch::rows(4)));
        let by_tokens = cached.with_mini_batch_num_tokens(100).unwrap();
        let expected = MiniBatch {
            rows: 4,
            tokens: Some(100),
        };
        assert_eq!(by_tokens.mini_batch(), Some(expected));
        assert!(by_tokens.with_mini_batch_num_tokens(0).is_err());
        assert!(matches!(
            CachedLoss::<TestBackend, _>::new(loss, 0),
            Err(Error::Loss(LossError::InvalidOption {
                option: "mini_batch_size",
                ..
            }))
        ));
    }
}
