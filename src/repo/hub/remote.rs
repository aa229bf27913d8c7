use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use hf_hub::repository::RepoTreeEntry;
use hf_hub::{
    HFClientBuilder, HFError, HFRepositorySync, HFResult, RepoType, RepoTypeDataset, RepoTypeModel,
};

use super::cache::{RepoCache, is_commit};
use super::repo_id::RepoId;
use super::{HubOptions, is_plain_path};
use crate::error::HubError;

/// Folders that hold nothing a model is loaded from; training's checkpoints besides.
const SKIPPED_FOLDERS: [&str; 2] = ["onnx", "openvino"];

/// How often a request is tried again after a failure that may pass.
const RETRIES: usize = 3;

/// The client looks for a token in the environment unless it is given one, and sends none
/// that cannot stand in a header.
const NO_TOKEN: &str = "\n";

/// A repository as the hub has it.
pub(super) struct Remote<'a, T: RepoType = RepoTypeModel> {
    repo: &'a RepoId,
    options: &'a HubOptions,
    cache_dir: PathBuf,
    client: HFRepositorySync<T>,
}

/// A kind of repository that the hub tells the commits of.
pub(super) trait Commits: RepoType {
    fn commit_of(client: &HFRepositorySync<Self>, revision: &str) -> HFResult<Option<String>>;
}

impl Commits for RepoTypeModel {
    fn commit_of(client: &HFRepositorySync<Self>, revision: &str) -> HFResult<Option<String>> {
        let info = client.info().revision(revision);
        Ok(info.expand(vec!["sha".to_owned()]).send()?.sha)
    }
}

impl Commits for RepoTypeDataset {
    fn commit_of(client: &HFRepositorySync<Self>, revision: &str) -> HFResult<Option<String>> {
        let info = client.info().revision(revision);
        Ok(info.expand(vec!["sha".to_owned()]).send()?.sha)
    }
}

/// What a revision stands for now, and the files to take from it.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) commit: String,
    pub(super) files: Vec<RemoteFile>,
}

/// A file as the hub lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RemoteFile {
    pub(super) path: String,
    pub(super) size: u64,
}

impl<'a, T: Commits> Remote<'a, T> {
    pub(super) fn new(
        repo: &'a RepoId,
        options: &'a HubOptions,
        cache_dir: &Path,
    ) -> Result<Self, HubError> {
        let client = HFClientBuilder::new()
            .endpoint(&options.endpoint)
            .token(options.token.as_deref().unwrap_or(NO_TOKEN))
            .cache_dir(cache_dir)
            .user_agent(concat!("sentence-burn/", env!("CARGO_PKG_VERSION")))
            .retry_max_attempts(RETRIES)
            .build_sync()
            .map_err(|error| match error {
                HFError::Url(_) => HubError::InvalidOption {
                    option: "endpoint",
                    expected: "an address",
                    found: options.endpoint.clone(),
                },
                other => network(repo, options, chain(&other)),
            })?;
        Ok(Self {
            repo,
            options,
            cache_dir: cache_dir.to_owned(),
            client: client.repository(T::default(), &repo.owner, &repo.name),
        })
    }

    /// Asks what the revision stands for and which files there are.
    pub(super) fn list_all(&self) -> Result<Listing, HubError> {
        let revision = &self.options.revision;
        let commit = if is_commit(revision) {
            revision.clone()
        } else {
            let commit = T::commit_of(&self.client, revision);
            commit
                .map_err(|error| self.explain(error))?
                .unwrap_or_default()
        };
        if !is_commit(&commit) {
            return Err(self.unexpected(format!("`{commit}` as the commit of `{revision}`")));
        }
        let entries = self
            .client
            .list_tree()
            .revision(&commit)
            .maybe_path_in_repo(self.options.subfolder.as_deref())
            .recursive(true)
            .send()
            .map_err(|error| self.explain(error))?;
        let files: Vec<RemoteFile> = entries
            .into_iter()
            .filter_map(|entry| match entry {
                RepoTreeEntry::File { path, size, .. } => Some(RemoteFile { path, size }),
                RepoTreeEntry::Directory { .. } => None,
            })
            .collect();
        if let Some(file) = files.iter().find(|file| !is_plain_path(&file.path)) {
            return Err(self.unexpected(format!("a file named `{}`", file.path)));
        }
        Ok(Listing { commit, files })
    }

