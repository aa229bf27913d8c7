//! Downloads that do not come in one go, or not as they should.

use std::fs;

use sentence_burn::error::HubError;
use sentence_burn::repo::hub::{HubOptions, snapshot};

use super::server::Hub;
use super::{COMMIT, ID, NEEDED, Setup, assert_tiny, content, error, files_below, tiny};

const WEIGHTS: &str = "model.safetensors";

/// The ranges that a file's content was asked for with, in order.
fn ranges(setup: &Setup, file: &str) -> Vec<Option<String>> {
    let hub = setup.server.hub();
    let asked = hub.requests.iter().filter(|r| r.path.ends_with(file));
    asked
        .filter(|r| r.path.contains("/resolve/"))
        .map(|r| r.range.clone())
        .collect()
}

/// The range that begins where half of a file was sent.
fn second_half(file: &str) -> String {
    format!("bytes={}-", content(file, COMMIT).len() / 2)
}

#[test]
fn a_connection_that_ends_is_taken_up_where_it_ended() {
    let setup = Setup::new(Hub {
        drops: [(WEIGHTS.to_owned(), 1)].into(),
        ..tiny()
    });
    assert_tiny(&setup.snapshot(), COMMIT);
    assert_eq!(
        ranges(&setup, &format!("/{WEIGHTS}")),
        [None, Some(second_half(WEIGHTS))]
    );
}

#[test]
fn a_connection_that_falls_silent_is_given_up_and_taken_up_again() {
    let setup = Setup::new(Hub {
        stalls: [(WEIGHTS.to_owned(), 1)].into(),
        ..tiny()
    });
    assert_tiny(&setup.snapshot(), COMMIT);
    assert_eq!(
        ranges(&setup, &format!("/{WEIGHTS}")),
        [None, Some(second_half(WEIGHTS))]
    );
}

#[test]
fn a_later_run_goes_on_where_an_earlier_one_was_cut_off() {
    let setup = Setup::new(Hub {
        cut: Some(WEIGHTS.to_owned()),
        ..tiny()
    });
    assert!(matches!(
        error(ID, &setup.options),
        HubError::Network { .. }
    ));
    let blobs = setup.cache.path().join("models--owner--tiny/blobs");
    let partial = |name: &String| name.ends_with(".incomplete");
    assert_eq!(files_below(&blobs).iter().filter(|n| partial(n)).count(), 1);

    setup.server.hub().cut = None;
    setup.server.hub().requests.clear();
    assert_tiny(&setup.snapshot(), COMMIT);
    assert_eq!(
        ranges(&setup, &format!("/{WEIGHTS}")),
        [Some(second_half(WEIGHTS))]
    );
    assert!(!files_below(&blobs).iter().any(partial));
}

#[test]
fn a_hub_that_sends_the_whole_for_a_part_is_understood() {
    let setup = Setup::new(Hub {
        drops: [(WEIGHTS.to_owned(), 1)].into(),
        ignores_ranges: true,
        ..tiny()
    });
    assert_tiny(&setup.snapshot(), COMMIT);
    assert_eq!(ranges(&setup, &format!("/{WEIGHTS}")).len(), 2);
}

#[test]
fn what_an_earlier_run_left_of_another_file_is_not_built_on() {
    for left in [&b"other bytes"[..], &[b'x'; 5000]] {
        let setup = Setup::new(tiny());
        let folder = setup.snapshot();
        let weights = fs::canonicalize(folder.join(WEIGHTS)).unwrap();
        fs::remove_file(&weights).unwrap();
        let mut partial = weights.clone().into_os_string();
        partial.push(".incomplete");
        fs::write(&partial, left).unwrap();
        assert_tiny(&setup.snapshot(), COMMIT);
    }
}

#[test]
fn a_file_with_another_content_is_asked_for_once_more_and_never_kept() {
    for file in [WEIGHTS, "vocab.txt"] {
        let setup = Setup::new(Hub {
            flips: [(file.to_owned(), 1)].into(),
            ..tiny()
        });
        assert_tiny(&setup.snapshot(), COMMIT);

        let setup = Setup::new(Hub {
            flips: [(file.to_owned(), usize::MAX)].into(),
            ..tiny()
        });
        let corrupted = error(ID, &setup.options);
        assert!(
            matches!(&corrupted, HubError::Corrupted { file: named, expected, found, .. }
            if named == file && expected != found),
            "{corrupted:?}"
        );
        let left = files_below(&setup.cache.path().join("models--owner--tiny"));
        let has_content = |name: &String| {
            let path = setup.cache.path().join("models--owner--tiny").join(name);
            let wrong = content(file, COMMIT);
            fs::read(path).unwrap()[1..] == wrong[1..]
        };
        assert!(!left.iter().any(has_content), "{left:?}");
    }
}

