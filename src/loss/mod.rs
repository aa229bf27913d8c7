//! Losses: one a file, behind one trait that says which columns it reads.
//!
//! A [`Loss`] sees embeddings, never texts or models: what it needs is one
//! `[batch, dim]` tensor a text column, and the labels if it reads any. Losses that
//! would need more embeddings at once than fit in memory name a
//! [mini-batch size](Loss::mini_batch_size) instead of embedding anything themselves.

mod cached;
mod columns;
mod multiple_negatives_ranking;

pub use cached::{CachedLoss, CachedMultipleNegativesRankingLoss};
pub use columns::{Columns, LabelColumn, Labels, TextColumns};
pub use multiple_negatives_ranking::{
    MultipleNegativesRankingLoss, MultipleNegativesRankingLossConfig,
};

use burn::module::{Module, ModuleDisplay};
use burn::tensor::{Tensor, backend::Backend};

/// What training minimises.
///
/// A loss with parameters of its own holds them as a Burn module does: they are
/// trained, and kept in checkpoints, beside the model's.
pub trait Loss<B: Backend>: Module<B> + ModuleDisplay {
    /// The loss's name in messages.
    fn name(&self) -> &'static str;

    /// The text columns and the label that it reads.
    fn columns(&self) -> Columns;

    /// The loss of one batch.
    ///
    /// # Shapes
    /// - embeddings: `[batch, dim]` for each text column, in column order
    /// - labels: `[batch, width]`
    /// - output: `[1]`
    ///
    /// # Panics
    /// If there are fewer embeddings than [`columns`](Self::columns) asks for, or no
    /// labels where it asks for some: check the data with [`Columns::check`] first.
    fn forward(&self, embeddings: Vec<Tensor<B, 2>>, labels: Option<Labels<B>>) -> Tensor<B, 1>;

    /// How many texts of a column to embed at a time, if the batch is to be embedded in
    /// parts (GradCache); all at once if `None`.
    fn mini_batch_size(&self) -> Option<usize> {
        None
    }
}
