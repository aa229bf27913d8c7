//! A hub on 127.0.0.1: the routes that downloads and pushes use, over plain HTTP/1.1.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

use serde_json::{Value, json};
use sha1::{Digest, Sha1};
use sha2::Sha256;

/// The files of a commit, by path.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// The state of one repository's main branch, and how the hub behaves.
#[derive(Default)]
pub(crate) struct Hub {
    /// `owner/name`.
    pub(crate) id: String,
    /// Whether it is a data set, whose routes are others than a model's.
    pub(crate) dataset: bool,
    /// What `main` stands for, forty hexadecimal digits.
    pub(crate) commit: String,
    /// The files of every commit, by path.
    pub(crate) files: Files,
    /// The commits before it, with their files.
    pub(crate) past: BTreeMap<String, Files>,
    /// What other branches stand for, and pull requests as `refs/pr/N` and the like.
    pub(crate) branches: BTreeMap<String, String>,
    /// Whether the repository is still to be made.
    pub(crate) is_missing: bool,
    /// Whether it was made private.
    pub(crate) is_private: bool,
    /// The only token that may read, if reading needs one.
    pub(crate) token: Option<String>,
    /// Whether files, though listed to all, are only for those who accepted the terms.
    pub(crate) gated: bool,
    /// Whether files' contents come from another host, as large ones' do.
    pub(crate) redirects: bool,
    /// A name that the repository had before.
    pub(crate) former_id: Option<String>,
    /// The size that the hub lists for a file, where that is a lie.
    pub(crate) listed_sizes: BTreeMap<String, usize>,
    /// A file whose second half never comes.
    pub(crate) cut: Option<String>,
    /// How often a file's content stops half-way: the connection ends.
    pub(crate) drops: BTreeMap<String, usize>,
    /// How often a file's content stops half-way: nothing more comes, nor does it end.
    pub(crate) stalls: BTreeMap<String, usize>,
    /// How often a file arrives with another byte in it.
    pub(crate) flips: BTreeMap<String, usize>,
    /// Whether the hub sends whole files where it is asked for a part.
    pub(crate) ignores_ranges: bool,
    /// How many entries of a list come at a time, if not all.
    pub(crate) page: Option<usize>,
    /// Where the next page is said to be, where that is a lie.
    pub(crate) next_page: Option<String>,
    /// The errors that requests are answered with first: a part of their path, the status,
    /// how long to wait, and how often.
    pub(crate) faults: Vec<(&'static str, u16, Option<u64>, usize)>,
    /// The only token that may write, if not any.
    pub(crate) write_token: Option<String>,
    /// Whether no token may make a repository.
    pub(crate) makes_none: bool,
    /// The status that every request is answered with.
    pub(crate) failing: Option<u16>,
    /// Other repositories that the hub has.
    pub(crate) also: Vec<Hub>,
    /// The requests so far.
    pub(crate) requests: Vec<Request>,
}

/// What came from the client.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) host: String,
    pub(crate) authorization: Option<String>,
    pub(crate) range: Option<String>,
    pub(crate) body: String,
}

/// A running hub; it stops when dropped.
pub(crate) struct HubServer {
    address: SocketAddr,
    hub: Arc<Mutex<Hub>>,
    stopped: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl HubServer {
    pub(crate) fn start(hub: Hub) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let hub = Arc::new(Mutex::new(hub));
        let stopped = Arc::new(AtomicBool::new(false));
        let (shared, stop) = (hub.clone(), stopped.clone());
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let (stream, shared) = (stream.unwrap(), shared.clone());
                std::thread::spawn(move || serve(&stream, &shared));
            }
        });
        Self {
            address,
            hub,
            stopped,
            thread: Some(thread),
        }
    }

    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn hub(&self) -> MutexGuard<'_, Hub> {
        self.hub.lock().unwrap()
    }

    /// How many requests there were for files' contents since the last call, and how many
    /// in all.
    pub(crate) fn take_requests(&self) -> (usize, usize) {
        let requests = std::mem::take(&mut self.hub().requests);
        let contents = requests
            .iter()
            .filter(|r| {
                r.method == "GET" && (r.path.contains("/resolve/") || r.path.starts_with("/cdn/"))
            })
            .count();
        (contents, requests.len())
    }
}

