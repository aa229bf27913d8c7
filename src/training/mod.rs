//! Fine-tuning on burn-train's learner.
//!
//! A [`Trainer`] takes a model, [`TrainingArguments`], a [`Dataset`] and a
//! [`Loss`](crate::loss::Loss). What each step sees is settled before it starts: the
//! batches by a [`BatchSampler`] from the seed and the epoch, the rate by a
//! [`LearningRateSchedule`] from the step, the dropout masks by a seed of the step's
//! own. A run that was cut off therefore continues from its last checkpoint exactly as
//! if it had not been.

mod arguments;
mod card;
mod checkpoint;
mod dataset;
mod gradcache;
mod history;
mod learner;
mod loader;
mod metrics;
mod monitor;
mod optimizer;
mod plan;
mod plot;
mod sampler;
mod schedule;
mod seed;
mod session;
mod trainer;
mod training_state;

pub use arguments::TrainingArguments;
pub use checkpoint::{Checkpoint, TrainerState};
pub use dataset::Dataset;
pub use history::{EvaluationRecord, History, StepRecord};
pub use learner::TrainableLoss;
pub use monitor::TrainingEvent;
pub use plot::plot_history;
pub use sampler::BatchSampler;
pub use schedule::{LearningRateSchedule, LrSchedulerType};
pub use trainer::{Trained, Trainer};
