//! Fine-tuning on burn-train's learner.
//!
//! A [`Trainer`] takes a model, [`TrainingArguments`], a [`Dataset`] and a
//! [`Loss`](crate::loss::Loss), or several data sets and a loss each. What each step sees is
//! settled before it starts: the batches by a [`BatchSampler`] and a
//! [`MultiDatasetBatchSampler`] from the seed and the epoch, the rate by a
//! [`LearningRateSchedule`] from the step, the dropout masks by a seed of the step's own.
//! The best model and early stopping follow from the evaluations so far. A run that was cut
//! off, even killed while it wrote, therefore continues from its last checkpoint exactly as
//! if it had not been.
//!
//! # Memory
//! - A [`CachedLoss`](crate::loss::CachedLoss) embeds a batch in parts of so many texts or
//!   tokens, and never holds all its scores.
//! - Burn's `Autodiff<B, BalancedCheckpointing>` in the place of `Autodiff<B>` computes
//!   activations that are cheap to compute again instead of keeping them (gradient
//!   checkpointing). The CPU's fast kernels keep what they need in either case.
//! - Half precision is an element type of the backends that have it: `Cuda<bf16>` or
//!   `Wgpu<f16>` in the place of `Cuda` and `Wgpu` hold weights, activations and AdamW's moments
//!   in it. Checkpoints are in single precision. The CPU backends compute in single or double
//!   precision.
//!
//! # Several devices
//! [`Trainer::with_devices`] shares steps out by burn-train's `ExecutionStrategy::multi`: the
//! first device gathers the gradients and updates the weights.
//!
//! `Trainer::with_distributed_devices` does so by its `ExecutionStrategy::ddp`: each device
//! updates weights of its own, by gradients that the devices add up among themselves. It
//! comes with the feature `ddp`, under which Burn 0.21 trains on the backends of CubeCL alone,
//! and no longer on a CPU's. Of these CUDA implements the collective operations (NCCL); WGPU
//! leaves them out, on which a run ends with
//! [`NoCollectiveOperations`](crate::error::TrainingError::NoCollectiveOperations) before its
//! first step. What is tested is a stand-in for CUDA's devices that adds up on the host: it
//! has not run on CUDA devices themselves.
//!
//! Burn adds gradients up inside each backward pass, of which a step with several batches, or
//! with a cached loss, has several. Here a step finds its gradients first, and one pass more
//! adds them up, so that any loss and any accumulation goes.
//!
//! Burn 0.21 has CubeCL's devices send tensors to each other by those operations too: on
//! several devices of WGPU, either way ends with an error before the first step.
//!
//! # Several runs at once
//! Runs in threads of one process compute what each would on its own. Only dropout's masks
//! come from a generator that Burn's backends share among threads: with it, such runs are
//! sound, but do not follow from their seeds.

mod argument_checks;
mod arguments;
mod best_model;
mod card;
mod checkpoint;
mod checkpoint_folders;
mod dataset;
mod devices;
#[cfg(feature = "ddp")]
mod distribution;
mod evaluating;
mod evaluation_files;
mod event;
mod gradcache;
mod history;
mod learner;
mod leaves;
mod loader;
mod memory;
mod metrics;
mod monitor;
mod monitored_rate;
mod multi_dataset_sampler;
mod optimizer;
mod parameter_groups;
mod plan;
mod plateau;
mod plot;
mod progress;
mod prompts;
mod rendezvous;
mod rotation;
mod router_mapping;
mod run;
mod sampler;
mod schedule;
mod scheduler_kwargs;
mod seed;
mod session;
mod strategy;
mod stream;
#[cfg(feature = "ddp")]
mod synchronising;
mod text_batch;
mod trained;
mod trainer;
mod training_data;
mod training_state;

// Burn trains on no CPU backend with `ddp`.
#[cfg(all(test, not(feature = "ddp")))]
mod cut_off_tests;

pub use arguments::TrainingArguments;
pub use best_model::BestEvaluation;
pub use checkpoint::{Checkpoint, TrainerState};
pub use dataset::{
    BadRows, Dataset, DatasetOptions, HubDatasetOptions, IterableDataset, Sample, Samples,
};
pub use event::TrainingEvent;
pub use history::{EvaluationRecord, History, StepRecord};
pub use learner::TrainableLoss;
pub use multi_dataset_sampler::MultiDatasetBatchSampler;
pub use plot::plot_history;
pub use progress::{LogRecord, RunSummary};
pub use prompts::TrainingPrompts;
pub use router_mapping::RouterMapping;
pub use sampler::BatchSampler;
pub use schedule::{LearningRateSchedule, LrSchedulerType};
pub use scheduler_kwargs::{LrSchedulerKwargs, PlateauMode, RampType, ThresholdMode};
pub use strategy::{Interval, IntervalStrategy, SaveStrategy};
pub use stream::StreamState;
pub use trained::Trained;
pub use trainer::Trainer;
