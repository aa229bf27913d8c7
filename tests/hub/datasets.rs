//! Data sets from a hub that runs in the test.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use burn::backend::NdArray;
use sentence_burn::SentenceTransformer;
use sentence_burn::data::HubDataset;
use sentence_burn::error::{DataError, Error, HubError};
use sentence_burn::evaluation::{Evaluator, NanoBeirEvaluator, NanoBeirOptions};
use sentence_burn::repo::hub::HubOptions;
use sentence_burn::training::{Dataset, DatasetOptions, HubDatasetOptions, IterableDataset};

use serde_json::json;

use crate::server::{Hub, HubServer};

const ID: &str = "owner/pairs";
const COMMIT: &str = "3333333333333333333333333333333333333333";
const CONVERTED: &str = "4444444444444444444444444444444444444444";

fn lines(split: &str, count: usize) -> Vec<u8> {
    let line = |i| format!("{{\"question\": \"{split} {i}\", \"answer\": \"answer {i}\"}}\n");
    (0..count).map(line).collect::<String>().into_bytes()
}

fn fixture(path: &str) -> Vec<u8> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    fs::read(fixtures.join(path)).unwrap()
}

struct Setup {
    server: HubServer,
    cache: tempfile::TempDir,
}

impl Setup {
    fn new<const N: usize>(files: [(&str, Vec<u8>); N]) -> Self {
        Self::with(files, |_| ())
    }

    fn with<const N: usize>(files: [(&str, Vec<u8>); N], change: impl FnOnce(&mut Hub)) -> Self {
        let files = files.map(|(path, content)| (path.to_owned(), content));
        let mut hub = Hub {
            id: ID.to_owned(),
            dataset: true,
            commit: COMMIT.to_owned(),
            files: files.into(),
            ..Hub::default()
        };
        change(&mut hub);
        Self {
            server: HubServer::start(hub),
            cache: tempfile::tempdir().unwrap(),
        }
    }

    fn hub(&self) -> HubOptions {
        HubOptions {
            endpoint: self.server.endpoint(),
            cache_dir: Some(self.cache.path().to_owned()),
            retries: 1,
            ..HubOptions::default()
        }
    }

    fn options(&self, config: Option<&str>, split: &str) -> HubDatasetOptions {
        HubDatasetOptions {
            config: config.map(str::to_owned),
            split: split.to_owned(),
            hub: self.hub(),
            files: DatasetOptions::default(),
        }
    }

    fn offline(&self, config: Option<&str>, split: &str) -> HubDatasetOptions {
        let mut options = self.options(config, split);
        options.hub.local_files_only = true;
        options
    }

    fn read(&self, config: Option<&str>, split: &str) -> sentence_burn::Result<Dataset> {
        Dataset::from_hub(ID, &self.options(config, split))
    }

    /// The first column's texts.
    fn questions(&self, config: Option<&str>, split: &str) -> Vec<String> {
        self.read(config, split).unwrap().columns()[0].clone()
    }
}

fn by_name() -> Setup {
    Setup::new([
        ("README.md", b"# No header\n".to_vec()),
        ("script.py", b"pass\n".to_vec()),
        ("train.jsonl", lines("train", 10)),
        ("test.jsonl", lines("test", 4)),
    ])
}

#[test]
fn a_split_is_found_by_its_name_and_nothing_else_is_downloaded() {
    let setup = by_name();
    assert_eq!(setup.questions(None, "train").len(), 10);
    // The card and the one file.
    assert_eq!(setup.server.take_requests().0, 2);
    assert_eq!(setup.questions(None, "train")[9], "train 9");
    assert_eq!(setup.server.take_requests().0, 0);
    let folder = setup.cache.path().join("datasets--owner--pairs");
    assert!(
        folder
            .join("snapshots")
            .join(COMMIT)
            .join("train.jsonl")
            .is_file()
    );
    assert!(
        !folder
            .join("snapshots")
            .join(COMMIT)
            .join("test.jsonl")
            .exists()
    );
}

#[test]
fn a_file_that_came_broken_is_completed() {
    let setup = Setup::with([("train.jsonl", lines("train", 10))], |hub| {
        hub.drops.insert("train.jsonl".to_owned(), 1);
        hub.flips.insert("train.jsonl".to_owned(), 1);
    });
    assert_eq!(setup.questions(None, "train")[0], "train 0");
    let requests = setup.server.hub().requests.clone();
    let ranges = requests.iter().filter(|r| r.path.contains("/resolve/"));
    let ranges: Vec<bool> = ranges.map(|request| request.range.is_some()).collect();
    // Half of it, the rest, and all of it again, as it is not what the hub lists.
    assert_eq!(ranges, [false, true, false]);
}

