use std::fs;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use burn::module::{AutodiffModule, Module};
use burn::optim::Optimizer;
use burn::tensor::backend::AutodiffBackend;
use burn::train::logger::InMemoryMetricLogger;
use burn::train::renderer::MetricsRenderer;
#[cfg(feature = "ddp")]
use burn::train::renderer::tui::TuiMetricsRendererWrapper;
use burn::train::{Learner, SupervisedTraining};

use super::best_model::Judge;
use super::card;
use super::checkpoint::{Checkpoint, HISTORY};
use super::checkpoint_folders;
use super::evaluating::EvalSet;
use super::evaluation_files;
use super::history::HistoryWriter;
use super::learner::{TrainableLoss, TrainingModel};
use super::loader::{NoValidation, StepLoader};
use super::metrics::{NoDashboard, StepMetric};
use super::monitor::Monitor;
use super::monitored_rate::MonitoredRate;
use super::optimizer::StepOptimizer;
use super::parameter_groups;
use super::plan::Plan;
use super::plateau::Plateau;
use super::schedule::LrSchedulerType;
use super::session::{Session, lock};
use super::strategy::{IntervalStrategy, SaveStrategy};
use super::trained::Trained;
use super::trainer::Trainer;
use super::training_data::TrainingData;
use super::training_state::{dimensions, trained_parameters};
use crate::error::{AdapterError, Result, TrainingError};
use crate::model::Mode;
use crate::model::SentenceTransformer;

impl<B: AutodiffBackend, L: TrainableLoss<B>> Trainer<B, L> {
    /// Runs from the last of the run's checkpoints, if there is one.
    pub(super) fn run(self, checkpoints: Vec<Checkpoint>) -> Result<Trained<B, L>> {
        let dashboard = self.has_dashboard();
        self.check()?;
        let checkpoint = checkpoints.last();
        let arguments = self.arguments;
        let workers = self.devices.workers();
        let plan = Plan::new(self.data.train.clone(), arguments.clone(), workers);
        if plan.total_steps() == 0 {
            return Err(TrainingError::EmptyDataset {
                source_name: "data set, smaller batches left out".to_owned(),
            }
            .into());
        }
        let plan = Arc::new(plan);
        if let Some(checkpoint) = checkpoint {
            checkpoint.check(&plan)?;
            checkpoint.go_on(&plan)?;
        }
        let mode = match arguments.dropout {
            true => Mode::Training,
            false => Mode::Inference,
        };
        let main = self.devices.main();
        let session = Arc::new(match main {
            Some(_) => Session::of_workers(workers),
            None => Session::default(),
        });
        let guide = match self.guide {
            Some(guide) => Some(guide_of(&self.model, guide)?),
            None => None,
        };
        let passes = self.data.column_passes(&self.model, &arguments)?;
        let primary = self
            .evaluator
            .as_ref()
            .map(|evaluator| evaluator.primary_metric(&self.model.valid()));
        let judge = Judge::new(&arguments, primary);
        let TrainingData { losses, eval, .. } = self.data;
        let mut model =
            TrainingModel::new(self.model, losses, arguments.seed, mode, session.clone())
                .with_guide(guide)
                .with_columns(passes.train);
        let names: Vec<Option<String>> = plan.sets().iter().map(|set| set.name.clone()).collect();
        let parameters = trained_parameters(&model, &names);
        if parameters.is_empty() {
            return Err(TrainingError::NothingTrainable.into());
        }
        let groups = parameter_groups::divide(&arguments, &parameters, &dimensions(&model))?;
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
        checkpoint_folders::clean(&output_dir)?;
        let first_step = checkpoint.map_or(0, |c| c.state().record.step);
        let evaluations = checkpoint.map_or(Vec::new(), |c| c.state().evaluations.clone());
        evaluation_files::keep(&output_dir, &evaluations)?;
        let history = output_dir.join(HISTORY);
        let history = match checkpoint {
            Some(_) => HistoryWriter::resume(history, first_step)?,
            None => HistoryWriter::create(history)?,
        };
        let plateau = arguments.lr_scheduler_type == LrSchedulerType::ReduceLrOnPlateau;
        let plateau =
            plateau.then(|| Plateau::new(arguments.lr_scheduler_kwargs, judge.greater_is_better));
        let eval_sets = eval
            .into_iter()
            .zip(passes.eval)
            .map(|(set, columns)| EvalSet {
                batches: arguments.batch_sampler.batches(
                    &set.dataset,
                    arguments.per_device_eval_batch_size,
                    arguments.dataloader_drop_last,
                    arguments.seed,
                    &[0],
                ),
                set,
                columns,
            });
        let now = Instant::now();
        let mut monitor = Monitor {
            schedule: arguments.schedule(plan.total_steps()),
            plateau,
            judge,
            plan: plan.clone(),
            session: session.clone(),
            parameters: parameters.clone(),
            history,
            evaluator: self.evaluator,
            eval_sets: eval_sets.collect(),
            evaluations,
            listener: self.listener,
            checkpoints: checkpoints
                .iter()
                .map(|c| (c.state().record.step, c.path().to_owned()))
                .collect(),
            steps: first_step,
            logged: first_step,
            samples: 0,
            duration: Duration::ZERO,
            evaluating: Duration::ZERO,
            started: (now, first_step),
            last_step_at: now,
            losses: Vec::new(),
        };
        if first_step == 0 {
            monitor.evaluate(&model)?;
            let now = Instant::now();
            (monitor.started.0, monitor.last_step_at) = (now, now);
        }
        let score = monitor.evaluations.last();
        let score = score.map(|evaluation| evaluation.primary_metric.clone());
        let goes_on = first_step < plan.total_steps() && !monitor.verdict().stop;
        let monitor = Arc::new(Mutex::new(monitor));

        if goes_on {
            let mut optimizer =
                StepOptimizer::new(&arguments, groups, monitor.clone()).with_main(main);
            if let Some(moments) = moments {
                optimizer = optimizer.load_record(moments);
            }
            let rate = MonitoredRate::new(monitor.clone(), arguments.learning_rate);
            let loader = Arc::new(StepLoader::new(plan.clone(), session.clone(), first_step));
            let training = SupervisedTraining::new(&output_dir, loader, Arc::new(NoValidation))
                .with_application_logger(None)
                .with_metric_logger(InMemoryMetricLogger::new())
                .with_interrupter(session.interrupter().clone())
                .num_epochs(plan.epochs())
                .metric_train_numeric(StepMetric::loss())
                .metric_train_numeric(StepMetric::learning_rate())
                .metric_train_numeric(StepMetric::grad_norm())
                .metric_train_numeric(StepMetric::pairs_per_second());
            let training = match score {
                Some(name) => {
                    let more_is_better = !name.ends_with("loss");
                    training.metric_train_numeric(StepMetric::score(&name, more_is_better))
                }
                None => training,
            };
            // burn-train starts at the epoch after its checkpoint's, both from 1.
            let behind = Some(plan.epoch_of(first_step)).filter(|&epochs| epochs > 0);
            let training = match behind {
                Some(epochs) => training.checkpoint(epochs),
                None => training,
            };
            let training = match dashboard {
                // Workers must not see the dashboard's stop at different steps.
                #[cfg(feature = "ddp")]
                true if session.has_workers() => {
                    let asked = session.asked_to_stop().clone();
                    training.renderer(TuiMetricsRendererWrapper::new(asked, behind))
                }
                true => training,
                false => training.renderer(NoDashboard),
            };
            #[cfg(feature = "ddp")]
            let _turn = self.devices.turn();
            let training = match self.devices.strategy() {
                Some(strategy) => training.with_training_strategy(strategy),
                None => training,
            };
            let result = training.launch(Learner::new(model, optimizer, rate));
            model = TrainingModel::from_inner(result.model);
            // The dashboard closes here.
            let renderer: Box<dyn MetricsRenderer> = result.renderer;
            drop(renderer);
        }
        if let Some(error) = session.take_failure() {
            return Err(error);
        }
        let mut monitor = lock(&monitor);
        monitor.evaluate(&model)?;
        let mut best_step = None;
        if arguments.load_best_model_at_end
            && let Some((best, path)) = monitor.best_checkpoint()
        {
            log::info!(
                "the best model is that of {}: {}",
                path.display(),
                best.score
            );
            if best.step != monitor.steps {
                (model, _) = Checkpoint::open(path)?.restore(model, &parameters)?;
            }
            best_step = Some(best.step);
        }
        card::note_run(&mut model.model, &model.losses, &monitor, best_step);
        let verdict = monitor.verdict();
        Ok(Trained {
            model: model.model,
            losses: model.losses,
            history: monitor.history().clone(),
            evaluations: monitor.evaluations.clone(),
            steps: monitor.steps,
            finished: monitor.steps == plan.total_steps() || verdict.stop,
            stopped_early: monitor.steps < plan.total_steps() && verdict.stop,
            best: verdict.improvements.last().copied(),
            samples: monitor.samples,
            duration: monitor.duration,
        })
    }

