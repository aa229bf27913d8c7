//! One model, many threads, and adapters that are swapped under them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, RwLock, mpsc};
use std::thread;
use std::time::Duration;

use sentence_burn::{AdapterChoice, EncodeOptions, LoadAdapterOptions};

use crate::{Model, alone, base, fixture, values};

const THREADS: usize = 16;
const ROUNDS: usize = 40;

/// How long everything may take before it counts as a deadlock.
const PATIENCE: Duration = Duration::from_secs(300);

const TEXTS: [&str; 5] = [
    "the quick brown fox",
    "jumps over the lazy dog",
    "a",
    "",
    "the fox and the dog and the fox and the dog",
];

fn with_two_adapters() -> Model {
    let mut model = base();
    for name in ["bare", "rslora"] {
        let options = LoadAdapterOptions {
            name: name.to_owned(),
            ..LoadAdapterOptions::default()
        };
        let folder = fixture("tiny_lora").join(name);
        model.load_adapter_with(folder, &options).unwrap();
    }
    model
}

/// Runs work in a thread of its own, and fails where it has no end.
fn with_a_watchdog(work: impl FnOnce() + Send + 'static) {
    let (done, waits) = mpsc::channel::<()>();
    let worker = thread::spawn(move || {
        work();
        drop(done);
    });
    match waits.recv_timeout(PATIENCE) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("no end: a deadlock"),
        _ => worker.join().unwrap(),
    }
}

#[test]
fn what_many_threads_encode_is_what_the_adapter_of_that_moment_gives() {
    let _alone = alone();
    let mut model = with_two_adapters();
    let mut serial = |names: &[&str]| {
        model.set_adapter(names).unwrap();
        TEXTS.map(|text| values(&model, &[text, "the dog"]))
    };
    let states: [&[&str]; 3] = [&["bare"], &["rslora"], &["bare", "rslora"]];
    let expected = states.map(&mut serial);
    assert!(expected[0] != expected[1] && expected[1] != expected[2]);
    with_a_watchdog(move || {
        let shared = Arc::new(RwLock::new(model));
        let (ended, seen) = (AtomicBool::new(false), AtomicUsize::new(0));
        let states_seen = thread::scope(|scope| {
            let readers: Vec<_> = (0..THREADS)
                .map(|thread| {
                    let (shared, expected, seen) = (shared.clone(), &expected, &seen);
                    scope.spawn(move || {
                        let mut found = BTreeSet::new();
                        for round in 0..ROUNDS {
                            let model = shared.read().unwrap();
                            let active = model.active_adapters().unwrap();
                            let state = states.iter().position(|names| active == *names);
                            let state = state.unwrap();
                            let text = (thread + round) % TEXTS.len();
                            let embeddings = values(&model, &[TEXTS[text], "the dog"]);
                            assert_eq!(embeddings, expected[state][text], "{active:?}");
                            found.insert(state);
                            seen.fetch_add(1, SeqCst);
                            drop(model);
                            thread::yield_now();
                        }
                        found
                    })
                })
                .collect();
            scope.spawn(|| {
                let mut round = 0;
                while !ended.load(SeqCst) {
                    let mut model = shared.write().unwrap();
                    model.set_adapter(states[round % states.len()]).unwrap();
                    // And now and then into the weights and out of them again.
                    if round % 5 == 0 {
                        model.merge_adapter().unwrap();
                        model.unmerge_adapter().unwrap();
                    }
                    drop(model);
                    round += 1;
                    thread::sleep(Duration::from_millis(1));
                }
            });
            let found = readers.into_iter().map(|reader| reader.join());
            let found: Vec<_> = found.collect();
            ended.store(true, SeqCst);
            found
        });
        let states_seen: BTreeSet<usize> =
            states_seen.into_iter().flat_map(Result::unwrap).collect();
        assert_eq!(seen.load(SeqCst), THREADS * ROUNDS);
        assert_eq!(states_seen.len(), 3, "the adapters were swapped meanwhile");
    });
}

#[test]
fn threads_that_each_choose_their_adapter_need_no_lock() {
    let _alone = alone();
    let model = with_two_adapters();
    let choose = |name: &str| EncodeOptions {
        adapters: Some(AdapterChoice::all([name])),
        ..EncodeOptions::default()
    };
    let encode = move |model: &Model, name: &str| -> Vec<f32> {
        let embeddings = model.encode_with(&TEXTS, &choose(name)).unwrap();
        embeddings.into_data().to_vec().unwrap()
    };
    let names = ["bare", "rslora"];
    let expected = names.map(|name| encode(&model, name));
    assert_ne!(expected[0], expected[1]);
    with_a_watchdog(move || {
        thread::scope(|scope| {
            for thread in 0..THREADS {
                let (model, expected) = (&model, &expected);
                scope.spawn(move || {
                    for round in 0..ROUNDS / 4 {
                        let choice = (thread + round) % 2;
                        assert_eq!(encode(model, names[choice]), expected[choice]);
                    }
                });
            }
        });
    });
}
