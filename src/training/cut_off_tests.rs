//! Runs that end at every place where they write.

use std::env;
use std::path::Path;

use burn::backend::{Autodiff, NdArray};

use super::{BatchSampler, Checkpoint, Dataset, SaveStrategy, Trainer, TrainingArguments};
use crate::loss::{MultipleNegativesRankingLoss, MultipleNegativesRankingLossConfig};
use crate::model::SentenceTransformer;
use crate::repo::LoadAdapterOptions;
use crate::repo::interruption::{process_that_ends_at, stop_at_the_place_of_this_process};

type B = Autodiff<NdArray>;

const FOLDER: &str = "SENTENCE_BURN_TEST_FOLDER";
const TEST: &str = "training::cut_off_tests::the_run_that_is_cut_off";

fn fixture(name: &str) -> String {
    format!("{}/tests/fixtures/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn trainer(dir: &Path) -> Trainer<B, MultipleNegativesRankingLoss> {
    let arguments = TrainingArguments {
        output_dir: dir.to_owned(),
        max_steps: Some(3),
        per_device_train_batch_size: 2,
        learning_rate: 1e-2,
        batch_sampler: BatchSampler::Sequential,
        dropout: false,
        save_strategy: SaveStrategy::Steps,
        save_steps: 1.into(),
        save_total_limit: Some(1),
        ..TrainingArguments::default()
    };
    let mut model =
        SentenceTransformer::<B>::load(fixture("tiny_bert/v6"), &Default::default()).unwrap();
    let options = LoadAdapterOptions {
        is_trainable: true,
        ..LoadAdapterOptions::default()
    };
    let initial = fixture("training_curve/initial");
    model.load_adapter_with(initial, &options).unwrap();
    let loss = MultipleNegativesRankingLossConfig::default()
        .init()
        .unwrap();
    let pairs = Dataset::from_jsonl(fixture("training_curve/pairs.jsonl")).unwrap();
    Trainer::new(model, arguments, pairs, loss)
}

fn result(run: Trainer<B, MultipleNegativesRankingLoss>) -> Vec<f32> {
    let trained = run.resume().unwrap();
    let tensors = trained.model.get_adapter_state_dict(None).unwrap();
    let values = tensors.iter().flat_map(|(_, data)| data.iter::<f32>());
    values.collect()
}

#[test]
fn the_run_that_is_cut_off() {
    let Some(folder) = env::var_os(FOLDER) else {
        return;
    };
    let trainer = trainer(Path::new(&folder));
    stop_at_the_place_of_this_process();
    trainer.train().unwrap();
}

#[test]
fn a_run_that_was_cut_off_anywhere_goes_on_as_if_it_had_not_been() {
    let whole = tempfile::tempdir().unwrap();
    let expected = result(trainer(whole.path()));
    let mut from = [0; 4];
    for place in 1.. {
        let folder = tempfile::tempdir().unwrap();
        let told = [(FOLDER, folder.path().to_str().unwrap())];
        if !process_that_ends_at(place, TEST, &told) {
            break;
        }
        let checkpoint = Checkpoint::last_in(folder.path()).unwrap();
        from[checkpoint.map_or(0, |checkpoint| checkpoint.state().record.step)] += 1;
        assert_eq!(result(trainer(folder.path())), expected, "{place}");
    }
    // It was cut off before the first checkpoint and behind each of the others.
    assert!(from.iter().all(|&places| places > 0), "{from:?}");
}
