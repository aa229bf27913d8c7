//! What cannot be trained, computed or written is named.

use std::fs;

use sentence_burn::error::{AdapterError, LossError, TrainingError};
use sentence_burn::training::{
    Dataset, History, Trained, Trainer, TrainingArguments, TrainingEvent,
};
use sentence_burn::{Error, Result};

use crate::{
    B, Model, alone, base, curve_arguments, fixture, mnrl, model, pairs, random_arguments,
};

/// The error of a run that cannot start; nothing is written then.
fn refused(model: Model, change: fn(&mut TrainingArguments), dataset: Dataset) -> Error {
    let dir = tempfile::tempdir().unwrap();
    let output_dir = dir.path().join("run");
    let mut arguments = random_arguments(&output_dir);
    change(&mut arguments);
    let error = Trainer::new(model, arguments, dataset, mnrl())
        .train()
        .unwrap_err();
    assert!(!output_dir.exists());
    error
}

#[test]
fn what_cannot_be_trained_is_named() {
    let _alone = alone();
    let mut frozen = base();
    frozen
        .load_adapter(fixture("training_curve/initial"))
        .unwrap();
    assert!(matches!(
        refused(frozen, |_| (), pairs()),
        Error::Training(TrainingError::NothingTrainable)
    ));
    assert!(matches!(
        refused(model(), |_| (), Dataset::from_pairs::<String, String>([])),
        Error::Training(TrainingError::EmptyDataset { .. })
    ));
    assert!(matches!(
        refused(model(), |arguments| arguments.adam_beta1 = 2.0, pairs()),
        Error::Training(TrainingError::InvalidArgument {
            argument: "adam_beta1",
            ..
        })
    ));
    let single = Dataset::from_columns([("text", vec!["one".to_owned()])]).unwrap();
    assert!(matches!(
        refused(model(), |_| (), single),
        Error::Loss(LossError::Columns { found: 1, .. })
    ));
    let mut none = model();
    none.set_adapter::<&str>(&[]).unwrap();
    assert!(matches!(
        refused(none, |_| (), pairs()),
        Error::Adapter(AdapterError::NotOneActive { .. })
    ));
    let mut merged = model();
    merged.merge_adapter().unwrap();
    assert!(matches!(
        refused(merged, |_| (), pairs()),
        Error::Adapter(AdapterError::Merged { .. })
    ));
}

#[test]
fn a_loss_that_is_no_number_ends_the_run() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    let arguments = TrainingArguments {
        learning_rate: 1e30,
        warmup_ratio: 0.0,
        max_grad_norm: 0.0,
        ..curve_arguments(dir.path())
    };
    let error = Trainer::new(model(), arguments, pairs(), mnrl())
        .train()
        .unwrap_err();
    assert!(
        matches!(error, Error::Training(TrainingError::NotFinite { .. })),
        "{error}"
    );
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let _alone = alone();
    let file = tempfile::NamedTempFile::new().unwrap();
    let arguments = curve_arguments(&file.path().join("run"));
    let error = Trainer::new(model(), arguments, pairs(), mnrl())
        .train()
        .unwrap_err();
    assert!(matches!(
        error,
        Error::Training(TrainingError::Io {
            action: "create",
            ..
        })
    ));
}

#[test]
fn a_checkpoint_that_cannot_be_written_ends_the_run() {
    let _alone = alone();
    let dir = tempfile::tempdir().unwrap();
    // A file where the checkpoint's folder would be made.
    let blocked = dir.path().join(".checkpoint-5.unfinished");
    let arguments = random_arguments(dir.path());
    let result: Result<Trained<B, _>> = Trainer::new(model(), arguments, pairs(), mnrl())
        .with_listener(move |event| {
            if let TrainingEvent::Step { record, .. } = event
                && record.step == 4
            {
                fs::write(&blocked, "in the way").unwrap();
            }
        })
        .train();
    assert!(matches!(
        result,
        Err(Error::Training(TrainingError::Io { .. }))
    ));
    assert_eq!(
        History::read(dir.path().join("history.jsonl"))
            .unwrap()
            .records()
            .len(),
        5
    );
}
