//! How a run on two devices ends before its last step.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use burn::backend::wgpu::{self, WgpuDevice};
use burn::backend::{Autodiff, Wgpu};
use sentence_burn::error::{LossError, TrainingError};
use sentence_burn::loss::{MultipleNegativesRankingLossConfig, SoftmaxLossConfig};
use sentence_burn::training::{
    Checkpoint, IntervalStrategy, IterableDataset, Sample, SaveStrategy, Trainer, TrainingArguments,
};
use sentence_burn::{Error, SentenceTransformer};

use crate::host::adding_up;
use crate::stand_in::StandInDevice;
use crate::{
    B, Loss, PANICS, Run, Scripted, TWO, alone, arguments, fixture, model, pairs, trainer,
};

fn evaluated(dir: &Path) -> TrainingArguments {
    TrainingArguments {
        eval_strategy: IntervalStrategy::Steps,
        eval_steps: Some(2.into()),
        save_strategy: SaveStrategy::Steps,
        save_steps: 2.into(),
        ..arguments(dir)
    }
}

fn run(arguments: TrainingArguments, scores: &[f64]) -> sentence_burn::Result<Run> {
    trainer(arguments)
        .with_evaluator(Scripted::new(scores))
        .with_distributed_devices(TWO)
        .train()
}

#[test]
fn stops_early() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let patient = TrainingArguments {
        early_stopping_patience: Some(1),
        load_best_model_at_end: true,
        ..evaluated(dir.path())
    };
    let stopped = run(patient, &[9.0, 0.5, 0.4, 0.9]).unwrap();
    assert_eq!((stopped.steps, stopped.stopped_early), (4, true));
    assert_eq!(stopped.best.unwrap().step, 2);
    let checkpoint = Checkpoint::last_in(dir.path()).unwrap().unwrap();
    assert_eq!(checkpoint.state().record.step, 4);
}

/// The pairs with labels 0 and 1: at one place with another, or with a row that cannot be
/// read.
fn broken(place: usize, label: Option<f32>) -> IterableDataset {
    let columns = pairs().columns().to_vec();
    IterableDataset::from_generator(["a", "b"], move || {
        let columns = columns.clone();
        (0..columns[0].len()).map(move |row| {
            let label = match row == place {
                true => label.ok_or(TrainingError::NothingTrainable)?,
                false => (row % 2) as f32,
            };
            Ok(Sample {
                texts: columns.iter().map(|texts| texts[row].clone()).collect(),
                label: Some(vec![label]),
            })
        })
    })
    .unwrap()
}

#[test]
fn ends_with_the_error_of_the_worker_that_fails() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let train = |stream| {
        let model = model();
        let loss = SoftmaxLossConfig::new(model.output_dim(), 2);
        let loss = Loss::from(loss.init::<B>(&model.device()).unwrap());
        let arguments = TrainingArguments {
            max_steps: Some(10),
            ..arguments(dir.path())
        };
        let error = Trainer::with_stream(model, arguments, stream, loss)
            .with_distributed_devices(TWO)
            .train()
            .map(|_| ())
            .unwrap_err();
        let history = fs::read_to_string(dir.path().join("history.jsonl")).unwrap();
        (error, history.lines().count())
    };
    // A step is eight rows, the last four of which are the second worker's.
    let (error, steps) = train(broken(21, Some(2.0)));
    let Error::Loss(LossError::LabelValue { sample, .. }) = error else {
        panic!("{error:?}");
    };
    assert_eq!((sample, steps), (21, 2));
    // Whichever worker comes first finds that a row cannot be read.
    let (error, steps) = train(broken(21, None));
    let Error::Training(TrainingError::NothingTrainable) = error else {
        panic!("{error:?}");
    };
    assert_eq!(steps, 2);
}

#[test]
fn a_panic_ends_the_run_and_leaves_the_next_one_alone() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let panics = || run(evaluated(dir.path()), &[0.0, 0.0, PANICS]);
    assert!(catch_unwind(AssertUnwindSafe(panics)).is_err());
    let next = run(evaluated(dir.path()), &[]).unwrap();
    assert_eq!((next.steps, next.finished), (10, true));
}

/// What two devices of WGPU hold of what they should have added up.
fn on_wgpu(dir: &Path) -> Vec<f64> {
    let first = WgpuDevice::DefaultDevice;
    let setup = wgpu::init_setup::<wgpu::graphics::AutoGraphicsApi>(&first, Default::default());
    let second = wgpu::init_device(setup, Default::default());
    let trainer = || {
        let model = SentenceTransformer::<Autodiff<Wgpu>>::load(fixture("tiny_bert/v6"), &first);
        let loss = MultipleNegativesRankingLossConfig::default().init();
        Trainer::new(model.unwrap(), arguments(dir), pairs(), loss.unwrap())
    };
    // Nor does it move anything from one to the other.
    let moved = trainer().with_devices([first.clone(), second.clone()]);
    assert!(matches!(
        moved.train(),
        Err(Error::Training(TrainingError::NoTransfer { .. }))
    ));
    let added_up = trainer().with_distributed_devices([first, second]).train();
    match added_up {
        Err(Error::Training(TrainingError::NoCollectiveOperations { found, .. })) => found,
        other => panic!("{:?}", other.map(|_| ())),
    }
}

#[test]
fn devices_that_do_not_add_up_or_are_one_are_refused() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let run = || trainer(arguments(dir.path())).with_distributed_devices(TWO);
    let Err(Error::Training(TrainingError::NoCollectiveOperations {
        expected, found, ..
    })) = adding_up(0, || run().train())
    else {
        panic!("the devices added nothing up");
    };
    assert_eq!((expected, found), (2, vec![1.0, 1.0]));
    // Burn's WGPU is one that does not, and says so to no one.
    assert_eq!(on_wgpu(dir.path()), [1.0, 1.0]);
    let twice = trainer(arguments(dir.path())).with_distributed_devices([StandInDevice(1); 2]);
    assert!(matches!(
        twice.train(),
        Err(Error::Training(TrainingError::InvalidArgument {
            argument: "devices",
            ..
        }))
    ));
}
