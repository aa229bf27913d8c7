use std::fmt;
use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use burn::train::Interrupter;

use super::metrics::StepSeen;
use crate::error::Error;

/// What the learner's step tells the optimiser, which burn-train gives no way to hand
/// over: the loss, or the error that stops the run.
#[derive(Default)]
pub(super) struct Session {
    interrupter: Interrupter,
    losses: Mutex<Vec<StepLoss>>,
    failure: Mutex<Option<Error>>,
}

/// The loss of what one worker did of an optimiser step.
pub(super) struct StepLoss {
    pub loss: f64,
    pub samples: usize,
    /// Where the metrics look for what the step did.
    pub seen: Arc<OnceLock<StepSeen>>,
}

impl Session {
    /// The handle that stops the run after the current step.
    pub(super) fn interrupter(&self) -> &Interrupter {
        &self.interrupter
    }

    /// Reports what a worker did.
    pub(super) fn report(&self, loss: StepLoss) {
        lock(&self.losses).push(loss);
    }

    /// Takes what the workers did since the last optimiser step.
    pub(super) fn take_losses(&self) -> Vec<StepLoss> {
        std::mem::take(&mut *lock(&self.losses))
    }

    /// Stops the run; the first error is the one it ends with.
    pub(super) fn fail(&self, error: Error) {
        self.interrupter.stop(Some(&error.to_string()));
        lock(&self.failure).get_or_insert(error);
    }

    /// Whether the run has failed.
    pub(super) fn has_failed(&self) -> bool {
        lock(&self.failure).is_some()
    }

    /// Takes the error that stopped the run.
    pub(super) fn take_failure(&self) -> Option<Error> {
        lock(&self.failure).take()
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("failure", &*lock(&self.failure))
            .finish_non_exhaustive()
    }
}

/// Locks, whether or not a thread panicked while it held the lock: each of these values
/// is whole at any time.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::TrainingError;

    #[test]
    fn the_first_error_stops_the_run_and_stays() {
        let session = Session::default();
        assert!(!session.has_failed() && !session.interrupter().should_stop());
        session.fail(TrainingError::NothingTrainable.into());
        session.fail(
            TrainingError::EmptyDataset {
                source_name: String::new(),
            }
            .into(),
        );
        assert!(session.has_failed() && session.interrupter().should_stop());
        assert!(matches!(
            session.take_failure(),
            Some(Error::Training(TrainingError::NothingTrainable))
        ));
    }

    #[test]
    fn losses_are_taken_once() {
        let session = Session::default();
        session.report(StepLoss {
            loss: 1.0,
            samples: 2,
            seen: Arc::default(),
        });
        assert_eq!(session.take_losses().len(), 1);
        assert!(session.take_losses().is_empty());
    }
}
