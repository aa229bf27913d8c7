//! Training on data that are read while they are trained on.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use burn::backend::ndarray::NdArrayDevice;
use sentence_burn::error::{LossError, RepoError, TrainingError};
use sentence_burn::loss::{MultipleNegativesRankingLoss, SoftmaxLossConfig};
use sentence_burn::training::{
    BatchSampler, Checkpoint, History, IntervalStrategy, IterableDataset, Sample, SaveStrategy,
    Trainer, TrainingArguments, TrainingEvent,
};
use sentence_burn::{Error, Result};

use crate::{
    B, Failing, adapter, alone, curve_arguments, distance, fixture, mnrl, model, pairs,
    random_arguments,
};

fn file() -> PathBuf {
    fixture("training_curve/pairs.jsonl")
}

fn stream() -> IterableDataset {
    IterableDataset::from_file(file()).unwrap()
}

fn streamed(
    arguments: TrainingArguments,
    stream: IterableDataset,
) -> Trainer<B, MultipleNegativesRankingLoss> {
    Trainer::with_stream(model(), arguments, stream, mnrl())
}

/// Runs with dropout on the 80 pairs: 14 batches an epoch, the last one of two pairs.
fn arguments(output_dir: &Path) -> TrainingArguments {
    TrainingArguments {
        max_steps: Some(20),
        per_device_train_batch_size: 6,
        batch_sampler: BatchSampler::Random,
        ..random_arguments(output_dir)
    }
}

#[test]
fn the_steps_are_those_of_the_same_samples_in_memory() {
    let _alone = alone();
    for (accumulation, drop_last, epoch) in [(1, false, 14), (1, true, 13), (3, false, 5)] {
        let dirs = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let arguments = |dir: &tempfile::TempDir| TrainingArguments {
            gradient_accumulation_steps: accumulation,
            dataloader_drop_last: drop_last,
            save_strategy: SaveStrategy::Epoch,
            max_steps: Some(16),
            ..arguments(dir.path())
        };
        let in_memory = TrainingArguments {
            batch_sampler: BatchSampler::Sequential,
            ..arguments(&dirs[0])
        };
        let in_memory = Trainer::new(model(), in_memory, pairs(), mnrl());
        let in_memory = in_memory.train().unwrap();
        let trained = streamed(arguments(&dirs[1]), stream()).train().unwrap();
        assert_eq!(trained.history.losses(), in_memory.history.losses());
        assert_eq!(adapter(&trained.model), adapter(&in_memory.model));
        assert_eq!(
            (trained.steps, trained.samples, trained.finished),
            (16, in_memory.samples, true)
        );
        // Epochs end where they do in memory, and are counted as the reference counts them.
        let saved = dirs.each_ref().map(|dir| {
            let is_saved = |step: &usize| dir.path().join(format!("checkpoint-{step}")).exists();
            (1..=16).filter(is_saved).collect::<Vec<_>>()
        });
        assert_eq!((&saved[1], saved[1][0]), (&saved[0], epoch));
        let records = trained.history.records();
        assert_eq!(records[epoch - 1].epoch, epoch as f64 / 16.0);
        assert_eq!(records[epoch].epoch, 1.0 + 1.0 / 16.0);
    }
    let dir = tempfile::tempdir().unwrap();
    let shuffled = streamed(arguments(dir.path()), stream().shuffle(30, 1));
    let plain = streamed(arguments(dir.path()), stream());
    assert_ne!(
        shuffled.train().unwrap().history.losses(),
        plain.train().unwrap().history.losses()
    );
}

