use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// What can go wrong between here and the Hugging Face Hub.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// The crate was built without the `hub` feature.
    #[error(
        "`{id}` is no local folder, and this build cannot download it: enable the `hub` feature"
    )]
    Disabled {
        /// The id asked for.
        id: String,
    },
    /// No repository can have that id.
    #[error("`{id}` is neither a local folder nor a repository id of the hub: {reason}")]
    InvalidId {
        /// The id asked for.
        id: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An option holds a value that cannot be meant.
    #[error("hub option `{option}` is `{found}`, expected {expected}")]
    InvalidOption {
        /// The option's name.
        option: &'static str,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// There is no such repository, or it is private.
    #[error("no repository `{id}` at {endpoint}: check the name, or give a token if it is private")]
    RepoNotFound {
        /// The repository.
        id: String,
        /// The hub asked.
        endpoint: String,
    },
    /// The repository has no such branch, tag or commit.
    #[error("repository `{id}` has no revision `{revision}`")]
    RevisionNotFound {
        /// The repository.
        id: String,
        /// The branch, tag or commit asked for.
        revision: String,
    },
    /// The repository has no such folder.
    #[error("repository `{id}` has no folder `{subfolder}` at revision `{revision}`")]
    SubfolderNotFound {
        /// The repository.
        id: String,
        /// The branch, tag or commit asked for.
        revision: String,
        /// The folder asked for.
        subfolder: String,
    },
    /// The repository holds no weights in a format this crate reads.
    #[error(
        "repository `{id}` has no safetensors or PyTorch weights{}",
        instead(found)
    )]
    NoWeights {
        /// The repository.
        id: String,
        /// The weights it holds in other formats.
        found: Vec<String>,
    },
    /// The token is missing, wrong, or does not reach this repository.
    #[error("repository `{id}`: access refused ({reason}): give a token that may {access} it")]
    Unauthorized {
        /// The repository.
        id: String,
        /// What the hub says.
        reason: String,
        /// What the token must allow: `read` or `write`.
        access: &'static str,
    },
    /// The hub asks to be left alone for longer than is waited for.
    #[error(
        "repository `{id}`: {endpoint} takes no more requests for now: try again in {} s, or with \
         a token, which may make more", wait.as_secs()
    )]
    RateLimited {
        /// The repository.
        id: String,
        /// The hub asked.
        endpoint: String,
        /// How long to wait.
        wait: Duration,
    },
    /// The hub does not take what is sent to it.
    #[error("repository `{id}`: {endpoint} refuses the request: {reason}")]
    Refused {
        /// The repository.
        id: String,
        /// The hub asked.
        endpoint: String,
        /// What the hub says.
        reason: String,
    },
    /// A repository that was to be made is there already.
    #[error("repository `{id}` is there already: set `exist_ok` to push into it")]
    AlreadyThere {
        /// The repository.
        id: String,
    },
    /// What is pushed and what is there would be read as one model.
    #[error("repository `{id}` holds {holds} already: push to another repository or branch")]
    Occupied {
        /// The repository.
        id: String,
        /// What it holds.
        holds: &'static str,
    },
    /// The repository is open only to those who accepted its terms.
    #[error(
        "repository `{id}` is gated: accept its terms at {endpoint}/{id}, then give the token of \
         the account that did"
    )]
    Gated {
        /// The repository.
        id: String,
        /// The hub asked.
        endpoint: String,
    },
    /// Only local files may be used, and the repository is not among them.
    #[error(
        "repository `{id}` at revision `{revision}` is not in the cache {}: download it once \
         without `local_files_only`",
        cache_dir.display()
    )]
    NotCached {
        /// The repository.
        id: String,
        /// The branch, tag or commit asked for.
        revision: String,
        /// The cache looked in.
        cache_dir: PathBuf,
    },
    /// The hub cannot be reached, or fails.
    #[error(
        "repository `{id}`: {endpoint} does not answer as it should: {reason}; without a network, \
         load a local folder or a repository that is in the cache"
    )]
    Network {
        /// The repository.
        id: String,
        /// The hub asked.
        endpoint: String,
        /// The cause.
        reason: String,
    },
    /// The hub's answer is not what this crate expects of a hub.
    #[error("repository `{id}`: unexpected answer of {endpoint}: {reason}")]
    InvalidResponse {
        /// The repository.
        id: String,
        /// The hub asked.
        endpoint: String,
        /// What is unexpected.
        reason: String,
    },
    /// A file arrived incomplete or is another one; it was removed.
    #[error("repository `{id}`: {file} arrived with {found} bytes, the hub lists {expected}")]
    Damaged {
        /// The repository.
        id: String,
        /// The file.
        file: String,
        /// The size that the hub lists.
        expected: u64,
        /// The size that arrived.
        found: u64,
    },
    /// A file arrived with another content; it was removed.
    #[error(
        "repository `{id}`: {file} arrived with the digest {found}, the hub lists {expected}: \
         something between here and the hub changes it"
    )]
    Corrupted {
        /// The repository.
        id: String,
        /// The file.
        file: String,
        /// The digest that the hub lists.
        expected: String,
        /// The digest that arrived.
        found: String,
    },
    /// There is nothing to ask a hub with.
    #[error("cannot make a client for the hub: {reason}")]
    NoClient {
        /// The cause.
        reason: String,
    },
    /// There is no home folder to keep a cache in.
    #[error("no home folder to keep downloads in: give `cache_dir`")]
    NoCacheDir,
    /// The cache cannot be read or written.
    #[error("{}: cannot use as a cache: {source}", path.display())]
    Cache {
        /// The folder or file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

fn instead(found: &[String]) -> String {
    if found.is_empty() {
        return String::new();
    }
    format!(" but {}: convert them to safetensors", found.join(", "))
}
