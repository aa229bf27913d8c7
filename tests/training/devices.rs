//! Several devices that share each step out; here they are all the CPU.

use burn::backend::ndarray::NdArrayDevice;
use sentence_burn::Error;
use sentence_burn::error::TrainingError;
use sentence_burn::loss::{AnyLoss, CachedLoss, CosineSimilarityLoss};
use sentence_burn::training::{
    Checkpoint, Dataset, IntervalStrategy, SaveStrategy, TrainableLoss, Trained, Trainer,
    TrainingArguments,
};

use crate::{B, Failing, adapter, alone, curve_arguments, distance, mnrl, model, pairs};

const TWO: [NdArrayDevice; 2] = [NdArrayDevice::Cpu; 2];

fn scored() -> Dataset {
    let scores = (0..pairs().len()).map(|sample| vec![(sample % 5) as f32 / 4.0]);
    pairs().with_labels(scores.collect()).unwrap()
}

fn same<L, M>(a: &Trained<B, L>, b: &Trained<B, M>) {
    let (losses, others) = (a.history.losses(), b.history.losses());
    assert_eq!(losses.len(), others.len());
    for (a, b) in losses.iter().zip(&others) {
        assert!((a - b).abs() < 1e-4 * b.abs().max(1e-2), "{a} for {b}");
    }
    for ((name, a), (_, b)) in adapter(&a.model).iter().zip(&adapter(&b.model)) {
        assert!(distance(a, b) < 1e-3, "{name}");
    }
}

fn train<L: TrainableLoss<B>>(
    arguments: TrainingArguments,
    data: Dataset,
    loss: L,
    devices: &[NdArrayDevice],
) -> Trained<B, L> {
    Trainer::new(model(), arguments, data, loss)
        .with_devices(devices.iter().copied())
        .train()
        .unwrap()
}

#[test]
fn two_devices_are_one_with_twice_the_batch() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let arguments = |batch_size| TrainingArguments {
        per_device_train_batch_size: batch_size,
        ..curve_arguments(dir.path())
    };
    let cosine = || AnyLoss::<B>::from(CosineSimilarityLoss);
    let two = train(arguments(4), scored(), cosine(), &TWO);
    let one = train(arguments(8), scored(), cosine(), &TWO[..1]);
    same(&two, &one);
    assert_eq!((two.steps, two.samples), (10, 80));
    let half = train(arguments(4), scored(), cosine(), &[]);
    assert_ne!(half.history.losses()[0], two.history.losses()[0]);
}

#[test]
fn negatives_stay_those_of_one_device() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    // Nine batches, four a step: the last step has none for the second device.
    let arguments = |accumulation| TrainingArguments {
        per_device_train_batch_size: 9,
        gradient_accumulation_steps: accumulation,
        num_train_epochs: 2.0,
        ..curve_arguments(dir.path())
    };
    let two = train(arguments(2), pairs(), mnrl(), &TWO);
    let one = train(arguments(4), pairs(), mnrl(), &[]);
    same(&two, &one);
    let cached = CachedLoss::new(mnrl(), 4).unwrap();
    same(&train(arguments(2), pairs(), cached, &TWO), &one);
}

#[test]
fn a_run_on_two_devices_is_evaluated_and_continues() {
    let _alone = alone();
    let (whole, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let train = |dir: &std::path::Path, at| {
        let arguments = TrainingArguments {
            eval_strategy: IntervalStrategy::Steps,
            eval_steps: Some(4.into()),
            save_strategy: SaveStrategy::Steps,
            save_steps: 3.into(),
            ..curve_arguments(dir)
        };
        Trainer::new(model(), arguments, pairs(), mnrl())
            .with_evaluator(Failing::at(at))
            .with_devices(TWO)
    };
    let uninterrupted = train(whole.path(), usize::MAX).train().unwrap();
    assert!(train(cut.path(), 2).train().is_err());
    let resumed = train(cut.path(), usize::MAX).resume().unwrap();
    let (losses, others) = (resumed.history.losses(), uninterrupted.history.losses());
    for (a, b) in losses.iter().zip(&others) {
        assert!((a - b).abs() < 1e-6 * b.abs().max(1e-2), "{a} for {b}");
    }
    assert_eq!(resumed.evaluations.len(), uninterrupted.evaluations.len());
    let state = Checkpoint::last_in(cut.path()).unwrap().unwrap();
    assert_eq!(state.state().workers, 2);
    // On one device it would be another run.
    let alone = train(cut.path(), usize::MAX).with_devices([]).resume();
    assert!(matches!(
        alone,
        Err(Error::Training(TrainingError::CheckpointMismatch { .. }))
    ));
}

#[test]
fn what_devices_cannot_draw_apart_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = || TrainingArguments {
        dropout: true,
        ..curve_arguments(dir.path())
    };
    let named = |result: sentence_burn::Result<()>| match result {
        Err(Error::Training(TrainingError::InvalidArgument { argument, .. })) => argument,
        other => panic!("{other:?}"),
    };
    let cached = CachedLoss::new(mnrl(), 4).unwrap();
    let cached = Trainer::new(model(), arguments(), pairs(), cached).with_devices(TWO);
    assert_eq!(named(cached.train().map(|_| ())), "dropout");
    let determined = TrainingArguments {
        full_determinism: true,
        ..arguments()
    };
    let determined = Trainer::new(model(), determined, pairs(), mnrl()).with_devices(TWO);
    assert_eq!(named(determined.train().map(|_| ())), "full_determinism");
}