impl Drop for HubServer {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes the thread up.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

struct Response {
    status: u16,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// How much of the body is sent.
    sent: usize,
    /// Whether the rest never comes, instead of the connection's end.
    stalls: bool,
}

impl Response {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self {
            status,
            headers: Vec::new(),
            sent: body.len(),
            stalls: false,
            body,
        }
    }

    fn error(status: u16, code: &str, message: &str) -> Self {
        let mut response = Self::new(status, format!("{{\"error\": \"{message}\"}}"));
        if !code.is_empty() {
            response.headers.push(("X-Error-Code", code.to_owned()));
        }
        response
            .headers
            .push(("X-Error-Message", message.to_owned()));
        response
    }
}

/// Answers one request.
fn serve(mut stream: &TcpStream, hub: &Mutex<Hub>) {
    let mut reader = BufReader::new(stream);
    let mut lines = reader.by_ref().lines().map_while(Result::ok);
    let Some(first) = lines.next() else { return };
    let headers: Vec<(String, String)> = lines
        .take_while(|line| !line.is_empty())
        .filter_map(|line| {
            line.split_once(": ")
                .map(|(n, v)| (n.to_lowercase(), v.to_owned()))
        })
        .collect();
    let header = |name: &str| {
        headers
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.clone())
    };
    let length = header("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let mut words = first.split_whitespace().map(str::to_owned);
    let request = Request {
        method: words.next().unwrap(),
        path: words.next().unwrap(),
        host: header("host").unwrap(),
        authorization: header("authorization"),
        range: header("range"),
        body: String::from_utf8(body).unwrap(),
    };
    let mut hub = hub.lock().unwrap();
    let response = hub.answer(&request);
    let with_body = request.method != "HEAD";
    hub.requests.push(request);
    drop(hub);
    let mut head = format!("HTTP/1.1 {} -\r\nConnection: close\r\n", response.status);
    for (name, value) in &response.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", response.body.len()));
    let body = if with_body {
        &response.body[..response.sent]
    } else {
        &[]
    };
    // A client that went away is the test's business, not the hub's.
    let _ = stream
        .write_all(head.as_bytes())
        .and_then(|()| stream.write_all(body));
    if response.stalls {
        // Until the client has had enough.
        let _ = stream.read(&mut [0]);
    }
}

impl Hub {
    fn answer(&mut self, request: &Request) -> Response {
        if let Some(status) = self.failing {
            return Response::error(status, "", "the hub has a bad day");
        }
        let asks_for =
            |other: &&mut Self| format!("{}/", request.path).contains(&format!("/{}/", other.id));
        if let Some(other) = self.also.iter_mut().find(asks_for) {
            return other.answer(request);
        }
        for (part, status, wait, times) in &mut self.faults {
            if *times > 0 && request.path.contains(*part) {
                *times -= 1;
                let mut response = Response::error(*status, "", "not now");
                let wait = wait.map(|seconds| ("Retry-After", seconds.to_string()));
                response.headers.extend(wait);
                return response;
            }
        }
        let path = request.path.split('?').next().unwrap();
        let path = match (self.dataset, path.strip_prefix("/api/datasets/")) {
            (true, Some(rest)) => format!("/api/models/{rest}"),
            (true, None) if path.starts_with("/api/") => "/no/such/route".to_owned(),
            (true, None) => path.replacen("/datasets/", "/", 1),
            (false, _) => path.to_owned(),
        };
        if let Some(former) = &self.former_id
            && path.contains(&format!("/{former}/"))
        {
            let mut response = Response::new(307, "");
            let location = request.path.replacen(former, &self.id, 1);
            response.headers.push(("Location", location));
            return response;
        }
        if let Some(file) = path.strip_prefix("/cdn/") {
            return self.content(&self.commit.clone(), file, request);
        }
        if let Some(token) = &self.token
            && request.authorization != Some(format!("Bearer {token}"))
        {
            return match &request.authorization {
                Some(_) => Response::error(401, "", "Invalid credentials in Authorization header"),
                None => Response::error(401, "RepoNotFound", "Repository not found"),
            };
        }
        if request.method == "POST" {
            return self.change(&path, request);
        }
        if self.is_missing {
            return Response::error(404, "RepoNotFound", "Repository not found");
        }
        let api = format!("/api/models/{}", self.id);
        if let Some(rest) = path.strip_prefix(&api) {
            return match rest.strip_prefix('/').unwrap_or_default().split_once('/') {
                Some(("revision", revision)) => self.info(revision),
                Some(("tree", revision)) => self.tree(revision, request),
                None if rest == "/refs" => self.refs(),
                None if rest.is_empty() => self.info("main"),
                _ => Response::error(404, "", "no such route"),
            };
        }
        let resolve = format!("/{}/resolve/", self.id);
        let file = path
            .strip_prefix(&resolve)
            .and_then(|rest| rest.split_once('/'));
        match file {
            Some((revision, file)) => self.resolve(revision, file, request),
            None => Response::error(404, "RepoNotFound", "Repository not found"),
        }
    }

