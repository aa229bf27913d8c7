//! A hub that answers anything, and a data set repository of any files and any card.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::Duration;

use sentence_burn::HubOptions;
use sentence_burn::data::HubDataset;
use sentence_burn::repo::hub::snapshot;

use crate::folder;

const ID: &str = "owner/tiny";
const COMMIT: &str = "1111111111111111111111111111111111111111";

/// What ends each of several parts of an input: no byte of a text.
const BETWEEN: u8 = 0xff;

/// What the hub answers to the next requests, the first one last.
static ANSWERS: Mutex<Vec<Vec<u8>>> = Mutex::new(Vec::new());

/// Starts the hub, and says where it is.
fn endpoint() -> &'static str {
    static ENDPOINT: OnceLock<String> = OnceLock::new();
    ENDPOINT.get_or_init(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                answer(&stream);
            }
        });
        endpoint
    })
}

/// Answers one request. What begins as HTTP does is sent as it is, unless it could lead to
/// another machine; all else is the body of an answer.
fn answer(mut stream: &TcpStream) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    while lines.next().is_some_and(|line| !line.is_empty()) {}
    let Some(answer) = ANSWERS.lock().unwrap().pop() else {
        return;
    };
    let is_whole = answer.starts_with(b"HTTP/");
    let leads_away = answer
        .windows(8)
        .any(|name| name.eq_ignore_ascii_case(b"location"));
    let length = answer.len();
    let head = match is_whole {
        true if leads_away => return,
        true => String::new(),
        false => {
            format!("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n")
        }
    };
    drop(
        stream
            .write_all(head.as_bytes())
            .and_then(|()| stream.write_all(&answer)),
    );
}

fn options(cache: &Path) -> HubOptions {
    HubOptions {
        endpoint: endpoint().to_owned(),
        cache_dir: Some(cache.to_owned()),
        token: Some("hf_secret".to_owned()),
        retries: 0,
        timeout: Duration::from_secs(2),
        ..HubOptions::default()
    }
}

/// What a hub answers, request by request. The first byte says what is asked for, and whether
/// a half of a file is there already.
pub fn hub(data: &[u8]) {
    static ROOM: OnceLock<PathBuf> = OnceLock::new();
    let room = ROOM.get_or_init(folder);
    let cache = room.join("cache");
    let Some((choice, data)) = data.split_first() else {
        return;
    };
    drop(fs::remove_dir_all(&cache));
    let blobs = cache.join("models--owner--tiny/blobs");
    fs::create_dir_all(&blobs).unwrap();
    if choice & 1 != 0 {
        // Of the digest that git gives "hello".
        let half = "b6fc4c620b67d95f953a5c1c1230aaab5db5a1b0.incomplete";
        fs::write(blobs.join(half), "he").unwrap();
    }
    let answers = data.split(|byte| *byte == BETWEEN).rev();
    *ANSWERS.lock().unwrap() = answers.map(<[u8]>::to_vec).collect();
    let mut options = options(&cache);
    if choice & 2 != 0 {
        options.revision = COMMIT.to_owned();
    }
    if choice & 4 != 0 {
        options.subfolder = Some("sub".to_owned());
    }
    match choice & 8 {
        0 => match snapshot(ID, &options) {
            Ok(folder) => assert!(folder.starts_with(&cache)),
            Err(error) => assert!(!error.to_string().contains("hf_secret")),
        },
        _ => {
            options.subfolder = None;
            use_dataset(&options, &cache);
        }
    }
    ANSWERS.lock().unwrap().clear();
    let beside = fs::read_dir(room)
        .unwrap()
        .flatten()
        .map(|entry| entry.file_name());
    assert_eq!(beside.collect::<Vec<_>>(), ["cache"]);
    for entry in fs::read_dir(&cache).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            [".locks", "models--owner--tiny", "datasets--owner--tiny"].contains(&&*name),
            "{name}"
        );
    }
}

/// A data set repository that was downloaded: its card, and behind it the paths of its files,
/// one a line. The first byte says whether the card is a README.
pub fn card(data: &[u8]) {
    static CACHE: OnceLock<PathBuf> = OnceLock::new();
    let Some((choice, data)) = data.split_first() else {
        return;
    };
    let cache = CACHE.get_or_init(folder);
    let repo = cache.join("datasets--owner--tiny");
    let snapshot = repo.join("snapshots").join(COMMIT);
    drop(fs::remove_dir_all(&snapshot));
    for folder in [&snapshot, &repo.join("refs"), &repo.join("listings")] {
        fs::create_dir_all(folder).unwrap();
    }
    let mut parts = data.split(|byte| *byte == BETWEEN);
    let card = parts.next().unwrap_or_default();
    let name = match choice & 1 {
        0 => "README.md",
        _ => ".huggingface.yaml",
    };
    fs::write(snapshot.join(name), card).unwrap();
    let paths = String::from_utf8_lossy(parts.next().unwrap_or_default());
    let mut files: Vec<(&str, usize)> = paths.lines().map(|path| (path, 5)).collect();
    files.push((name, card.len()));
    let listing = serde_json::to_vec(&files).unwrap();
    fs::write(
        repo.join("listings").join(format!("{COMMIT}.json")),
        listing,
    )
    .unwrap();
    fs::write(repo.join("refs/main"), COMMIT).unwrap();
    let options = HubOptions {
        local_files_only: true,
        ..options(cache)
    };
    use_dataset(&options, cache);
}

fn use_dataset(options: &HubOptions, cache: &Path) {
    let dataset = match HubDataset::open(ID, None, options) {
        Ok(dataset) => dataset,
        Err(error) => return assert!(!error.to_string().is_empty()),
    };
    for split in dataset.splits() {
        match dataset.download(split) {
            Ok(files) => {
                for path in files.paths {
                    let is_within = fs::canonicalize(path).unwrap().starts_with(cache);
                    assert!(is_within);
                }
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}
