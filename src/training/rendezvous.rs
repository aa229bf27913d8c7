use std::sync::{Condvar, Mutex, PoisonError};
use std::thread;

use burn::train::Interrupter;

use super::session::lock;

/// Where the workers of a run wait for each other: all of them come, or none goes on.
#[derive(Debug)]
pub(super) struct Rendezvous {
    workers: usize,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: usize,
    /// How often all have met.
    meetings: u64,
    called_off: bool,
}

impl Default for Rendezvous {
    fn default() -> Self {
        Self::of(1)
    }
}

impl Rendezvous {
    pub(super) fn of(workers: usize) -> Self {
        Self {
            workers,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    #[cfg(feature = "ddp")]
    pub(super) fn workers(&self) -> usize {
        self.workers
    }

    /// Waits for all others. False if one of them will not come: then no one meets again.
    pub(super) fn meet(&self) -> bool {
        let mut state = lock(&self.state);
        if state.called_off {
            return false;
        }
        state.waiting += 1;
        if state.waiting == self.workers {
            state.waiting = 0;
            state.meetings += 1;
            self.changed.notify_all();
            return true;
        }
        let before = state.meetings;
        while state.meetings == before && !state.called_off {
            let woken = self.changed.wait(state);
            state = woken.unwrap_or_else(PoisonError::into_inner);
        }
        state.meetings != before
    }

    /// Lets everyone go who waits or comes.
    pub(super) fn call_off(&self) {
        lock(&self.state).called_off = true;
        self.changed.notify_all();
    }
}

/// That a worker is at work: if it panics, the run is over for the others too.
pub(super) struct Present<'a> {
    rendezvous: &'a Rendezvous,
    interrupter: &'a Interrupter,
}

impl<'a> Present<'a> {
    pub(super) fn new(rendezvous: &'a Rendezvous, interrupter: &'a Interrupter) -> Self {
        Self {
            rendezvous,
            interrupter,
        }
    }
}

impl Drop for Present<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.interrupter.stop(Some("a worker panicked"));
            self.rendezvous.call_off();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn no_one_is_a_step_ahead() {
        let (rendezvous, steps) = (Rendezvous::of(3), AtomicUsize::new(0));
        let worker = || {
            for step in 0..100 {
                assert!(steps.fetch_add(1, Ordering::SeqCst) / 3 == step);
                assert!(rendezvous.meet());
            }
        };
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(worker);
            }
        });
        assert_eq!(steps.into_inner(), 300);
    }

    #[test]
    fn one_that_does_not_come_keeps_no_one_waiting() {
        let rendezvous = Rendezvous::of(3);
        thread::scope(|scope| {
            let waiting = [(); 2].map(|()| scope.spawn(|| rendezvous.meet()));
            while lock(&rendezvous.state).waiting < 2 {
                thread::yield_now();
            }
            rendezvous.call_off();
            for worker in waiting {
                assert!(!worker.join().unwrap());
            }
        });
        // Not even if all come now.
        assert!(!rendezvous.meet());
    }

    #[test]
    fn a_panic_is_known_to_the_others() {
        let (rendezvous, interrupter) = (Rendezvous::of(2), Interrupter::new());
        thread::scope(|scope| {
            let waiting = scope.spawn(|| rendezvous.meet());
            let panics = scope.spawn(|| {
                let _present = Present::new(&rendezvous, &interrupter);
                panic!("on purpose");
            });
            assert!(panics.join().is_err());
            assert!(!waiting.join().unwrap());
        });
        assert!(interrupter.should_stop());
        drop(Present::new(&rendezvous, &Interrupter::new()));
    }

    #[test]
    fn one_alone_waits_for_no_one() {
        let rendezvous = Rendezvous::default();
        assert!(rendezvous.meet() && rendezvous.meet());
    }
}