#[test]
fn parts_of_a_split_are_taken() {
    let setup = by_name();
    assert_eq!(setup.questions(None, "train[:2]"), ["train 0", "train 1"]);
    assert_eq!(setup.questions(None, "train[8:]"), ["train 8", "train 9"]);
    assert_eq!(setup.questions(None, "train[-1:]"), ["train 9"]);
    assert_eq!(setup.questions(None, "test[50%:]"), ["test 2", "test 3"]);
    assert!(matches!(
        setup.read(None, "train[1]"),
        Err(Error::Data(DataError::InvalidSplit { .. }))
    ));
}

#[test]
fn what_is_in_the_cache_is_read_offline_and_the_rest_is_named() {
    let setup = by_name();
    let missing = Dataset::from_hub(ID, &setup.offline(None, "train")).unwrap_err();
    assert!(
        matches!(missing, Error::Hub(HubError::NotCached { .. })),
        "{missing}"
    );
    let online = setup.read(None, "train").unwrap();
    setup.server.take_requests();
    assert_eq!(
        Dataset::from_hub(ID, &setup.offline(None, "train")).unwrap(),
        online
    );
    let missing = Dataset::from_hub(ID, &setup.offline(None, "test")).unwrap_err();
    assert!(
        matches!(&missing, Error::Hub(HubError::NotCached { id, .. }) if id == "datasets/owner/pairs"),
        "{missing}"
    );
    assert_eq!(setup.server.take_requests(), (0, 0));

    // A cache that Python filled has no list of what was not downloaded.
    let listings = setup.cache.path().join("datasets--owner--pairs/listings");
    std::fs::remove_dir_all(listings).unwrap();
    assert_eq!(
        Dataset::from_hub(ID, &setup.offline(None, "train")).unwrap(),
        online
    );
    // A hub that fails is as good as none.
    setup.server.hub().failing = Some(500);
    assert_eq!(setup.read(None, "train").unwrap(), online);
}

