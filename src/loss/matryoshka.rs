use std::cmp::Reverse;
use std::marker::PhantomData;
use std::ops::Range;

use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::index;
use serde_json::json;

use super::description::around;
use super::{Columns, Labels, Loss, LossData, LossInput, MiniBatch};
use crate::error::{LossError, Result};
use crate::kernel::normalize;
use crate::model::CardLoss;

/// How [`MatryoshkaLoss`] is built.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct MatryoshkaLossConfig {
    /// The sizes that embeddings are to be of use at.
    pub matryoshka_dims: Vec<usize>,
    /// The weight of each size's loss; 1 each where there are none.
    pub matryoshka_weights: Option<Vec<f64>>,
    /// How many of the sizes each step trains, drawn anew; all of them if `None`.
    pub n_dims_per_step: Option<usize>,
}

impl MatryoshkaLossConfig {
    /// These sizes, all of them in each step.
    pub fn new(matryoshka_dims: impl Into<Vec<usize>>) -> Self {
        Self {
            matryoshka_dims: matryoshka_dims.into(),
            ..Default::default()
        }
    }

    /// Builds the loss around another one.
    ///
    /// # Errors
    /// [`LossError::InvalidOption`] if there is no size, one is 0, or there is not one
    /// weight a size.
    pub fn init<B: Backend, L: Loss<B>>(&self, loss: L) -> Result<MatryoshkaLoss<B, L>> {
        let invalid = |option, expected, found: String| {
            Err(LossError::option(NAME, option, expected, found).into())
        };
        let dims = &self.matryoshka_dims;
        if dims.is_empty() || dims.contains(&0) {
            let expected = "sizes of at least 1";
            return invalid("matryoshka_dims", expected, format!("{dims:?}"));
        }
        let weights = self.matryoshka_weights.clone();
        let weights = weights.unwrap_or_else(|| vec![1.0; dims.len()]);
        if weights.len() != dims.len() || weights.iter().any(|w| !w.is_finite()) {
            let expected = "one number for each of matryoshka_dims";
            return invalid("matryoshka_weights", expected, format!("{weights:?}"));
        }
        if self.n_dims_per_step == Some(0) {
            return invalid("n_dims_per_step", "at least 1", "0".to_owned());
        }
        let mut dims: Vec<(usize, f64)> = dims.iter().copied().zip(weights).collect();
        dims.sort_by_key(|&(dim, _)| Reverse(dim));
        Ok(MatryoshkaLoss {
            loss,
            dims,
            n_dims_per_step: self.n_dims_per_step,
            backend: PhantomData,
        })
    }
}

const NAME: &str = "MatryoshkaLoss";

/// Another loss over the first numbers of each embedding as well, so that embeddings can
/// be cut to those sizes (Kusupati et al. 2022, <https://arxiv.org/abs/2205.13147>).
///
/// Reads what the other loss reads. Embeddings are scaled to unit length after the cut,
/// and labels that are embeddings of the full size are cut likewise:
/// `loss = Σ_d w_d·loss(normalize(embedding[..d]))`.
#[derive(Module, Debug)]
pub struct MatryoshkaLoss<B: Backend, L> {
    loss: L,
    #[module(skip)]
    dims: Vec<(usize, f64)>,
    #[module(skip)]
    n_dims_per_step: Option<usize>,
    backend: PhantomData<B>,
}

impl<B: Backend, L: Loss<B>> MatryoshkaLoss<B, L> {
    /// The loss inside.
    pub fn inner(&self) -> &L {
        &self.loss
    }

    /// The sizes of a step with their weights, largest first.
    fn dims_of_step(&self, seed: u64) -> Vec<(usize, f64)> {
        match self.n_dims_per_step {
            Some(count) if count < self.dims.len() => {
                let mut rng = StdRng::seed_from_u64(seed);
                let mut places = index::sample(&mut rng, self.dims.len(), count).into_vec();
                places.sort_unstable();
                places.into_iter().map(|place| self.dims[place]).collect()
            }
            _ => self.dims.clone(),
        }
    }
}

