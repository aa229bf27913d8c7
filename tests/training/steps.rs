//! What a run does step by step: what moves, what is written, computed and evaluated.

use std::fs;
use std::sync::{Arc, Mutex};

use sentence_burn::loss::CachedLoss;
use sentence_burn::training::{
    Checkpoint, History, IntervalStrategy, Trainer, TrainingArguments, TrainingEvent, plot_history,
};

use crate::{
    Failing, Model, adapter, alone, base, curve_arguments, distance, mnrl, model, pairs,
    random_arguments,
};

fn furthest(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    found
        .iter()
        .zip(expected)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f64::max)
}

#[test]
fn only_the_adapter_moves() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let embed = |model: &Model| -> Vec<f32> {
        let texts = ["the quick fox", "a lazy dog at the station"];
        model.encode(&texts).unwrap().into_data().to_vec().unwrap()
    };
    let before = model();
    let mut after = Trainer::new(before.clone(), curve_arguments(dir.path()), pairs(), mnrl())
        .train()
        .unwrap()
        .model;
    assert_ne!(embed(&before), embed(&after));
    after.disable_adapters().unwrap();
    assert_eq!(embed(&after), embed(&base()));
    after.enable_adapters().unwrap();
    // What is trained is still known to be: another run may follow.
    assert_eq!(after.named_trainable().len(), 8);
}

#[test]
fn history_is_on_disk_step_by_step() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("history.jsonl");
    let lines = Arc::new(Mutex::new(Vec::new()));
    let (seen, watched) = (lines.clone(), path.clone());
    let trained = Trainer::new(model(), curve_arguments(dir.path()), pairs(), mnrl())
        .with_listener(move |event| {
            if let TrainingEvent::Step {
                record,
                total_steps,
            } = event
            {
                let written = fs::read_to_string(&watched).unwrap();
                assert!(written.ends_with('\n'));
                seen.lock()
                    .unwrap()
                    .push((record.step, written.lines().count(), total_steps));
            }
        })
        .train()
        .unwrap();
    let expected: Vec<_> = (1..=20).map(|step| (step, step, 20)).collect();
    assert_eq!(*lines.lock().unwrap(), expected);
    let read = History::read(&path).unwrap();
    assert!(furthest(&read.losses(), &trained.history.losses()) < 1e-12);
    assert!(plot_history(&read, &trained.evaluations).contains("Learning rate"));
    // Nothing else is left in the folder: no logs of burn-train's, no checkpoints.
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn what_is_random_follows_from_the_seed() {
    let _alone = alone();
    let losses = |change: fn(&mut TrainingArguments)| {
        let dir = tempfile::tempdir().unwrap();
        let mut arguments = random_arguments(dir.path());
        change(&mut arguments);
        let trainer = Trainer::new(model(), arguments, pairs(), mnrl());
        trainer.train().unwrap().history.losses()
    };
    let first = losses(|_| ());
    assert_eq!(first, losses(|_| ()));
    assert_ne!(first, losses(|arguments| arguments.seed = 43));
    assert_ne!(first, losses(|arguments| arguments.dropout = false));
}

#[test]
fn embedding_in_parts_gives_the_same_steps() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let arguments = || TrainingArguments {
        max_steps: Some(5),
        ..curve_arguments(dir.path())
    };
    let plain = Trainer::new(model(), arguments(), pairs(), mnrl())
        .train()
        .unwrap();
    for mini_batch_size in [1, 3, 4, 100] {
        let cached = CachedLoss::new(mnrl(), mini_batch_size).unwrap();
        let cached = Trainer::new(model(), arguments(), pairs(), cached)
            .train()
            .unwrap();
        assert!(furthest(&cached.history.losses(), &plain.history.losses()) < 1e-5);
        for ((_, a), (_, b)) in adapter(&cached.model).iter().zip(&adapter(&plain.model)) {
            assert!(distance(a, b) < 1e-4, "mini-batches of {mini_batch_size}");
        }
    }
}

#[test]
fn accumulated_batches_are_averaged() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let first = |arguments: TrainingArguments| {
        let arguments = TrainingArguments {
            max_steps: Some(2),
            ..arguments
        };
        let trained = Trainer::new(model(), arguments, pairs(), mnrl())
            .train()
            .unwrap();
        trained.history.records().to_vec()
    };
    let frozen = || TrainingArguments {
        learning_rate: 0.0,
        ..curve_arguments(dir.path())
    };
    let single = first(frozen());
    let double = first(TrainingArguments {
        gradient_accumulation_steps: 2,
        ..frozen()
    });
    let mean = (single[0].loss + single[1].loss) / 2.0;
    assert!((double[0].loss - mean).abs() < 1e-6);
    assert!((single[0].loss - mean).abs() > 1e-2);
    assert!(double[0].grad_norm < single[0].grad_norm.max(single[1].grad_norm));
}

#[test]
fn evaluates_before_between_and_after() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let arguments = TrainingArguments {
        eval_strategy: IntervalStrategy::Steps,
        eval_steps: Some(5.into()),
        ..random_arguments(dir.path())
    };
    let trained = Trainer::new(model(), arguments, pairs(), mnrl())
        .with_evaluator(Failing::at(usize::MAX))
        .train()
        .unwrap();
    let steps: Vec<usize> = trained
        .evaluations
        .iter()
        .map(|record| record.step)
        .collect();
    assert_eq!(steps, [0, 5, 10, 12]);
    let sums: Vec<_> = trained
        .evaluations
        .iter()
        .map(|record| record.score())
        .collect();
    assert!(sums.windows(2).all(|pair| pair[0] != pair[1]), "{sums:?}");
    // An undefined metric does not spoil the checkpoint that it is in.
    let last = Checkpoint::last_in(dir.path()).unwrap().unwrap();
    assert_eq!(last.state().evaluations.len(), 4);
}
