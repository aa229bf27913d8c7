use std::path::{Path, PathBuf};

use super::commit::recover;
use super::hub::{HubOptions, snapshot};
use crate::error::{RepoError, Result};

/// Where a model or an adapter lies.
#[derive(Debug, Clone)]
pub(super) struct Source {
    /// The folder on this machine.
    pub(super) folder: PathBuf,
    /// What to call it in an adapter's configuration: the absolute folder, which means
    /// the same wherever it is read from, or the hub id.
    pub(super) name: String,
    /// The hub revision, where it is a hub id and one was asked for.
    pub(super) revision: Option<String>,
}

impl Source {
    /// Finds a model or an adapter: a folder, or else a hub id.
    ///
    /// # Errors
    /// [`RepoError::NotFound`] where neither can be meant, [`HubError`](crate::HubError)
    /// where the hub has no such repository or cannot be asked.
    pub(super) fn resolve(source: &str, hub: &HubOptions) -> Result<Self> {
        Self::resolve_beside(source, None, hub)
    }

    /// The same for what the configuration in `folder` calls its base: a path relative to
    /// that folder, then to the working directory, then a hub id.
    ///
    /// # Errors
    /// As [`resolve`](Self::resolve).
    pub(super) fn resolve_beside(
        source: &str,
        folder: Option<&Path>,
        hub: &HubOptions,
    ) -> Result<Self> {
        let candidates = folder.map(|folder| folder.join(source));
        let candidates = candidates.into_iter().chain([PathBuf::from(source)]);
        for candidate in candidates {
            if !source.is_empty() && candidate.is_dir() {
                recover(&candidate)?;
                let name = candidate
                    .canonicalize()
                    .unwrap_or_else(|_| candidate.clone());
                return Ok(Self {
                    folder: candidate,
                    name: name.display().to_string(),
                    revision: None,
                });
            }
        }
        let not_found = |reason: &str| RepoError::NotFound {
            source_name: source.to_owned(),
            reason: reason.to_owned(),
        };
        if Path::new(source).is_file() {
            return Err(not_found("a file; expected the folder it lies in").into());
        }
        if is_path(source) {
            let reason = match folder {
                Some(_) => {
                    "no such folder, neither beside the adapter nor from the working directory"
                }
                None => "no such folder",
            };
            return Err(not_found(reason).into());
        }
        let default_revision = HubOptions::default().revision;
        Ok(Self {
            folder: snapshot(source, hub)?,
            name: source.to_owned(),
            revision: (hub.revision != default_revision).then(|| hub.revision.clone()),
        })
    }
}

/// Whether this can only be a path: hub ids are one name, or two around one slash.
fn is_path(source: &str) -> bool {
    source.is_empty()
        || source.starts_with(['.', '/', '~'])
        || source.contains('\\')
        || source.matches('/').count() > 1
        || Path::new(source).is_absolute()
}

/// Whether this is a path that means another folder elsewhere.
pub(super) fn is_relative_path(source: &str) -> bool {
    is_path(source) && !Path::new(source).is_absolute()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn a_base_is_looked_for_beside_the_adapter_first() {
        let root = tempfile::tempdir().unwrap();
        let adapter = root.path().join("adapter");
        std::fs::create_dir_all(adapter.join("base")).unwrap();
        let found = Source::resolve_beside("base", Some(&adapter), &HubOptions::default()).unwrap();
        assert_eq!(found.folder, adapter.join("base"));
        assert!(Path::new(&found.name).is_absolute());
    }

    #[test]
    fn what_can_only_be_a_path_is_never_asked_of_the_hub() {
        for source in ["", "./x", "/no/such/folder", "a/b/c", "..\\x", "../x"] {
            let error = Source::resolve(source, &HubOptions::default()).unwrap_err();
            assert!(
                matches!(error, Error::Repo(RepoError::NotFound { .. })),
                "{source}"
            );
        }
    }
}
