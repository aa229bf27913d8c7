#[cfg(feature = "ddp")]
use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

#[cfg(feature = "ddp")]
use burn::module::ParamId;
use burn::train::Interrupter;

use super::metrics::StepSeen;
use super::rendezvous::{Present, Rendezvous};
use crate::error::Error;

/// What the learner's step tells the optimiser, which burn-train gives no way to hand
/// over: the loss, or the error that stops the run.
#[derive(Default)]
pub(super) struct Session {
    interrupter: Interrupter,
    asked_to_stop: Interrupter,
    rendezvous: Rendezvous,
    #[cfg(feature = "ddp")]
    with_gradients: Mutex<HashSet<ParamId>>,
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
    /// The session of a run whose workers each update weights of their own, so many.
    pub(super) fn of_workers(workers: usize) -> Self {
        Self {
            rendezvous: Rendezvous::of(workers),
            ..Self::default()
        }
    }

    /// Whether several workers update weights of their own.
    #[cfg(feature = "ddp")]
    pub(super) fn has_workers(&self) -> bool {
        self.rendezvous.workers() > 1
    }

    /// Says that a worker found gradients of these parameters at the step that is under way.
    #[cfg(feature = "ddp")]
    pub(super) fn report_gradients(&self, parameters: HashSet<ParamId>) {
        lock(&self.with_gradients).extend(parameters);
    }

    /// The parameters that a worker found gradients of, once all have met.
    #[cfg(feature = "ddp")]
    pub(super) fn with_gradients(&self) -> HashSet<ParamId> {
        lock(&self.with_gradients).clone()
    }

    /// Waits for the workers that update weights of their own; false once the run is over
    /// for one of them.
    pub(super) fn meet(&self) -> bool {
        self.rendezvous.meet()
    }

    /// Holds a worker to what the others wait for: should it panic, they stop.
    pub(super) fn present(&self) -> Present<'_> {
        Present::new(&self.rendezvous, &self.interrupter)
    }

    /// The handle that asks for an end after the current step, of all workers alike.
    pub(super) fn asked_to_stop(&self) -> &Interrupter {
        &self.asked_to_stop
    }

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
        #[cfg(feature = "ddp")]
        lock(&self.with_gradients).clear();
        std::mem::take(&mut *lock(&self.losses))
    }

    /// Stops the run; the first error is the one it ends with.
    pub(super) fn fail(&self, error: Error) {
        self.interrupter.stop(Some(&error.to_string()));
        lock(&self.failure).get_or_insert(error);
        self.rendezvous.call_off();
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
        assert!(session.meet());
        session.fail(TrainingError::NothingTrainable.into());
        session.fail(
            TrainingError::EmptyDataset {
                source_name: String::new(),
            }
            .into(),
        );
        assert!(session.has_failed() && session.interrupter().should_stop());
        assert!(!session.meet());
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
