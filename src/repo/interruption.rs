//! The places where a process that writes can be cut off.
//!
//! Each change of the file system passes one. In a test, a process counts them, and ends at
//! the one it was told; otherwise they are nothing.

/// Passes the next place.
#[cfg(not(test))]
#[inline]
pub(crate) fn place() {}

#[cfg(test)]
pub(crate) use counted::{place, process_that_ends_at, stop_at_the_place_of_this_process};

#[cfg(test)]
mod counted {
    use std::env;
    use std::process::{Command, Stdio};
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    /// The places that are left until the process ends; 0 for no end.
    static LEFT: AtomicUsize = AtomicUsize::new(0);

    const PLACE: &str = "SENTENCE_BURN_TEST_PLACE";

    /// How a process ends at its place, as if it had been killed there: nothing of it runs any
    /// more, no destructor and no handler.
    const ENDED: i32 = 86;

    pub(crate) fn place() {
        if LEFT.load(SeqCst) > 0 && LEFT.fetch_sub(1, SeqCst) == 1 {
            std::process::exit(ENDED);
        }
    }

    /// In a process that [`process_that_ends_at`] made: has it end there.
    pub(crate) fn stop_at_the_place_of_this_process() -> bool {
        let place = env::var(PLACE).ok().and_then(|place| place.parse().ok());
        LEFT.store(place.unwrap_or(0), SeqCst);
        place.is_some()
    }

    /// Runs a test in another process that ends at a place, from 1; whether it got there. The
    /// test is told things by variables of its environment.
    pub(crate) fn process_that_ends_at(place: usize, test: &str, told: &[(&str, &str)]) -> bool {
        let status = Command::new(env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture"])
            .env(PLACE, place.to_string())
            .envs(told.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .unwrap();
        match status.code() {
            Some(ENDED) => true,
            Some(0) => false,
            other => panic!("{test} failed at place {place}: {other:?}"),
        }
    }
}