#[test]
fn a_card_s_configurations_name_the_files() {
    let card = "---
configs:
- config_name: pair
  data_files:
  - split: train
    path: pair/*
- config_name: other
  data_files: some/where.csv
---
";
    let setup = Setup::new([
        ("README.md", card.into()),
        ("pair/b.jsonl", lines("b", 1)),
        ("pair/a.jsonl", lines("a", 1)),
        ("some/where.csv", b"question,answer\nx,y\n".to_vec()),
        ("train.jsonl", lines("not named", 1)),
    ]);
    assert_eq!(setup.questions(Some("pair"), "train"), ["a 0", "b 0"]);
    assert_eq!(setup.questions(Some("other"), "train"), ["x"]);
    for config in [None, Some("none")] {
        assert!(matches!(
            setup.read(config, "train"),
            Err(Error::Data(DataError::UnknownConfig { found, known, .. }))
                if found.as_deref() == config && known == ["pair", "other"]
        ));
    }
    assert!(matches!(
        setup.read(Some("pair"), "test"),
        Err(Error::Data(DataError::UnknownSplit { found, known, .. }))
            if found == "test" && known == ["train"]
    ));
    let default = card.replace("config_name: other", "config_name: default");
    setup
        .server
        .hub()
        .files
        .insert("README.md".to_owned(), default.into());
    setup.server.hub().commit = "5".repeat(40);
    assert_eq!(setup.questions(None, "train"), ["x"]);
}

#[test]
fn what_only_the_hub_s_conversion_can_read_is_read_there() {
    let files = [
        ("pairs.py".to_owned(), b"pass\n".to_vec()),
        ("images/train.png".to_owned(), vec![0]),
    ];
    let setup = Setup::with([], |hub| {
        hub.files = files.into();
        let converted = [
            (
                "default/train/0000.parquet",
                "data_files/pairs.zstd.parquet",
            ),
            ("default/test/0000.parquet", "data_files/pairs.none.parquet"),
        ];
        let converted = converted.map(|(path, file)| (path.to_owned(), fixture(file)));
        hub.past.insert(CONVERTED.to_owned(), converted.into());
        hub.branches
            .insert("refs/convert/parquet".to_owned(), CONVERTED.to_owned());
    });
    let dataset = setup.read(None, "train").unwrap();
    assert_eq!(dataset.column_names(), ["question", "answer"]);
    assert_eq!((dataset.len(), dataset.label_width()), (4, Some(1)));
    assert_eq!(
        Dataset::from_hub(ID, &setup.offline(None, "train[:4]")).unwrap(),
        dataset
    );

    let without = Setup::new([("pairs.py", b"pass\n".to_vec())]);
    assert!(matches!(
        without.read(None, "train"),
        Err(Error::Data(DataError::NoDataFiles { id, .. })) if id == ID
    ));
}

#[test]
fn private_data_sets_need_the_token_and_terms_are_named() {
    let setup = Setup::with([("train.jsonl", lines("train", 2))], |hub| {
        hub.token = Some("hf_secret".to_owned());
    });
    assert!(matches!(
        setup.read(None, "train"),
        Err(Error::Hub(HubError::RepoNotFound { .. }))
    ));
    let mut options = setup.options(None, "train");
    options.hub.token = Some("hf_secret".to_owned());
    assert_eq!(Dataset::from_hub(ID, &options).unwrap().len(), 2);
    let gated = Setup::with([("train.jsonl", lines("train", 2))], |hub| hub.gated = true);
    let error = gated.read(None, "train").unwrap_err().to_string();
    assert!(error.contains("/datasets/owner/pairs"), "{error}");
}

#[test]
fn a_revision_is_pinned() {
    let setup = Setup::with([("train.jsonl", lines("new", 1))], |hub| {
        let old = [("train.jsonl".to_owned(), lines("old", 1))];
        hub.past.insert(CONVERTED.to_owned(), old.into());
    });
    let mut options = setup.options(None, "train");
    options.hub.revision = CONVERTED.to_owned();
    assert_eq!(
        Dataset::from_hub(ID, &options).unwrap().columns()[0],
        ["old 0"]
    );
    assert_eq!(setup.questions(None, "train"), ["new 0"]);
}

#[test]
fn a_stream_reads_the_same_samples() {
    let setup = by_name();
    let whole = setup.questions(None, "train[2:7]");
    let stream = IterableDataset::from_hub(ID, &setup.options(None, "train[2:7]")).unwrap();
    let texts = stream
        .samples(0)
        .map(|sample| sample.unwrap().texts[0].clone());
    assert_eq!(texts.collect::<Vec<_>>(), whole);
}

#[test]
fn nano_beir_is_read_as_from_a_folder() {
    let card: String = ["corpus", "queries", "qrels"]
        .map(|config| {
            format!(
                "- config_name: {config}\n  data_files:\n  - split: NanoNQ\n    path: \
                 {config}/NanoNQ-*\n"
            )
        })
        .concat();
    let parquet = |config: &str| {
        let path = format!("{config}/NanoNQ-00000-of-00001.parquet");
        (
            path,
            fixture(&format!("data_files/nano_nq/{config}.parquet")),
        )
    };
    let setup = Setup::with([], |hub| {
        hub.files = BTreeMap::from(["corpus", "queries", "qrels"].map(parquet));
        let card = format!("---\nconfigs:\n{card}---\n");
        hub.files.insert("README.md".to_owned(), card.into());
    });
    let options = || NanoBeirOptions {
        dataset_names: vec!["nq".to_owned()],
        ..NanoBeirOptions::default()
    };
    let from_hub = NanoBeirEvaluator::from_hub(ID, &setup.hub(), options()).unwrap();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let folder = fixtures.join("evaluators/nano_beir");
    let from_folder = NanoBeirEvaluator::from_folder(folder, options()).unwrap();
    let model = fixtures.join("tiny_bert/v6");
    let model =
        SentenceTransformer::<NdArray>::load(model.to_str().unwrap(), &Default::default()).unwrap();
    let metrics = from_hub.evaluate(&model).unwrap();
    assert_eq!(metrics, from_folder.evaluate(&model).unwrap());
    assert!(metrics.get("NanoBEIR_mean_cosine_ndcg@10").unwrap() > 0.0);

    let missing = NanoBeirOptions {
        dataset_names: vec!["msmarco".to_owned()],
        ..NanoBeirOptions::default()
    };
    assert!(matches!(
        NanoBeirEvaluator::from_hub(ID, &setup.hub(), missing),
        Err(Error::Data(DataError::UnknownSplit { found, .. })) if found == "NanoMSMARCO"
    ));
}

#[test]
fn a_noted_list_leads_to_no_file_outside_the_cache() {
    let room = tempfile::tempdir().unwrap();
    let cache = room.path().join("cache");
    let repo = cache.join("datasets--owner--pairs");
    let snapshot = repo.join("snapshots").join(COMMIT);
    for folder in [&snapshot, &repo.join("refs"), &repo.join("listings")] {
        fs::create_dir_all(folder).unwrap();
    }
    fs::write(repo.join("refs/main"), COMMIT).unwrap();
    let outside = "../../../../outside.csv";
    for path in ["train.csv", outside] {
        fs::write(snapshot.join(path), "hello").unwrap();
    }
    let noted = json!([[outside, 5], ["train.csv", 5]]);
    let listing = repo.join("listings").join(format!("{COMMIT}.json"));
    fs::write(listing, noted.to_string()).unwrap();
    let options = HubOptions {
        cache_dir: Some(cache),
        local_files_only: true,
        ..HubOptions::default()
    };
    let dataset = HubDataset::open(ID, None, &options).unwrap();
    let files = dataset.download("train").unwrap();
    assert_eq!(files.paths, [snapshot.join("train.csv")]);
}
