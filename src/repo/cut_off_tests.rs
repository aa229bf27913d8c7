//! Saves that end at every place where they can.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use burn::backend::NdArray;

use super::interruption::{process_that_ends_at, stop_at_the_place_of_this_process};
use super::{LoadAdapterOptions, SaveOptions};
use crate::model::SentenceTransformer;

type Model = SentenceTransformer<NdArray>;

const FOLDER: &str = "SENTENCE_BURN_TEST_FOLDER";
const KIND: &str = "SENTENCE_BURN_TEST_KIND";
const TEST: &str = "repo::cut_off_tests::the_process_that_is_cut_off";

fn fixture(name: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    fixtures.join(name)
}

fn load(folder: &Path) -> Model {
    Model::load(folder, &Default::default()).unwrap()
}

fn with_adapter(name: &str) -> Model {
    let mut model = load(&fixture("tiny_bert/v6"));
    model.load_adapter(fixture(name)).unwrap();
    model
}

fn embed(model: &Model) -> Vec<f32> {
    let embeddings = model
        .encode(&["the quick brown fox", "a lazy dog"])
        .unwrap();
    embeddings.into_data().iter().collect()
}

/// Saves a model of other modules, whose weights lie in several files.
fn save_other(folder: &Path) {
    let options = SaveOptions {
        max_shard_size: 15_000,
        ..SaveOptions::default()
    };
    let model = load(&fixture("tiny_bert/dense"));
    model.save_with(folder, &options).unwrap();
}

#[test]
fn the_process_that_is_cut_off() {
    let Some(folder) = env::var_os(FOLDER) else {
        return;
    };
    let model = match env::var(KIND).unwrap().as_str() {
        "adapter" => Some(with_adapter("tiny_lora/rslora")),
        _ => None,
    };
    stop_at_the_place_of_this_process();
    match model {
        Some(model) => model.save_adapter(&folder).unwrap(),
        None => save_other(Path::new(&folder)),
    }
}

/// Cuts saving off at each place; `found` is what a folder that was written to is worth.
fn cut_off_everywhere(kind: &str, save_old: impl Fn(&Path), found: impl Fn(&Path) -> Vec<f32>) {
    let (mut were_old, mut were_new) = (0, 0);
    let (old, new) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    save_old(old.path());
    save_old(new.path());
    let told = |folder: &Path| {
        let folder = folder.to_str().unwrap().to_owned();
        [(FOLDER, folder), (KIND, kind.to_owned())]
    };
    let ends_at = |place, folder: &Path| {
        let told = told(folder);
        let told: Vec<(&str, &str)> = told.iter().map(|(k, v)| (*k, v.as_str())).collect();
        process_that_ends_at(place, TEST, &told)
    };
    assert!(!ends_at(usize::MAX, new.path()));
    let (old, new) = (found(old.path()), found(new.path()));
    assert_ne!(old, new);
    for place in 1.. {
        let folder = tempfile::tempdir().unwrap();
        save_old(folder.path());
        if !ends_at(place, folder.path()) {
            break;
        }
        let found = found(folder.path());
        were_old += usize::from(found == old);
        were_new += usize::from(found == new);
        assert!(found == old || found == new, "{kind} {place}");
    }
    assert!(
        were_old > 10 && were_new > 0,
        "{kind}: {were_old} old, {were_new} new"
    );
}

#[test]
fn a_model_saved_over_another_is_one_of_both_wherever_it_was_cut_off() {
    cut_off_everywhere(
        "model",
        |folder| load(&fixture("tiny_bert/v6")).save(folder).unwrap(),
        |folder| embed(&load(folder)),
    );
}

#[test]
fn an_adapter_saved_over_another_is_one_of_both_wherever_it_was_cut_off() {
    cut_off_everywhere(
        "adapter",
        |folder| with_adapter("tiny_lora/bare").save_adapter(folder).unwrap(),
        |folder| {
            let mut model = load(&fixture("tiny_bert/v6"));
            let options = LoadAdapterOptions::default();
            model.load_adapter_with(folder, &options).unwrap();
            embed(&model)
        },
    );
}

#[test]
fn a_first_save_that_was_cut_off_is_a_model_or_none() {
    let mut whole = 0;
    for place in 1.. {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model");
        let told = [(FOLDER, path.to_str().unwrap()), (KIND, "model")];
        let cut_off = process_that_ends_at(place, TEST, &told);
        // The next save goes through whatever was left.
        match Model::load(&path, &Default::default()) {
            Ok(model) => {
                whole += 1;
                assert_eq!(embed(&model), embed(&load(&fixture("tiny_bert/dense"))));
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
        if !cut_off {
            break;
        }
        if place % 8 == 0 {
            save_other(&path);
            assert_eq!(
                embed(&load(&path)),
                embed(&load(&fixture("tiny_bert/dense")))
            );
        }
        drop(fs::remove_dir_all(&path));
    }
    assert!(whole > 0);
}