#[test]
fn a_busy_hub_is_asked_again_and_a_failing_one_not_for_ever() {
    for (route, status) in [
        ("/revision/", 429),
        ("/tree/", 503),
        ("/resolve/", 500),
        ("vocab.txt", 429),
        ("/revision/", 504),
    ] {
        let setup = Setup::new(Hub {
            faults: vec![(route, status, Some(0), 2)],
            ..tiny()
        });
        assert_tiny(&setup.snapshot(), COMMIT);

        let setup = Setup::new(Hub {
            faults: vec![(route, status, None, 3)],
            ..tiny()
        });
        let failed = error(ID, &setup.options);
        match status {
            429 => assert!(matches!(failed, HubError::RateLimited { .. }), "{failed}"),
            _ => assert!(
                matches!(&failed, HubError::Network { reason, .. }
                if reason.contains(&status.to_string())),
                "{failed}"
            ),
        }
    }
}

#[test]
fn a_hub_that_wants_to_be_left_alone_for_long_is() {
    for (route, status) in [("/revision/", 429), ("/resolve/", 429)] {
        let setup = Setup::new(Hub {
            faults: vec![(route, status, Some(86_400), 1)],
            ..tiny()
        });
        let limited = error(ID, &setup.options);
        assert!(
            matches!(&limited, HubError::RateLimited { wait, .. } if wait.as_secs() == 86_400),
            "{limited:?}"
        );
        let hub = setup.server.hub();
        let asked = hub.requests.iter().filter(|r| r.path.contains(route));
        assert_eq!(asked.count(), 1);
    }
}

#[test]
fn what_would_fail_again_is_asked_for_once() {
    let setup = Setup::new(Hub {
        faults: vec![("/tree/", 403, None, 9)],
        ..tiny()
    });
    assert!(matches!(
        error(ID, &setup.options),
        HubError::Unauthorized { access: "read", .. }
    ));
    assert_eq!(setup.server.take_requests().1, 2);
}

#[test]
fn a_list_of_several_pages_is_read_to_its_end() {
    let setup = Setup::new(Hub {
        page: Some(2),
        ..tiny()
    });
    assert_tiny(&setup.snapshot(), COMMIT);
    let hub = setup.server.hub();
    let pages = hub.requests.iter().filter(|r| r.path.contains("/tree/"));
    assert_eq!(pages.count(), 5);
}

#[test]
fn a_next_page_on_another_host_does_not_get_the_token() {
    let token = Some("hf_right".to_owned());
    let setup = Setup::new(Hub {
        page: Some(2),
        token: token.clone(),
        ..tiny()
    });
    let elsewhere = setup.server.endpoint().replace("127.0.0.1", "localhost");
    setup.server.hub().next_page = Some(format!("{elsewhere}/api/models/{ID}/tree/{COMMIT}"));
    let options = HubOptions {
        token,
        ..setup.options.clone()
    };
    let refused = error(ID, &options);
    assert!(
        matches!(&refused, HubError::InvalidResponse { reason, .. } if reason.contains(&elsewhere)),
        "{refused}"
    );
    let hub = setup.server.hub();
    assert!(hub.requests.iter().all(|r| r.host.starts_with("127.0.0.1")));
}

#[test]
fn a_rate_limit_leaves_the_cache_in_use() {
    let setup = Setup::new(tiny());
    let folder = setup.snapshot();
    setup.server.hub().failing = Some(429);
    assert_eq!(setup.snapshot(), folder);
}

#[test]
fn a_timeout_of_nothing_is_refused() {
    let options = HubOptions {
        timeout: std::time::Duration::ZERO,
        ..HubOptions::default()
    };
    assert!(matches!(
        error(ID, &options),
        HubError::InvalidOption {
            option: "timeout",
            ..
        }
    ));
}

#[test]
fn two_commits_share_what_did_not_change() {
    let setup = Setup::new(tiny());
    setup.snapshot();
    {
        let mut hub = setup.server.hub();
        let next = super::NEXT_COMMIT.to_owned();
        let old = std::mem::replace(&mut hub.commit, next);
        let files = hub.files.clone();
        hub.past.insert(old, files);
        hub.files.insert("vocab.txt".to_owned(), b"other".to_vec());
    }
    setup.server.take_requests();
    let folder = snapshot(ID, &setup.options).unwrap();
    assert_eq!(setup.server.take_requests().0, 1);
    assert_eq!(fs::read(folder.join("vocab.txt")).unwrap(), b"other");
    assert_eq!(files_below(&folder).len(), NEEDED.len());
}