    /// Sees to it that a file is in the cache, with the size the hub lists.
    pub(super) fn fetch(
        &self,
        commit: &str,
        file: &RemoteFile,
        cache: &RepoCache,
    ) -> Result<(), HubError> {
        let local = cache.file(commit, &file.path);
        let size = || fs::metadata(&local).map(|metadata| metadata.len()).ok();
        if size() == Some(file.size) {
            return Ok(());
        }
        // A file that is there has the wrong size. So may content that the client finds in
        // the cache without asking: a second, forced try settles that.
        for force in [local.exists(), true] {
            log::info!("downloading {} of `{}`", file.path, self.repo);
            self.client
                .download_file()
                .filename(&file.path)
                .revision(commit)
                .force_download(force)
                .send()
                .map_err(|error| self.explain(error))?;
            if size() == Some(file.size) {
                return Ok(());
            }
        }
        let found = size();
        cache.discard(&local);
        match found {
            Some(found) => Err(HubError::Damaged {
                id: self.repo.to_string(),
                file: file.path.clone(),
                expected: file.size,
                found,
            }),
            None => Err(self.unexpected(format!("{} of another commit than {commit}", file.path))),
        }
    }

    /// What an error of the client means.
    fn explain(&self, error: HFError) -> HubError {
        let id = self.repo.to_string();
        let endpoint = self.options.endpoint.clone();
        let revision = self.options.revision.clone();
        let answer = match &error {
            HFError::Http { context }
            | HFError::AuthRequired { context }
            | HFError::Forbidden { context }
            | HFError::Conflict { context }
            | HFError::RateLimited { context, .. } => Some(context),
            HFError::RepoNotFound { context, .. }
            | HFError::RevisionNotFound { context, .. }
            | HFError::EntryNotFound { context, .. } => context.as_ref(),
            _ => None,
        };
        if let Some(answer) = answer {
            let status = answer.status.as_u16();
            let said = answer.server_message.as_deref().unwrap_or_default();
            return match (
                answer.error_code.as_deref(),
                status,
                &self.options.subfolder,
            ) {
                (Some("GatedRepo"), ..) => HubError::Gated {
                    id: format!("{}{id}", T::default().url_prefix()),
                    endpoint,
                },
                (Some("RepoNotFound"), ..) => HubError::RepoNotFound { id, endpoint },
                (Some("RevisionNotFound"), ..) => HubError::RevisionNotFound { id, revision },
                (Some("EntryNotFound"), _, Some(subfolder)) => HubError::SubfolderNotFound {
                    id,
                    revision,
                    subfolder: subfolder.clone(),
                },
                (_, 401 | 403, _) => HubError::Unauthorized {
                    id,
                    reason: format!("HTTP {status} {said}").trim_end().to_owned(),
                },
                // A hub that does not say what it lacks.
                (_, 404, _) if revision != HubOptions::default().revision => {
                    HubError::RevisionNotFound { id, revision }
                }
                (_, 404, _) => HubError::RepoNotFound { id, endpoint },
                _ => network(self.repo, self.options, format!("HTTP {status} {said}")),
            };
        }
        match error {
            HFError::Io(source) => HubError::Cache {
                path: self.cache_dir.clone(),
                source,
            },
            HFError::CacheLockTimeout { path } => HubError::Cache {
                path,
                source: io::Error::new(io::ErrorKind::TimedOut, "another process holds the lock"),
            },
            HFError::EntryNotFound { path, .. } => {
                self.unexpected(format!("{path} is listed but not there"))
            }
            HFError::MalformedResponse { .. } | HFError::Json(_) => self.unexpected(chain(&error)),
            other => network(self.repo, self.options, chain(&other)),
        }
    }

    fn unexpected(&self, reason: String) -> HubError {
        HubError::InvalidResponse {
            id: self.repo.to_string(),
            endpoint: self.options.endpoint.clone(),
            reason,
        }
    }
}

impl Remote<'_, RepoTypeModel> {
    /// Asks what the revision stands for and which files to take, in the order to take
    /// them in.
    pub(super) fn list(&self) -> Result<Listing, HubError> {
        let Listing { commit, files } = self.list_all()?;
        let needed = select(&files, self.options.subfolder.as_deref());
        if !needed
            .iter()
            .any(|file| file.path.ends_with(".safetensors"))
        {
            return Err(HubError::NoWeights {
                id: self.repo.to_string(),
                found: other_weights(files),
            });
        }
        Ok(Listing {
            commit,
            files: needed,
        })
    }
}

fn network(repo: &RepoId, options: &HubOptions, reason: String) -> HubError {
    HubError::Network {
        id: repo.to_string(),
        endpoint: options.endpoint.clone(),
        reason: reason.trim_end().to_owned(),
    }
}

/// An error's message with those of its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !message.contains(&text) {
            message = format!("{message}: {text}");
        }
        cause = error.source();
    }
    message
}

