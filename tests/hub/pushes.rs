//! Pushes of a model: one commit, and what it leaves.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use burn::backend::NdArray;
use sentence_burn::error::{Error, HubError};
use sentence_burn::repo::hub::{HubOptions, PushOptions};
use sentence_burn::{LoadOptions, LoraConfig, SaveOptions, SentenceTransformer};
use serde_json::Value;

use super::server::{Files, Hub};
use super::{COMMIT, Setup, files_below};

type Model = SentenceTransformer<NdArray>;

const ID: &str = "owner/new";

fn model() -> Model {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny_bert/v6");
    Model::load(folder, &Default::default()).unwrap()
}

/// A hub without the repository.
fn empty() -> Hub {
    Hub {
        is_missing: true,
        commit: COMMIT.to_owned(),
        write_token: Some("hf_write".to_owned()),
        ..Hub::default()
    }
}

/// A hub with the repository, and these files in it.
fn with_files(files: &[(&str, &str)]) -> Hub {
    let files = files
        .iter()
        .map(|(path, content)| (path.to_string(), content.as_bytes().to_vec()));
    Hub {
        id: ID.to_owned(),
        is_missing: false,
        files: files.collect(),
        ..empty()
    }
}

fn options(setup: &Setup) -> PushOptions {
    PushOptions {
        hub: HubOptions {
            token: Some("hf_write".to_owned()),
            ..setup.options.clone()
        },
        ..PushOptions::default()
    }
}

fn into_existing(setup: &Setup) -> PushOptions {
    PushOptions {
        exist_ok: true,
        ..options(setup)
    }
}

