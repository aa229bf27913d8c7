use std::sync::{Arc, OnceLock};

use burn::module::{AutodiffModule, Module};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::train::{InferenceStep, ItemLazy, TrainOutput, TrainStep};

use super::dataset::Dataset;
use super::gradcache;
use super::history::StepRecord;
use super::loader::StepBatch;
use super::seed;
use super::session::{Session, StepLoss};
use crate::error::Result;

use crate::loss::{Labels, Loss, LossInput};
use crate::model::{AdapterRoute, Mode, Pass, SentenceTransformer, near_threads};

/// A loss that can be trained with: one that Burn also knows without gradients.
///
/// Every [`Loss`] whose module derives Burn's `Module` is one.
pub trait TrainableLoss<B: AutodiffBackend>:
    Loss<B> + AutodiffModule<B, InnerModule: Loss<B::InnerBackend>> + Sync + 'static
{
}

impl<B, L> TrainableLoss<B> for L
where
    B: AutodiffBackend,
    L: Loss<B> + AutodiffModule<B, InnerModule: Loss<B::InnerBackend>> + Sync + 'static,
{
}

/// What burn-train trains: a model, and the loss that it is trained with.
#[derive(Module, Debug)]
pub(super) struct TrainingModel<B: Backend, L> {
    pub(super) model: SentenceTransformer<B>,
    /// Frozen, for a loss that reads its embeddings.
    guide: Option<SentenceTransformer<B>>,
    pub(super) loss: L,
    pass: TrainingPass,
}

/// How the texts of a run are embedded.
#[derive(Debug, Clone)]
struct TrainingPass {
    seed: u64,
    mode: Mode,
    session: Arc<Session>,
    /// The adapters of each column, where they are not the active ones.
    column_adapters: Arc<[Option<Arc<[String]>>]>,
}

/// What a step hands to the metrics: filled in once the optimiser is done with it.
#[derive(Debug, Clone, Default)]
pub(super) struct StepOutput {
    pub(super) record: Arc<OnceLock<StepRecord>>,
}

impl ItemLazy for StepOutput {
    type ItemSync = Self;

    fn sync(self) -> Self {
        self
    }
}

impl<B: Backend, L> TrainingModel<B, L> {
    pub(super) fn new(
        model: SentenceTransformer<B>,
        loss: L,
        seed: u64,
        mode: Mode,
        session: Arc<Session>,
    ) -> Self {
        Self {
            model,
            guide: None,
            loss,
            pass: TrainingPass {
                seed,
                mode,
                session,
                column_adapters: [].into(),
            },
        }
    }

    /// The same with adapters of its own for each column that has some.
    pub(super) fn with_column_adapters(mut self, adapters: Vec<Option<Arc<[String]>>>) -> Self {
        self.pass.column_adapters = adapters.into();
        self
    }

    /// The same with a guide model.
    pub(super) fn with_guide(mut self, guide: Option<SentenceTransformer<B>>) -> Self {
        self.guide = guide.map(SentenceTransformer::no_grad);
        self
    }
}

/// Keeps the seeds of dropout masks apart from those of other things.
const DROPOUT: u64 = 2;

impl<B: AutodiffBackend, L: TrainableLoss<B>> TrainingModel<B, L> {
    /// Loss and gradients of one optimiser step: the mean over its batches.
    fn gradients(&self, input: &StepBatch) -> Result<(f64, GradientsParams)> {
        let share = 1.0 / input.step.batches.len() as f64;
        let mut sum = 0.0;
        let mut gradients = GradientsAccumulator::new();
        for (place, batch) in input.step.batches.iter().enumerate() {
            let path = [DROPOUT, input.step.index as u64, place as u64];
            let batch = TextBatch::read(&input.dataset, batch, seed::derive(self.pass.seed, &path));
            let (loss, of_batch) = match self.loss.mini_batch_size() {
                Some(size) => gradcache::gradients(self, &batch, size, share)?,
                None => self.gradients_at_once(&batch, share)?,
            };
            sum += loss * share;
            gradients.accumulate(self, of_batch);
        }
        Ok((sum, gradients.grads()))
    }

    fn gradients_at_once(
        &self,
        batch: &TextBatch<'_>,
        share: f64,
    ) -> Result<(f64, GradientsParams)> {
        let layers = if self.pass.column_adapters.iter().any(Option::is_some) {
            self.embed_by_column(batch)?
        } else {
            let layers = self.embed(&self.model, &batch.columns.concat(), 0, batch.seed)?;
            let columns = |layer: Tensor<B, 2>| layer.chunk(batch.columns.len(), 0);
            layers.into_iter().map(columns).collect()
        };
        let loss = self.loss.forward(self.loss_input(layers, batch)?);
        let gradients = loss.clone().mul_scalar(share).backward();
        let gradients = GradientsParams::from_grads(gradients, self);
        Ok((scalar(loss), gradients))
    }

    /// The columns' embeddings by layer, each column through its own adapters.
    fn embed_by_column(&self, batch: &TextBatch<'_>) -> Result<Vec<Vec<Tensor<B, 2>>>> {
        let mut layers: Vec<Vec<Tensor<B, 2>>> = Vec::new();
        for (column, texts) in batch.columns.iter().enumerate() {
            let seed = seed::derive(batch.seed, &[column as u64]);
            let of_column = self.embed(&self.model, texts, column, seed)?;
            layers.resize_with(of_column.len(), Vec::new);
            for (layer, embeddings) in layers.iter_mut().zip(of_column) {
                layer.push(embeddings);
            }
        }
        Ok(layers)
    }

