use std::fs;
use std::io::IsTerminal;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use burn::module::{AutodiffModule, Module};
use burn::optim::Optimizer;
use burn::tensor::backend::AutodiffBackend;
use burn::train::logger::InMemoryMetricLogger;
use burn::train::renderer::MetricsRenderer;
use burn::train::{Learner, SupervisedTraining};

use super::arguments::TrainingArguments;
use super::card;
use super::checkpoint::{self, Checkpoint, HISTORY};
use super::dataset::Dataset;
use super::history::{EvaluationRecord, History, HistoryWriter};
use super::learner::{TrainableLoss, TrainingModel};
use super::loader::{NoValidation, StepLoader};
use super::metrics::{NoDashboard, StepMetric};
use super::monitor::{BoxedEvaluator, Listener, Monitor, TrainingEvent};
use super::optimizer::StepOptimizer;
use super::plan::Plan;
use super::session::{Session, lock};
use super::training_state::trained_parameters;
use crate::error::{AdapterError, Result, TrainingError};
use crate::evaluation::Evaluator;
use crate::loss::LossData;
use crate::model::Mode;
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
    model: SentenceTransformer<B>,
    arguments: TrainingArguments,
    dataset: Dataset,
    loss: L,
    guide: Option<SentenceTransformer<B::InnerBackend>>,
    evaluator: Option<BoxedEvaluator<B::InnerBackend>>,
    listener: Option<Listener>,
    dashboard: bool,
}

/// What came out of a run.
#[derive(Debug)]
pub struct Trained<B: AutodiffBackend> {
    /// The model with its trained weights.
    pub model: SentenceTransformer<B>,
    /// Every optimiser step, those before a resumption included.
    pub history: History,
    /// The evaluations, in order; the first is of the model as it came.
    pub evaluations: Vec<EvaluationRecord>,
    /// The optimiser steps behind.
    pub steps: usize,
    /// Whether the run went to its end; not if the user stopped it at the dashboard.
    pub finished: bool,
    /// The samples that this run went through, one counted as often as it was seen.
    pub samples: usize,
    /// The time that these samples took: loading, evaluations and checkpoints left out.
    pub duration: Duration,
}

impl<B: AutodiffBackend, L: TrainableLoss<B>> Trainer<B, L> {
    /// A trainer of whatever weights of the model are not frozen, and the loss's own.
    pub fn new(
        model: SentenceTransformer<B>,
        arguments: TrainingArguments,
        dataset: Dataset,
        loss: L,
    ) -> Self {
        Self {
            model,
            arguments,
            dataset,
            loss,
            guide: None,
            evaluator: None,
            listener: None,
            dashboard: true,
        }
    }

    /// Gives a loss that [asks for it](crate::loss::Loss::needs_guide) a guide model: it
    /// embeds the same texts, and is not trained.
    #[must_use]
    pub fn with_guide(mut self, guide: SentenceTransformer<B::InnerBackend>) -> Self {
        self.guide = Some(guide);
        self
    }

    /// Evaluates the model before the run, every
    /// [`eval_steps`](TrainingArguments::eval_steps) and after it.
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
    /// [`TrainingError`] for arguments, data or weights that cannot be trained, for
    /// files that cannot be written and for a loss that is no longer a number;
    /// [`LossError`](crate::error::LossError) for data that the loss cannot read; and
    /// whatever the evaluator returns.
    pub fn train(self) -> Result<Trained<B>> {
        self.run(Vec::new())
    }

    /// Continues the run in [`output_dir`](TrainingArguments::output_dir) from its last
    /// checkpoint, exactly as if it had not been cut off; from the beginning if there is
    /// no checkpoint.
    ///
    /// # Errors
    /// As [`train`](Self::train), and [`TrainingError::CheckpointMismatch`] if the
    /// checkpoint is of other data, batches or parameters.
    pub fn resume(self) -> Result<Trained<B>> {
        let checkpoints = Checkpoint::all_in(&self.arguments.output_dir)?;
        match checkpoints.last() {
            Some(checkpoint) => log::info!("continuing from {}", checkpoint.path().display()),
            None => log::info!("no checkpoint to continue from: starting from the beginning"),
        }
        self.run(checkpoints)
    }

