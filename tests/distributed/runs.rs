//! What a run on two devices comes to.

use burn::module::Module;
use sentence_burn::Error;
use sentence_burn::error::TrainingError;
use sentence_burn::loss::{
    CachedMultipleNegativesRankingLoss, CosineSimilarityLoss, MultipleNegativesRankingLossConfig,
    SoftmaxLossConfig,
};
use sentence_burn::training::{
    Checkpoint, Dataset, IntervalStrategy, IterableDataset, LrSchedulerType,
    MultiDatasetBatchSampler, SaveStrategy, Trainer, TrainingArguments,
};

use crate::host::adding_up;
use crate::{
    B, FAILS, Loss, Run, Scripted, TWO, alone, arguments, difference, file, mnrl, model, pairs,
    same, trainer,
};

fn cached() -> Loss {
    let config = MultipleNegativesRankingLossConfig::default();
    let loss = CachedMultipleNegativesRankingLoss::new(config.init().unwrap(), 4);
    loss.unwrap().into()
}

fn train(arguments: TrainingArguments, data: Dataset, loss: Loss, devices: usize) -> Run {
    Trainer::new(model(), arguments, data, loss)
        .with_distributed_devices(TWO[..devices].iter().copied())
        .train()
        .unwrap()
}

#[test]
fn two_workers_are_one_with_twice_the_batch() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let scores = (0..pairs().len()).map(|sample| vec![(sample % 5) as f32 / 4.0]);
    let scored = pairs().with_labels(scores.collect()).unwrap();
    let train = |batch_size, devices| {
        let arguments = TrainingArguments {
            per_device_train_batch_size: batch_size,
            ..arguments(dir.path())
        };
        train(
            arguments,
            scored.clone(),
            CosineSimilarityLoss.into(),
            devices,
        )
    };
    let (two, one) = (train(4, 2), train(8, 1));
    same(&two, &one);
    assert_eq!((two.steps, two.samples), (10, 80));
    // The negative control: the devices agree before the run, and then each goes on with its
    // own half.
    let apart = adding_up(1, || train(4, 2));
    let (losses, adapters) = difference(&apart, &one);
    assert!(losses > 1e-3 && adapters > 1e-2, "{losses} {adapters}");
}

#[test]
fn steps_of_several_batches_and_backward_passes_are_those_of_one_worker() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    // Seventeen batches, four a step: the last step has none for the second worker.
    let columns = pairs().columns().to_vec();
    let texts = columns[0].iter().zip(&columns[1]).take(68);
    let pairs = Dataset::from_pairs(texts.map(|(a, b)| (a.clone(), b.clone())));
    let arguments = |accumulation| TrainingArguments {
        gradient_accumulation_steps: accumulation,
        ..arguments(dir.path())
    };
    let one = train(arguments(4), pairs.clone(), mnrl(), 1);
    let two = train(arguments(2), pairs.clone(), mnrl(), 2);
    same(&two, &one);
    assert_eq!((two.steps, two.samples), (5, 68));
    same(&train(arguments(2), pairs, cached(), 2), &one);
}

#[test]
fn weights_that_a_step_does_not_reach_stay_as_they_are() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let columns = pairs().columns().to_vec();
    let half = |rows: std::ops::Range<usize>| {
        let texts = rows
            .clone()
            .map(|row| (columns[0][row].clone(), columns[1][row].clone()));
        let labels = rows.clone().map(|row| vec![(row % 2) as f32]);
        let labels = labels.collect();
        Dataset::from_pairs(texts).with_labels(labels).unwrap()
    };
    // A step reaches one classifier, the other, or both, each by a worker of its own.
    let classifier = || {
        let config = SoftmaxLossConfig::new(model().output_dim(), 2);
        let loss = Loss::from(config.init::<B>(&TWO[0]).unwrap());
        // Weights are drawn when they are first asked for, by each clone its own.
        assert!(loss.num_params() > 0);
        loss
    };
    let classifiers = [classifier(), classifier()];
    let train = |accumulation, devices: usize| {
        let arguments = TrainingArguments {
            gradient_accumulation_steps: accumulation,
            max_steps: Some(6),
            weight_decay: 0.1,
            multi_dataset_batch_sampler: MultiDatasetBatchSampler::Proportional,
            ..arguments(dir.path())
        };
        let [a, b] = classifiers.clone();
        let data = [("a", half(0..40), a), ("b", half(40..80), b)];
        Trainer::with_losses(model(), arguments, data)
            .with_distributed_devices(TWO[..devices].iter().copied())
            .train()
            .unwrap()
    };
    same(&train(1, 2), &train(2, 1));
}

#[test]
fn two_workers_share_the_steps_of_a_stream() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let train = |accumulation, devices: usize| {
        let arguments = TrainingArguments {
            max_steps: Some(7),
            gradient_accumulation_steps: accumulation,
            ..arguments(dir.path())
        };
        let stream = IterableDataset::from_file(file()).unwrap();
        Trainer::with_stream(model(), arguments, stream, mnrl())
            .with_distributed_devices(TWO[..devices].iter().copied())
            .train()
            .unwrap()
    };
    same(&train(1, 2), &train(2, 1));
}

#[test]
fn a_run_is_evaluated_and_continues() {
    let _alone = alone();
    let (whole, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let trainer = |dir: &std::path::Path, scores: &[f64]| {
        let arguments = TrainingArguments {
            eval_strategy: IntervalStrategy::Steps,
            eval_steps: Some(4.into()),
            save_strategy: SaveStrategy::Steps,
            save_steps: 3.into(),
            ..arguments(dir)
        };
        trainer(arguments)
            .with_evaluator(Scripted::new(scores))
            .with_distributed_devices(TWO)
    };
    let uninterrupted = trainer(whole.path(), &[]).train().unwrap();
    let cut_off = trainer(cut.path(), &[0.0, 0.0, FAILS]).train();
    assert!(matches!(
        cut_off,
        Err(Error::Training(TrainingError::NothingTrainable))
    ));
    let resumed = trainer(cut.path(), &[]).resume().unwrap();
    same(&resumed, &uninterrupted);
    assert_eq!((resumed.steps, resumed.finished), (10, true));
    assert_eq!(resumed.evaluations.len(), uninterrupted.evaluations.len());
    let checkpoint = Checkpoint::last_in(cut.path()).unwrap().unwrap();
    assert_eq!(checkpoint.state().workers, 2);
}

#[test]
fn every_worker_has_the_rate_of_its_step() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let train = |accumulation, devices: usize| {
        let mut arguments = TrainingArguments {
            gradient_accumulation_steps: accumulation,
            eval_strategy: IntervalStrategy::Steps,
            eval_steps: Some(2.into()),
            lr_scheduler_type: LrSchedulerType::ReduceLrOnPlateau,
            ..arguments(dir.path())
        };
        arguments.lr_scheduler_kwargs.patience = Some(1);
        arguments.lr_scheduler_kwargs.factor = Some(0.1);
        trainer(arguments)
            .with_evaluator(Scripted::new(&[9.0, 0.5, 0.4, 0.3]))
            .with_distributed_devices(TWO[..devices].iter().copied())
            .train()
            .unwrap()
    };
    let (two, one) = (train(1, 2), train(2, 1));
    same(&two, &one);
    let rates = |run: &Run| -> Vec<f64> {
        let records = run.history.records().iter();
        records.map(|record| record.learning_rate).collect()
    };
    assert_eq!(rates(&two), rates(&one));
    assert!(rates(&two)[9] < 1e-3);
}
