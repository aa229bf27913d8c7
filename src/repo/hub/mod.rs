//! Models and adapters by their Hugging Face Hub id.
//!
//! [`snapshot`] downloads what a model's folder needs into a cache and returns the folder.
//! The cache is laid out as Python's `huggingface_hub` lays it out: what either has
//! downloaded, the other finds.
//!
//! What the environment says about the hub is not read: not `HF_TOKEN`, `HF_HOME`,
//! `HF_HUB_CACHE` nor `HF_ENDPOINT`, and not the token that `hf auth login` stores. A
//! program that wants them puts them into [`HubOptions`]. (The HTTP client below follows
//! the system's proxy settings.)

#[cfg(feature = "hub")]
mod asking;
#[cfg(feature = "hub")]
mod cache;
#[cfg(feature = "hub")]
mod changes;
#[cfg(feature = "datasets")]
mod dataset;
#[cfg(feature = "hub")]
mod digest;
#[cfg(feature = "hub")]
mod download;
#[cfg(feature = "hub")]
mod explain;
#[cfg(feature = "hub")]
mod http;
#[cfg(feature = "hub")]
mod listing;
#[cfg(feature = "hub")]
mod push;
#[cfg(feature = "hub")]
mod remote;
mod repo_id;
#[cfg(feature = "hub")]
mod retry;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

#[cfg(feature = "hub")]
pub use self::push::{PushOptions, Pushed};

#[cfg(feature = "datasets")]
pub(crate) use self::dataset::DatasetRepository;
use self::repo_id::RepoId;
use crate::error::{HubError, Result};

/// The hub that [`HubOptions`] names by default.
pub const DEFAULT_ENDPOINT: &str = "https://huggingface.co";

/// Which state of a repository to take, from where, and where to keep it.
///
/// `Debug` does not show the token.
#[derive(Clone, PartialEq, Eq)]
pub struct HubOptions {
    /// The branch, tag or commit.
    pub revision: String,
    /// A folder in the repository to take instead of the whole.
    pub subfolder: Option<String>,
    /// The token of an account that may read the repository, for private and gated ones.
    pub token: Option<String>,
    /// Where downloads are kept. `None` is `.cache/huggingface/hub` in the user's home
    /// folder, as in Python.
    pub cache_dir: Option<PathBuf>,
    /// The hub's address.
    pub endpoint: String,
    /// Whether to use only what is in the cache, without any network access.
    pub local_files_only: bool,
    /// How often a request is tried again after a failure that may pass: a hub that is busy
    /// or fails, a connection that breaks. The waits between grow, and are as long as the hub
    /// asks for, up to five minutes; a download that came further counts from the beginning.
    pub retries: usize,
    /// How long to wait for a connection, and for each piece of an answer.
    pub timeout: Duration,
}

impl Default for HubOptions {
    fn default() -> Self {
        Self {
            revision: "main".to_owned(),
            subfolder: None,
            token: None,
            cache_dir: None,
            endpoint: DEFAULT_ENDPOINT.to_owned(),
            local_files_only: false,
            retries: 5,
            timeout: Duration::from_secs(10),
        }
    }
}

impl fmt::Debug for HubOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubOptions")
            .field("revision", &self.revision)
            .field("subfolder", &self.subfolder)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("cache_dir", &self.cache_dir)
            .field("endpoint", &self.endpoint)
            .field("local_files_only", &self.local_files_only)
            .field("retries", &self.retries)
            .field("timeout", &self.timeout)
            .finish()
    }
}

impl HubOptions {
    /// The default state of a repository, on the same hub and in the same cache: for a base
    /// model, whose revision and subfolder are not its adapter's.
    pub(super) fn default_on(hub: &Self) -> Self {
        let defaults = Self::default();
        Self {
            revision: defaults.revision,
            subfolder: defaults.subfolder,
            ..hub.clone()
        }
    }

