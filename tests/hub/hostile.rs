//! A hub that lies, breaks off or never ends, and processes that end while they download.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use sentence_burn::error::{Error, HubError};
use sentence_burn::repo::hub::{HubOptions, snapshot};
use serde_json::{Value, json};

use super::{
    COMMIT, ID, NEEDED, NEXT_COMMIT, Setup, assert_tiny, content, error, files_below, tiny,
};

/// What a hub sends for the path of a request: as it is, over and over where it never ends.
struct Answer {
    bytes: Vec<u8>,
    is_endless: bool,
}

fn answer(body: impl Into<Vec<u8>>) -> Answer {
    with_headers("", body)
}

fn with_headers(headers: &str, body: impl Into<Vec<u8>>) -> Answer {
    let body = body.into();
    let length = body.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
    );
    Answer {
        bytes: [head.as_bytes(), &body].concat(),
        is_endless: false,
    }
}

/// A hub that sends what it is told to.
struct LyingHub {
    address: String,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl LyingHub {
    fn start(answer: impl Fn(&str) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let stopped = Arc::new(AtomicBool::new(false));
        let stop = stopped.clone();
        let thread = thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(SeqCst) {
                    break;
                }
                send(&stream.unwrap(), &answer);
            }
        });
        Self {
            address,
            stopped,
            thread: Some(thread),
        }
    }

    fn options(&self, cache: &Path) -> HubOptions {
        HubOptions {
            endpoint: format!("http://{}", self.address),
            cache_dir: Some(cache.to_owned()),
            retries: 0,
            timeout: Duration::from_secs(5),
            ..HubOptions::default()
        }
    }
}

