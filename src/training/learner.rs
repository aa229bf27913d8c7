use std::sync::{Arc, OnceLock};

use burn::module::{AutodiffModule, Module};
use burn::optim::{GradientsAccumulator, GradientsParams};
use burn::tensor::Tensor;
use burn::tensor::backend::{AutodiffBackend, Backend};
use burn::train::{InferenceStep, ItemLazy, TrainOutput, TrainStep};

use super::gradcache;
use super::leaves::with_own_leaves;
use super::loader::StepBatch;
use super::metrics::StepSeen;
use super::seed;
use super::session::{Session, StepLoss};
use super::text_batch::{ColumnPass, TextBatch};
use super::training_data::TrainingSet;
use crate::error::Result;
use crate::loss::{Loss, LossData, LossInput, MiniBatch};
use crate::model::{
    AdapterRoute, Mode, Pass, Reading, SentenceTransformer, check_usable, finish, near_threads,
};

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

/// What burn-train trains: a model, and the losses that it is trained with.
#[derive(Module, Debug)]
pub(super) struct TrainingModel<B: Backend, L> {
    pub(super) model: SentenceTransformer<B>,
    /// Frozen, for a loss that reads its embeddings.
    guide: Option<SentenceTransformer<B>>,
    /// One, or one for each data set.
    pub(super) losses: Vec<L>,
    pass: TrainingPass,
}

/// How the texts of a run are embedded.
#[derive(Debug, Clone)]
struct TrainingPass {
    seed: u64,
    mode: Mode,
    session: Arc<Session>,
    /// By data set and column.
    columns: Arc<[Vec<ColumnPass>]>,
}

