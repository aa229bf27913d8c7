//! Files of texts: every format, changed.

use std::fs;
use std::path::Path;

use sentence_burn::data::{count_rows, read_rows};
use sentence_burn::evaluation::{
    EmbeddingSimilarityEvaluator, InformationRetrievalEvaluator, TripletEvaluator,
};
use sentence_burn::training::{Dataset, IterableDataset};

use crate::mutation;
use crate::trial::Trials;
use crate::{alone, copy_of, fixture};

#[test]
fn data_files_of_every_format_changed_are_rows_or_an_error() {
    let _alone = alone();
    let (mut trials, mut rng) = (Trials::new(), mutation::rng(21));
    let folder = tempfile::tempdir().unwrap();
    for name in [
        "pairs.brotli.parquet",
        "pairs.csv",
        "pairs.gzip.parquet",
        "pairs.json",
        "pairs.jsonl",
        "pairs.jsonl.gz",
        "pairs.lz4.parquet",
        "pairs.none.parquet",
        "pairs.snappy.parquet",
        "pairs.tsv",
        "pairs.zstd.parquet",
        "types.parquet",
    ] {
        let bytes = fs::read(fixture("data_files").join(name)).unwrap();
        let path = folder.path().join(name);
        let mut mutants = mutation::bytes(&bytes, 400, &mut rng);
        if name.ends_with(".json") {
            mutants.extend(mutation::json(&bytes, 100, &mut rng));
            mutants.extend(mutation::broken_json(&bytes));
        }
        for (what, mutant) in mutants {
            fs::write(&path, &mutant).unwrap();
            trials.run(&format!("{name}: {what}"), mutant.len(), || {
                let counted = count_rows(&path, None);
                for row in read_rows(&path, None, &[])? {
                    let _ = row.map(|row| row.values.len());
                }
                let _ = IterableDataset::from_file(&path).map(|set| set.samples(0).count());
                Dataset::from_file(&path)?;
                counted.map(|_| ())
            });
        }
    }
    trials.finish(500);
}

/// The bytes of a number in the parquet format's headers.
fn number(value: u32) -> Vec<u8> {
    let mut left = u64::from(value) << 1;
    let mut bytes = Vec::new();
    while left > 0x7f {
        bytes.push(left as u8 | 0x80);
        left >>= 7;
    }
    bytes.push(left as u8);
    bytes
}

/// A file whose first page says that it becomes so many bytes; all else keeps its place.
fn with_page_of(bytes: &[u8], uncompressed: u32) -> Vec<u8> {
    // Behind the magic: the page's type, its sizes of two bytes each, and the dictionary's
    // own header.
    let (head, sizes, rest) = (6, 12, 20);
    assert_eq!((bytes[head], bytes[head + 3]), (0x15, 0x15));
    let compressed = u32::from(bytes[10] & 0x7f) | u32::from(bytes[11]) << 7;
    let end = rest + compressed as usize / 2;
    let claim = number(uncompressed);
    let longer = claim.len() - 2;
    let mut changed = bytes[..=head].to_vec();
    changed.extend(claim);
    changed.push(0x15);
    changed.extend(number(compressed / 2 - longer as u32));
    changed.extend(&bytes[sizes..end - longer]);
    changed.extend(&bytes[end..]);
    assert_eq!(changed.len(), bytes.len());
    changed
}

#[test]
fn a_page_that_says_it_becomes_gigabytes_is_refused() {
    let _alone = alone();
    let mut trials = Trials::new();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("claim.parquet");
    for codec in ["snappy", "zstd", "gzip", "lz4"] {
        let bytes = fs::read(fixture(&format!("data_files/pairs.{codec}.parquet"))).unwrap();
        for claim in [i32::MAX as u32, 1 << 30, 100 << 20] {
            let claimed = with_page_of(&bytes, claim);
            fs::write(&path, &claimed).unwrap();
            let what = format!("{codec}: {claim}");
            trials.run(&what, claimed.len(), || {
                let error = read_rows(&path, None, &[])?.find_map(Result::err).unwrap();
                let text = error.to_string();
                assert!(text.contains(&format!("become {claim}")), "{text}");
                Err(error)
            });
        }
    }
    trials.finish(12);
}

#[test]
fn evaluation_files_changed_are_an_evaluator_or_an_error() {
    let _alone = alone();
    let (mut trials, mut rng) = (Trials::new(), mutation::rng(22));
    let folder = copy_of("evaluation/ir");
    for file in ["corpus.jsonl", "queries.jsonl", "qrels.tsv"] {
        let path = folder.path().join(file);
        let before = fs::read(&path).unwrap();
        for (what, mutant) in mutation::bytes(&before, 200, &mut rng) {
            fs::write(&path, &mutant).unwrap();
            trials.run(&format!("{file}: {what}"), mutant.len(), || {
                InformationRetrievalEvaluator::from_folder(folder.path()).map(|_| ())
            });
        }
        fs::write(&path, before).unwrap();
    }
    for (name, triplets) in [
        ("evaluation/sts.jsonl", false),
        ("evaluators/triplets.jsonl", true),
    ] {
        let bytes = fs::read(fixture(name)).unwrap();
        let path = folder.path().join("file.jsonl");
        for (what, mutant) in mutation::bytes(&bytes, 300, &mut rng) {
            fs::write(&path, &mutant).unwrap();
            trials.run(
                &format!("{name}: {what}"),
                mutant.len(),
                || match triplets {
                    true => TripletEvaluator::from_jsonl(&path).map(|_| ()),
                    false => EmbeddingSimilarityEvaluator::from_jsonl(&path).map(|_| ()),
                },
            );
        }
    }
    trials.finish(200);
}

#[test]
fn what_the_fuzzer_found_is_an_error() {
    let _alone = alone();
    let mut trials = Trials::new();
    let found = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/robustness/found");
    let mut files = 0;
    for entry in fs::read_dir(found).unwrap() {
        let path = entry.unwrap().path();
        files += 1;
        trials.run(&path.display().to_string(), 1 << 16, || {
            for row in read_rows(&path, None, &[])? {
                row?;
            }
            Ok(())
        });
    }
    trials.finish(files);
}