impl<B: Backend, L: Loss<B>> Loss<B> for MatryoshkaLoss<B, L> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn describe(&self) -> CardLoss {
        let inner = self.loss.describe();
        let (dims, weights): (Vec<usize>, Vec<f64>) = self.dims.iter().copied().unzip();
        let parameters = json!({
            "loss": inner.name,
            "matryoshka_dims": dims,
            "matryoshka_weights": weights,
            // Python's -1 is all of them.
            "n_dims_per_step": self.n_dims_per_step.map_or(json!(-1), |count| json!(count)),
        });
        around(NAME, parameters, inner)
    }

    fn columns(&self) -> Columns {
        self.loss.columns()
    }

    fn check(&self, data: &LossData<'_>) -> Result<()> {
        let full = data.embedding_dim;
        if let Some(&(largest, _)) = self.dims.first()
            && largest > full
        {
            return Err(LossError::Dimension {
                loss: NAME,
                expected: format!("at least {largest} dimensions"),
                found: full,
            }
            .into());
        }
        if !self.dims.iter().any(|&(dim, _)| dim == full) {
            log::warn!(
                "{NAME}: {full}, the size of the embeddings, is none of matryoshka_dims: they \
                 may be of less use uncut"
            );
        }
        for &(dim, _) in &self.dims {
            let width = data.label_width;
            self.loss.check(&LossData {
                embedding_dim: dim,
                label_width: width.map(|width| cut_width(width, data.texts, full, dim)),
                ..*data
            })?;
        }
        Ok(())
    }

    fn forward(&self, input: LossInput<B>) -> Tensor<B, 1> {
        let losses = self
            .dims_of_step(input.seed)
            .into_iter()
            .map(|(dim, weight)| {
                let cut = shrink_input(input.clone(), dim);
                self.loss.forward(cut).mul_scalar(weight)
            });
        Tensor::cat(losses.collect(), 0).sum()
    }

    fn forward_rows(&self, input: &LossInput<B>, rows: Range<usize>) -> Option<Tensor<B, 1>> {
        let dims = self.dims_of_step(input.seed).into_iter();
        let losses = dims.map(|(dim, weight)| {
            let cut = shrink_input(input.clone(), dim);
            let part = self.loss.forward_rows(&cut, rows.clone())?;
            Some(part.mul_scalar(weight))
        });
        Some(Tensor::cat(losses.collect::<Option<_>>()?, 0).sum())
    }

    fn mini_batch(&self) -> Option<MiniBatch> {
        self.loss.mini_batch()
    }

    fn needs_guide(&self) -> bool {
        self.loss.needs_guide()
    }

    fn needs_layers(&self) -> bool {
        self.loss.needs_layers()
    }
}

/// The same batch with embeddings of the first `dim` numbers; a guide's stay whole.
fn shrink_input<B: Backend>(input: LossInput<B>, dim: usize) -> LossInput<B> {
    let texts = input.embeddings.len();
    let full = input
        .embeddings
        .first()
        .map_or(dim, |column| column.dims()[1]);
    let shrink = |columns: Vec<Tensor<B, 2>>| -> Vec<Tensor<B, 2>> {
        let cut = |column: Tensor<B, 2>| normalize(column.narrow(1, 0, dim));
        columns.into_iter().map(cut).collect()
    };
    LossInput {
        embeddings: shrink(input.embeddings),
        layers: input.layers.into_iter().map(shrink).collect(),
        labels: input
            .labels
            .map(|labels| shrink_labels(labels, texts, full, dim)),
        ..input
    }
}

/// Labels that are embeddings of the full size, one or one a column, cut to `dim`; others
/// as they are.
fn shrink_labels<B: Backend>(
    labels: Labels<B>,
    texts: usize,
    full: usize,
    dim: usize,
) -> Labels<B> {
    let rows = labels.rows();
    let [batch, width] = rows.dims();
    let cut = cut_width(width, texts, full, dim);
    if cut == width {
        return Labels::new(rows);
    }
    let embeddings = width / full;
    let rows: Tensor<B, 3> = rows.reshape([batch, embeddings, full]);
    Labels::new(rows.narrow(2, 0, dim).reshape([batch, cut]))
}