    /// Checks that the run can begin.
    fn check(&self) -> Result<()> {
        let arguments = &self.arguments;
        arguments.validate()?;
        self.data
            .check(&self.model, arguments, self.guide.is_some())?;
        if arguments.eval_strategy != IntervalStrategy::No
            && self.evaluator.is_none()
            && self.data.eval.is_empty()
        {
            return Err(TrainingError::InvalidArgument {
                argument: "eval_strategy",
                expected: "no, as there is neither an evaluator nor data to evaluate the loss on",
                found: format!("{:?}", arguments.eval_strategy),
            }
            .into());
        }
        self.check_devices()?;
        let adapters = self.model.adapters();
        adapters.require_unmerged("training")?;
        if arguments.save_strategy != SaveStrategy::No
            && !adapters.is_empty()
            && adapters.active().is_empty()
        {
            return Err(AdapterError::NotOneActive {
                method: "training with checkpoints",
                active: Vec::new(),
            }
            .into());
        }
        self.devices.check()
    }

    /// Checks that what the devices draw at random does not get into each other's way.
    fn check_devices(&self) -> Result<()> {
        if self.devices.workers() < 2 || !self.arguments.dropout {
            return Ok(());
        }
        let embeds_twice = |loss: &L| loss.mini_batch().is_some();
        let refuse = |argument, expected: &'static str| {
            Err(TrainingError::InvalidArgument {
                argument,
                expected,
                found: format!("true on {} devices", self.devices.workers()),
            }
            .into())
        };
        if self.data.losses.iter().any(embeds_twice) {
            let expected = "false for a loss that embeds a batch twice, on several devices";
            return refuse("dropout", expected);
        }
        match self.arguments.full_determinism {
            true => refuse(
                "full_determinism",
                "false where several devices draw dropout masks from one generator",
            ),
            false => Ok(()),
        }
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
