//! Training with activations computed again in the backward pass.

use burn::backend::autodiff::checkpoint::strategy::BalancedCheckpointing;
use burn::backend::{Autodiff, NdArray};
use burn::tensor::backend::AutodiffBackend;
use sentence_burn::training::Trainer;
use sentence_burn::{LoadAdapterOptions, SentenceTransformer};

use crate::{B, alone, curve_arguments, fixture, mnrl, pairs};

fn losses<T: AutodiffBackend>() -> Vec<f64> {
    let dir = tempfile::tempdir().unwrap();
    let folder = fixture("tiny_bert/v6");
    let mut model = SentenceTransformer::<T>::load(folder, &Default::default()).unwrap();
    let options = LoadAdapterOptions {
        is_trainable: true,
        ..Default::default()
    };
    model
        .load_adapter_with(fixture("training_curve/initial"), &options)
        .unwrap();
    let trainer = Trainer::new(model, curve_arguments(dir.path()), pairs(), mnrl());
    trainer.train().unwrap().history.losses()
}

fn furthest(found: &[f64], expected: &[f64]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let differences = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f64::max)
}

#[test]
fn activations_computed_again_give_the_same_steps() {
    let _alone = alone();
    let again = losses::<Autodiff<NdArray, BalancedCheckpointing>>();
    let found = furthest(&again, &losses::<B>());
    assert!(found < 1e-4, "{found}");
}