/// The width that is left of a label.
fn cut_width(width: usize, texts: usize, full: usize, dim: usize) -> usize {
    match width == full || width == texts * full {
        true => width / full * dim,
        false => width,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};
    use crate::error::Error;
    use crate::loss::{
        CachedLoss, EmbedDistillLoss, MSELossConfig, MultipleNegativesRankingLoss,
        MultipleNegativesRankingLossConfig, SoftmaxLossConfig,
    };

    type Matryoshka = MatryoshkaLoss<TestBackend, MultipleNegativesRankingLoss>;

    fn mnrl() -> MultipleNegativesRankingLoss {
        MultipleNegativesRankingLossConfig::default()
            .init()
            .unwrap()
    }

    fn input() -> LossInput<TestBackend> {
        let a = [[0.5, -0.2, 0.3, 0.9], [0.1, 0.8, -0.4, 0.2]];
        let b = [[0.4, 0.1, 0.7, 0.3], [-0.2, 0.5, 0.3, -0.6]];
        let columns = [a, b].map(|rows| Tensor::from_floats(rows, &device()));
        LossInput::new(columns.into())
    }

    /// The ranking loss of the first `dim` numbers.
    fn at(dim: usize) -> f32 {
        let mut input = input();
        for column in &mut input.embeddings {
            *column = column.clone().narrow(1, 0, dim);
        }
        mnrl().forward(input).into_scalar()
    }

    #[test]
    fn adds_the_losses_of_all_sizes_up() {
        let config = MatryoshkaLossConfig {
            matryoshka_weights: Some(vec![0.5, 2.0]),
            ..MatryoshkaLossConfig::new([2, 4])
        };
        let loss: Matryoshka = config.init(mnrl()).unwrap();
        let found = loss.forward(input()).into_scalar();
        let expected = 0.5 * at(2) + 2.0 * at(4);
        assert!((found - expected).abs() < 1e-5, "{found} for {expected}");
    }

    #[test]
    fn a_step_may_draw_some_of_the_sizes() {
        let config = MatryoshkaLossConfig {
            n_dims_per_step: Some(1),
            ..MatryoshkaLossConfig::new([1, 2, 3, 4])
        };
        let loss: Matryoshka = config.init(mnrl()).unwrap();
        let each: Vec<f32> = (1..=4).map(at).collect();
        let mut drawn = [false; 4];
        for seed in 0..50 {
            let value = |seed| loss.forward(input().with_seed(seed)).into_scalar();
            let found = value(seed);
            assert_eq!(found, value(seed));
            let place = each.iter().position(|e| (e - found).abs() < 1e-5).unwrap();
            drawn[place] = true;
        }
        assert_eq!(drawn, [true; 4]);
    }

    #[test]
    fn labels_that_are_embeddings_are_cut_too() {
        let rows = [[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]];
        let cut = |texts, full| -> Vec<f32> {
            let rows = Tensor::<TestBackend, 2>::from_floats(rows, &device());
            let cut = shrink_labels(Labels::new(rows), texts, full, 2);
            cut.rows().into_data().iter().collect()
        };
        assert_eq!(cut(2, 6), [0.0, 1.0]);
        assert_eq!(cut(2, 3), [0.0, 1.0, 3.0, 4.0]);
        assert_eq!(cut(3, 3), rows[0]);
    }

    #[test]
    fn what_the_inner_loss_cannot_read_at_some_size_is_named() {
        let data = LossData::new(2, 4);
        let config = MatryoshkaLossConfig::new([2, 8]);
        let large: Matryoshka = config.init(mnrl()).unwrap();
        assert!(matches!(
            large.check(&data),
            Err(Error::Loss(LossError::Dimension { found: 4, .. }))
        ));
        let config = MatryoshkaLossConfig::new([2, 4]);
        let labels = [vec![0.0; 4]];
        let labelled = data.with_labels(Some(&labels));
        let mse: EmbedDistillLoss<TestBackend> = MSELossConfig::default().init(&device()).unwrap();
        assert!(config.init(mse).unwrap().check(&labelled).is_ok());
        let classes = [vec![0.0]];
        let classified = data.with_labels(Some(&classes));
        let softmax = SoftmaxLossConfig::new(4, 2)
            .init::<TestBackend>(&device())
            .unwrap();
        assert!(config.init(softmax).unwrap().check(&classified).is_err());
    }

    #[test]
    fn a_cached_loss_stays_cached() {
        let cached = CachedLoss::<TestBackend, _>::new(mnrl(), 3).unwrap();
        let loss = MatryoshkaLossConfig::new([4, 2]).init(cached).unwrap();
        assert_eq!(loss.mini_batch(), Some(MiniBatch::rows(3)));
        let plain: Matryoshka = MatryoshkaLossConfig::new([4, 2]).init(mnrl()).unwrap();
        let (cached, plain) = (loss.forward(input()), plain.forward(input()));
        assert_eq!(cached.into_scalar(), plain.into_scalar());
    }

    #[test]
    fn rejects_sizes_and_weights_that_do_not_go_together() {
        let option = |config: MatryoshkaLossConfig| match config.init::<TestBackend, _>(mnrl()) {
            Err(Error::Loss(LossError::InvalidOption { option, .. })) => option,
            other => panic!("{other:?}"),
        };
        assert_eq!(option(MatryoshkaLossConfig::default()), "matryoshka_dims");
        assert_eq!(option(MatryoshkaLossConfig::new([4, 0])), "matryoshka_dims");
        let weights = MatryoshkaLossConfig {
            matryoshka_weights: Some(vec![1.0]),
            ..MatryoshkaLossConfig::new([4, 2])
        };
        assert_eq!(option(weights), "matryoshka_weights");
        let none = MatryoshkaLossConfig {
            n_dims_per_step: Some(0),
            ..MatryoshkaLossConfig::new([4, 2])
        };
        assert_eq!(option(none), "n_dims_per_step");
    }
}
