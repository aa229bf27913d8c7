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
    /// The data set has no sample.
    #[error("{source_name}: no sample to train on")]
    EmptyDataset {
        /// The file, or what else the data came from.
        source_name: String,
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
