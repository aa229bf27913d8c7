use std::fs;
use std::path::Path;

use super::HubOptions;
use super::cache::RepoCache;
use super::download;
use super::explain::Explainer;
use super::http::Http;
use super::listing::{self, RemoteFile};
use super::repo_id::RepoId;
use crate::error::HubError;

/// A repository as the hub has it.
pub(super) struct Remote<'a> {
    repo: &'a RepoId,
    options: &'a HubOptions,
    http: Http,
}

/// What a revision stands for now, and the files to take from it.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) commit: String,
    pub(super) files: Vec<RemoteFile>,
}

impl<'a> Remote<'a> {
    pub(super) fn new(repo: &'a RepoId, options: &'a HubOptions) -> Result<Self, HubError> {
        Ok(Self {
            repo,
            options,
            http: Http::new(options)?,
        })
    }

    fn explainer(&self) -> Explainer<'a> {
        Explainer {
            repo: self.repo,
            options: self.options,
            access: "read",
        }
    }

    /// Asks what the revision stands for and which files there are.
    pub(super) fn list_all(&self) -> Result<Listing, HubError> {
        let HubOptions {
            revision,
            subfolder,
            ..
        } = self.options;
        let subfolder = subfolder.as_deref();
        let explainer = self.explainer();
        let commit = listing::commit_of(&self.http, self.repo, revision, explainer)?;
        let files = listing::list(&self.http, self.repo, &commit, subfolder, explainer)?;
        Ok(Listing { commit, files })
    }

    /// Asks what the revision stands for and which files to take of a model, in the order
    /// to take them in.
    pub(super) fn list(&self) -> Result<Listing, HubError> {
        let Listing {
            commit,
            files: listed,
        } = self.list_all()?;
        let files = listing::select(&listed, self.options.subfolder.as_deref());
        if !files.iter().any(|file| listing::is_weights(&file.path)) {
            return Err(HubError::NoWeights {
                id: self.repo.to_string(),
                found: listing::other_weights(listed),
            });
        }
        Ok(Listing { commit, files })
    }

    /// Sees to it that a file is in the cache, whole.
    pub(super) fn fetch(
        &self,
        commit: &str,
        file: &RemoteFile,
        cache: &RepoCache,
    ) -> Result<(), HubError> {
        if size_of(&cache.file(commit, &file.path)) == Some(file.size) {
            return Ok(());
        }
        let _lock = cache.lock(&file.digest)?;
        let content = cache.content(&file.digest)?;
        if size_of(&content) != Some(file.size) {
            log::info!("downloading {} of `{}`", file.path, self.repo);
            let RepoId { kind, owner, name } = self.repo;
            let route = [kind.prefix(), owner, name, "resolve", commit];
            let url = self.http.url(route.into_iter().chain(file.path.split('/')));
            let download = download::Download {
                http: &self.http,
                url: &url,
                file,
                retries: self.options.retries,
                explainer: self.explainer(),
            };
            download.fetch_into(&content)?;
        }
        cache.link(commit, &file.path, &content)
    }
}

/// A file's size, if it is there.
fn size_of(path: &Path) -> Option<u64> {
    fs::metadata(path).map(|metadata| metadata.len()).ok()
}