    /// The commit that a revision in an address stands for.
    fn commit_of(&self, revision: &str) -> Option<String> {
        let revision = revision.replace("%2F", "/");
        match revision.as_str() {
            "main" | "feature/x" => Some(self.commit.clone()),
            known if self.files_at(known).is_some() => Some(revision),
            branch => self.branches.get(branch).cloned(),
        }
    }

    fn info(&self, revision: &str) -> Response {
        let Some(commit) = self.commit_of(revision) else {
            return Response::error(404, "RevisionNotFound", "Invalid rev id");
        };
        let id = &self.id;
        Response::new(
            200,
            format!("{{\"_id\": \"1\", \"id\": \"{id}\", \"sha\": \"{commit}\"}}"),
        )
    }

    pub(crate) fn files_at(&self, commit: &str) -> Option<&Files> {
        match commit == self.commit {
            true => Some(&self.files),
            false => self.past.get(commit),
        }
    }

    fn tree(&self, path: &str, request: &Request) -> Response {
        let (revision, folder) = path.split_once('/').unwrap_or((path, ""));
        let commit = self.commit_of(revision);
        let Some(files) = commit.and_then(|commit| self.files_at(&commit)) else {
            return Response::error(404, "RevisionNotFound", "Invalid rev id");
        };
        let mut entries = vec![json!({ "type": "directory", "oid": "0", "path": "1_Pooling" })];
        for (path, content) in files.iter().filter(|(path, _)| path.starts_with(folder)) {
            let listed = self.listed_sizes.get(path).copied();
            let size = listed.unwrap_or(content.len());
            let mut entry =
                json!({ "type": "file", "oid": git_hash(content), "size": size, "path": path });
            if is_large(path) {
                entry["lfs"] = json!({ "oid": sha256(content), "size": size, "pointerSize": 134 });
                // That of the pointer.
                entry["oid"] = git_hash(b"version https://git-lfs.github.com/spec/v1").into();
            }
            entries.push(entry);
        }
        if entries.len() == 1 {
            return Response::error(404, "EntryNotFound", "no such folder");
        }
        let Some(page) = self.page else {
            return Response::new(200, Value::from(entries).to_string());
        };
        let cursor = request.path.split_once("cursor=");
        let from: usize = cursor.map_or(0, |(_, cursor)| cursor.parse().unwrap());
        let to = entries.len().min(from + page);
        let mut response = Response::new(200, Value::from(&entries[from..to]).to_string());
        if to < entries.len() {
            let path = request.path.split('?').next().unwrap();
            let here = format!("http://{}{path}?recursive=true&cursor={to}", request.host);
            let next = self.next_page.clone().unwrap_or(here);
            let link = format!("<{next}>; rel=\"next\"");
            response.headers.push(("Link", link));
        }
        response
    }

