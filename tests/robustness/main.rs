//! Nothing lost, nothing let in: files, numbers and faults that no one wishes for.
//!
//! Whatever a file holds, loading it gives a model or a named error: no panic, no memory that
//! the file's own size does not explain, and no endless loop. Whatever goes wrong while a
//! folder is written, what it held before still loads.

// Burn trains on no CPU backend with `ddp`.
#![cfg(not(feature = "ddp"))]

mod adapters;
mod data_files;
mod faults;
mod memory;
mod models;
mod mutation;
mod numbers;
mod run_files;
mod soak;
mod texts;
mod threads;
mod trial;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use burn::backend::NdArray;
use sentence_burn::{HubOptions, LoadOptions, SentenceTransformer};

type Model = SentenceTransformer<NdArray>;

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(path)
}

/// Memory is counted for the whole process: tests go one at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.path().is_dir() {
            true => copy(&entry.path(), &target),
            false => fs::copy(entry.path(), target).map(|_| ()).unwrap(),
        }
    }
}

/// A copy of a fixture's folder.
fn copy_of(name: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(&fixture(name), folder.path());
    folder
}

fn load(folder: &Path) -> sentence_burn::Result<Model> {
    Model::load_with(folder, &offline(), &Default::default())
}

/// Options that never ask a network, whatever name a file comes up with.
fn offline() -> LoadOptions {
    LoadOptions {
        hub: offline_hub(),
        ..LoadOptions::default()
    }
}

fn offline_hub() -> HubOptions {
    HubOptions {
        local_files_only: true,
        cache_dir: Some(std::env::temp_dir().join("no-such-cache")),
        ..HubOptions::default()
    }
}

fn base() -> Model {
    load(&fixture("tiny_bert/v6")).unwrap()
}

fn values(model: &Model, texts: &[&str]) -> Vec<f32> {
    model.encode(texts).unwrap().into_data().to_vec().unwrap()
}
