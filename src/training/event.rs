use super::history::{EvaluationRecord, StepRecord};
use super::progress::LogRecord;

/// Hears of what happens in a run.
pub(super) type Listener = Box<dyn FnMut(TrainingEvent<'_>) + Send>;

/// Something that happened in a training run.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub enum TrainingEvent<'a> {
    /// An optimiser step was taken.
    Step {
        /// What it did.
        record: &'a StepRecord,
        /// The number of steps of the whole run.
        total_steps: usize,
    },
    /// A log line is due: how far the run is, and how long it will take.
    Log(&'a LogRecord),
    /// The model was evaluated.
    Evaluation(&'a EvaluationRecord),
    /// A checkpoint was written.
    Checkpoint {
        /// Its folder.
        path: &'a std::path::Path,
    },
}