    fn validate(&self) -> Result<(), HubError> {
        // Both become paths in the cache.
        if !is_plain_path(&self.revision) {
            return Err(HubError::InvalidOption {
                option: "revision",
                expected: "a branch, tag or commit",
                found: self.revision.clone(),
            });
        }
        if let Some(subfolder) = self.subfolder.as_ref().filter(|path| !is_plain_path(path)) {
            return Err(HubError::InvalidOption {
                option: "subfolder",
                expected: "a path inside the repository, its parts separated by `/`",
                found: subfolder.clone(),
            });
        }
        if !["http://", "https://"]
            .iter()
            .any(|scheme| self.endpoint.starts_with(scheme))
        {
            return Err(HubError::InvalidOption {
                option: "endpoint",
                expected: "an address that begins with `https://` or `http://`",
                found: self.endpoint.clone(),
            });
        }
        if self.timeout.is_zero() {
            return Err(HubError::InvalidOption {
                option: "timeout",
                expected: "more than nothing",
                found: format!("{:?}", self.timeout),
            });
        }
        // A line end, as files of tokens have it, would leave the token out of the request.
        let sendable =
            |token: &String| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
        if self.token.as_ref().is_some_and(|token| !sendable(token)) {
            return Err(HubError::InvalidOption {
                option: "token",
                expected: "printable ASCII without white space",
                found: "not shown".to_owned(),
            });
        }
        Ok(())
    }

    #[cfg(feature = "hub")]
    fn cache_dir(&self) -> Result<PathBuf, HubError> {
        match &self.cache_dir {
            Some(folder) => Ok(folder.clone()),
            None => std::env::home_dir()
                .filter(|home| !home.as_os_str().is_empty())
                .map(|home| home.join(".cache").join("huggingface").join("hub"))
                .ok_or(HubError::NoCacheDir),
        }
    }
}

/// Downloads what a model or an adapter needs of a repository, unless it is in the cache
/// already, and returns the folder.
///
/// A name without a slash is one of the `sentence-transformers` organisation, except for
/// the few that Hugging Face's own models have, such as `bert-base-uncased`. Taken are
/// configurations, vocabularies and weights, also those in modules' folders;
/// left out are other weight formats, images and what training left behind.
///
/// Each file has the size and the digest that the hub lists before it is used; a download
/// that was cut off goes on where it stopped. When the hub cannot be reached, what is in the
/// cache is used with a warning in the log.
///
/// # Errors
/// A [`HubError`] naming the repository and what would help.
pub fn snapshot(id: &str, options: &HubOptions) -> Result<PathBuf> {
    let repo = RepoId::parse(id)?;
    options.validate()?;
    Ok(find_or_download(&repo, options)?)
}

#[cfg(not(feature = "hub"))]
fn find_or_download(repo: &RepoId, _options: &HubOptions) -> Result<PathBuf, HubError> {
    Err(HubError::Disabled { id: repo.address() })
}

#[cfg(feature = "hub")]
fn find_or_download(repo: &RepoId, options: &HubOptions) -> Result<PathBuf, HubError> {
    let cache_dir = options.cache_dir()?;
    let cache = cache::RepoCache::new(&cache_dir, repo);
    if options.local_files_only {
        let cached = cache.snapshot(&options.revision, options.subfolder.as_deref());
        return cached.ok_or_else(|| HubError::NotCached {
            id: repo.to_string(),
            revision: options.revision.clone(),
            cache_dir,
        });
    }
    in_own_thread(|| download(repo, options, &cache))
}