    /// Embeds texts of a column as training does, with the dropout masks that follow from
    /// `seed`: by this model, the one that is trained, perhaps without gradients.
    ///
    /// # Shapes
    /// - output: `[texts, dim]` of the last layer; the layers before it come first, if
    ///   the loss reads them
    pub(super) fn embed<M: Backend>(
        &self,
        model: &SentenceTransformer<M>,
        texts: &[&str],
        column: usize,
        seed: u64,
    ) -> Result<Vec<Tensor<M, 2>>> {
        let device = model.device();
        let tokens = model.tokenize(texts, None, &device)?;
        M::seed(&device, seed);
        let own = self.pass.column_adapters.get(column).cloned().flatten();
        let route = own.map(|adapters| AdapterRoute {
            tokens: 0..tokens.tokens(),
            adapters,
        });
        let pass = Pass {
            mode: self.pass.mode,
            routes: route.as_ref().map(std::slice::from_ref),
        };
        Ok(match self.loss.needs_layers() {
            true => model.forward_layers(&tokens, pass),
            false => vec![model.forward_pass(&tokens, pass)],
        })
    }

    /// What the loss sees of a batch, given the embeddings of its columns by layer.
    pub(super) fn loss_input(
        &self,
        mut layers: Vec<Vec<Tensor<B, 2>>>,
        batch: &TextBatch<'_>,
    ) -> Result<LossInput<B>> {
        let last = layers.pop().unwrap_or_default();
        Ok(LossInput::new(last)
            .with_layers(layers)
            .with_labels(batch.labels(&self.device()))
            .with_guide(self.embed_by_guide(batch)?)
            .with_seed(batch.seed))
    }

    /// The columns as the guide embeds them, if the loss reads that.
    fn embed_by_guide(&self, batch: &TextBatch<'_>) -> Result<Vec<Tensor<B, 2>>> {
        let Some(guide) = self.guide.as_ref().filter(|_| self.loss.needs_guide()) else {
            return Ok(Vec::new());
        };
        let (guide, device) = (guide.valid(), self.device());
        let embed = |texts: &[&str]| {
            let tokens = guide.tokenize(texts, None, &device)?;
            Ok(guide.forward(&tokens, Mode::Inference))
        };
        let column = |texts: &Vec<&str>| {
            let at_once = self.loss.mini_batch_size().unwrap_or(texts.len());
            let parts = texts.chunks(at_once.max(1)).map(embed);
            let parts = parts.collect::<Result<_>>()?;
            Ok(Tensor::from_inner(Tensor::cat(parts, 0)))
        };
        batch.columns.iter().map(column).collect()
    }

    /// The device that the model is on.
    pub(super) fn device(&self) -> B::Device {
        self.model.devices().into_iter().next().unwrap_or_default()
    }
}

/// The texts of one batch, and the seed of its dropout masks.
pub(super) struct TextBatch<'a> {
    pub(super) columns: Vec<Vec<&'a str>>,
    labels: Option<Vec<&'a [f32]>>,
    pub(super) seed: u64,
}

impl<'a> TextBatch<'a> {
    pub(super) fn read(dataset: &'a Dataset, batch: &[u32], seed: u64) -> Self {
        let column =
            |texts: &'a Vec<String>| batch.iter().map(|&i| texts[i as usize].as_str()).collect();
        let labels = |rows: &'a [Vec<f32>]| batch.iter().map(|&i| &rows[i as usize][..]).collect();
        Self {
            columns: dataset.columns().iter().map(column).collect(),
            labels: dataset.labels().map(labels),
            seed,
        }
    }

    pub(super) fn labels<B: Backend>(&self, device: &B::Device) -> Option<Labels<B>> {
        let rows = self.labels.as_ref()?;
        Some(Labels::from_rows(rows.iter().copied(), device))
    }
}

/// The number that a `[1]` tensor holds.
pub(super) fn scalar<B: Backend>(tensor: Tensor<B, 1>) -> f64 {
    tensor.into_data().iter::<f64>().next().unwrap_or(f64::NAN)
}

impl<B: AutodiffBackend, L: TrainableLoss<B>> TrainStep for TrainingModel<B, L> {
    type Input = StepBatch;
    type Output = StepOutput;

    fn step(&self, input: StepBatch) -> TrainOutput<StepOutput> {
        let item = StepOutput::default();
        let gradients = near_threads::<B, _>(|| self.gradients(&input));
        let grads = match gradients {
            Ok((loss, grads)) => {
                self.pass.session.report(StepLoss {
                    loss,
                    samples: input.step.batches.iter().map(Vec::len).sum(),
                    record: item.record.clone(),
                });
                grads
            }
            Err(error) => {
                self.pass.session.fail(error);
                GradientsParams::new()
            }
        };
        TrainOutput { grads, item }
    }
}

impl<B: Backend, L> InferenceStep for TrainingModel<B, L> {
    type Input = ();
    type Output = ();

    /// Nothing: evaluators score the model.
    fn step(&self, (): ()) {}
}
