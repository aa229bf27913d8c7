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