fn refused(model: &Model, id: &str, options: &PushOptions) -> HubError {
    match model.push_to_hub(id, options) {
        Err(Error::Hub(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// The header of the last commit.
fn header(setup: &Setup) -> Value {
    let hub = setup.server.hub();
    let commit = hub
        .requests
        .iter()
        .rev()
        .find(|r| r.path.contains("/commit/"));
    let first = commit.unwrap().body.lines().next().unwrap().to_owned();
    serde_json::from_str::<Value>(&first).unwrap()["value"].clone()
}

fn card(files: &Files) -> String {
    String::from_utf8(files["README.md"].clone()).unwrap()
}

#[test]
fn a_model_comes_back_as_it_was_pushed() {
    let setup = Setup::new(empty());
    let model = model();
    let private = PushOptions {
        private: true,
        ..options(&setup)
    };
    let pushed = model.push_to_hub(ID, &private).unwrap();
    assert_eq!(pushed.id, ID);
    {
        let hub = setup.server.hub();
        assert!(hub.is_private);
        assert_eq!(pushed.commit.as_ref(), Some(&hub.commit));
        let url = format!("{}/{ID}/commit/{}", setup.server.endpoint(), hub.commit);
        assert_eq!(pushed.commit_url, Some(url));
        assert_eq!(pushed.pull_request_url, None);
        assert!(card(&hub.files).contains(&format!("\"{ID}\"")));
        let commits = hub.requests.iter().filter(|r| r.path.contains("/commit/"));
        assert_eq!(commits.count(), 1);
    }
    assert_eq!(
        header(&setup)["summary"],
        "Add new SentenceTransformer model"
    );
    let saved = tempfile::tempdir().unwrap();
    model.save(saved.path()).unwrap();
    let mut expected = files_below(saved.path());
    expected.insert(".gitattributes".to_owned());
    let there: BTreeSet<String> = setup.server.hub().files.keys().cloned().collect();
    assert_eq!(there, expected);

    let load = LoadOptions {
        hub: setup.options.clone(),
        ..LoadOptions::default()
    };
    let again = Model::load_with(ID, &load, &Default::default()).unwrap();
    let texts = ["a dog", "is a cat"];
    assert_eq!(
        again.encode(&texts).unwrap().into_data(),
        model.encode(&texts).unwrap().into_data()
    );
}

#[test]
fn what_the_commit_says_is_the_caller_s() {
    let setup = Setup::new(empty());
    let said = PushOptions {
        commit_message: Some("Better words".to_owned()),
        commit_description: Some("Trained for longer.".to_owned()),
        ..options(&setup)
    };
    model().push_to_hub(ID, &said).unwrap();
    assert_eq!(header(&setup)["summary"], "Better words");
    assert_eq!(header(&setup)["description"], "Trained for longer.");
    assert!(!setup.server.hub().is_private);
}

#[test]
fn a_name_alone_is_the_account_s() {
    let setup = Setup::new(empty());
    let pushed = model().push_to_hub("new", &options(&setup)).unwrap();
    assert_eq!(pushed.id, "me/new");
    assert!(card(&setup.server.hub().files).contains("\"me/new\""));
    // Once it is there, the hub says whose it is as well.
    let pushed = model().push_to_hub("new", &into_existing(&setup)).unwrap();
    assert_eq!(pushed.id, "me/new");
}

#[test]
fn a_repository_that_is_there_is_only_changed_if_that_is_meant() {
    let setup = Setup::new(with_files(&[("notes.txt", "kept")]));
    let there = refused(&model(), ID, &options(&setup));
    assert!(matches!(&there, HubError::AlreadyThere { id } if id == ID));
    assert!(there.to_string().contains("exist_ok"), "{there}");
    assert_eq!(setup.server.hub().commit, COMMIT);

    model().push_to_hub(ID, &into_existing(&setup)).unwrap();
    let hub = setup.server.hub();
    assert_ne!(hub.commit, COMMIT);
    assert_eq!(hub.files["notes.txt"], b"kept");
    assert!(hub.files.contains_key("model.safetensors"));
}

#[test]
fn a_card_that_is_there_stays_unless_it_is_to_be_replaced() {
    let setup = Setup::new(with_files(&[("README.md", "by hand")]));
    model().push_to_hub(ID, &into_existing(&setup)).unwrap();
    assert_eq!(card(&setup.server.hub().files), "by hand");
    let replace = PushOptions {
        replace_model_card: true,
        ..into_existing(&setup)
    };
    model().push_to_hub(ID, &replace).unwrap();
    assert_ne!(card(&setup.server.hub().files), "by hand");
}

#[test]
fn weights_that_would_be_read_instead_are_removed() {
    let setup = Setup::new(with_files(&[
        ("model.safetensors", "old"),
        ("other.safetensors", ""),
    ]));
    let sharded = PushOptions {
        save: SaveOptions {
            max_shard_size: 20_000,
            ..SaveOptions::default()
        },
        ..into_existing(&setup)
    };
    model().push_to_hub(ID, &sharded).unwrap();
    let weights = |setup: &Setup| -> Vec<String> {
        let hub = setup.server.hub();
        let names = hub.files.keys().filter(|name| name.contains("safetensors"));
        names.cloned().collect()
    };
    let shards = weights(&setup);
    assert!(shards.len() > 4 && !shards.contains(&"model.safetensors".to_owned()));
    model().push_to_hub(ID, &into_existing(&setup)).unwrap();
    assert_eq!(weights(&setup), ["model.safetensors", "other.safetensors"]);
}

#[test]
fn an_adapter_goes_without_its_base_and_not_into_a_whole_model() {
    let mut adapted = model();
    adapted.add_adapter(LoraConfig::default()).unwrap();
    let setup = Setup::new(empty());
    adapted.push_to_hub(ID, &options(&setup)).unwrap();
    {
        let hub = setup.server.hub();
        assert!(hub.files.contains_key("adapter_model.safetensors"));
        assert!(!hub.files.contains_key("model.safetensors"));
        assert!(!hub.files.contains_key("config.json"));
    }
    let occupied = refused(&model(), ID, &into_existing(&setup));
    assert!(matches!(
        occupied,
        HubError::Occupied {
            holds: "an adapter",
            ..
        }
    ));
    let setup = Setup::new(with_files(&[("config.json", "{}")]));
    let occupied = refused(&adapted, ID, &into_existing(&setup));
    assert!(matches!(
        occupied,
        HubError::Occupied {
            holds: "a whole model",
            ..
        }
    ));
    assert_eq!(setup.server.hub().commit, COMMIT);
}

#[test]
fn a_branch_is_made_and_pushed_to() {
    let setup = Setup::new(with_files(&[("notes.txt", "kept")]));
    let mut to_branch = into_existing(&setup);
    to_branch.hub.revision = "try/one".to_owned();
    for _ in 0..2 {
        let pushed = model().push_to_hub(ID, &to_branch).unwrap();
        let hub = setup.server.hub();
        assert_eq!(hub.commit, COMMIT);
        assert_eq!(hub.branches.get("try/one"), pushed.commit.as_ref());
        let files = hub.files_at(&hub.branches["try/one"]).unwrap();
        assert!(files.contains_key("model.safetensors") && files.contains_key("notes.txt"));
    }
}

#[test]
fn a_pull_request_leaves_the_branch_and_says_where_it_is() {
    let setup = Setup::new(with_files(&[("notes.txt", "kept")]));
    let propose = PushOptions {
        create_pr: true,
        ..options(&setup)
    };
    let pushed = model().push_to_hub(ID, &propose).unwrap();
    let url = format!("{}/{ID}/discussions/7", setup.server.endpoint());
    assert_eq!(pushed.pull_request_url, Some(url));
    assert_eq!(setup.server.hub().commit, COMMIT);
    let description = header(&setup)["description"].to_string();
    assert!(
        description.contains("SentenceTransformer(\\n  (0): Transformer("),
        "{description}"
    );
}

#[test]
fn a_pull_request_is_not_opened_twice() {
    let commits = |status, is_proposed| {
        let setup = Setup::new(Hub {
            faults: vec![("/commit/", status, None, 1)],
            ..with_files(&[("notes.txt", "")])
        });
        let options = PushOptions {
            create_pr: is_proposed,
            ..into_existing(&setup)
        };
        let is_pushed = model().push_to_hub(ID, &options).is_ok();
        let hub = setup.server.hub();
        let asked = hub.requests.iter().filter(|r| r.path.contains("/commit/"));
        (is_pushed, asked.count())
    };
    // Busy: nothing was done. Timed out: no one knows.
    assert_eq!(commits(503, true), (true, 2));
    assert_eq!(commits(504, true), (false, 1));
    assert_eq!(commits(504, false), (true, 2));
}

#[test]
fn a_folder_is_pushed_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("a/b")).unwrap();
    fs::write(folder.path().join("a/b/c.txt"), "deep").unwrap();
    fs::write(folder.path().join(".secret"), "mine").unwrap();
    let setup = Setup::new(empty());
    let as_it_is = PushOptions {
        folder: Some(folder.path().to_owned()),
        ..options(&setup)
    };
    model().push_to_hub(ID, &as_it_is).unwrap();
    let hub = setup.server.hub();
    let names: Vec<_> = hub.files.keys().collect();
    assert_eq!(names, [".gitattributes", "a/b/c.txt"]);
    assert_eq!(hub.files["a/b/c.txt"], b"deep");
}

#[test]
fn a_busy_hub_is_asked_again() {
    for route in [
        "/repos/create",
        "/preupload/",
        "/commit/",
        "/tree/",
        "/branch/",
    ] {
        let setup = Setup::new(Hub {
            faults: vec![(route, 429, Some(0), 1), (route, 503, None, 1)],
            ..empty()
        });
        let mut to_branch = options(&setup);
        to_branch.hub.revision = "next".to_owned();
        model().push_to_hub(ID, &to_branch).unwrap();
        assert!(setup.server.hub().branches.contains_key("next"), "{route}");
    }
    let setup = Setup::new(Hub {
        faults: vec![("/commit/", 429, Some(86_400), 1)],
        ..empty()
    });
    let limited = refused(&model(), ID, &options(&setup));
    assert!(
        matches!(&limited, HubError::RateLimited { wait, .. } if wait.as_secs() == 86_400),
        "{limited}"
    );
    assert_eq!(setup.server.hub().commit, COMMIT);
}

#[test]
fn a_token_that_may_not_write_is_told_so() {
    let setup = Setup::new(empty());
    for token in [None, Some("hf_read".to_owned())] {
        let mut weak = options(&setup);
        weak.hub.token = token;
        let error = refused(&model(), ID, &weak);
        assert!(
            matches!(
                &error,
                HubError::Unauthorized {
                    access: "write",
                    ..
                }
            ),
            "{error}"
        );
        assert!(error.to_string().contains("a token that may write it"));
        assert!(!error.to_string().contains("hf_read"));
    }
    // One that may make no repository may still write to one that is there.
    let setup = Setup::new(Hub {
        makes_none: true,
        ..with_files(&[("notes.txt", "")])
    });
    model().push_to_hub(ID, &into_existing(&setup)).unwrap();
    assert_ne!(setup.server.hub().commit, COMMIT);
    let setup = Setup::new(Hub {
        makes_none: true,
        ..empty()
    });
    assert!(matches!(
        refused(&model(), ID, &into_existing(&setup)),
        HubError::Unauthorized { .. }
    ));
}

#[test]
fn what_the_hub_refuses_is_said_in_its_words() {
    let setup = Setup::new(Hub {
        faults: vec![("/commit/", 422, None, 1)],
        ..empty()
    });
    let error = refused(&model(), ID, &options(&setup));
    assert!(
        matches!(&error, HubError::Refused { reason, .. } if reason == "HTTP 422 not now"),
        "{error}"
    );
}
