//! Several data sets, each with its loss; batches by class; the losses that come back.

use burn::tensor::backend::Backend;
use sentence_burn::Error;
use sentence_burn::error::{LossError, TrainingError};
use sentence_burn::loss::{
    AnyLoss, BatchHardTripletLossConfig, CachedLoss, CosineSimilarityLoss, SoftmaxLossConfig,
};
use sentence_burn::training::{
    BatchSampler, Dataset, IntervalStrategy, MultiDatasetBatchSampler, Trainer, TrainingArguments,
};

use crate::{B, adapter, alone, curve_arguments, mnrl, model, pairs};

fn labelled(classes: usize) -> Dataset {
    let labels = (0..pairs().len()).map(|sample| vec![(sample % classes) as f32]);
    pairs().with_labels(labels.collect()).unwrap()
}

fn softmax() -> AnyLoss<B> {
    B::seed(&Default::default(), 1);
    let config = SoftmaxLossConfig::new(20, 3);
    config.init::<B>(&Default::default()).unwrap().into()
}

#[test]
fn each_data_set_has_its_loss_and_its_classifier_comes_back() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let arguments = || TrainingArguments {
        learning_rate: 1e-2,
        num_train_epochs: 2.0,
        batch_sampler: BatchSampler::Random,
        ..curve_arguments(dir.path())
    };
    let parts = || {
        [
            ("ranked", pairs(), mnrl().into()),
            ("classes", labelled(3), softmax()),
        ]
    };
    let trained = Trainer::with_losses(model(), arguments(), parts())
        .train()
        .unwrap();
    // 20 batches of each, twice.
    assert_eq!((trained.steps, trained.samples), (80, 320));
    let weight = |loss: &AnyLoss<B>| match loss {
        AnyLoss::Softmax(softmax) => softmax.classifier.weight.val().into_data(),
        other => panic!("{other:?}"),
    };
    assert_ne!(weight(&trained.losses[1]), weight(&softmax()));

    // The order is drawn from the seed.
    let again = Trainer::with_losses(model(), arguments(), parts()).train();
    assert_eq!(again.unwrap().history.losses(), trained.history.losses());
    let other = TrainingArguments {
        seed: 7,
        ..arguments()
    };
    let other = Trainer::with_losses(model(), other, parts())
        .train()
        .unwrap();
    assert_ne!(other.history.losses(), trained.history.losses());
    let in_turn = TrainingArguments {
        multi_dataset_batch_sampler: MultiDatasetBatchSampler::RoundRobin,
        ..arguments()
    };
    let in_turn = Trainer::with_losses(model(), in_turn, parts())
        .train()
        .unwrap();
    assert_eq!(in_turn.steps, 80);
    assert_ne!(in_turn.history.losses(), trained.history.losses());
}

#[test]
fn one_loss_may_serve_several_data_sets() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = pairs().split_at(24);
    let arguments = TrainingArguments {
        eval_strategy: IntervalStrategy::Epoch,
        metric_for_best_model: Some("eval_first_loss".to_owned()),
        ..curve_arguments(dir.path())
    };
    let sets = [("first", first.clone()), ("second", second)];
    let trained = Trainer::with_datasets(model(), arguments, sets, mnrl())
        .with_named_eval_dataset("first", first)
        .train()
        .unwrap();
    assert_eq!((trained.losses.len(), trained.steps), (1, 6 + 14));
    let loss = |place: usize| {
        trained.evaluations[place]
            .metrics
            .get("first_loss")
            .unwrap()
    };
    assert!(loss(1) < loss(0), "{} {}", loss(0), loss(1));
    assert_eq!(trained.best.unwrap().score, loss(1));
}

#[test]
fn what_does_not_go_together_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let arguments = || curve_arguments(dir.path());
    let twice = [("a", pairs(), mnrl()), ("a", pairs(), mnrl())];
    assert!(matches!(
        Trainer::with_losses(model(), arguments(), twice).train(),
        Err(Error::Training(TrainingError::InvalidArgument {
            argument: "datasets",
            ..
        }))
    ));
    let unlabelled: [(&str, Dataset, AnyLoss<B>); 2] = [
        ("a", pairs(), mnrl().into()),
        ("b", pairs(), CosineSimilarityLoss.into()),
    ];
    assert!(matches!(
        Trainer::with_losses(model(), arguments(), unlabelled).train(),
        Err(Error::Loss(LossError::Label { .. }))
    ));
    let parts = [("a", pairs(), mnrl()), ("b", pairs(), mnrl())];
    let result = Trainer::with_losses(model(), arguments(), parts)
        .with_named_eval_dataset("c", pairs())
        .train();
    assert!(matches!(
        result,
        Err(Error::Training(TrainingError::UnknownDataset { .. }))
    ));
    let prompts = TrainingArguments {
        prompts: Some(serde_json::from_str(r#"{"question": "q: "}"#).unwrap()),
        ..arguments()
    };
    assert!(matches!(
        Trainer::new(model(), prompts, pairs(), mnrl()).train(),
        Err(Error::Training(TrainingError::InvalidArgument {
            argument: "prompts",
            ..
        }))
    ));
    let (few, _) = pairs().split_at(3);
    let dropped = TrainingArguments {
        dataloader_drop_last: true,
        ..arguments()
    };
    assert!(matches!(
        Trainer::new(model(), dropped, few, mnrl()).train(),
        Err(Error::Training(TrainingError::EmptyDataset { .. }))
    ));
}

#[test]
fn batches_by_class_train_a_triplet_loss() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let texts = pairs().columns()[0].clone();
    let classes = (0..texts.len()).map(|sample| vec![(sample / 4 % 5) as f32]);
    let data = Dataset::from_columns([("text", texts)]).unwrap();
    let data = data.with_labels(classes.collect()).unwrap();
    let arguments = TrainingArguments {
        num_train_epochs: 4.0,
        per_device_train_batch_size: 8,
        batch_sampler: BatchSampler::GroupByLabel,
        ..curve_arguments(dir.path())
    };
    let loss = BatchHardTripletLossConfig::default().init().unwrap();
    let loss = AnyLoss::<B>::from(loss);
    let trained = Trainer::new(model(), arguments, data, loss)
        .train()
        .unwrap();
    assert_eq!((trained.steps, trained.samples), (40, 320));
    // Every batch has a hardest positive and a hardest negative to tell apart.
    assert!(trained.history.losses().iter().all(|&loss| loss > 0.0));
    assert_ne!(adapter(&trained.model), adapter(&model()));
}

#[test]
fn mini_batches_by_tokens_give_the_same_steps() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let arguments = || TrainingArguments {
        max_steps: Some(4),
        per_device_train_batch_size: 16,
        ..curve_arguments(dir.path())
    };
    let plain = Trainer::new(model(), arguments(), pairs(), mnrl());
    let plain = plain.train().unwrap().history.losses();
    for tokens in [1, 40, 100_000] {
        let cached = CachedLoss::new(mnrl(), 3).unwrap();
        let cached = cached.with_mini_batch_num_tokens(tokens).unwrap();
        let cached = Trainer::new(model(), arguments(), pairs(), cached);
        for (a, b) in cached.train().unwrap().history.losses().iter().zip(&plain) {
            assert!((a - b).abs() < 1e-5 * b, "{a} for {b}");
        }
    }
}