/// What a step hands to the metrics: filled in once the optimiser is done with it.
#[derive(Debug, Clone, Default)]
pub(super) struct StepOutput {
    pub(super) seen: Arc<OnceLock<StepSeen>>,
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
        losses: Vec<L>,
        seed: u64,
        mode: Mode,
        session: Arc<Session>,
    ) -> Self {
        Self {
            model,
            guide: None,
            losses,
            pass: TrainingPass {
                seed,
                mode,
                session,
                columns: [].into(),
            },
        }
    }

    /// The same with what is special about the columns of each data set.
    pub(super) fn with_columns(mut self, columns: Vec<Vec<ColumnPass>>) -> Self {
        self.pass.columns = columns.into();
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
    /// Loss and gradients of one worker's part of an optimiser step: the sums over its
    /// batches of what each adds to the mean over all.
    fn gradients(&self, input: &StepBatch) -> Result<(f64, GradientsParams)> {
        check_usable::<B>(&self.device())?;
        let share = 1.0 / input.step.all_batches as f64;
        let mut sum = 0.0;
        let mut gradients = GradientsAccumulator::new();
        for batch in &input.step.batches {
            let path = [DROPOUT, input.step.index as u64, batch.place as u64];
            let seed = seed::derive(self.pass.seed, &path);
            let set = &input.plan.sets()[batch.dataset];
            let columns = self.pass.columns.get(batch.dataset);
            let (dataset, streamed) = input.dataset(batch);
            let batch = TextBatch::read(dataset, &batch.samples, seed)
                .with_columns(columns.map_or(&[], Vec::as_slice));
            let loss = &self.losses[set.loss];
            if let Some(first_sample) = streamed {
                // What is in memory was checked before the run.
                let data = LossData::new(batch.columns.len(), self.model.output_dim())
                    .with_labels(dataset.labels())
                    .with_first_sample(first_sample);
                loss.check(&data.with_guide(self.guide.is_some()))?;
            }
            let (value, of_batch) = match loss.mini_batch() {
                Some(size) => gradcache::gradients(self, loss, &batch, size, share)?,
                None => with_own_leaves(self).gradients_at_once(set.loss, &batch, share)?,
            };
            sum += value * share;
            gradients.accumulate(self, of_batch);
        }
        finish::<B>(&self.device(), TRAINING, smaller_steps)?;
        Ok((sum, gradients.grads()))
    }

    fn gradients_at_once(
        &self,
        loss: usize,
        batch: &TextBatch<'_>,
        share: f64,
    ) -> Result<(f64, GradientsParams)> {
        let loss = &self.losses[loss];
        let layers = self.embed_batch(&self.model, batch, loss.needs_layers())?;
        let value = loss.forward(self.loss_input(loss, layers, batch)?);
        let gradients = value.clone().mul_scalar(share).backward();
        let gradients = GradientsParams::from_grads(gradients, self);
        Ok((scalar(value), gradients))
    }

    /// The embeddings of a batch by layer and column.
    fn embed_batch<M: Backend>(
        &self,
        model: &SentenceTransformer<M>,
        batch: &TextBatch<'_>,
        layers: bool,
    ) -> Result<Vec<Vec<Tensor<M, 2>>>> {
        if batch.is_embedded_alike() && batch.pass(0).is_none_or(|pass| pass.adapters.is_none()) {
            let texts = batch.columns.concat();
            let embedded = self.embed(model, &texts, batch.pass(0), layers, batch.seed)?;
            let columns = |layer: Tensor<M, 2>| layer.chunk(batch.columns.len(), 0);
            return Ok(embedded.into_iter().map(columns).collect());
        }
        let mut by_layer: Vec<Vec<Tensor<M, 2>>> = Vec::new();
        for (column, texts) in batch.columns.iter().enumerate() {
            let seed = seed::derive(batch.seed, &[column as u64]);
            let of_column = self.embed(model, texts, batch.pass(column), layers, seed)?;
            by_layer.resize_with(of_column.len(), Vec::new);
            for (layer, embeddings) in by_layer.iter_mut().zip(of_column) {
                layer.push(embeddings);
            }
        }
        Ok(by_layer)
    }

    /// Embeds texts of a column as training does, with the dropout masks that follow from
    /// `seed`: by this model, the one that is trained, perhaps without gradients.
    ///
    /// # Shapes
    /// - output: `[texts, dim]` of the last layer; with `layers` those of the layers before
    ///   it come first
    pub(super) fn embed<M: Backend>(
        &self,
        model: &SentenceTransformer<M>,
        texts: &[&str],
        column: Option<&ColumnPass>,
        layers: bool,
        seed: u64,
    ) -> Result<Vec<Tensor<M, 2>>> {
        let device = model.device();
        let prompt = column.and_then(|column| column.prompt.as_deref());
        let task = column.and_then(|column| column.task.as_deref());
        let tokens = model.tokenize_for(task, texts, prompt, &device)?;
        M::seed(&device, seed);
        let own = column.and_then(|column| column.adapters.clone());
        let route = own.map(|adapters| AdapterRoute {
            tokens: 0..tokens.tokens(),
            adapters,
        });
        let pass = Pass {
            mode: self.pass.mode,
            routes: route.as_ref().map(std::slice::from_ref),
        };
        Ok(match layers {
            true => model.forward_layers(&tokens, pass),
            false => vec![model.forward_pass(&tokens, pass)],
        })
    }

    /// What a loss sees of a batch, given the embeddings of its columns by layer.
    pub(super) fn loss_input(
        &self,
        loss: &L,
        mut layers: Vec<Vec<Tensor<B, 2>>>,
        batch: &TextBatch<'_>,
    ) -> Result<LossInput<B>> {
        let guide = match loss.needs_guide() {
            true => self.embed_by_guide(batch, loss.mini_batch())?,
            false => Vec::new(),
        };
        let last = layers.pop().unwrap_or_default();
        Ok(LossInput::new(last)
            .with_layers(layers)
            .with_labels(batch.labels(&self.device()))
            .with_guide(guide.into_iter().map(Tensor::from_inner).collect())
            .with_seed(batch.seed))
    }

    /// The columns as the guide embeds them.
    fn embed_by_guide(
        &self,
        batch: &TextBatch<'_>,
        mini_batch: Option<MiniBatch>,
    ) -> Result<Vec<Tensor<B::InnerBackend, 2>>> {
        let Some(guide) = &self.guide else {
            return Ok(Vec::new());
        };
        let (guide, device) = (guide.valid(), self.device());
        let column = |(place, texts): (usize, &Vec<&str>)| {
            let prompt = batch.pass(place).and_then(|pass| pass.prompt.as_deref());
            let embed = |texts: &[&str]| {
                let tokens = guide.tokenize(texts, prompt, &device)?;
                Ok(guide.forward(&tokens, Mode::Inference))
            };
            let at_once = mini_batch.map_or(texts.len(), |parts| parts.rows);
            let parts = texts.chunks(at_once.max(1)).map(embed);
            Ok(Tensor::cat(parts.collect::<Result<_>>()?, 0))
        };
        batch.columns.iter().enumerate().map(column).collect()
    }

    /// The mean loss of the batches of a data set by their samples, without gradients or
    /// dropout; no number if there is none.
    pub(super) fn evaluation_loss(
        &self,
        set: &TrainingSet,
        columns: &[ColumnPass],
        batches: &[Vec<u32>],
    ) -> Result<f64> {
        let mut still = self.clone();
        still.pass.mode = Mode::Inference;
        let (model, loss) = (still.model.valid(), &still.losses[set.loss]);
        let without_gradients = loss.valid();
        let mut sum = 0.0;
        for (place, samples) in batches.iter().enumerate() {
            let seed = seed::derive(self.pass.seed, &[EVALUATION, place as u64]);
            let batch = TextBatch::read(&set.dataset, samples, seed).with_columns(columns);
            let mut layers = match loss.mini_batch() {
                Some(parts) => {
                    gradcache::embed_in_parts(&still, &model, &batch, parts, loss.needs_layers())?
                }
                None => still.embed_batch(&model, &batch, loss.needs_layers())?,
            };
            let guide = match loss.needs_guide() {
                true => still.embed_by_guide(&batch, loss.mini_batch())?,
                false => Vec::new(),
            };
            let last = layers.pop().unwrap_or_default();
            let input = LossInput::new(last)
                .with_layers(layers)
                .with_labels(batch.labels(&self.device()))
                .with_guide(guide)
                .with_seed(seed);
            let value = scalar(without_gradients.forward(input));
            sum += value * samples.len() as f64;
        }
        finish::<B>(&self.device(), TRAINING, smaller_steps)?;
        let samples: usize = batches.iter().map(Vec::len).sum();
        Ok(sum / samples as f64)
    }

    /// The device that the model is on.
    pub(super) fn device(&self) -> B::Device {
        self.model.devices().into_iter().next().unwrap_or_default()
    }
}

