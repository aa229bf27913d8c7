//! Losses: one a file, behind one trait that says what it reads.
//!
//! A [`Loss`] sees embeddings, never texts or models: what it needs is one
//! `[batch, dim]` tensor a text column, and the labels if it reads any. What else some
//! losses need they ask for, and find in their [`LossInput`]: the embeddings of a
//! [guide model](Loss::needs_guide), those of [earlier layers](Loss::needs_layers).
//! Losses that would need more embeddings at once than fit in memory name a
//! [mini-batch size](Loss::mini_batch) instead of embedding anything themselves;
//! [`CachedLoss`] gives any loss one.

mod adaptive_layer;
mod angle;
mod any;
mod batch_all_triplet;
mod batch_hard_soft_margin_triplet;
mod batch_hard_triplet;
mod batch_semi_hard_triplet;
mod cached;
mod columns;
mod contrastive;
mod cosent;
mod cosine_similarity;
mod data;
mod description;
mod distill_kl_div;
mod embed_distill;
mod gist_embed;
mod global_orthogonal_regularization;
mod in_batch;
mod input;
mod linear_head;
mod margin_mse;
mod matryoshka;
mod matryoshka_2d;
mod mega_batch_margin;
mod mini_batch;
mod mse;
mod multiple_negatives_ranking;
mod multiple_negatives_symmetric_ranking;
mod online_contrastive;
mod softmax;
mod triplet;

pub use adaptive_layer::{AdaptiveLayerLoss, AdaptiveLayerLossConfig, LayerWeighting};
pub use angle::{AnglELoss, AnglELossConfig};
pub use any::AnyLoss;
pub use batch_all_triplet::{BatchAllTripletLoss, BatchAllTripletLossConfig};
pub use batch_hard_soft_margin_triplet::{
    BatchHardSoftMarginTripletLoss, BatchHardSoftMarginTripletLossConfig,
};
pub use batch_hard_triplet::{
    BatchHardTripletLoss, BatchHardTripletLossConfig, BatchHardTripletLossDistanceFunction,
};
pub use batch_semi_hard_triplet::{BatchSemiHardTripletLoss, BatchSemiHardTripletLossConfig};
pub use cached::{
    CachedGISTEmbedLoss, CachedLoss, CachedMultipleNegativesRankingLoss,
    CachedMultipleNegativesSymmetricRankingLoss,
};
pub use columns::{Columns, LabelColumn, Labels, TextColumns};
pub use contrastive::{ContrastiveLoss, ContrastiveLossConfig, SiameseDistanceMetric};
pub use cosent::{CoSENTLoss, CoSENTLossConfig};
pub use cosine_similarity::CosineSimilarityLoss;
pub use data::LossData;
pub use distill_kl_div::{DistillKLDivLoss, DistillKLDivLossConfig};
pub use embed_distill::{
    EmbedDistillLoss, EmbedDistillLossConfig, EmbedDistillMetric, ProjectionConfig,
};
pub use gist_embed::{GISTEmbedLoss, GISTEmbedLossConfig, MarginStrategy};
pub use global_orthogonal_regularization::{
    GlobalOrthogonalRegularizationLoss, GlobalOrthogonalRegularizationLossConfig, GorAggregation,
};
pub use input::LossInput;
pub use linear_head::LinearHead;
pub use margin_mse::{MarginMSELoss, MarginMSELossConfig};
pub use matryoshka::{MatryoshkaLoss, MatryoshkaLossConfig};
pub use matryoshka_2d::{Matryoshka2dLoss, Matryoshka2dLossConfig};
pub use mega_batch_margin::{MegaBatchMarginLoss, MegaBatchMarginLossConfig};
pub use mini_batch::MiniBatch;
pub use mse::{MSELoss, MSELossConfig};
pub use multiple_negatives_ranking::{
    Direction, HardnessMode, MultipleNegativesRankingLoss, MultipleNegativesRankingLossConfig,
    PartitionMode,
};
pub use multiple_negatives_symmetric_ranking::{
    MultipleNegativesSymmetricRankingLoss, MultipleNegativesSymmetricRankingLossConfig,
};
pub use online_contrastive::{OnlineContrastiveLoss, OnlineContrastiveLossConfig};
pub use softmax::{SoftmaxLoss, SoftmaxLossConfig};
pub use triplet::{TripletDistanceMetric, TripletLoss, TripletLossConfig};

use std::ops::Range;

use burn::module::{Module, ModuleDisplay};
use burn::tensor::{Tensor, backend::Backend};

use crate::error::Result;
use crate::model::CardLoss;

/// What training minimises.
///
/// A loss with parameters of its own holds them as a Burn module does: they are
/// trained, and kept in checkpoints, beside the model's.
pub trait Loss<B: Backend>: Module<B> + ModuleDisplay {
    /// The loss's name in messages.
    fn name(&self) -> &'static str;

    /// What a model card says of it: its name, and its parameters by the names that Python
    /// gives them.
    fn describe(&self) -> CardLoss {
        CardLoss {
            name: self.name().to_owned(),
            ..CardLoss::default()
        }
    }

    /// The text columns and the label that it reads.
    fn columns(&self) -> Columns;

    /// Checks that this data, embedded by a model of this size, is what it reads.
    ///
    /// # Errors
    /// [`LossError`](crate::error::LossError) naming what it cannot read.
    fn check(&self, data: &LossData<'_>) -> Result<()> {
        let columns = self.columns();
        columns.check(self.name(), data.texts, data.label_width)
    }

    /// The loss of one batch.
    ///
    /// # Shapes
    /// - output: `[1]`
    ///
    /// # Panics
    /// If the input is not what the loss reads: [`check`](Self::check) the data first.
    fn forward(&self, input: LossInput<B>) -> Tensor<B, 1>;

    /// What these rows of the batch add to the loss, where it is a sum over rows: a batch
    /// whose matrix of scores is too large for memory is gone through so.
    ///
    /// # Shapes
    /// - output: `[1]`; the sum over all rows is [`forward`](Self::forward)'s
    ///
    /// # Panics
    /// As [`forward`](Self::forward).
    fn forward_rows(&self, _input: &LossInput<B>, _rows: Range<usize>) -> Option<Tensor<B, 1>> {
        None
    }

    /// How the batch is to be embedded in parts (GradCache); all at once if `None`.
    fn mini_batch(&self) -> Option<MiniBatch> {
        None
    }

    /// Whether it reads the embeddings of a guide model.
    fn needs_guide(&self) -> bool {
        false
    }

    /// Whether it reads the embeddings that the layers before the last would give.
    fn needs_layers(&self) -> bool {
        false
    }
}
