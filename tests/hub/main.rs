//! Downloads from a hub that runs in the test, and pushes to it: against the hub's routes.

#[cfg(feature = "train")]
mod datasets;
mod downloads;
mod hostile;
mod pushes;
mod server;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use burn::backend::NdArray;
use sentence_burn::error::{Error, HubError};
use sentence_burn::repo::hub::{HubOptions, snapshot};
use sentence_burn::{LoadOptions, SentenceTransformer};
use serde_json::json;
use server::{Hub, HubServer};

const ID: &str = "owner/tiny";
const COMMIT: &str = "1111111111111111111111111111111111111111";
const NEXT_COMMIT: &str = "2222222222222222222222222222222222222222";

/// What `tiny` is loaded from.
const NEEDED: [&str; 6] = [
    "1_Pooling/config.json",
    "adapters/one/adapter_model.safetensors",
    "config.json",
    "model.safetensors",
    "modules.json",
    "vocab.txt",
];
const NOT_NEEDED: [&str; 3] = ["README.md", "onnx/model.onnx", "pytorch_model.bin"];

fn content(path: &str, commit: &str) -> Vec<u8> {
    format!("{path} of {commit}\n").repeat(20).into_bytes()
}

fn tiny() -> Hub {
    let files = NEEDED.iter().chain(&NOT_NEEDED);
    Hub {
        id: ID.to_owned(),
        commit: COMMIT.to_owned(),
        files: files
            .map(|path| (path.to_string(), content(path, COMMIT)))
            .collect(),
        ..Hub::default()
    }
}

type Model = SentenceTransformer<NdArray>;

/// A hub, and options that lead to it and to a cache of its own.
struct Setup {
    server: HubServer,
    options: HubOptions,
    cache: tempfile::TempDir,
}

impl Setup {
    fn new(hub: Hub) -> Self {
        let server = HubServer::start(hub);
        let cache = tempfile::tempdir().unwrap();
        let options = HubOptions {
            endpoint: server.endpoint(),
            cache_dir: Some(cache.path().to_owned()),
            retries: 2,
            timeout: Duration::from_millis(500),
            ..HubOptions::default()
        };
        Self {
            server,
            options,
            cache,
        }
    }

    fn snapshot(&self) -> PathBuf {
        snapshot(ID, &self.options).unwrap()
    }

    fn offline(&self) -> HubOptions {
        HubOptions {
            local_files_only: true,
            ..self.options.clone()
        }
    }
}

