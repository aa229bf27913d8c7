use std::io::IsTerminal;

use burn::tensor::backend::AutodiffBackend;

use super::arguments::TrainingArguments;
use super::checkpoint::Checkpoint;
use super::dataset::{Dataset, IterableDataset};
use super::devices::Devices;
use super::evaluating::BoxedEvaluator;
use super::event::{Listener, TrainingEvent};
use super::learner::TrainableLoss;
use super::trained::Trained;
use super::training_data::TrainingData;
use crate::error::Result;
use crate::evaluation::Evaluator;
use crate::model::SentenceTransformer;

/// Trains a model: what the reference's `SentenceTransformerTrainer` does, on
/// burn-train's learner.
///
/// ```no_run
/// # use burn::backend::{Autodiff, NdArray};
/// # use sentence_burn::loss::MultipleNegativesRankingLossConfig;
/// # use sentence_burn::training::{Dataset, Trainer, TrainingArguments};
/// # use sentence_burn::{LoraConfig, SentenceTransformer};
/// # fn main() -> sentence_burn::Result<()> {
/// let mut model = SentenceTransformer::<Autodiff<NdArray>>::load("model", &Default::default())?;
/// model.add_adapter(LoraConfig::default())?;
/// let pairs = Dataset::from_jsonl("pairs.jsonl")?;
/// let loss = MultipleNegativesRankingLossConfig::default().init()?;
/// let arguments = TrainingArguments { num_train_epochs: 1.0, ..Default::default() };
/// let trained = Trainer::new(model, arguments, pairs, loss).train()?;
/// trained.model.save("model-with-adapter")?;
/// # Ok(())
/// # }
/// ```
pub struct Trainer<B: AutodiffBackend, L> {
    pub(super) model: SentenceTransformer<B>,
    pub(super) arguments: TrainingArguments,
    pub(super) data: TrainingData<L>,
    pub(super) guide: Option<SentenceTransformer<B::InnerBackend>>,
    pub(super) evaluator: Option<BoxedEvaluator<B::InnerBackend>>,
    pub(super) listener: Option<Listener>,
    pub(super) dashboard: bool,
    pub(super) devices: Devices<B>,
}

impl<B: AutodiffBackend, L: TrainableLoss<B>> Trainer<B, L> {
    /// A trainer of whatever weights of the model are not frozen, and the loss's own.
    pub fn new(
        model: SentenceTransformer<B>,
        arguments: TrainingArguments,
        dataset: Dataset,
        loss: L,
    ) -> Self {
        Self::of(model, arguments, TrainingData::single(dataset, loss))
    }

    /// The same on data that are read while they are trained on, and need not fit into
    /// memory: the stream holds its shuffle buffer, the trainer a step and a batch.
    ///
    /// As the reference has it, [`max_steps`](TrainingArguments::max_steps) is needed, the
    /// data are begun anew as often as it takes, and samples come in the stream's own order,
    /// whatever batch sampler: [`shuffle`](IterableDataset::shuffle) draws one. A sample that
    /// cannot be read ends the run; its checkpoints stay.
    pub fn with_stream(
        model: SentenceTransformer<B>,
        arguments: TrainingArguments,
        stream: IterableDataset,
        loss: L,
    ) -> Self {
        Self::of(model, arguments, TrainingData::streamed(stream, loss))
    }

    /// The same on several data sets, each with its name, under one loss. Each batch is of
    /// one data set;
    /// [`multi_dataset_batch_sampler`](TrainingArguments::multi_dataset_batch_sampler) says
    /// in what order they come.
    pub fn with_datasets<N: Into<String>>(
        model: SentenceTransformer<B>,
        arguments: TrainingArguments,
        datasets: impl IntoIterator<Item = (N, Dataset)>,
        loss: L,
    ) -> Self {
        let named = datasets.into_iter().map(|(name, data)| (name.into(), data));
        Self::of(model, arguments, TrainingData::shared(named, loss))
    }

    /// The same on several data sets, each with its name and a loss of its own:
    /// [`AnyLoss`](crate::loss::AnyLoss) where they are of different kinds.
    pub fn with_losses<N: Into<String>>(
        model: SentenceTransformer<B>,
        arguments: TrainingArguments,
        datasets: impl IntoIterator<Item = (N, Dataset, L)>,
    ) -> Self {
        let named = datasets
            .into_iter()
            .map(|(name, data, loss)| (name.into(), data, loss));
        Self::of(model, arguments, TrainingData::each(named))
    }

    fn of(
        model: SentenceTransformer<B>,
        arguments: TrainingArguments,
        data: TrainingData<L>,
    ) -> Self {
        Self {
            model,
            arguments,
            data,
            guide: None,
            evaluator: None,
            listener: None,
            dashboard: true,
            devices: Devices::gathering(Vec::new()),
        }
    }

    /// Evaluates the loss on this data too, as metric `loss`.
    #[must_use]
    pub fn with_eval_dataset(mut self, dataset: Dataset) -> Self {
        self.data.add_eval(None, dataset);
        self
    }

