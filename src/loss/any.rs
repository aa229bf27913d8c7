use std::ops::Range;

use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};

use super::*;

macro_rules! any_loss {
    ($($variant:ident($loss:ty),)*) => {
        /// Any of the losses that wrap no other, for where one is chosen while the program
        /// runs.
        ///
        /// [`MatryoshkaLoss`], [`AdaptiveLayerLoss`] and [`CachedLoss`] wrap it as any other.
        ///
        /// ```
        /// use burn::backend::NdArray;
        /// use sentence_burn::loss::{AnyLoss, CoSENTLossConfig, Loss, TripletLossConfig};
        ///
        /// fn choose(labelled: bool) -> sentence_burn::Result<AnyLoss<NdArray>> {
        ///     Ok(match labelled {
        ///         true => CoSENTLossConfig::default().init()?.into(),
        ///         false => TripletLossConfig::default().init()?.into(),
        ///     })
        /// }
        /// assert_eq!(choose(false)?.name(), "TripletLoss");
        /// # Ok::<(), sentence_burn::Error>(())
        /// ```
        #[derive(Module, Debug)]
        #[non_exhaustive]
        #[allow(clippy::large_enum_variant, reason = "a run has a handful of losses")]
        pub enum AnyLoss<B: Backend> {
            $(
                #[doc = concat!("[`", stringify!($loss), "`].")]
                $variant($loss),
            )*
        }

        impl<B: Backend> Loss<B> for AnyLoss<B> {
            fn name(&self) -> &'static str {
                match self {
                    $(Self::$variant(loss) => Loss::<B>::name(loss),)*
                }
            }

            fn describe(&self) -> CardLoss {
                match self {
                    $(Self::$variant(loss) => Loss::<B>::describe(loss),)*
                }
            }

            fn columns(&self) -> Columns {
                match self {
                    $(Self::$variant(loss) => Loss::<B>::columns(loss),)*
                }
            }

            fn check(&self, data: &LossData<'_>) -> Result<()> {
                match self {
                    $(Self::$variant(loss) => Loss::<B>::check(loss, data),)*
                }
            }

            fn forward(&self, input: LossInput<B>) -> Tensor<B, 1> {
                match self {
                    $(Self::$variant(loss) => loss.forward(input),)*
                }
            }

            fn forward_rows(
                &self,
                input: &LossInput<B>,
                rows: Range<usize>,
            ) -> Option<Tensor<B, 1>> {
                match self {
                    $(Self::$variant(loss) => loss.forward_rows(input, rows),)*
                }
            }

            fn mini_batch(&self) -> Option<MiniBatch> {
                match self {
                    $(Self::$variant(loss) => Loss::<B>::mini_batch(loss),)*
                }
            }

            fn needs_guide(&self) -> bool {
                match self {
                    $(Self::$variant(loss) => Loss::<B>::needs_guide(loss),)*
                }
            }

            fn needs_layers(&self) -> bool {
                match self {
                    $(Self::$variant(loss) => Loss::<B>::needs_layers(loss),)*
                }
            }
        }

        $(
            impl<B: Backend> From<$loss> for AnyLoss<B> {
                fn from(loss: $loss) -> Self {
                    Self::$variant(loss)
                }
            }
        )*
    };
}

any_loss! {
    MultipleNegativesRanking(MultipleNegativesRankingLoss),
    CachedMultipleNegativesRanking(CachedMultipleNegativesRankingLoss<B>),
    GISTEmbed(GISTEmbedLoss),
    CachedGISTEmbed(CachedGISTEmbedLoss<B>),
    CoSENT(CoSENTLoss),
    AnglE(AnglELoss),
    CosineSimilarity(CosineSimilarityLoss),
    Contrastive(ContrastiveLoss),
    OnlineContrastive(OnlineContrastiveLoss),
    Triplet(TripletLoss),
    BatchHardTriplet(BatchHardTripletLoss),
    BatchHardSoftMarginTriplet(BatchHardSoftMarginTripletLoss),
    BatchSemiHardTriplet(BatchSemiHardTripletLoss),
    BatchAllTriplet(BatchAllTripletLoss),
    Softmax(SoftmaxLoss<B>),
    EmbedDistill(EmbedDistillLoss<B>),
    MarginMSE(MarginMSELoss),
    DistillKLDiv(DistillKLDivLoss),
    MegaBatchMargin(MegaBatchMarginLoss),
    GlobalOrthogonalRegularization(GlobalOrthogonalRegularizationLoss),
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};
    use burn::module::Param;

    fn columns() -> Vec<Tensor<TestBackend, 2>> {
        let rows = [[0.3, -0.2], [1.1, 0.4], [0.5, 0.7], [-0.9, 0.3]];
        let embeddings = Tensor::<TestBackend, 2>::from_floats(rows, &device());
        embeddings.chunk(2, 0)
    }

    #[test]
    fn is_the_loss_that_it_holds() {
        let mnrl = MultipleNegativesRankingLossConfig::default()
            .init()
            .unwrap();
        let expected = mnrl.forward(LossInput::new(columns())).into_scalar();
        let any = AnyLoss::<TestBackend>::from(mnrl.clone());
        assert_eq!(
            any.forward(LossInput::new(columns())).into_scalar(),
            expected
        );
        assert_eq!(
            (any.name(), any.mini_batch()),
            ("MultipleNegativesRankingLoss", None)
        );
        let cached = AnyLoss::<TestBackend>::from(CachedLoss::new(mnrl, 7).unwrap());
        assert_eq!(cached.mini_batch(), Some(MiniBatch::rows(7)));
        let gist = AnyLoss::<TestBackend>::from(GISTEmbedLossConfig::default().init().unwrap());
        assert!(gist.needs_guide() && !gist.needs_layers());
        assert!(gist.check(&LossData::new(2, 8)).is_err());
    }

    #[test]
    fn has_the_parameters_of_the_loss_that_it_holds() {
        let mut softmax = SoftmaxLossConfig::new(2, 3)
            .init::<TestBackend>(&device())
            .unwrap();
        let weight = Param::from_tensor(Tensor::ones([3, 6], &device()));
        softmax.classifier = LinearHead::from_weights(weight, softmax.classifier.bias.clone());
        let any = AnyLoss::from(softmax);
        assert_eq!(any.num_params(), 3 * 6 + 3);
        let mnrl = MultipleNegativesRankingLossConfig::default()
            .init()
            .unwrap();
        assert_eq!(AnyLoss::<TestBackend>::from(mnrl).num_params(), 0);
    }
}
