use burn::tensor::backend::Backend;
use clap::ValueEnum;
use sentence_burn::Result;
use sentence_burn::loss::{
    AnglELossConfig, AnyLoss, BatchAllTripletLossConfig, BatchHardSoftMarginTripletLossConfig,
    BatchHardTripletLossConfig, BatchSemiHardTripletLossConfig, CachedLoss, CoSENTLossConfig,
    ContrastiveLossConfig, CosineSimilarityLoss, DistillKLDivLossConfig, GISTEmbedLossConfig,
    GlobalOrthogonalRegularizationLossConfig, Loss, MSELossConfig, MarginMSELossConfig,
    MegaBatchMarginLossConfig, MultipleNegativesRankingLossConfig,
    MultipleNegativesSymmetricRankingLossConfig, OnlineContrastiveLossConfig, SoftmaxLossConfig,
    TripletLossConfig,
};
use sentence_burn::training::BatchSampler;

use super::data::TrainingData;

/// The losses, by what they read.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LossName {
    /// MultipleNegativesRankingLoss: (anchor, positive[, negative…]).
    Mnrl,
    /// CachedMultipleNegativesRankingLoss: the same over batches larger than memory.
    CachedMnrl,
    /// MultipleNegativesSymmetricRankingLoss: also each positive against all anchors.
    Symmetric,
    /// CachedMultipleNegativesSymmetricRankingLoss.
    CachedSymmetric,
    /// GISTEmbedLoss: without the negatives that --guide holds for positives.
    Gist,
    /// CachedGISTEmbedLoss.
    CachedGist,
    /// MegaBatchMarginLoss: (anchor, positive) in large batches, embedded in parts.
    MegaBatchMargin,
    /// TripletLoss: (anchor, positive, negative).
    Triplet,
    /// CoSENTLoss: (text, text) with a score.
    Cosent,
    /// AnglELoss: (text, text) with a score, or (anchor, positive, negative).
    Angle,
    /// CosineSimilarityLoss: (text, text) with a score from 0 to 1.
    CosineSimilarity,
    /// ContrastiveLoss: (text, text) with 1 for a pair that belongs together, 0 for others.
    Contrastive,
    /// OnlineContrastiveLoss: the same, the hard pairs of a batch alone.
    OnlineContrastive,
    /// SoftmaxLoss: (text, text) with a class, counted from 0.
    Softmax,
    /// BatchAllTripletLoss: text with a class.
    BatchAllTriplet,
    /// BatchHardTripletLoss: text with a class.
    BatchHardTriplet,
    /// BatchHardSoftMarginTripletLoss: text with a class.
    BatchHardSoftMarginTriplet,
    /// BatchSemiHardTripletLoss: text with a class.
    BatchSemiHardTriplet,
    /// MarginMSELoss: (query, positive, negative…) with a teacher's scores or margins.
    MarginMse,
    /// DistillKLDivLoss: (query, positive, negative…) with a teacher's scores.
    DistillKlDiv,
    /// MSELoss: texts with a teacher's embedding.
    Mse,
    /// GlobalOrthogonalRegularizationLoss: spreads embeddings out.
    GlobalOrthogonalRegularization,
}

/// What a loss is built from beside its name.
pub(crate) struct LossParts<'a> {
    pub(crate) mini_batch_size: usize,
    pub(crate) mini_batch_num_tokens: Option<usize>,
    pub(crate) embedding_dimension: usize,
    pub(crate) data: &'a TrainingData,
}

impl LossName {
    /// The sampler that suits the loss: no text twice among in-batch negatives, and two of
    /// each class where triplets are looked for.
    pub(crate) fn sampler(self) -> BatchSampler {
        match self {
            Self::Mnrl
            | Self::CachedMnrl
            | Self::Symmetric
            | Self::CachedSymmetric
            | Self::Gist
            | Self::CachedGist
            | Self::MegaBatchMargin
            | Self::GlobalOrthogonalRegularization => BatchSampler::NoDuplicates,
            Self::BatchAllTriplet
            | Self::BatchHardTriplet
            | Self::BatchHardSoftMarginTriplet
            | Self::BatchSemiHardTriplet => BatchSampler::GroupByLabel,
            _ => BatchSampler::Random,
        }
    }

    pub(crate) fn build<B: Backend>(
        self,
        parts: &LossParts<'_>,
        device: &B::Device,
    ) -> Result<AnyLoss<B>> {
        let mnrl = MultipleNegativesRankingLossConfig::default();
        let symmetric = MultipleNegativesSymmetricRankingLossConfig::default();
        let gist = GISTEmbedLossConfig::default();
        Ok(match self {
            Self::Mnrl => mnrl.init()?.into(),
            Self::CachedMnrl => cached(mnrl.init()?, parts)?.into(),
            Self::Symmetric => symmetric.init()?.into(),
            Self::CachedSymmetric => cached(symmetric.init()?, parts)?.into(),
            Self::Gist => gist.init()?.into(),
            Self::CachedGist => cached(gist.init()?, parts)?.into(),
            Self::MegaBatchMargin => {
                let config = MegaBatchMarginLossConfig {
                    mini_batch_size: parts.mini_batch_size,
                    ..Default::default()
                };
                config.init()?.into()
            }
            Self::Triplet => TripletLossConfig::default().init()?.into(),
            Self::Cosent => CoSENTLossConfig::default().init()?.into(),
            Self::Angle => AnglELossConfig::default().init()?.into(),
            Self::CosineSimilarity => CosineSimilarityLoss.into(),
            Self::Contrastive => ContrastiveLossConfig::default().init()?.into(),
            Self::OnlineContrastive => OnlineContrastiveLossConfig::default().init()?.into(),
            Self::Softmax => {
                let classes = parts.data.classes()?;
                let config = SoftmaxLossConfig::new(parts.embedding_dimension, classes);
                config.init(device)?.into()
            }
            Self::BatchAllTriplet => BatchAllTripletLossConfig::default().init()?.into(),
            Self::BatchHardTriplet => BatchHardTripletLossConfig::default().init()?.into(),
            Self::BatchHardSoftMarginTriplet => BatchHardSoftMarginTripletLossConfig::default()
                .init()
                .into(),
            Self::BatchSemiHardTriplet => BatchSemiHardTripletLossConfig::default().init()?.into(),
            Self::MarginMse => MarginMSELossConfig::default().init().into(),
            Self::DistillKlDiv => DistillKLDivLossConfig::default().init()?.into(),
            Self::Mse => MSELossConfig::default().init(device)?.into(),
            Self::GlobalOrthogonalRegularization => {
                GlobalOrthogonalRegularizationLossConfig::default()
                    .init()?
                    .into()
            }
        })
    }
}

fn cached<B: Backend, L: Loss<B>>(loss: L, parts: &LossParts<'_>) -> Result<CachedLoss<B, L>> {
    let cached = CachedLoss::new(loss, parts.mini_batch_size)?;
    match parts.mini_batch_num_tokens {
        Some(tokens) => cached.with_mini_batch_num_tokens(tokens),
        None => Ok(cached),
    }
}
