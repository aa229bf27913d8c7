//! Losses that read more than embeddings, and those with weights of their own.

use burn::backend::NdArray;
use burn::tensor::backend::Backend;
use safetensors::SafeTensors;
use sentence_burn::error::LossError;
use sentence_burn::loss::{
    CachedLoss, GISTEmbedLoss, GISTEmbedLossConfig, Matryoshka2dLossConfig, SoftmaxLossConfig,
};
use sentence_burn::training::{Dataset, SaveStrategy, TrainableLoss, Trainer, TrainingArguments};
use sentence_burn::{Error, SentenceTransformer};

use crate::{B, alone, curve_arguments, fixture, mnrl, model, pairs, random_arguments};

fn guide(folder: &str) -> SentenceTransformer<NdArray> {
    SentenceTransformer::load(fixture(folder), &Default::default()).unwrap()
}

fn gist() -> GISTEmbedLoss {
    GISTEmbedLossConfig::default().init().unwrap()
}

#[test]
fn a_guide_is_asked_for_and_listened_to() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let arguments = || TrainingArguments {
        max_steps: Some(3),
        ..curve_arguments(dir.path())
    };
    let without = Trainer::new(model(), arguments(), pairs(), gist()).train();
    assert!(matches!(
        without,
        Err(Error::Loss(LossError::NoGuide { .. }))
    ));

    fn losses<L: TrainableLoss<B>>(
        loss: L,
        folder: &str,
        arguments: TrainingArguments,
    ) -> Vec<f64> {
        let guide = guide(folder);
        let before = guide.encode(&["the quick fox"]).unwrap().into_data();
        let trainer = Trainer::new(model(), arguments, pairs(), loss).with_guide(guide.clone());
        let losses = trainer.train().unwrap().history.losses();
        let after = guide.encode(&["the quick fox"]).unwrap().into_data();
        assert_eq!(before, after);
        losses
    }
    let listened = losses(gist(), "tiny_bert/dense", arguments());
    let to_another = losses(gist(), "tiny_bert/v6", arguments());
    assert!((listened[0] - to_another[0]).abs() > 1e-3);
    let in_parts = losses(
        CachedLoss::new(gist(), 3).unwrap(),
        "tiny_bert/dense",
        arguments(),
    );
    for (at_once, in_parts) in listened.iter().zip(&in_parts) {
        assert!(
            (at_once - in_parts).abs() < 1e-4,
            "{at_once} and {in_parts}"
        );
    }
}

#[test]
fn what_a_loss_draws_follows_from_the_seed() {
    let _alone = alone();
    let losses = |seed| {
        let dir = tempfile::tempdir().unwrap();
        let arguments = TrainingArguments {
            seed,
            max_steps: Some(6),
            dropout: false,
            save_strategy: SaveStrategy::No,
            ..random_arguments(dir.path())
        };
        let loss = Matryoshka2dLossConfig::new([20, 10, 5]).init::<B, _>(mnrl());
        let trainer = Trainer::new(model(), arguments, pairs(), loss.unwrap());
        trainer.train().unwrap().history.losses()
    };
    let first = losses(42);
    assert_eq!(first, losses(42));
    assert_ne!(first, losses(43));
}

#[test]
fn a_classifier_is_trained_and_kept() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let arguments = || TrainingArguments {
        num_train_epochs: 3.0,
        learning_rate: 5e-2,
        save_strategy: SaveStrategy::Steps,
        save_steps: 30.into(),
        ..curve_arguments(dir.path())
    };
    let classes = |classes: u32| -> Dataset {
        let labels = (0..pairs().len() as u32).map(|sample| vec![(sample % classes) as f32]);
        pairs().with_labels(labels.collect()).unwrap()
    };
    let softmax = || {
        // A lucky or unlucky classifier to begin with would be another test.
        B::seed(&Default::default(), 1);
        SoftmaxLossConfig::new(20, 2)
            .init::<B>(&Default::default())
            .unwrap()
    };
    let too_many = Trainer::new(model(), arguments(), classes(3), softmax()).train();
    assert!(matches!(
        too_many,
        Err(Error::Loss(LossError::LabelValue { sample: 2, .. }))
    ));

    let trained = Trainer::new(model(), arguments(), classes(2), softmax())
        .train()
        .unwrap();
    let losses = trained.history.losses();
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / losses.len() as f64;
    assert!(
        mean(&losses[50..]) < 0.9 * mean(&losses[..10]),
        "{losses:?}"
    );

    let weight = |step: usize| {
        let file = dir
            .path()
            .join(format!("checkpoint-{step}/training_state.safetensors"));
        let bytes = std::fs::read(file).unwrap();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let weight = tensors.tensor("loss.classifier.weight").unwrap();
        assert_eq!(weight.shape(), [2, 60]);
        weight.data().to_vec()
    };
    assert_ne!(weight(30), weight(60));
}
