//! A hub on 127.0.0.1: the routes that a download uses, over plain HTTP/1.1.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::JoinHandle;

/// The state of one repository's main branch, and how the hub behaves.
#[derive(Default)]
pub(crate) struct Hub {
    /// `owner/name`.
    pub(crate) id: String,
    /// Whether it is a data set, whose routes are others than a model's.
    pub(crate) dataset: bool,
    /// The commits that revisions beside `main` stand for, by their names as in an address.
    pub(crate) revisions: BTreeMap<String, String>,
    /// What `main` stands for, forty hexadecimal digits.
    pub(crate) commit: String,
    /// The files of every commit, by path.
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// The commits before it, with their files.
    pub(crate) past: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
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
    /// A file whose content stops half-way.
    pub(crate) cut: Option<String>,
    /// The status that every request is answered with.
    pub(crate) failing: Option<u16>,
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
                serve(&stream.unwrap(), &shared);
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
}

impl Response {
    fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        let body = body.into();
        Self {
            status,
            headers: Vec::new(),
            sent: body.len(),
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
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
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
    let mut words = first.split_whitespace().map(str::to_owned);
    let request = Request {
        method: words.next().unwrap(),
        path: words.next().unwrap(),
        host: header("host").unwrap(),
        authorization: header("authorization"),
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
}

impl Hub {
    fn answer(&self, request: &Request) -> Response {
        if let Some(status) = self.failing {
            return Response::error(status, "", "the hub has a bad day");
        }
        let path = request.path.split('?').next().unwrap();
        let path = match (self.dataset, path.strip_prefix("/api/datasets/")) {
            (true, Some(rest)) => format!("/api/models/{rest}"),
            (true, None) if path.starts_with("/api/") => "/no/such/route".to_owned(),
            (true, None) => path.replacen("/datasets/", "/", 1),
            (false, _) => path.to_owned(),
        };
        let path = path.as_str();
        if let Some(former) = &self.former_id
            && path.contains(&format!("/{former}/"))
        {
            let mut response = Response::new(307, "");
            let location = path.replacen(former, &self.id, 1);
            response.headers.push(("Location", location));
            return response;
        }
        if let Some(file) = path.strip_prefix("/cdn/") {
            return self.content(&self.files, file);
        }
        if let Some(token) = &self.token
            && request.authorization != Some(format!("Bearer {token}"))
        {
            return match &request.authorization {
                Some(_) => Response::error(401, "", "Invalid credentials in Authorization header"),
                None => Response::error(401, "RepoNotFound", "Repository not found"),
            };
        }
        let api = format!("/api/models/{}/", self.id);
        if let Some(rest) = path.strip_prefix(&api) {
            return match rest.split_once('/') {
                Some(("revision", revision)) => self.info(revision),
                Some(("tree", revision)) => self.tree(revision),
                _ => Response::error(404, "", "no such route"),
            };
        }
        let resolve = format!("/{}/resolve/", self.id);
        let file = path
            .strip_prefix(&resolve)
            .and_then(|rest| rest.split_once('/'));
        match file {
            Some((revision, file)) => self.resolve(revision, file, &request.host),
            None => Response::error(404, "RepoNotFound", "Repository not found"),
        }
    }

    fn info(&self, revision: &str) -> Response {
        let commit = match revision {
            "main" | "feature%2Fx" => &self.commit,
            known if self.revisions.contains_key(known) => self.revisions[known].as_str(),
            known if self.files_at(known).is_some() => known,
            _ => return Response::error(404, "RevisionNotFound", "Invalid rev id"),
        };
        let id = &self.id;
        Response::new(
            200,
            format!("{{\"_id\": \"1\", \"id\": \"{id}\", \"sha\": \"{commit}\"}}"),
        )
    }

    fn files_at(&self, commit: &str) -> Option<&BTreeMap<String, Vec<u8>>> {
        match commit == self.commit {
            true => Some(&self.files),
            false => self.past.get(commit),
        }
    }

    fn tree(&self, path: &str) -> Response {
        let (revision, folder) = path.split_once('/').unwrap_or((path, ""));
        let Some(files) = self.files_at(revision) else {
            return Response::error(404, "RevisionNotFound", "Invalid rev id");
        };
        let entries: Vec<String> = files
            .iter()
            .filter(|(path, _)| path.starts_with(folder))
            .map(|(path, content)| {
                let size = self
                    .listed_sizes
                    .get(path)
                    .copied()
                    .unwrap_or(content.len());
                format!(
                    "{{\"type\": \"file\", \"oid\": \"0\", \"size\": {size}, \"path\": \"{path}\"}}"
                )
            })
            .collect();
        if entries.is_empty() {
            return Response::error(404, "EntryNotFound", "no such folder");
        }
        let folder = "{\"type\": \"directory\", \"oid\": \"0\", \"path\": \"1_Pooling\"}";
        Response::new(200, format!("[{folder}, {}]", entries.join(", ")))
    }

    fn resolve(&self, commit: &str, file: &str, host: &str) -> Response {
        let Some(files) = self.files_at(commit) else {
            return Response::error(404, "RepoNotFound", "Repository not found");
        };
        if self.gated {
            return Response::error(403, "GatedRepo", "Access to this model is restricted");
        }
        let mut response = if self.redirects {
            let mut response = Response::new(302, "");
            let elsewhere = host.replace("127.0.0.1", "localhost");
            response
                .headers
                .push(("Location", format!("http://{elsewhere}/cdn/{file}")));
            response
        } else {
            self.content(files, file)
        };
        let Some(content) = files.get(file) else {
            return response;
        };
        let mut hasher = DefaultHasher::new();
        content.hash(&mut hasher);
        let etag = format!("\"{}-{:x}\"", file.replace('/', "-"), hasher.finish());
        response.headers.push(("ETag", etag.clone()));
        response.headers.push(("X-Linked-ETag", etag));
        response
            .headers
            .push(("X-Linked-Size", content.len().to_string()));
        response.headers.push(("X-Repo-Commit", commit.to_owned()));
        response
    }

    fn content(&self, files: &BTreeMap<String, Vec<u8>>, file: &str) -> Response {
        let Some(content) = files.get(file) else {
            return Response::error(404, "EntryNotFound", "Entry not found");
        };
        let mut response = Response::new(200, content.clone());
        if self.cut.as_deref() == Some(file) {
            response.sent /= 2;
        }
        response
    }
}
