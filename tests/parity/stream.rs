//! Encoding texts as they come: the same embeddings, and never more than a window read ahead.

use std::cell::Cell;
use std::sync::{Arc, Mutex};

use sentence_burn::error::{Error, ModelError};
use sentence_burn::{AdapterChoice, EncodeOptions, LoadAdapterOptions, Prompt};

use crate::fixture::{TOLERANCE, assert_far, json, load, max_difference, path, strings, values};

/// The windows that a device is given before one is read from it.
const AHEAD: usize = cfg!(any(
    feature = "test-wgpu",
    feature = "test-cuda",
    feature = "test-rocm"
)) as usize;

fn texts() -> Vec<String> {
    strings(&json("tiny_bert/expected.json")["texts"])
}

#[test]
fn a_stream_gives_what_a_call_gives_in_windows_of_any_size() {
    let model = load("tiny_bert/dense");
    let texts: Vec<String> = texts().into_iter().cycle().take(45).collect();
    let plain = EncodeOptions {
        batch_size: 4,
        ..EncodeOptions::default()
    };
    let options = EncodeOptions {
        prompt: Some(Prompt::text("query: ")),
        truncate_dim: Some(5),
        normalize: true,
        ..plain.clone()
    };
    for options in [&plain, &options] {
        let expected = values(model.encode_with(&texts, options).unwrap());
        for window in [0, 1, 7, 15, 45, 1000] {
            let stream = model.encode_stream(&texts, options).unwrap();
            let rows: Vec<Vec<f32>> = stream.with_window(window).map(Result::unwrap).collect();
            assert_eq!(rows.len(), 45);
            assert!(max_difference(&rows.concat(), &expected) <= TOLERANCE);
            let mut shifted = rows.concat();
            shifted.rotate_left(rows[0].len());
            assert_far(&shifted, &expected, "another text's embedding");
        }
    }
    let windows = model.encode_stream(&texts, &plain).unwrap();
    let windows = windows.with_window(20).by_window();
    let counts: Vec<usize> = windows.map(|rows| rows.unwrap().dims()[0]).collect();
    assert_eq!(counts, [20, 20, 5]);
    assert_eq!(model.encode_stream([""; 0], &plain).unwrap().count(), 0);
}

#[test]
fn a_device_is_given_the_next_window_before_one_is_read_from_it() {
    let model = load("modules/static");
    let read = Cell::new(0);
    let texts = (0..50).map(|i| {
        read.set(i + 1);
        "a dog"
    });
    let options = EncodeOptions::default();
    let mut stream = model
        .encode_stream(texts, &options)
        .unwrap()
        .with_window(10);
    assert_eq!(read.get(), 0);
    stream.next().unwrap().unwrap();
    assert_eq!(read.get(), 10 + 10 * AHEAD);
    let rest: Vec<_> = stream.by_ref().take(14).map(Result::unwrap).collect();
    assert_eq!(rest.len(), 14);
    assert_eq!(read.get(), 20 + 10 * AHEAD);
    // A window that was begun is not lost where windows are asked for from there on.
    let windows = stream.by_window().map(|window| window.unwrap().dims()[0]);
    assert_eq!(windows.collect::<Vec<_>>(), [10, 10, 10]);
    assert_eq!(read.get(), 50);
}

#[test]
fn a_hundred_thousand_texts_are_read_a_window_at_a_time() {
    const TEXTS: usize = 100_000;
    const WINDOW: usize = 4096;
    let model = load("modules/static");
    let words = ["a", "dog", "science", "of", "river", "the", "life"];
    let text = |i: usize| format!("{} {}", words[i % 7], words[i / 7 % 7]);
    let read = Cell::new(0);
    let input = (0..TEXTS).map(|i| {
        read.set(i + 1);
        text(i)
    });
    let options = EncodeOptions {
        batch_size: 512,
        ..EncodeOptions::default()
    };
    let few: Vec<String> = (0..49).map(text).collect();
    let expected = values(model.encode(&few).unwrap());
    let dim = expected.len() / 49;
    let stream = model.encode_stream(input, &options).unwrap();
    assert_eq!(read.get(), 0);
    let mut rows = 0;
    for row in stream.with_window(WINDOW) {
        let row = row.unwrap();
        let place = rows % 49;
        assert!(max_difference(&row, &expected[place * dim..][..dim]) <= TOLERANCE);
        rows += 1;
        let windows = rows.div_ceil(WINDOW) + AHEAD;
        assert_eq!(read.get(), (windows * WINDOW).min(TEXTS), "at row {rows}");
    }
    assert_eq!(rows, TEXTS);
}

#[test]
fn adapters_by_text_are_those_of_all_texts() {
    let mut model = load("tiny_bert/v6");
    for name in ["default", "rslora"] {
        let options = LoadAdapterOptions {
            name: name.to_owned(),
            ..LoadAdapterOptions::default()
        };
        model
            .load_adapter_with(path(&format!("tiny_lora/{name}")), &options)
            .unwrap();
    }
    let texts = texts();
    let names = ["default", "__base__", "rslora"];
    let choose = |count: usize| EncodeOptions {
        adapters: Some(AdapterChoice::by_text(
            names.iter().copied().cycle().take(count),
        )),
        ..EncodeOptions::default()
    };
    let expected = values(model.encode_with(&texts, &choose(texts.len())).unwrap());
    let plain = values(model.encode(&texts).unwrap());
    assert_far(&expected, &plain, "one adapter for all");
    let stream = |options: &EncodeOptions| {
        let stream = model.encode_stream(&texts, options).unwrap();
        stream.with_window(5).collect::<Vec<_>>()
    };
    let rows: Result<Vec<_>, _> = stream(&choose(texts.len())).into_iter().collect();
    assert!(max_difference(&rows.unwrap().concat(), &expected) <= TOLERANCE);

    // One too few and one too many: an error where it is noticed, and the end.
    assert_eq!(texts.len(), 10);
    for (count, good) in [(9, 5), (11, 10)] {
        let found = stream(&choose(count));
        assert_eq!(found.len(), good + 1, "{count} lists");
        assert!(found[..good].iter().all(Result::is_ok));
        assert!(matches!(
            &found[good],
            Err(Error::Model(ModelError::InvalidOption {
                option: "adapters",
                ..
            }))
        ));
    }
}

#[test]
fn progress_goes_on_from_window_to_window() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&seen);
    let options = EncodeOptions {
        batch_size: 2,
        progress: Some(Arc::new(move |progress| {
            record.lock().unwrap().push(progress)
        })),
        ..EncodeOptions::default()
    };
    let model = load("tiny_bert/v6");
    let stream = model.encode_stream(texts(), &options).unwrap();
    assert_eq!(stream.with_window(4).count(), 10);
    let seen = seen.lock().unwrap();
    let texts: Vec<_> = seen.iter().map(|p| (p.texts, p.total_texts)).collect();
    assert_eq!(texts, [(2, 4), (4, 4), (6, 8), (8, 8), (10, 10)]);
    assert!(seen.is_sorted_by_key(|p| p.tokens));
    assert!(seen.last().is_some_and(|p| p.tokens == p.total_tokens));
}

#[test]
fn an_option_out_of_range_is_an_error_before_any_text_is_read() {
    let options = EncodeOptions {
        batch_size: 0,
        ..EncodeOptions::default()
    };
    let never = std::iter::from_fn(|| -> Option<String> { panic!("a text is read") });
    let model = load("tiny_bert/v6");
    assert!(model.encode_stream(never, &options).is_err());
}