/// The files to take, in the order to take them in.
///
/// Those that say what a folder is come last: a folder that an interrupted download left
/// behind then loads as nothing, rather than as something else.
fn select(listed: &[RemoteFile], subfolder: Option<&str>) -> Vec<RemoteFile> {
    let within = |path: &'_ str| match subfolder {
        Some(folder) => path
            .strip_prefix(folder)
            .and_then(|rest| rest.strip_prefix('/'))
            .map(str::to_owned),
        None => Some(path.to_owned()),
    };
    let mut files: Vec<(u8, &RemoteFile)> = listed
        .iter()
        .filter_map(|file| {
            let path = within(&file.path)?;
            let turn = match path.as_str() {
                "modules.json" => 1,
                "adapter_config.json" => 2,
                "config.json" => 3,
                _ => 0,
            };
            is_needed(&path).then_some((turn, file))
        })
        .collect();
    files.sort_by_key(|(turn, _)| *turn);
    files.into_iter().map(|(_, file)| file.clone()).collect()
}

/// Whether a model or an adapter may be loaded from a file.
fn is_needed(path: &str) -> bool {
    let (folders, name) = path.rsplit_once('/').unwrap_or(("", path));
    let skipped = |folder: &str| {
        SKIPPED_FOLDERS.contains(&folder)
            || folder.starts_with("checkpoint-")
            || folder.starts_with('.')
    };
    if folders.split('/').any(skipped) {
        return false;
    }
    match name.rsplit_once('.') {
        Some((_, "json" | "model")) => true,
        Some((stem, "safetensors")) => {
            // `model-00001-of-00002` as well; not the same weights in another precision.
            let stem = stem.strip_prefix("adapter_").unwrap_or(stem);
            stem == "model" || stem.starts_with("model-")
        }
        _ => matches!(name, "vocab.txt" | "merges.txt"),
    }
}

/// The weights among the files that are in formats this crate does not read.
fn other_weights(listed: Vec<RemoteFile>) -> Vec<String> {
    let formats = [".bin", ".pt", ".pth", ".h5", ".msgpack", ".onnx", ".gguf"];
    listed
        .into_iter()
        .map(|file| file.path)
        .filter(|path| formats.iter().any(|format| path.ends_with(format)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(paths: &[&str]) -> Vec<RemoteFile> {
        let file = |path: &&str| RemoteFile {
            path: path.to_string(),
            size: 1,
        };
        paths.iter().map(file).collect()
    }

    fn selected(paths: &[&str], subfolder: Option<&str>) -> Vec<String> {
        select(&files(paths), subfolder)
            .into_iter()
            .map(|file| file.path)
            .collect()
    }

    #[test]
    fn takes_what_a_model_is_loaded_from() {
        let needed = [
            "1_Pooling/config.json",
            "2_Dense/model.safetensors",
            "adapter_model.safetensors",
            "config_sentence_transformers.json",
            "merges.txt",
            "model-00001-of-00002.safetensors",
            "model.safetensors",
            "model.safetensors.index.json",
            "sentencepiece.bpe.model",
            "vocab.txt",
        ];
        let not_needed = [
            ".gitattributes",
            ".cache/config.json",
            "README.md",
            "checkpoint-500/model.safetensors",
            "data.txt",
            "flax_model.msgpack",
            "model.fp16.safetensors",
            "model_O3.onnx",
            "onnx/config.json",
            "openvino/openvino_model.bin",
            "picture.png",
            "pytorch_model.bin",
        ];
        assert_eq!(selected(&needed, None), needed);
        assert_eq!(selected(&not_needed, None), [""; 0]);
        assert_eq!(
            other_weights(files(&not_needed)),
            [
                "flax_model.msgpack",
                "model_O3.onnx",
                "openvino/openvino_model.bin",
                "pytorch_model.bin"
            ]
        );
    }

    #[test]
    fn what_says_what_a_folder_is_comes_last() {
        let order = [
            "1_Pooling/config.json",
            "model.safetensors",
            "tokenizer.json",
            "modules.json",
            "adapter_config.json",
            "config.json",
        ];
        let mut listed = order;
        listed.sort_unstable();
        assert_ne!(listed, order);
        assert_eq!(selected(&listed, None), order);
    }

    #[test]
    fn a_subfolder_is_taken_alone_and_as_a_folder_of_its_own() {
        let listed = [
            "checkpoint-5/config.json",
            "checkpoint-5/model.safetensors",
            "checkpoint-5/onnx/config.json",
            "checkpoint-50/config.json",
            "config.json",
        ];
        assert_eq!(
            selected(&listed, Some("checkpoint-5")),
            ["checkpoint-5/model.safetensors", "checkpoint-5/config.json"]
        );
    }
}