    /// Runs from the last of the run's checkpoints, if there is one.
    fn run(self, checkpoints: Vec<Checkpoint>) -> Result<Trained<B>> {
        let checkpoint = checkpoints.last();
        let dashboard = self.has_dashboard();
        let arguments = self.arguments;
        arguments.validate()?;
        let data = LossData::new(self.dataset.columns().len(), self.model.output_dim());
        self.loss.check(
            &data
                .with_labels(self.dataset.labels())
                .with_guide(self.guide.is_some()),
        )?;
        if self.dataset.is_empty() {
            return Err(TrainingError::EmptyDataset {
                source_name: "data set".to_owned(),
            }
            .into());
        }
        let adapters = self.model.adapters();
        adapters.require_unmerged("training")?;
        if arguments.save_steps.is_some() && !adapters.is_empty() && adapters.active().is_empty() {
            return Err(AdapterError::NotOneActive {
                method: "training with checkpoints",
                active: Vec::new(),
            }
            .into());
        }
        if let Some(checkpoint) = checkpoint {
            checkpoint.check(&arguments, self.dataset.len())?;
        }
        let mode = match arguments.dropout {
            true => Mode::Training,
            false => Mode::Inference,
        };
        let session = Arc::new(Session::default());
        let guide = match self.guide {
            Some(guide) => Some(guide_of(&self.model, guide)?),
            None => None,
        };
        let column_adapters = column_adapters(&self.model, &self.dataset, &arguments)?;
        let mut model =
            TrainingModel::new(self.model, self.loss, arguments.seed, mode, session.clone())
                .with_guide(guide)
                .with_column_adapters(column_adapters);
        let parameters = trained_parameters(&model);
        if parameters.is_empty() {
            return Err(TrainingError::NothingTrainable.into());
        }
        let mut moments = None;
        if let Some(checkpoint) = checkpoint {
            let restored = checkpoint.restore(model, &parameters)?;
            (model, moments) = (restored.0, Some(restored.1));
        }

        let output_dir = arguments.output_dir.clone();
        fs::create_dir_all(&output_dir).map_err(|source| TrainingError::Io {
            path: output_dir.clone(),
            action: "create",
            source,
        })?;
        checkpoint::clean(&output_dir)?;
        let first_step = checkpoint.map_or(0, |c| c.state().record.step);
        let history = output_dir.join(HISTORY);
        let history = match checkpoint {
            Some(_) => HistoryWriter::resume(history, first_step)?,
            None => HistoryWriter::create(history)?,
        };
        let plan = Arc::new(Plan::new(Arc::new(self.dataset), arguments.clone()));
        let schedule = arguments
            .schedule(plan.total_steps())
            .starting_at(first_step);
        let mut monitor = Monitor {
            plan: plan.clone(),
            session: session.clone(),
            parameters: parameters.clone(),
            history,
            evaluator: self.evaluator,
            evaluations: checkpoint
                .as_ref()
                .map_or(Vec::new(), |c| c.state().evaluations.clone()),
            listener: self.listener,
            checkpoints: checkpoints.iter().map(|c| c.path().to_owned()).collect(),
            steps: first_step,
            samples: 0,
            duration: Duration::ZERO,
            evaluating: Duration::ZERO,
            last_step_at: Instant::now(),
            losses: Vec::new(),
            unlogged: Vec::new(),
        };
        if first_step == 0 {
            monitor.evaluate(&model.model.valid())?;
            monitor.last_step_at = Instant::now();
        }
        let monitor = Arc::new(Mutex::new(monitor));

        let mut model = model;
        if first_step < plan.total_steps() {
            let mut optimizer = StepOptimizer::new(&arguments, &parameters, monitor.clone());
            if let Some(moments) = moments {
                optimizer = optimizer.load_record(moments);
            }
            let loader = Arc::new(StepLoader::new(plan.clone(), first_step));
            let training = SupervisedTraining::new(&output_dir, loader, Arc::new(NoValidation))
                .with_application_logger(None)
                .with_metric_logger(InMemoryMetricLogger::new())
                .with_interrupter(session.interrupter().clone())
                .num_epochs(plan.epochs())
                .metric_train_numeric(StepMetric::loss())
                .metric_train_numeric(StepMetric::learning_rate())
                .metric_train_numeric(StepMetric::grad_norm())
                .metric_train_numeric(StepMetric::pairs_per_second());
            // burn-train starts at the epoch after its checkpoint's, both from 1.
            let training = match plan.epoch_of(first_step) {
                0 => training,
                epoch => training.checkpoint(epoch),
            };
            let training = match dashboard {
                true => training,
                false => training.renderer(NoDashboard),
            };
            let result = training.launch(Learner::new(model, optimizer, schedule));
            model = TrainingModel::from_inner(result.model);
            // The dashboard closes here.
            let renderer: Box<dyn MetricsRenderer> = result.renderer;
            drop(renderer);
        }
        if let Some(error) = session.take_failure() {
            return Err(error);
        }
        let mut monitor = lock(&monitor);
        monitor.evaluate(&model.model.valid())?;
        card::note_run(&mut model.model, &model.loss, &monitor);
        Ok(Trained {
            model: model.model,
            history: monitor.history().clone(),
            evaluations: monitor.evaluations.clone(),
            steps: monitor.steps,
            finished: monitor.steps == plan.total_steps(),
            samples: monitor.samples,
            duration: monitor.duration,
        })
    }
}

/// The guide beside a model: on its device, and reading no more of a text than it does.
fn guide_of<B: AutodiffBackend>(
    model: &SentenceTransformer<B>,
    mut guide: SentenceTransformer<B::InnerBackend>,
) -> Result<SentenceTransformer<B>> {
    if guide.max_seq_length() > model.max_seq_length() {
        guide.set_max_seq_length(model.max_seq_length())?;
    }
    let guide = guide.to_device(&model.device());
    Ok(SentenceTransformer::from_inner(guide))
}

/// The adapters of each column, where they are not the active ones.
fn column_adapters<B: AutodiffBackend>(
    model: &SentenceTransformer<B>,
    dataset: &Dataset,
    arguments: &TrainingArguments,
) -> Result<Vec<Option<Arc<[String]>>>> {
    for (column, adapters) in &arguments.column_adapters {
        if !dataset.column_names().contains(column) {
            return Err(TrainingError::InvalidArgument {
                argument: "column_adapters",
                expected: "adapters by columns of the data set",
                found: format!("{column:?}, the columns are {:?}", dataset.column_names()),
            }
            .into());
        }
        for adapter in adapters {
            model.adapters().get(adapter)?;
        }
    }
    let of_column = |column: &String| {
        let adapters = arguments.column_adapters.get(column)?;
        Some(adapters.clone().into())
    };
    Ok(dataset.column_names().iter().map(of_column).collect())
}
