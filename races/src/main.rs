//! What threads do with one model, for a sanitizer to look at; and races that it must see.

mod futex;
mod lock;

use std::cell::UnsafeCell;
use std::env;
use std::hint::black_box;
use std::panic;
use std::path::{Path, PathBuf};
use std::process::exit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use burn::backend::NdArray;
use rayon::prelude::*;
use sentence_burn::{AdapterChoice, EncodeOptions, LoadAdapterOptions, SentenceTransformer};

use lock::Lock;

type Model = SentenceTransformer<NdArray>;

const THREADS: usize = 16;

/// How often the adapters are swapped.
const SWAPS: usize = 100;

const TEXTS: [&str; 5] = [
    "the quick brown fox",
    "jumps over the lazy dog",
    "a",
    "",
    "the fox and the dog and the fox and the dog",
];

const ADAPTERS: [&str; 2] = ["bare", "rslora"];

fn main() {
    // Whoever waits for the thread that failed would do so forever.
    panic::set_hook(Box::new(|panic| {
        eprintln!("{panic}");
        exit(1);
    }));
    match env::args().nth(1).as_deref() {
        Some("encode") => {
            choose();
            swap(Ordering::AcqRel);
        }
        // What must be found: a lock that orders nothing, and two threads on one value.
        Some("weak-lock") => swap(Ordering::Relaxed),
        Some("shared-value") => shared_value(),
        _ => {
            eprintln!("encode, weak-lock or shared-value?");
            exit(2);
        }
    }
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fixtures")
        .join(name)
}

fn model() -> Model {
    let mut model = Model::load(fixture("tiny_bert/v6"), &Default::default()).unwrap();
    for name in ADAPTERS {
        let options = LoadAdapterOptions {
            name: name.to_owned(),
            ..LoadAdapterOptions::default()
        };
        let folder = fixture("tiny_lora").join(name);
        model.load_adapter_with(folder, &options).unwrap();
    }
    model
}

/// Threads that each choose their adapter.
fn choose() {
    let model = model();
    let encode = |name: &str| -> Vec<f32> {
        let options = EncodeOptions {
            adapters: Some(AdapterChoice::all([name])),
            ..EncodeOptions::default()
        };
        let embeddings = model.encode_with(&TEXTS, &options).unwrap();
        embeddings.into_data().to_vec().unwrap()
    };
    let expected = ADAPTERS.map(encode);
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (encode, expected) = (&encode, &expected);
                scope.spawn(move || {
                    for round in 0..10 {
                        let choice = (thread + round) % 2;
                        assert_eq!(encode(ADAPTERS[choice]), expected[choice]);
                    }
                })
            })
            .collect();
        // The end of a thread is seen where it is waited for, not where the scope ends.
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
    });
}

/// Threads that encode while another swaps and merges the adapters, behind a lock.
fn swap(order: Ordering) {
    let mut model = model();
    let states: [&[&str]; 3] = [&ADAPTERS[..1], &ADAPTERS[1..], &ADAPTERS];
    let encode = |model: &Model, text: &str| -> Vec<f32> {
        let embeddings = model.encode(&[text, "the dog"]).unwrap();
        embeddings.into_data().to_vec().unwrap()
    };
    let expected = states.map(|state| {
        model.set_adapter(state).unwrap();
        TEXTS.map(|text| encode(&model, text))
    });
    let (shared, ended) = (Lock::new(model, order), AtomicBool::new(false));
    thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let (shared, expected, ended) = (&shared, &expected, &ended);
                scope.spawn(move || {
                    for round in 0.. {
                        let text = (thread + round) % TEXTS.len();
                        shared.read(|model| {
                            let active = model.active_adapters().unwrap();
                            let state = states.iter().position(|state| active == *state);
                            assert_eq!(encode(model, TEXTS[text]), expected[state.unwrap()][text]);
                        });
                        if ended.load(Ordering::Relaxed) {
                            break;
                        }
                        thread::yield_now();
                    }
                })
            })
            .collect();
        for round in 0..SWAPS {
            shared.write(|model| {
                model.set_adapter(states[round % states.len()]).unwrap();
                if round % 5 == 0 {
                    model.merge_adapter().unwrap();
                    model.unmerge_adapter().unwrap();
                }
            });
            thread::sleep(Duration::from_millis(5));
        }
        ended.store(true, Ordering::Relaxed);
        threads
            .into_iter()
            .for_each(|thread| thread.join().unwrap());
    });
}

/// Values that the threads of the pool write without regard for each other.
struct Values(UnsafeCell<[f32; 64]>);

// SAFETY: none. This is the race that must be found.
unsafe impl Sync for Values {}

fn shared_value() {
    let values = Values(UnsafeCell::new([0.0; 64]));
    let shared = &values;
    (0..4000usize)
        .into_par_iter()
        .with_max_len(1)
        .for_each(|index| {
            black_box((0..2000).map(|number| number as f32).sum::<f32>());
            // SAFETY: none, as above.
            let value = unsafe { &mut (*shared.0.get())[index % 64] };
            *value += black_box(1.0);
        });
    println!("{}", values.0.into_inner().iter().sum::<f32>());
}
