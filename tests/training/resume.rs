//! Checkpoints, and runs that continue from them.

use std::fs;
use std::path::Path;

use safetensors::SafeTensors;
use sentence_burn::error::TrainingError;
use sentence_burn::training::{
    Checkpoint, History, IntervalStrategy, SaveStrategy, Trainer, TrainingArguments,
};
use sentence_burn::{Error, LoraConfig, ModuleNames};

use crate::{Failing, Model, adapter, alone, base, distance, mnrl, model, pairs, random_arguments};

#[test]
fn a_run_that_was_cut_off_continues_as_if_it_had_not_been() {
    let _alone = alone();
    let (whole, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let train = |arguments| Trainer::new(model(), arguments, pairs(), mnrl());
    let uninterrupted = train(random_arguments(whole.path())).train().unwrap();

    // The evaluator fails at step 8, three steps after the only checkpoint so far.
    let arguments = TrainingArguments {
        eval_strategy: IntervalStrategy::Steps,
        eval_steps: Some(4.into()),
        ..random_arguments(cut.path())
    };
    let error = train(arguments)
        .with_evaluator(Failing::at(2))
        .train()
        .unwrap_err();
    assert!(matches!(
        error,
        Error::Training(TrainingError::NothingTrainable)
    ));
    let history = cut.path().join("history.jsonl");
    assert_eq!(History::read(&history).unwrap().records().len(), 8);
    // What a kill in the middle of writing leaves behind.
    let text = fs::read_to_string(&history).unwrap();
    fs::write(&history, format!("{text}{{\"step\":9,\"ep")).unwrap();
    let unfinished = cut.path().join(".checkpoint-8.unfinished");
    fs::create_dir(&unfinished).unwrap();
    fs::write(unfinished.join("trainer_state.json"), "{").unwrap();
    fs::create_dir(cut.path().join("checkpoint-9")).unwrap();

    let resumed = train(random_arguments(cut.path())).resume().unwrap();
    assert_eq!(resumed.history.losses(), uninterrupted.history.losses());
    assert_eq!(adapter(&resumed.model), adapter(&uninterrupted.model));
    assert_eq!((resumed.steps, resumed.finished), (12, true));
    assert_eq!(resumed.samples, uninterrupted.samples - 5 * 8);
    assert_eq!(History::read(&history).unwrap().records().len(), 12);
    assert!(!unfinished.exists());

    // A run that is done has nothing left to do.
    let again = train(random_arguments(cut.path())).resume().unwrap();
    assert_eq!((again.samples, again.finished), (0, true));
    assert_eq!(adapter(&again.model), adapter(&uninterrupted.model));
}

#[test]
fn a_whole_model_trains_and_continues_too() {
    let _alone = alone();
    let (whole, cut) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let arguments = |dir: &Path| TrainingArguments {
        learning_rate: 1e-3,
        weight_decay: 0.01,
        save_steps: 3.into(),
        max_steps: Some(6),
        ..random_arguments(dir)
    };
    let train = |arguments| Trainer::new(base(), arguments, pairs(), mnrl());
    let uninterrupted = train(arguments(whole.path())).train().unwrap();
    let evaluated = TrainingArguments {
        eval_strategy: IntervalStrategy::Steps,
        eval_steps: Some(5.into()),
        ..arguments(cut.path())
    };
    assert!(
        train(evaluated)
            .with_evaluator(Failing::at(1))
            .train()
            .is_err()
    );
    let resumed = train(arguments(cut.path())).resume().unwrap();
    assert_eq!(resumed.history.losses(), uninterrupted.history.losses());

    let embed = |model: &Model| -> Vec<f32> {
        model
            .encode(&["the quick fox"])
            .unwrap()
            .into_data()
            .to_vec()
            .unwrap()
    };
    assert_eq!(embed(&resumed.model), embed(&uninterrupted.model));
    let checkpoint = Model::load(cut.path().join("checkpoint-6"), &Default::default()).unwrap();
    assert!(distance(&embed(&checkpoint), &embed(&uninterrupted.model)) < 1e-6);
    assert!(distance(&embed(&base()), &embed(&uninterrupted.model)) > 1e-3);
}

#[test]
fn a_checkpoint_of_another_run_is_refused() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let train = |arguments| Trainer::new(model(), arguments, pairs(), mnrl());
    train(random_arguments(dir.path())).train().unwrap();
    let seed = TrainingArguments {
        seed: 7,
        ..random_arguments(dir.path())
    };
    let batch = TrainingArguments {
        per_device_train_batch_size: 4,
        ..random_arguments(dir.path())
    };
    for (arguments, named) in [(seed, "`seed`"), (batch, "`per_device_train_batch_size`")] {
        let Err(Error::Training(TrainingError::CheckpointMismatch { reason, .. })) =
            train(arguments).resume()
        else {
            panic!("{named} may differ");
        };
        assert!(reason.contains(named), "{reason}");
    }
    // Other parameters: a fresh adapter on other layers.
    let mut other = base();
    let config = LoraConfig {
        r: 4,
        target_modules: Some(ModuleNames::List(vec!["key".to_owned()])),
        ..Default::default()
    };
    other.add_adapter(config).unwrap();
    assert!(matches!(
        Trainer::new(other, random_arguments(dir.path()), pairs(), mnrl()).resume(),
        Err(Error::Training(TrainingError::CheckpointMismatch { .. }))
    ));

    // A run that starts anew in the same folder does not go on with what it finds there.
    let fresh = TrainingArguments {
        max_steps: Some(3),
        save_strategy: SaveStrategy::No,
        seed: 7,
        ..random_arguments(dir.path())
    };
    train(fresh.clone()).train().unwrap();
    assert_eq!(Checkpoint::last_in(dir.path()).unwrap(), None);
    assert_eq!(train(fresh).resume().unwrap().samples, 24);
}

#[test]
fn checkpoints_hold_what_is_trained_and_are_rotated() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let arguments = TrainingArguments {
        save_steps: 2.into(),
        save_total_limit: Some(2),
        max_steps: Some(7),
        ..random_arguments(dir.path())
    };
    let trained = Trainer::new(model(), arguments.clone(), pairs(), mnrl())
        .train()
        .unwrap();
    let left = |dir: &Path| {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    assert_eq!(
        left(dir.path()),
        ["checkpoint-6", "checkpoint-7", "history.jsonl"]
    );

    let last = Checkpoint::last_in(dir.path()).unwrap().unwrap();
    assert_eq!(last.state().record.step, 7);
    assert!(last.path().join("adapter_model.safetensors").exists());
    assert!(!last.path().join("model.safetensors").exists());
    let state = fs::read(last.path().join("training_state.safetensors")).unwrap();
    let state = SafeTensors::deserialize(&state).unwrap();
    assert_eq!(state.names().len(), 8 * 4);
    assert!(state.names().iter().all(|name| name.contains("lora_")));

    // It is a model: the one that training ended with.
    let loaded = Model::load(last.path(), &Default::default()).unwrap();
    assert_eq!(adapter(&loaded), adapter(&trained.model));

    // A longer run goes on from there, and knows the checkpoints before it.
    let longer = TrainingArguments {
        max_steps: Some(9),
        ..arguments
    };
    let longer = Trainer::new(model(), longer, pairs(), mnrl())
        .resume()
        .unwrap();
    assert_eq!((longer.steps, longer.samples), (9, 16));
    assert_eq!(
        left(dir.path()),
        ["checkpoint-8", "checkpoint-9", "history.jsonl"]
    );
}