/// Runs work that waits for the network in a thread of its own: it may not wait in one that
/// already does so for a caller of asynchronous code.
#[cfg(feature = "hub")]
fn in_own_thread<T: Send>(work: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let done = scope.spawn(work).join();
        done.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[cfg(feature = "hub")]
fn download(
    repo: &RepoId,
    options: &HubOptions,
    cache: &cache::RepoCache,
) -> Result<PathBuf, HubError> {
    let remote = remote::Remote::new(repo, options)?;
    let cached = || cache.snapshot(&options.revision, options.subfolder.as_deref());
    let listing = match remote.list() {
        Err(error @ (HubError::Network { .. } | HubError::RateLimited { .. })) => {
            let folder = cached().ok_or(error)?;
            log::warn!(
                "{} cannot be reached: `{repo}` is taken as it is in the cache",
                options.endpoint
            );
            return Ok(folder);
        }
        listing => listing?,
    };
    for file in &listing.files {
        remote.fetch(&listing.commit, file, cache)?;
    }
    cache.remember(&options.revision, &listing.commit)?;
    let folder = cache.folder(&listing.commit, options.subfolder.as_deref());
    folder.ok_or_else(|| HubError::InvalidResponse {
        id: repo.to_string(),
        endpoint: options.endpoint.clone(),
        reason: format!("its files went to another commit than {}", listing.commit),
    })
}

/// Whether a path that comes from elsewhere stays below the folder it is joined to, on
/// any system.
fn is_plain_path(path: &str) -> bool {
    let plain = |part: &str| {
        let dots = part == "." || part == "..";
        !part.is_empty()
            && !dots
            && !part.contains(|c: char| c.is_control() || c == '\\' || c == ':')
    };
    path.split('/').all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn error(id: &str, options: &HubOptions) -> HubError {
        match snapshot(id, options) {
            Err(Error::Hub(error)) => error,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn paths_that_lead_elsewhere_are_not_plain() {
        for path in [
            "main",
            "refs/pr/1",
            "v1.0",
            "a b",
            "..a",
            "1_Pooling/config.json",
        ] {
            assert!(is_plain_path(path), "{path}");
        }
        for path in [
            "", "/", "/etc", "a/", "a//b", "..", "a/../b", "./a", "a\\b", "C:a", "a\n",
        ] {
            assert!(!is_plain_path(path), "{path}");
        }
    }

    #[test]
    fn bad_ids_and_options_are_refused_before_anything_else() {
        let options = HubOptions::default();
        assert!(
            matches!(error("a/b/c", &options), HubError::InvalidId { id, .. } if id == "a/b/c")
        );
        let revision = HubOptions {
            revision: "../main".to_owned(),
            ..options.clone()
        };
        let found = error("a/b", &revision);
        assert!(matches!(
            found,
            HubError::InvalidOption {
                option: "revision",
                ..
            }
        ));
        let subfolder = HubOptions {
            subfolder: Some("/".to_owned()),
            ..options.clone()
        };
        let found = error("a/b", &subfolder);
        assert!(matches!(
            found,
            HubError::InvalidOption {
                option: "subfolder",
                ..
            }
        ));
        let endpoint = HubOptions {
            endpoint: "localhost:80".to_owned(),
            ..options.clone()
        };
        let found = error("a/b", &endpoint);
        assert!(matches!(
            found,
            HubError::InvalidOption {
                option: "endpoint",
                ..
            }
        ));
        let token = HubOptions {
            token: Some("hf_secret\n".to_owned()),
            ..options
        };
        let found = error("a/b", &token);
        assert!(matches!(
            found,
            HubError::InvalidOption {
                option: "token",
                ..
            }
        ));
        assert!(!found.to_string().contains("secret"));
    }

    #[test]
    fn debug_does_not_show_the_token() {
        let options = HubOptions {
            token: Some("hf_secret".to_owned()),
            ..Default::default()
        };
        let shown = format!("{options:?}");
        assert!(
            shown.contains("token: Some") && !shown.contains("secret"),
            "{shown}"
        );
    }

    #[cfg(not(feature = "hub"))]
    #[test]
    fn without_the_feature_the_error_says_so() {
        assert!(
            matches!(error("a/b", &HubOptions::default()), HubError::Disabled { id } if id == "a/b")
        );
    }
}
