//! Runs at the same time, in threads of one process.

use std::thread;

use sentence_burn::loss::CachedLoss;
use sentence_burn::training::{Trainer, TrainingArguments};

use crate::{alone, curve_arguments, mnrl, model, pairs};

const RUNS: usize = 4;
const ROUNDS: usize = 5;

/// Losses and gradient norms of a run whose steps have several backward passes each.
fn run(is_cached: bool) -> Vec<f64> {
    let dir = tempfile::tempdir().unwrap();
    let arguments = TrainingArguments {
        max_steps: Some(6),
        gradient_accumulation_steps: if is_cached { 1 } else { 3 },
        ..curve_arguments(dir.path())
    };
    let history = if is_cached {
        let loss = CachedLoss::new(mnrl(), 2).unwrap();
        let trainer = Trainer::new(model(), arguments, pairs(), loss);
        trainer.train().unwrap().history
    } else {
        let trainer = Trainer::new(model(), arguments, pairs(), mnrl());
        trainer.train().unwrap().history
    };
    let numbers = history.records().iter().map(|r| [r.loss, r.grad_norm]);
    numbers.flatten().collect()
}

/// Without leaves of its own for each pass, a run loses gradients to the others now and
/// then; the tests of `src/training/leaves.rs` show how, every time.
fn run_together(is_cached: bool) {
    // They seed the generator of all threads, though they draw nothing from it.
    let _alone = alone();
    let expected = run(is_cached);
    for round in 0..ROUNDS {
        let found = thread::scope(|scope| {
            let runs = [(); RUNS].map(|()| scope.spawn(|| run(is_cached)));
            runs.map(|run| run.join().unwrap())
        });
        for found in found {
            assert_eq!(found, expected, "round {round}");
        }
    }
}

#[test]
fn accumulated_steps_are_those_of_a_run_on_its_own() {
    run_together(false);
}

#[test]
fn steps_in_parts_are_those_of_a_run_on_its_own() {
    run_together(true);
}
