//! One model on one device, and several threads that encode with it.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{RwLock, mpsc};
use std::thread;

use burn::tensor::{DType, FloatDType, backend::Backend};
use sentence_burn::{AdapterChoice, EncodeOptions, LoadAdapterOptions, SentenceTransformer};

use crate::backend_under_test::{TestBackend, device};
use crate::fixture::{assert_far, json, load, max_difference, path, strings, values};

const THREADS: usize = 4;
const ROUNDS: usize = 12;
const NAMES: [&str; 2] = ["bare", "rslora"];

fn with_two_adapters() -> SentenceTransformer<TestBackend> {
    let mut model = load("tiny_bert/v6");
    for name in NAMES {
        let options = LoadAdapterOptions {
            name: name.to_owned(),
            ..LoadAdapterOptions::default()
        };
        let folder = path("tiny_lora").join(name);
        model.load_adapter_with(folder, &options).unwrap();
    }
    model
}

fn by(name: &str) -> EncodeOptions {
    EncodeOptions {
        batch_size: 4,
        adapters: Some(AdapterChoice::all([name])),
        ..EncodeOptions::default()
    }
}

/// What threads share is computed as if one had it alone, and the device outlives them all.
#[test]
fn a_model_is_loaded_by_one_thread_and_used_by_others() {
    let texts = strings(&json("tiny_bert/expected.json")["texts"]);
    let model = thread::spawn(with_two_adapters).join().unwrap();
    let expected = NAMES.map(|name| values(model.encode_with(&texts, &by(name)).unwrap()));
    assert_far(&expected[0], &expected[1], "the other adapter");
    thread::scope(|scope| {
        for thread in 0..THREADS {
            let (model, texts, expected) = (&model, &texts, &expected);
            scope.spawn(move || {
                for round in 0..ROUNDS {
                    let choice = (thread + round) % NAMES.len();
                    let options = by(NAMES[choice]);
                    let found = match round % 3 {
                        0 => {
                            let rows = model.encode_stream(texts, &options).unwrap();
                            rows.flat_map(Result::unwrap).collect()
                        }
                        // A model of this thread's own beside that of all.
                        1 => values(with_two_adapters().encode_with(texts, &options).unwrap()),
                        _ => values(model.encode_with(texts, &options).unwrap()),
                    };
                    let difference = max_difference(&found, &expected[choice]);
                    assert!(difference <= 1e-5, "{difference}");
                }
            });
        }
    });
    drop(model);
    let alone = with_two_adapters();
    let again = values(alone.encode_with(&texts, &by(NAMES[0])).unwrap());
    assert!(max_difference(&again, &expected[0]) <= 1e-5);
}

/// What is encoded between two swaps is that of the adapter of then.
#[test]
fn adapters_are_swapped_and_merged_by_one_thread_while_others_encode() {
    let texts = strings(&json("tiny_bert/expected.json")["texts"]);
    let mut model = with_two_adapters();
    let expected = NAMES.map(|name| {
        model.set_adapter(&[name]).unwrap();
        values(model.encode(&texts).unwrap())
    });
    assert_far(&expected[0], &expected[1], "the other adapter");
    let (shared, ended) = (RwLock::new(model), AtomicBool::new(false));
    thread::scope(|scope| {
        let read = || {
            for _ in 0..ROUNDS {
                let model = shared.read().unwrap();
                let active = model.active_adapters().unwrap();
                let active = NAMES.iter().position(|name| active == [*name]).unwrap();
                let found = values(model.encode(&texts).unwrap());
                let difference = max_difference(&found, &expected[active]);
                assert!(difference <= 1e-5, "{difference}");
                drop(model);
                thread::yield_now();
            }
        };
        let readers: Vec<_> = (1..THREADS).map(|_| scope.spawn(read)).collect();
        scope.spawn(|| {
            for name in NAMES.iter().cycle() {
                let mut model = shared.write().unwrap();
                model.set_adapter(&[name]).unwrap();
                model.merge_adapter().unwrap();
                drop(model);
                if ended.load(SeqCst) {
                    break;
                }
                thread::yield_now();
            }
        });
        let results: Vec<_> = readers.into_iter().map(|reader| reader.join()).collect();
        ended.store(true, SeqCst);
        assert!(results.iter().all(Result::is_ok));
    });
}

/// The thread that loads goes on to the next model while another changes the one before, whose
/// weights it makes way for.
#[test]
fn a_model_is_changed_by_a_thread_while_that_which_loaded_it_is_at_the_next() {
    let texts = strings(&json("tiny_bert/expected.json")["texts"]);
    let is_half = TestBackend::supports_dtype(&device(), DType::F16);
    let float_type = match is_half {
        true => FloatDType::F16,
        false => FloatDType::F32,
    };
    let change = |model: SentenceTransformer<TestBackend>| {
        let mut model = model.with_float_type(float_type).unwrap();
        model.merge_adapter().unwrap();
        values(model.encode(&texts).unwrap())
    };
    let expected = change(with_two_adapters());
    let base = values(load("tiny_bert/v6").encode(&texts).unwrap());
    assert_far(&expected, &base, "no adapter");
    let (loaded, models) = mpsc::sync_channel(1);
    let loader = thread::spawn(move || {
        for _ in 0..ROUNDS {
            loaded.send(with_two_adapters()).unwrap();
        }
    });
    for model in models {
        let found = change(model);
        let difference = max_difference(&found, &expected);
        assert!(difference <= 1e-5, "{difference}");
    }
    loader.join().unwrap();
}