impl Drop for LyingHub {
    fn drop(&mut self) {
        self.stopped.store(true, SeqCst);
        drop(TcpStream::connect(&self.address));
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

fn send(mut stream: &TcpStream, answer: &dyn Fn(&str) -> Answer) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    while lines.next().is_some_and(|line| !line.is_empty()) {}
    let path = first.split_whitespace().nth(1).unwrap_or_default();
    let Answer { bytes, is_endless } = answer(path);
    let mut sent = stream.write_all(&bytes);
    let more = vec![b' '; 1 << 16];
    while is_endless && sent.is_ok() {
        sent = stream.write_all(&more);
    }
}

/// What the hub says of files that `tiny` has, each of 5 bytes.
fn listing() -> Value {
    let file =
        |path: &&str| json!({ "type": "file", "oid": "0".repeat(40), "size": 5, "path": path });
    NEEDED.iter().map(file).collect()
}

fn info() -> Value {
    json!({ "sha": COMMIT })
}

/// A snapshot from a hub that answers with these; what is beside the cache must stay so.
fn snapshot_of(info: Vec<u8>, tree: Vec<u8>, file: Vec<u8>) -> Result<PathBuf, Error> {
    let room = tempfile::tempdir().unwrap();
    let cache = room.path().join("cache");
    fs::create_dir(&cache).unwrap();
    let hub = LyingHub::start(move |path| match path {
        path if path.contains("/revision/") => answer(info.clone()),
        path if path.contains("/tree/") => answer(tree.clone()),
        _ => answer(file.clone()),
    });
    let found = snapshot(ID, &hub.options(&cache));
    let beside: Vec<_> = fs::read_dir(room.path()).unwrap().collect();
    assert_eq!(beside.len(), 1, "{beside:?}");
    for path in files_below(&cache) {
        assert!(
            path.starts_with("models--owner--tiny/") || path.starts_with(".locks/"),
            "{path}"
        );
    }
    found
}

#[test]
fn answers_that_say_something_else_are_errors_that_name_the_hub() {
    let as_told = |info: &Value, tree: &Value| {
        let bytes = |value: &Value| value.to_string().into_bytes();
        snapshot_of(bytes(info), bytes(tree), b"12345".to_vec())
    };
    // The digests are none of the contents: it gets as far as that.
    let far = as_told(&info(), &listing()).unwrap_err();
    assert!(
        matches!(far, Error::Hub(HubError::Corrupted { .. })),
        "{far}"
    );
    let values = [
        json!(null),
        json!(-1),
        json!(1e300),
        json!(u64::MAX),
        json!(""),
        json!("x"),
        json!("../../../outside"),
        json!("/outside"),
        json!("a\u{0}b"),
        json!("..\\outside"),
        json!("C:outside"),
        json!([]),
        json!({}),
        json!([[[[]]]]),
    ];
    for value in &values {
        let sha = as_told(&json!({ "sha": value }), &listing()).unwrap_err();
        assert!(matches!(sha, Error::Hub(_)), "{value} {sha}");
        let info_itself = as_told(value, &listing()).unwrap_err();
        assert!(
            matches!(info_itself, Error::Hub(_)),
            "{value} {info_itself}"
        );
        let tree = as_told(&info(), value).unwrap_err();
        assert!(matches!(tree, Error::Hub(_)), "{value} {tree}");
        for field in ["type", "oid", "size", "path", "lfs"] {
            let mut tree = listing();
            tree[3][field] = value.clone();
            let error = as_told(&info(), &tree).unwrap_err();
            assert!(matches!(error, Error::Hub(_)), "{field} {value} {error}");
        }
    }
    for broken in [
        &b""[..],
        b"[",
        b"\xff\xfe",
        b"{\"sha\": \"\\ud800\"}",
        &[b'['; 100_000],
    ] {
        let told = [
            (broken.to_vec(), listing().to_string().into_bytes()),
            (info().to_string().into_bytes(), broken.to_vec()),
        ];
        for (info, tree) in told {
            assert!(matches!(
                snapshot_of(info, tree, vec![]),
                Err(Error::Hub(_))
            ));
        }
    }
}

#[test]
fn what_is_no_http_is_an_error_that_names_the_hub() {
    for bytes in [
        &b""[..],
        b"\x00\x01\x02",
        b"HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{}",
        b"HTTP/1.1 999 What\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: /again\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 9-5/x\r\nContent-Length: 2\r\n\r\n{}",
    ] {
        let cache = tempfile::tempdir().unwrap();
        let hub = LyingHub::start(|_| Answer {
            bytes: bytes.to_vec(),
            is_endless: false,
        });
        let error = error(ID, &hub.options(cache.path())).to_string();
        assert!(error.contains("127.0.0.1") || error.contains(ID), "{error}");
    }
}

#[test]
fn answers_without_an_end_are_given_up() {
    let endless = |part: &'static str| {
        LyingHub::start(move |path| {
            let is_endless = path.contains(part);
            let mut answer = match path {
                path if path.contains("/revision/") => answer(info().to_string()),
                path if path.contains("/tree/") => answer(listing().to_string()),
                _ => answer("12345"),
            };
            if is_endless {
                answer.bytes = b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n[".to_vec();
                answer.is_endless = true;
            }
            answer
        })
    };
    let cache = tempfile::tempdir().unwrap();
    for part in ["/revision/", "/tree/"] {
        let hub = endless(part);
        let error = error(ID, &hub.options(cache.path()));
        assert!(
            matches!(&error, HubError::InvalidResponse { reason, .. } if reason.contains("more than")),
            "{error}"
        );
    }
    let hub = endless("/resolve/");
    let error = error(ID, &hub.options(cache.path()));
    assert!(
        matches!(&error, HubError::Damaged { expected: 5, found, .. } if *found < 4 << 20),
        "{error}"
    );
    let left = files_below(cache.path());
    assert!(left.iter().all(|path| path.ends_with(".lock")), "{left:?}");
}

#[test]
fn a_list_that_goes_round_in_circles_is_given_up() {
    let hub = LyingHub::start(|path| match path.contains("/tree/") {
        true => with_headers(
            "Link: </api/models/owner/tiny/tree/x?cursor=1>; rel=\"next\"\r\n",
            "[]",
        ),
        false => answer(info().to_string()),
    });
    let cache = tempfile::tempdir().unwrap();
    let error = error(ID, &hub.options(cache.path()));
    assert!(
        matches!(&error, HubError::InvalidResponse { reason, .. } if reason.contains("pages")),
        "{error}"
    );
}

const ENDPOINT: &str = "SENTENCE_BURN_TEST_ENDPOINT";
const CACHE: &str = "SENTENCE_BURN_TEST_CACHE";
const NAME: &str = "hostile::the_download_that_is_cut_off";

#[test]
fn the_download_that_is_cut_off() {
    let (Some(endpoint), Some(cache)) = (env::var_os(ENDPOINT), env::var_os(CACHE)) else {
        return;
    };
    let options = HubOptions {
        endpoint: endpoint.into_string().unwrap(),
        cache_dir: Some(cache.into()),
        retries: 0,
        timeout: Duration::from_secs(60),
        ..HubOptions::default()
    };
    if let Err(error) = snapshot(ID, &options) {
        eprintln!("said: {error}");
    }
}

fn download(setup: &Setup) -> Command {
    let mut command = Command::new(env::current_exe().unwrap());
    command
        .args(["--exact", NAME, "--nocapture"])
        .env(ENDPOINT, setup.server.endpoint())
        .env(CACHE, setup.cache.path());
    command
}

fn start(setup: &Setup) -> Child {
    let mut command = download(setup);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// Waits until the hub was asked for a file's content and half of it has come.
fn wait_for_half(setup: &Setup, child: &mut Child, file: &str, commit: &str) {
    let blobs = setup.cache.path().join("models--owner--tiny/blobs");
    let half = content(file, commit).len() as u64 / 2;
    loop {
        let asked = |path: &str| path.contains("/resolve/") && path.ends_with(&format!("/{file}"));
        let is_asked = setup.server.hub().requests.iter().any(|r| asked(&r.path));
        let partial = fs::read_dir(&blobs).into_iter().flatten().flatten();
        let mut partial = partial.filter(|entry| {
            let name = entry.file_name().into_string().unwrap();
            name.ends_with(".incomplete")
        });
        if is_asked && partial.any(|entry| entry.metadata().is_ok_and(|m| m.len() >= half)) {
            return;
        }
        assert!(child.try_wait().unwrap().is_none(), "{file}: it ended");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_download_that_is_killed_in_any_file_leaves_nothing_half_and_goes_on() {
    for file in NEEDED {
        let setup = Setup::new(tiny());
        setup.server.hub().stalls = [(file.to_owned(), 1)].into();
        let mut child = start(&setup);
        wait_for_half(&setup, &mut child, file, COMMIT);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(
            matches!(error(ID, &setup.offline()), HubError::NotCached { .. }),
            "{file}"
        );
        assert_tiny(&setup.snapshot(), COMMIT);
    }
}

#[test]
fn an_update_that_is_killed_in_any_file_leaves_the_former_state() {
    for file in NEEDED {
        let setup = Setup::new(tiny());
        assert_tiny(&setup.snapshot(), COMMIT);
        {
            let mut hub = setup.server.hub();
            hub.requests.clear();
            hub.commit = NEXT_COMMIT.to_owned();
            for (path, bytes) in &mut hub.files {
                *bytes = content(path, NEXT_COMMIT);
            }
            hub.stalls = [(file.to_owned(), 1)].into();
        }
        let mut child = start(&setup);
        wait_for_half(&setup, &mut child, file, NEXT_COMMIT);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_tiny(&snapshot(ID, &setup.offline()).unwrap(), COMMIT);
        assert_tiny(&setup.snapshot(), NEXT_COMMIT);
    }
}

#[cfg(unix)]
#[test]
fn a_download_onto_a_full_disk_says_so_and_goes_on_where_there_is_room_again() {
    let setup = Setup::new(tiny());
    let download = download(&setup);
    let mut shell = Command::new("sh");
    // Without the signal, writing fails as it does where a disk is full.
    shell
        .args(["-c", "trap '' XFSZ; ulimit -f 0; exec \"$0\" \"$@\""])
        .arg(download.get_program())
        .args(download.get_args())
        .envs(
            download
                .get_envs()
                .filter_map(|(name, value)| Some((name, value?))),
        );
    let output = shell.output().unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let said = text.lines().find_map(|line| line.strip_prefix("said: "));
    assert!(said.is_some_and(|said| said.contains("blobs")), "{text}");
    assert!(matches!(
        error(ID, &setup.offline()),
        HubError::NotCached { .. }
    ));
    assert_tiny(&setup.snapshot(), COMMIT);
}