/// Keeps the seeds of what a loss draws when it is evaluated apart.
const EVALUATION: u64 = 3;

/// What a device was at when it failed.
const TRAINING: &str = "training";

/// What takes less of a device's memory.
fn smaller_steps() -> String {
    let size = "a smaller `per_device_train_batch_size`";
    format!("{size}, or the cached form of the loss in smaller parts, takes less")
}

/// The number that a `[1]` tensor holds; none where the device failed, of which `finish` tells.
pub(super) fn scalar<B: Backend>(tensor: Tensor<B, 1>) -> f64 {
    let read = Reading::begin(tensor).end(TRAINING, smaller_steps);
    let number = read.ok().and_then(|data| data.iter::<f64>().next());
    number.unwrap_or(f64::NAN)
}

impl<B: AutodiffBackend, L: TrainableLoss<B>> TrainStep for TrainingModel<B, L> {
    type Input = StepBatch;
    type Output = StepOutput;

    fn step(&self, input: StepBatch) -> TrainOutput<StepOutput> {
        let item = StepOutput::default();
        let session = &self.pass.session;
        let _present = session.present();
        let gradients = near_threads::<B, _>(|| self.gradients(&input));
        let grads = match gradients {
            Ok((loss, grads)) => {
                session.report(StepLoss {
                    loss,
                    samples: input.step.samples(),
                    seen: item.seen.clone(),
                });
                grads
            }
            Err(error) => {
                session.fail(error);
                GradientsParams::new()
            }
        };
        #[cfg(feature = "ddp")]
        let grads = super::synchronising::added_up(self, grads, session);
        TrainOutput { grads, item }
    }
}

impl<B: Backend, L> InferenceStep for TrainingModel<B, L> {
    type Input = ();
    type Output = ();

    /// Nothing: evaluators score the model.
    fn step(&self, (): ()) {}
}