    /// Evaluates a loss on this data too, as metric `name_loss`: that of the training data
    /// set of the same name, or the only one.
    #[must_use]
    pub fn with_named_eval_dataset(mut self, name: impl Into<String>, dataset: Dataset) -> Self {
        self.data.add_eval(Some(name.into()), dataset);
        self
    }

    /// Gives a loss that [asks for it](crate::loss::Loss::needs_guide) a guide model: it
    /// embeds the same texts, and is not trained.
    #[must_use]
    pub fn with_guide(mut self, guide: SentenceTransformer<B::InnerBackend>) -> Self {
        self.guide = Some(guide);
        self
    }

    /// Evaluates the model before the run, as often as
    /// [`eval_strategy`](TrainingArguments::eval_strategy) says, and after it. The
    /// evaluator's CSV files are in `eval` in the run's folder.
    #[must_use]
    pub fn with_evaluator(
        mut self,
        evaluator: impl Evaluator<B::InnerBackend> + Send + 'static,
    ) -> Self {
        self.evaluator = Some(Box::new(evaluator));
        self
    }

    /// Calls back at each step, evaluation and checkpoint.
    #[must_use]
    pub fn with_listener(
        mut self,
        listener: impl FnMut(TrainingEvent<'_>) + Send + 'static,
    ) -> Self {
        self.listener = Some(Box::new(listener));
        self
    }

    /// Shares each optimiser step out among these devices, the first of which holds the
    /// weights and updates them: burn-train's `ExecutionStrategy::multi`. Each device takes
    /// [`gradient_accumulation_steps`](TrainingArguments::gradient_accumulation_steps)
    /// batches a step, so that a step sees as many times the samples as there are devices;
    /// in-batch negatives stay those of one batch. The gradients are averaged. Burn 0.21 moves
    /// no tensors between devices of WGPU: a run on several ends with
    /// [`TrainingError::NoTransfer`](crate::error::TrainingError::NoTransfer) before its first
    /// step.
    ///
    /// Burn's backends have one generator of random numbers for all devices: with dropout,
    /// two runs of the same seed differ, which
    /// [`full_determinism`](TrainingArguments::full_determinism) refuses, and losses that
    /// embed a batch twice are refused in any case.
    #[must_use]
    pub fn with_devices(mut self, devices: impl IntoIterator<Item = B::Device>) -> Self {
        self.devices = Devices::gathering(devices.into_iter().collect());
        self
    }

    /// As [`with_devices`](Self::with_devices), but each device holds the weights and updates
    /// them, by the same gradients, which the devices add up among themselves: burn-train's
    /// `ExecutionStrategy::ddp`. The first one evaluates and writes. A run that one way began
    /// may [continue](Self::resume) the other way.
    ///
    /// Burn 0.21 implements the operation that adds up for CUDA (NCCL) alone: a run on other
    /// backends ends with
    /// [`TrainingError::NoCollectiveOperations`](crate::error::TrainingError::NoCollectiveOperations)
    /// before its first step, and one on a device given twice with
    /// [`TrainingError::InvalidArgument`](crate::error::TrainingError::InvalidArgument). Burn
    /// adds up for one run at a time: those of one process take turns.
    ///
    /// It is tested on a stand-in that adds up on the host, and has not run on CUDA devices.
    #[cfg(feature = "ddp")]
    #[must_use]
    pub fn with_distributed_devices(mut self, devices: impl IntoIterator<Item = B::Device>) -> Self
    where
        B: burn::tensor::backend::distributed::DistributedBackend,
    {
        self.devices = Devices::distributed(devices.into_iter().collect());
        self
    }

    /// Whether to show burn-train's dashboard where stdout is a terminal, as by default.
    #[must_use]
    pub fn with_dashboard(mut self, dashboard: bool) -> Self {
        self.dashboard = dashboard;
        self
    }

    /// Whether burn-train's dashboard will be shown.
    pub fn has_dashboard(&self) -> bool {
        self.dashboard && std::io::stdout().is_terminal()
    }

    /// Trains from the beginning.
    ///
    /// # Errors
    /// [`TrainingError`](crate::error::TrainingError) for arguments, data or weights that cannot be trained, for
    /// files that cannot be written and for a loss that is no longer a number;
    /// [`LossError`](crate::error::LossError) for data that the loss cannot read; and
    /// whatever the evaluator returns.
    pub fn train(self) -> Result<Trained<B, L>> {
        self.model.home.executes(|| self.run(Vec::new()))
    }

    /// Continues the run in [`output_dir`](TrainingArguments::output_dir) from its last
    /// checkpoint, exactly as if it had not been cut off; from the beginning if there is
    /// no checkpoint.
    ///
    /// # Errors
    /// As [`train`](Self::train), and [`TrainingError::CheckpointMismatch`](crate::error::TrainingError::CheckpointMismatch) if the
    /// checkpoint is of other data, batches or parameters.
    pub fn resume(self) -> Result<Trained<B, L>> {
        let checkpoints = Checkpoint::all_in(&self.arguments.output_dir)?;
        match checkpoints.last() {
            Some(checkpoint) => log::info!("continuing from {}", checkpoint.path().display()),
            None => log::info!("no checkpoint to continue from: starting from the beginning"),
        }
        self.model.home.executes(|| self.run(checkpoints))
    }
}
