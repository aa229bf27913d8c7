use std::io;
use std::path::PathBuf;

/// What can be wrong with a training run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainingError {
    /// Nothing in the model would be trained.
    #[error("nothing to train: every weight is frozen; add an adapter or make one trainable")]
    NothingTrainable,
    /// An argument holds a value that cannot be meant.
    #[error("training argument `{argument}` is {found}, expected {expected}")]
    InvalidArgument {
        /// The argument's name.
        argument: &'static str,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// The options of a learning-rate schedule are not its own, or out of range.
    #[error("training argument `lr_scheduler_kwargs` of the schedule {scheduler}: {reason}")]
    InvalidSchedulerKwargs {
        /// The schedule.
        scheduler: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A pattern of parameter names cannot be used.
    #[error("training argument `learning_rate_mapping`: pattern `{pattern}`: {reason}")]
    InvalidPattern {
        /// The pattern.
        pattern: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The metric that tells the best model is not among those of an evaluation.
    #[error(
        "training argument `metric_for_best_model` is `{metric}`, the evaluation has {available:?}"
    )]
    UnknownMetric {
        /// The metric looked for.
        metric: String,
        /// The metrics there are.
        available: Vec<String>,
    },
    /// The data set has no sample.
    #[error("{source_name}: no sample to train on")]
    EmptyDataset {
        /// The file, or what else the data came from.
        source_name: String,
    },
    /// Data to evaluate a loss on are named after no data set that is trained on.
    #[error("evaluation data set `{name}`: the data sets with a loss are {datasets:?}")]
    UnknownDataset {
        /// The name.
        name: String,
        /// The data sets that are trained on.
        datasets: Vec<String>,
    },
    /// Columns do not go together.
    #[error("data set column `{column}` has {found} samples, the first column has {expected}")]
    UnequalColumns {
        /// The column's name.
        column: String,
        /// The number of samples of the first column.
        expected: usize,
        /// The number of samples of this one.
        found: usize,
    },
    /// The backend does not move tensors from one of the devices to another.
    #[error("{backend} moves no tensors from {from} to {to}")]
    NoTransfer {
        /// The backend's name.
        backend: String,
        /// The first device.
        from: String,
        /// The other one.
        to: String,
    },
    /// The backend does not add up what several devices hold.
    #[error(
        "{backend} has no collective operations on {devices}: the sums of {expected} ones are {found:?}"
    )]
    NoCollectiveOperations {
        /// The backend's name.
        backend: String,
        /// The devices.
        devices: String,
        /// How many they are, and what each should hold.
        expected: usize,
        /// What they hold.
        found: Vec<f64>,
    },
    /// The loss or the gradients are no longer numbers.
    #[error("step {step}: {what} is {found}; lower the learning rate or look for a broken sample")]
    NotFinite {
        /// The optimiser step, from 1.
        step: usize,
        /// What went wrong.
        what: &'static str,
        /// Its value.
        found: f64,
    },
    /// A file of the run cannot be read or written.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// A file of the run does not say what it must.
    #[error("{}: {reason}", path.display())]
    InvalidFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A checkpoint belongs to another model or another run.
    #[error("{}: does not fit this run: {reason}", path.display())]
    CheckpointMismatch {
        /// The checkpoint's folder.
        path: PathBuf,
        /// What differs.
        reason: String,
    },
}
