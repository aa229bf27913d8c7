//! Texts that are very long, very many, or hardly texts.

use std::fs;

use sentence_burn::error::{Error, RepoError};
use sentence_burn::training::Dataset;

use crate::memory::asked_by;
use crate::{alone, base, values};

fn distance(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let differences = a.iter().zip(b).map(|(a, b)| (a - b).abs());
    differences.fold(0.0, f32::max)
}

#[test]
fn a_text_of_ten_megabytes_is_cut_as_any_other() {
    let _alone = alone();
    let model = base();
    let long = "the quick brown fox ".repeat(500_000);
    assert_eq!(long.len(), 10_000_000);
    let (found, asked) = asked_by(|| values(&model, &[&long]));
    assert_eq!(found, values(&model, &[&long[..10_000]]));
    assert!(asked.at_once < 1 << 30, "{asked:?}");
    // One word of as many letters, which no vocabulary has.
    let word = "x".repeat(10_000_000);
    assert_eq!(values(&model, &[&word]), values(&model, &[&word[..1000]]));
}

#[test]
fn a_hundred_thousand_texts_are_each_encoded_as_alone() {
    let _alone = alone();
    let model = base();
    let words = ["the", "quick", "brown", "fox", "lazy", "dog"];
    let texts: Vec<String> = (0..100_000)
        .map(|number: usize| {
            let length = 1 + number % 4;
            let words = (0..length).map(|place| words[(number / 4 + place * place) % words.len()]);
            words.collect::<Vec<_>>().join(" ")
        })
        .collect();
    let embeddings = model.encode(&texts).unwrap();
    let [rows, dim] = embeddings.dims();
    assert_eq!(rows, texts.len());
    let found: Vec<f32> = embeddings.into_data().to_vec().unwrap();
    for index in [0, 1, 2, 3, 4, 49_999, 50_001, 99_998, 99_999] {
        let alone = values(&model, &[&texts[index]]);
        let row = &found[index * dim..(index + 1) * dim];
        assert!(distance(row, &alone) < 1e-5, "{index}");
    }
    assert!(distance(&found[..dim], &found[dim..2 * dim]) > 1e-3);
}

#[test]
fn control_characters_and_what_is_no_character_are_read_as_bert_reads_them() {
    let _alone = alone();
    let model = base();
    let plain = values(&model, &["the quick fox"]);
    // BERT drops control characters, and takes every white space for a space.
    for same in [
        "the\u{0} quick\u{1b} fox",
        "the quick\u{fffd} fox",
        "\tthe\r\nquick\u{a0}fox\n",
        "the quick\u{200b}\u{ad} fox",
    ] {
        assert!(
            distance(&values(&model, &[same]), &plain) < 1e-6,
            "{same:?}"
        );
    }
    for other in ["\u{10ffff}\u{e000}", "🦊🦊🦊", "é́́́́́", "\u{202e}xof"] {
        assert!(
            values(&model, &[other])
                .iter()
                .all(|value| value.is_finite())
        );
    }
}

#[test]
fn half_a_character_in_json_is_named_by_its_line() {
    let _alone = alone();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pairs.jsonl");
    for half in ["\\ud800", "\\udfff x", "\\ud800\\ud800"] {
        let good = r#"{"anchor": "a", "positive": "b"}"#;
        let bad = format!(r#"{{"anchor": "{half}", "positive": "b"}}"#);
        fs::write(&path, format!("{good}\n{bad}\n")).unwrap();
        let error = Dataset::from_jsonl(&path).unwrap_err();
        assert!(
            matches!(&error, Error::Repo(RepoError::InvalidLine { line: 2, .. })),
            "{error}"
        );
    }
    fs::write(
        &path,
        r#"{"anchor": "\ud83e\udd8a\u0000", "positive": "b"}"#,
    )
    .unwrap();
    let whole = Dataset::from_jsonl(&path).unwrap();
    assert_eq!(whole.columns()[0], ["🦊\0"]);
}