    fn refs(&self) -> Response {
        let pull_requests = self
            .branches
            .iter()
            .filter(|(name, _)| name.starts_with("refs/pr/"));
        let pull_requests: Vec<Value> = pull_requests
            .map(|(name, commit)| json!({ "name": name, "ref": name, "targetCommit": commit }))
            .collect();
        let refs = json!({ "branches": [], "tags": [], "pullRequests": pull_requests });
        Response::new(200, refs.to_string())
    }

    fn resolve(&mut self, commit: &str, file: &str, request: &Request) -> Response {
        let Some(files) = self.files_at(commit) else {
            return Response::error(404, "RepoNotFound", "Repository not found");
        };
        if self.gated {
            return Response::error(403, "GatedRepo", "Access to this model is restricted");
        }
        let content = files.get(file).cloned();
        let mut response = if self.redirects {
            let mut response = Response::new(302, "");
            let elsewhere = request.host.replace("127.0.0.1", "localhost");
            response
                .headers
                .push(("Location", format!("http://{elsewhere}/cdn/{file}")));
            response
        } else {
            self.content(commit, file, request)
        };
        let Some(content) = content else {
            return response;
        };
        let hash = match is_large(file) {
            true => sha256(&content),
            false => git_hash(&content),
        };
        let etag = format!("\"{hash}\"");
        response.headers.push(("ETag", etag.clone()));
        response.headers.push(("X-Linked-ETag", etag));
        response
            .headers
            .push(("X-Linked-Size", content.len().to_string()));
        response.headers.push(("X-Repo-Commit", commit.to_owned()));
        response
    }

    fn content(&mut self, commit: &str, file: &str, request: &Request) -> Response {
        let Some(mut content) = self
            .files_at(commit)
            .and_then(|files| files.get(file))
            .cloned()
        else {
            return Response::error(404, "EntryNotFound", "Entry not found");
        };
        if take_one(&mut self.flips, file) {
            content[0] ^= 1;
        }
        let size = content.len();
        let range = request.range.as_deref().filter(|_| !self.ignores_ranges);
        let from: usize = range.map_or(0, |range| {
            let from = range.strip_prefix("bytes=").unwrap().strip_suffix('-');
            from.unwrap().parse().unwrap()
        });
        if from > 0 && from >= size {
            let mut response = Response::error(416, "", "no such part");
            let range = ("Content-Range", format!("bytes */{size}"));
            response.headers.push(range);
            return response;
        }
        let mut response = Response::new(200, &content[from..]);
        if from > 0 {
            response.status = 206;
            let range = format!("bytes {from}-{}/{size}", size - 1);
            response.headers.push(("Content-Range", range));
        }
        if self.cut.as_deref() == Some(file) {
            response.sent = (size / 2).saturating_sub(from);
        }
        if take_one(&mut self.drops, file) {
            response.sent /= 2;
        }
        if take_one(&mut self.stalls, file) {
            response.sent /= 2;
            response.stalls = true;
        }
        response
    }

    /// Answers a request that makes or changes something.
    fn change(&mut self, path: &str, request: &Request) -> Response {
        let write_token = self
            .write_token
            .as_ref()
            .map(|token| format!("Bearer {token}"));
        if write_token.is_some() && request.authorization != write_token {
            return Response::error(403, "", "you may not write here");
        }
        if path == "/api/repos/create" {
            return self.make(request);
        }
        let api = format!("/api/models/{}/", self.id);
        let route = path
            .strip_prefix(&api)
            .and_then(|rest| rest.split_once('/'));
        let answer = match route {
            _ if path == format!("/{}.git/info/lfs/objects/batch", self.id) => {
                // Without the storage that large files go to, they come with the commit.
                json!({ "transfer": "basic", "objects": [] })
            }
            Some(("branch", name)) => {
                let name = name.replace("%2F", "/");
                if self.branches.contains_key(&name) {
                    return Response::error(409, "", "Reference already exists");
                }
                self.branches.insert(name, self.commit.clone());
                json!({})
            }
            Some(("preupload", _)) => {
                let asked: Value = serde_json::from_str(&request.body).unwrap();
                let mode = |file: &Value| {
                    let path = file["path"].as_str().unwrap();
                    let mode = if is_large(path) { "lfs" } else { "regular" };
                    json!({ "path": path, "uploadMode": mode })
                };
                let files = asked["files"].as_array().unwrap().iter().map(mode);
                json!({ "files": files.collect::<Vec<_>>() })
            }
            Some(("commit", revision)) => return self.commit(revision, request),
            _ => return Response::error(404, "", "no such route"),
        };
        Response::new(200, answer.to_string())
    }

