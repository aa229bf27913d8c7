//! What a training run keeps to go on with, changed.

use std::fs;
use std::path::Path;

use burn::backend::{Autodiff, NdArray};
use sentence_burn::SentenceTransformer;
use sentence_burn::loss::MultipleNegativesRankingLossConfig;
use sentence_burn::repo::LoadAdapterOptions;
use sentence_burn::training::{
    BatchSampler, Checkpoint, Dataset, History, SaveStrategy, Trainer, TrainingArguments,
};

use crate::mutation::{self, Mutant};
use crate::trial::Trials;
use crate::{alone, copy, fixture};

type B = Autodiff<NdArray>;

/// A run of four steps with a checkpoint at each second.
pub(crate) fn trainer(dir: &Path) -> Trainer<B, sentence_burn::loss::MultipleNegativesRankingLoss> {
    let arguments = TrainingArguments {
        output_dir: dir.to_owned(),
        max_steps: Some(4),
        per_device_train_batch_size: 2,
        batch_sampler: BatchSampler::Sequential,
        save_strategy: SaveStrategy::Steps,
        save_steps: 2.into(),
        ..TrainingArguments::default()
    };
    let mut model =
        SentenceTransformer::<B>::load(fixture("tiny_bert/v6"), &Default::default()).unwrap();
    let options = LoadAdapterOptions {
        is_trainable: true,
        ..Default::default()
    };
    model
        .load_adapter_with(fixture("training_curve/initial"), &options)
        .unwrap();
    let loss = MultipleNegativesRankingLossConfig::default()
        .init()
        .unwrap();
    let pairs = Dataset::from_jsonl(fixture("training_curve/pairs.jsonl")).unwrap();
    Trainer::new(model, arguments, pairs, loss)
}

/// A run that was cut off behind its second step.
pub(crate) fn cut_off() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    trainer(folder.path()).train().unwrap();
    fs::remove_dir_all(folder.path().join("checkpoint-4")).unwrap();
    folder
}

#[test]
fn a_run_whose_files_are_changed_goes_on_or_says_why_not() {
    let _alone = alone();
    let (mut trials, mut rng) = (Trials::new(), mutation::rng(31));
    let whole = cut_off();
    let read = |file: &str| fs::read(whole.path().join(file)).unwrap();
    let (state, tensors, history) = (
        "checkpoint-2/trainer_state.json",
        "checkpoint-2/training_state.safetensors",
        "history.jsonl",
    );
    let mut cases: Vec<(&str, Mutant)> = Vec::new();
    let mut add = |file: &'static str, mutants: Vec<Mutant>| {
        cases.extend(mutants.into_iter().map(|mutant| (file, mutant)));
    };
    add(state, mutation::json(&read(state), 60, &mut rng));
    add(state, mutation::broken_json(&read(state)));
    add(tensors, mutation::safetensors(&read(tensors), 25, &mut rng));
    add(tensors, mutation::bytes(&read(tensors), 25, &mut rng));
    add(history, mutation::bytes(&read(history), 25, &mut rng));
    let scratch = tempfile::tempdir().unwrap();
    for (number, (file, (what, mutant))) in cases.into_iter().enumerate() {
        let dir = scratch.path().join(number.to_string());
        copy(whole.path(), &dir);
        fs::write(dir.join(file), &mutant).unwrap();
        trials.run(&format!("{file}: {what}"), 1 << 20, || {
            let _ = History::read(dir.join("history.jsonl"));
            let _ = Checkpoint::open(dir.join("checkpoint-2"));
            Checkpoint::last_in(&dir)?;
            trainer(&dir).resume().map(|_| ())
        });
        fs::remove_dir_all(dir).unwrap();
    }
    trials.finish(20);
}