fn error(id: &str, options: &HubOptions) -> HubError {
    match snapshot(id, options) {
        Err(Error::Hub(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// The paths of the files below a folder.
fn files_below(folder: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let path = path.strip_prefix(folder).unwrap();
                found.insert(path.to_str().unwrap().replace('\\', "/"));
            }
        }
    }
    found
}

fn assert_tiny(folder: &Path, commit: &str) {
    assert_eq!(
        files_below(folder),
        NEEDED.iter().map(|path| path.to_string()).collect()
    );
    for path in NEEDED {
        assert_eq!(
            std::fs::read(folder.join(path)).unwrap(),
            content(path, commit),
            "{path}"
        );
    }
}

#[test]
fn downloads_what_a_model_needs_and_nothing_twice() {
    let setup = Setup::new(tiny());
    let folder = setup.snapshot();
    assert_tiny(&folder, COMMIT);
    assert!(folder.ends_with(Path::new("models--owner--tiny/snapshots").join(COMMIT)));
    assert_eq!(setup.server.take_requests().0, NEEDED.len());

    assert_eq!(setup.snapshot(), folder);
    let (contents, all) = setup.server.take_requests();
    assert_eq!(
        (contents, all),
        (0, 2),
        "it asks for the commit and the list alone"
    );
}

#[test]
fn a_new_commit_is_downloaded_and_the_old_one_stays() {
    let setup = Setup::new(tiny());
    let old = setup.snapshot();
    {
        let mut hub = setup.server.hub();
        hub.commit = NEXT_COMMIT.to_owned();
        for (path, bytes) in &mut hub.files {
            *bytes = content(path, &format!("the commit {NEXT_COMMIT}"));
        }
    }
    let new = setup.snapshot();
    assert_tiny(&new, &format!("the commit {NEXT_COMMIT}"));
    assert_tiny(&old, COMMIT);
    assert_eq!(snapshot(ID, &setup.offline()).unwrap(), new);
}

#[test]
fn local_files_only_makes_no_request() {
    let setup = Setup::new(tiny());
    let missing = error(ID, &setup.offline());
    assert!(
        matches!(&missing, HubError::NotCached { id, revision, cache_dir }
        if id == ID && revision == "main" && cache_dir == setup.cache.path())
    );
    assert_eq!(setup.server.take_requests(), (0, 0));

    let folder = setup.snapshot();
    setup.server.take_requests();
    assert_eq!(snapshot(ID, &setup.offline()).unwrap(), folder);
    let pinned = HubOptions {
        revision: COMMIT.to_owned(),
        ..setup.offline()
    };
    assert_eq!(snapshot(ID, &pinned).unwrap(), folder);
    let other = HubOptions {
        revision: NEXT_COMMIT.to_owned(),
        ..setup.offline()
    };
    assert!(matches!(error(ID, &other), HubError::NotCached { .. }));
    assert_eq!(setup.server.take_requests(), (0, 0));
}

#[test]
fn a_hub_that_is_gone_or_fails_leaves_the_cache_in_use() {
    let setup = Setup::new(tiny());
    let folder = setup.snapshot();
    setup.server.hub().failing = Some(503);
    assert_eq!(setup.snapshot(), folder);
    assert!(
        setup.server.take_requests().1 > 1,
        "a failure that may pass is tried again"
    );
    let Setup {
        server,
        options,
        cache,
    } = setup;
    drop(server);
    assert_eq!(snapshot(ID, &options).unwrap(), folder);

    let uncached = error("owner/other", &options);
    assert!(matches!(&uncached, HubError::Network { id, endpoint, .. }
        if id == "owner/other" && *endpoint == options.endpoint));
    drop(cache);
}

#[test]
fn what_the_hub_lacks_is_named() {
    let setup = Setup::new(tiny());
    assert!(
        matches!(error("owner/other", &setup.options), HubError::RepoNotFound { id, endpoint }
        if id == "owner/other" && endpoint == setup.server.endpoint())
    );
    for revision in ["v9", NEXT_COMMIT] {
        let options = HubOptions {
            revision: revision.to_owned(),
            ..setup.options.clone()
        };
        assert!(
            matches!(error(ID, &options), HubError::RevisionNotFound { id, revision: named }
            if id == ID && named == revision)
        );
    }
    let subfolder = Some("adapters/two".to_owned());
    let options = HubOptions {
        subfolder,
        ..setup.options.clone()
    };
    assert!(
        matches!(error(ID, &options), HubError::SubfolderNotFound { subfolder, .. }
        if subfolder == "adapters/two")
    );
}

#[test]
fn branches_commits_and_subfolders_are_found() {
    let setup = Setup::new(tiny());
    let branch = HubOptions {
        revision: "feature/x".to_owned(),
        ..setup.options.clone()
    };
    let folder = snapshot(ID, &branch).unwrap();
    assert_tiny(&folder, COMMIT);
    let offline = HubOptions {
        local_files_only: true,
        ..branch
    };
    assert_eq!(snapshot(ID, &offline).unwrap(), folder);

    let setup = Setup::new(tiny());
    let pinned = HubOptions {
        revision: COMMIT.to_owned(),
        ..setup.options.clone()
    };
    assert_tiny(&snapshot(ID, &pinned).unwrap(), COMMIT);
    assert!(
        setup
            .server
            .hub()
            .requests
            .iter()
            .all(|r| !r.path.contains("/revision/"))
    );

    let setup = Setup::new(tiny());
    let adapter = HubOptions {
        subfolder: Some("adapters/one".to_owned()),
        ..setup.options.clone()
    };
    let folder = snapshot(ID, &adapter).unwrap();
    assert!(folder.ends_with("adapters/one"));
    assert_eq!(
        files_below(&folder),
        BTreeSet::from(["adapter_model.safetensors".to_owned()])
    );
    assert_eq!(setup.server.take_requests().0, 1);
}

#[test]
fn a_private_repository_needs_its_token() {
    let token = Some("hf_right".to_owned());
    let setup = Setup::new(Hub {
        token: token.clone(),
        ..tiny()
    });
    assert!(matches!(
        error(ID, &setup.options),
        HubError::RepoNotFound { .. }
    ));
    let wrong = HubOptions {
        token: Some("hf_wrong".to_owned()),
        ..setup.options.clone()
    };
    let refused = error(ID, &wrong);
    assert!(
        matches!(&refused, HubError::Unauthorized { id, reason, access: "read" }
        if id == ID && reason == "HTTP 401 Invalid credentials in Authorization header")
    );
    assert!(!refused.to_string().contains("hf_wrong"));
    let right = HubOptions {
        token,
        ..setup.options.clone()
    };
    assert_tiny(&snapshot(ID, &right).unwrap(), COMMIT);
}

#[test]
fn a_gated_repository_says_where_its_terms_are() {
    let setup = Setup::new(Hub {
        gated: true,
        ..tiny()
    });
    let gated = error(ID, &setup.options);
    let terms = format!("accept its terms at {}/{ID}", setup.server.endpoint());
    assert!(matches!(&gated, HubError::Gated { id, .. } if id == ID));
    assert!(gated.to_string().contains(&terms), "{gated}");
}

#[test]
fn the_token_does_not_follow_a_redirect_to_another_host() {
    let token = Some("hf_right".to_owned());
    let setup = Setup::new(Hub {
        token: token.clone(),
        redirects: true,
        ..tiny()
    });
    let options = HubOptions {
        token,
        ..setup.options.clone()
    };
    assert_tiny(&snapshot(ID, &options).unwrap(), COMMIT);
    let requests = setup.server.hub().requests.clone();
    let (elsewhere, here): (Vec<_>, Vec<_>) = requests
        .into_iter()
        .partition(|request| request.path.starts_with("/cdn/"));
    assert_eq!(elsewhere.len(), NEEDED.len());
    assert!(
        elsewhere
            .iter()
            .all(|r| r.authorization.is_none() && r.host.starts_with("localhost"))
    );
    assert!(
        here.iter()
            .all(|r| r.authorization.as_deref() == Some("Bearer hf_right"))
    );
}

#[test]
fn a_repository_is_found_under_its_former_name() {
    let former_id = Some("bert-base-uncased".to_owned());
    let setup = Setup::new(Hub {
        former_id,
        ..tiny()
    });
    let folder = snapshot("bert-base-uncased", &setup.options).unwrap();
    assert_tiny(&folder, COMMIT);
    assert!(folder.starts_with(setup.cache.path().join("models--bert-base-uncased")));
}

#[test]
fn a_repository_without_weights_says_what_it_has() {
    let mut hub = tiny();
    hub.files
        .retain(|path, _| !path.ends_with(".safetensors") && !path.ends_with(".bin"));
    let setup = Setup::new(hub);
    let weights = error(ID, &setup.options);
    assert!(matches!(&weights, HubError::NoWeights { found, .. } if found == &["onnx/model.onnx"]));
    assert_eq!(setup.server.take_requests().0, 0);
}

#[test]
fn pytorchs_weights_are_taken_where_there_are_no_others() {
    let mut hub = tiny();
    hub.files.retain(|path, _| !path.ends_with(".safetensors"));
    let setup = Setup::new(hub);
    let folder = snapshot(ID, &setup.options).unwrap();
    assert!(folder.join("pytorch_model.bin").is_file());
}

#[test]
fn a_file_of_the_wrong_size_is_removed() {
    let setup = Setup::new(tiny());
    let lie = ("model.safetensors".to_owned(), 7);
    setup.server.hub().listed_sizes.extend([lie]);
    let size = content("model.safetensors", COMMIT).len() as u64;
    assert!(
        matches!(error(ID, &setup.options), HubError::Damaged { file, expected: 7, found, .. }
        if file == "model.safetensors" && found == size)
    );
    let left = files_below(setup.cache.path());
    assert!(
        !left.iter().any(|path| path.contains("model.safetensors")
            && !path.ends_with(".lock")
            && !path.contains("adapter")),
        "{left:?}"
    );
    assert!(matches!(
        error(ID, &setup.offline()),
        HubError::NotCached { .. }
    ));

    setup.server.hub().listed_sizes.clear();
    assert_tiny(&setup.snapshot(), COMMIT);
}

#[test]
fn a_file_that_lost_bytes_in_the_cache_is_downloaded_again() {
    let setup = Setup::new(tiny());
    let folder = setup.snapshot();
    std::fs::write(folder.join("model.safetensors"), "lost").unwrap();
    setup.server.take_requests();
    assert_tiny(&setup.snapshot(), COMMIT);
    assert_eq!(setup.server.take_requests().0, 1);
}

#[test]
fn an_interrupted_download_leaves_nothing_that_loads_and_goes_on_later() {
    let setup = Setup::new(Hub {
        cut: Some("model.safetensors".to_owned()),
        ..tiny()
    });
    assert!(matches!(
        error(ID, &setup.options),
        HubError::Network { .. }
    ));
    assert!(matches!(
        error(ID, &setup.offline()),
        HubError::NotCached { .. }
    ));
    let folder = setup
        .cache
        .path()
        .join("models--owner--tiny/snapshots")
        .join(COMMIT);
    let left = files_below(&folder);
    assert!(left.contains("1_Pooling/config.json"), "{left:?}");
    for path in ["model.safetensors", "modules.json", "config.json"] {
        assert!(!left.contains(path), "{left:?}");
    }

    setup.server.hub().cut = None;
    setup.server.take_requests();
    assert_tiny(&setup.snapshot(), COMMIT);
    assert_eq!(setup.server.take_requests().0, NEEDED.len() - left.len());
}

#[test]
fn a_listed_path_that_leads_out_of_the_folder_is_refused() {
    for path in [
        "../evil.json",
        "a/../../evil.json",
        "/evil.json",
        "a\\\\evil.json",
    ] {
        let mut hub = tiny();
        hub.files.insert(path.to_owned(), b"{}".to_vec());
        let setup = Setup::new(hub);
        assert!(
            matches!(error(ID, &setup.options), HubError::InvalidResponse { .. }),
            "{path}"
        );
        assert!(files_below(setup.cache.path()).is_empty(), "{path}");
    }
}

#[test]
fn a_commit_that_is_none_is_refused() {
    let setup = Setup::new(Hub {
        commit: "../../../evil".to_owned(),
        ..tiny()
    });
    let found = error(ID, &setup.options);
    assert!(matches!(&found, HubError::InvalidResponse { reason, .. } if reason.contains("evil")));
}

/// Runs itself again in an environment full of settings for the hub.
#[test]
fn the_environment_s_settings_are_not_read() {
    const CHILD: &str = "SENTENCE_BURN_TEST_CHILD";
    if let Ok(endpoint) = std::env::var(CHILD) {
        let options = HubOptions {
            endpoint,
            ..HubOptions::default()
        };
        assert_tiny(&snapshot(ID, &options).unwrap(), COMMIT);
        return;
    }
    let setup = Setup::new(tiny());
    let (home, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(elsewhere.path().join("token"), "hf_from_a_file").unwrap();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_environment_s_settings_are_not_read"])
        .env(CHILD, setup.server.endpoint())
        .envs([("HOME", home.path()), ("USERPROFILE", home.path())])
        .envs(["HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME"].map(|name| (name, elsewhere.path())))
        .env("HF_ENDPOINT", "http://127.0.0.1:1")
        .env("HF_TOKEN", "hf_from_the_environment")
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    let requests = setup.server.hub().requests.clone();
    assert!(!requests.is_empty() && requests.iter().all(|r| r.authorization.is_none()));
    assert!(
        home.path()
            .join(".cache/huggingface/hub/models--owner--tiny")
            .is_dir()
    );
    assert_eq!(
        files_below(elsewhere.path()),
        BTreeSet::from(["token".to_owned()])
    );
}

fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures")
        .join(path)
}

fn fixture_files(path: &str) -> server::Files {
    let folder = fixture(path);
    let read = |path: String| (path.clone(), std::fs::read(folder.join(path)).unwrap());
    files_below(&folder).into_iter().map(read).collect()
}

/// The files of an adapter fixture, with other fields in its configuration.
fn adapter_files(case: &str, fields: serde_json::Value) -> server::Files {
    let mut files = fixture_files(&format!("tiny_lora/{case}"));
    let config = files.get_mut("adapter_config.json").unwrap();
    let mut changed: serde_json::Value = serde_json::from_slice(config).unwrap();
    for (field, value) in fields.as_object().unwrap() {
        changed[field] = value.clone();
    }
    *config = serde_json::to_vec(&changed).unwrap();
    files
}

/// The same with the base of this checkout.
fn adapter_on_disk(case: &str) -> server::Files {
    let base = fixture("tiny_bert/v6");
    adapter_files(case, json!({ "base_model_name_or_path": base }))
}

#[test]
fn a_revision_is_that_of_an_adapter_s_weights_too() {
    // Sentence Transformers reads the configuration at the revision and the weights at main.
    let setup = Setup::new(Hub {
        files: adapter_on_disk("default"),
        ..tiny()
    });
    let load = |revision: &str| {
        let options = LoadOptions {
            hub: HubOptions {
                revision: revision.to_owned(),
                ..setup.options.clone()
            },
            ..LoadOptions::default()
        };
        let model = Model::load_with(ID, &options, &Default::default()).unwrap();
        model.encode(&["a dog"]).unwrap().into_data()
    };
    let old = load("main");
    {
        let mut hub = setup.server.hub();
        hub.commit = NEXT_COMMIT.to_owned();
        let old = std::mem::take(&mut hub.files);
        hub.past.insert(COMMIT.to_owned(), old);
        let weights = "adapter_model.safetensors";
        let mut changed = adapter_on_disk("default");
        // The same adapter with A and B of another sign in one layer: other weights.
        let bytes = changed.get_mut(weights).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 0x80;
        bytes[last - 4] ^= 0x80;
        hub.files = changed;
    }
    let new = load("main");
    assert_ne!(new, old);
    assert_eq!(load(COMMIT), old);
    assert_eq!(load(NEXT_COMMIT), new);
}

#[test]
fn an_adapter_brings_its_base_at_the_revision_that_it_was_trained_on() {
    const BASE: &str = "owner/base";
    let fields = |revision: &str| json!({ "base_model_name_or_path": BASE, "revision": revision });
    let base = Hub {
        id: BASE.to_owned(),
        commit: NEXT_COMMIT.to_owned(),
        // Trained on another commit than today's, which would not load.
        files: [("README.md".to_owned(), Vec::new())].into(),
        past: [(COMMIT.to_owned(), fixture_files("tiny_bert/v6"))].into(),
        ..Hub::default()
    };
    let setup = Setup::new(Hub {
        files: adapter_files("default", fields(COMMIT)),
        also: vec![base],
        ..tiny()
    });
    let load = |hub: &HubOptions| {
        let options = LoadOptions {
            hub: hub.clone(),
            ..LoadOptions::default()
        };
        Model::load_with(ID, &options, &Default::default())
    };
    let embed = |model: &Model| model.encode(&["a dog"]).unwrap().into_data();
    let mut model = load(&setup.options).unwrap();
    let mut expected = Model::load(fixture("tiny_bert/v6"), &Default::default()).unwrap();
    let plain = embed(&expected);
    expected.load_adapter(fixture("tiny_lora/default")).unwrap();
    assert_eq!(embed(&model), embed(&expected));
    model.disable_adapters().unwrap();
    assert_eq!(embed(&model), plain);
    assert_ne!(embed(&model), embed(&expected));

    // Both are in the cache.
    let offline = load(&setup.offline()).unwrap();
    assert_eq!(embed(&offline), embed(&expected));

    // A base that the hub does not have.
    setup.server.hub().also.clear();
    setup.server.hub().files = adapter_files("default", fields("main"));
    setup.server.hub().commit = "3333333333333333333333333333333333333333".to_owned();
    let error = load(&setup.options).unwrap_err().to_string();
    assert!(error.contains(BASE), "{error}");
}