#[test]
fn a_run_that_was_cut_off_continues_as_if_it_had_not_been() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let arguments = |dir: &Path| TrainingArguments {
        per_device_train_batch_size: 8,
        eval_strategy: IntervalStrategy::Steps,
        eval_steps: Some(4.into()),
        ..arguments(dir)
    };
    let shuffled = || stream().shuffle(32, 7);
    let train =
        |dir: &Path, at| streamed(arguments(dir), shuffled()).with_evaluator(Failing::at(at));
    let uninterrupted = train(dir.path(), usize::MAX).train().unwrap();
    assert_eq!(uninterrupted.samples, 160);
    // In the first epoch, at its end, and in the second one.
    for (at, checkpoint) in [(2, 5), (3, 10), (4, 15)] {
        let cut = tempfile::tempdir().unwrap();
        assert!(train(cut.path(), at).train().is_err());
        let last = Checkpoint::last_in(cut.path()).unwrap().unwrap();
        assert_eq!(last.state().record.step, checkpoint);
        let resumed = train(cut.path(), usize::MAX).resume().unwrap();
        assert_eq!(resumed.samples, 160 - checkpoint * 8);
        let epochs =
            |history: &History| -> Vec<f64> { history.records().iter().map(|r| r.epoch).collect() };
        assert_eq!(resumed.history.losses(), uninterrupted.history.losses());
        assert_eq!(epochs(&resumed.history), epochs(&uninterrupted.history));
        assert_eq!(adapter(&resumed.model), adapter(&uninterrupted.model));
        // A run that is done has nothing left to do, and a longer one goes on.
        let again = train(cut.path(), usize::MAX).resume().unwrap();
        assert_eq!((again.samples, again.finished), (0, true));
    }
}

#[test]
fn a_checkpoint_of_other_data_is_refused() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    streamed(arguments(dir.path()), stream()).train().unwrap();
    let reason = |result: Result<()>| match result {
        Err(Error::Training(TrainingError::CheckpointMismatch { reason, .. })) => reason,
        other => panic!("{other:?}"),
    };
    let longer = || TrainingArguments {
        max_steps: Some(22),
        ..arguments(dir.path())
    };
    let shuffled = streamed(longer(), stream().shuffle(8, 1)).resume();
    let found = reason(shuffled.map(|_| ()));
    assert!(
        found.contains("was none, now it is of 8 samples with seed 1"),
        "{found}"
    );
    let in_memory = Trainer::new(model(), longer(), pairs(), mnrl()).resume();
    let found = reason(in_memory.map(|_| ()));
    assert!(
        found.contains("a stream, now they are in memory"),
        "{found}"
    );
    let short = dir.path().join("short.jsonl");
    let text = fs::read_to_string(file()).unwrap();
    let lines: Vec<&str> = text.lines().take(30).collect();
    fs::write(&short, lines.join("\n")).unwrap();
    let short = streamed(longer(), IterableDataset::from_file(short).unwrap()).resume();
    let found = reason(short.map(|_| ()));
    assert!(found.contains("samples of the 20 steps"), "{found}");
    assert_eq!(streamed(longer(), stream()).resume().unwrap().steps, 22);
}

#[test]
fn a_line_that_cannot_be_read_ends_the_run_behind_its_checkpoint() {
    let _alone = alone();
    let (dir, whole) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let text = fs::read_to_string(file()).unwrap();
    let mut lines: Vec<&str> = text.lines().collect();
    lines[45] = "{\"anchor\": \"a\"}";
    let data = dir.path().join("data.jsonl");
    fs::write(&data, lines.join("\n")).unwrap();
    let run = dir.path().join("run");
    for devices in [0, 2] {
        let data = IterableDataset::from_file(&data).unwrap();
        let error = streamed(arguments(&run), data)
            .with_devices(vec![NdArrayDevice::Cpu; devices])
            .train()
            .unwrap_err();
        let Error::Repo(RepoError::InvalidLine { path, line, .. }) = &error else {
            panic!("{error}");
        };
        assert_eq!(
            (path.file_name().unwrap(), *line),
            ("data.jsonl".as_ref(), 46)
        );
        if devices == 0 {
            // The line is in the eighth batch.
            let history = History::read(run.join("history.jsonl")).unwrap();
            assert_eq!(history.records().len(), 7);
            let last = Checkpoint::last_in(&run).unwrap().unwrap();
            assert_eq!(last.state().record.step, 5);
            // Once it is mended, the run goes on.
            let resumed = streamed(arguments(&run), stream()).resume().unwrap();
            let uninterrupted = streamed(arguments(whole.path()), stream()).train().unwrap();
            assert_eq!(resumed.history.losses(), uninterrupted.history.losses());
        }
    }
}