    fn make(&mut self, request: &Request) -> Response {
        if self.makes_none {
            return Response::error(403, "", "you may make no repository");
        }
        let asked: Value = serde_json::from_str(&request.body).unwrap();
        let owner = asked["organization"].as_str().unwrap_or("me");
        let id = format!("{owner}/{}", asked["name"].as_str().unwrap());
        let url = json!({ "url": format!("http://{}/{id}", request.host) }).to_string();
        if !self.is_missing && id == self.id {
            return Response::new(409, url);
        }
        self.id = id;
        self.is_missing = false;
        self.is_private = asked["private"].as_bool().unwrap();
        self.files = Files::from([(".gitattributes".to_owned(), b"*\n".to_vec())]);
        Response::new(200, url)
    }

    fn commit(&mut self, revision: &str, request: &Request) -> Response {
        let Some(parent) = self.commit_of(revision) else {
            return Response::error(404, "RevisionNotFound", "Invalid rev id");
        };
        let mut files = self.files_at(&parent).unwrap().clone();
        for line in request.body.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let value = &line["value"];
            let path = value["path"].as_str().unwrap_or_default().to_owned();
            match line["key"].as_str().unwrap() {
                "header" => {}
                "file" => {
                    let content = base64(value["content"].as_str().unwrap());
                    files.insert(path, content);
                }
                "deletedFile" => {
                    files.remove(&path).unwrap();
                }
                key => return Response::error(400, "", &format!("`{key}`?")),
            }
        }
        let number = self.past.len() + self.branches.len() + 1;
        let commit = format!("{number:040x}");
        let url = format!("http://{}/{}/commit/{commit}", request.host, self.id);
        let mut answer = json!({ "success": true, "commitOid": commit, "commitUrl": url });
        let revision = revision.replace("%2F", "/");
        if request.path.contains("create_pr=1") {
            self.branches.insert("refs/pr/7".to_owned(), commit.clone());
            self.past.insert(commit, files);
            answer["pullRequestUrl"] =
                format!("http://{}/{}/discussions/7", request.host, self.id).into();
        } else if revision == "main" {
            let old = std::mem::replace(&mut self.files, files);
            self.past
                .insert(std::mem::replace(&mut self.commit, commit), old);
        } else {
            self.branches.insert(revision, commit.clone());
            self.past.insert(commit, files);
        }
        Response::new(200, answer.to_string())
    }
}

/// Whether there is one left, which is then taken.
fn take_one(left: &mut BTreeMap<String, usize>, file: &str) -> bool {
    match left.get_mut(file).filter(|left| **left > 0) {
        Some(left) => {
            *left -= 1;
            true
        }
        None => false,
    }
}

/// Whether a file is kept beside the repository.
fn is_large(path: &str) -> bool {
    path.ends_with(".safetensors")
}

fn git_hash(content: &[u8]) -> String {
    let header = format!("blob {}\0", content.len());
    let hash = Sha1::new_with_prefix(header)
        .chain_update(content)
        .finalize();
    hex(&hash)
}

fn sha256(content: &[u8]) -> String {
    hex(&Sha256::digest(content))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn base64(text: &str) -> Vec<u8> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = text.bytes().filter(|byte| *byte != b'=');
    let (mut bits, mut count, mut bytes) = (0u32, 0, Vec::new());
    for digit in digits {
        let value = DIGITS.iter().position(|known| *known == digit).unwrap();
        bits = bits << 6 | u32::try_from(value).unwrap();
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push(u8::try_from(bits >> count & 0xff).unwrap());
        }
    }
    bytes
}