#[test]
fn what_does_not_go_with_a_stream_is_named() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let named = |change: fn(&mut TrainingArguments)| {
        let mut arguments = arguments(&dir.path().join("run"));
        change(&mut arguments);
        match streamed(arguments, stream()).train() {
            Err(Error::Training(TrainingError::InvalidArgument { argument, .. })) => argument,
            other => panic!("{:?}", other.map(|_| ())),
        }
    };
    assert_eq!(named(|a| a.max_steps = None), "max_steps");
    for change in [
        (|a| a.batch_sampler = BatchSampler::NoDuplicates) as fn(&mut TrainingArguments),
        |a| a.batch_sampler = BatchSampler::GroupByLabel,
    ] {
        assert_eq!(named(change), "batch_sampler");
    }
    let single = IterableDataset::from_generator(["text"], || {
        let texts = vec!["one".to_owned()];
        std::iter::once(Ok(Sample { texts, label: None }))
    });
    let single = streamed(arguments(&dir.path().join("run")), single.unwrap()).train();
    assert!(matches!(
        single,
        Err(Error::Loss(LossError::Columns { found: 1, .. }))
    ));
    assert!(!dir.path().join("run").exists());
}

/// The 80 pairs, whose labels are 0 and 1 but for one.
fn labelled(wrong: usize) -> IterableDataset {
    let columns = pairs().columns().to_vec();
    IterableDataset::from_generator(["a", "b"], move || {
        let columns = columns.clone();
        (0..columns[0].len()).map(move |place| {
            let label = if place == wrong { 2 } else { place % 2 };
            Ok(Sample {
                texts: columns.iter().map(|texts| texts[place].clone()).collect(),
                label: Some(vec![label as f32]),
            })
        })
    })
    .unwrap()
}

#[test]
fn labels_are_checked_when_they_are_read() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let train = |wrong| {
        let model = model();
        let loss = SoftmaxLossConfig::new(model.output_dim(), 2);
        let loss = loss.init::<B>(&model.device()).unwrap();
        Trainer::with_stream(model, arguments(dir.path()), labelled(wrong), loss).train()
    };
    assert_eq!(train(usize::MAX).unwrap().steps, 20);
    assert!(matches!(
        train(50),
        Err(Error::Loss(LossError::LabelValue {
            sample: 50,
            found: 2.0,
            ..
        }))
    ));
}

#[test]
fn devices_share_the_steps_of_a_stream() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    // Nine batches an epoch, two a step: the fifth step has none for the second device.
    let train = |accumulation, devices| {
        let arguments = TrainingArguments {
            max_steps: Some(12),
            per_device_train_batch_size: 9,
            gradient_accumulation_steps: accumulation,
            ..curve_arguments(dir.path())
        };
        streamed(arguments, stream().shuffle(20, 3))
            .with_devices(vec![NdArrayDevice::Cpu; devices])
            .train()
            .unwrap()
    };
    let (two, one) = (train(1, 2), train(2, 0));
    assert_eq!((two.steps, two.samples), (12, one.samples));
    for (a, b) in two.history.losses().iter().zip(one.history.losses()) {
        assert!((a - b).abs() < 1e-4 * b.abs().max(1e-2), "{a} for {b}");
    }
    for ((name, a), (_, b)) in adapter(&two.model).iter().zip(&adapter(&one.model)) {
        assert!(distance(a, b) < 1e-3, "{name}");
    }
    assert_ne!(train(1, 0).history.losses()[0], one.history.losses()[0]);
}

#[test]
fn no_more_is_held_than_the_buffer_a_step_and_a_batch() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let read = Arc::new(AtomicUsize::new(0));
    let counter = read.clone();
    let columns = pairs().columns().to_vec();
    let endless = IterableDataset::from_generator(["anchor", "positive"], move || {
        let (counter, columns) = (counter.clone(), columns.clone());
        (0..).map(move |place: usize| {
            counter.fetch_add(1, Ordering::SeqCst);
            let text = |texts: &Vec<String>| texts[place % texts.len()].clone();
            Ok(Sample {
                texts: columns.iter().map(text).collect(),
                label: None,
            })
        })
    });
    let endless = endless.unwrap().shuffle(10, 5);
    // The first sample was read to see what it is like.
    read.store(0, Ordering::SeqCst);
    let most = Arc::new(AtomicUsize::new(0));
    let seen = most.clone();
    let trained = streamed(arguments(dir.path()), endless)
        .with_listener(move |event| {
            if let TrainingEvent::Step { record, .. } = event {
                let behind = (record.step - 1) * 6;
                seen.fetch_max(read.load(Ordering::SeqCst) - behind, Ordering::SeqCst);
            }
        })
        .train()
        .unwrap();
    assert_eq!((trained.steps, trained.samples), (20, 120));
    let most = most.load(Ordering::SeqCst);
    assert!((12..=10 + 6 + 6).contains(&most), "{most}");
}
