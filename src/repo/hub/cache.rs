use std::fs;
use std::path::{Path, PathBuf};

use super::repo_id::RepoId;
use crate::error::HubError;

/// One repository's part of a cache that is laid out as `huggingface_hub` lays it out:
/// `refs/<revision>` holds a commit, `snapshots/<commit>/` its files.
#[derive(Debug, Clone)]
pub(super) struct RepoCache {
    folder: PathBuf,
}

impl RepoCache {
    /// The part of a `models` repository, or of another kind's.
    pub(super) fn new(cache_dir: &Path, kind: &str, repo: &RepoId) -> Self {
        let name = repo.to_string().replace('/', "--");
        Self {
            folder: cache_dir.join(format!("{kind}--{name}")),
        }
    }

    /// The commit that a revision stood for when it was last downloaded.
    pub(super) fn commit_of(&self, revision: &str) -> Option<String> {
        if is_commit(revision) {
            return Some(revision.to_owned());
        }
        let commit = fs::read_to_string(self.folder.join("refs").join(revision)).ok()?;
        let commit = commit.trim();
        is_commit(commit).then(|| commit.to_owned())
    }

    /// Notes that a commit, now whole, is what a revision stands for.
    pub(super) fn remember(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if revision == commit {
            return Ok(());
        }
        let path = self.folder.join("refs").join(revision);
        let failed = |source| HubError::Cache {
            path: path.clone(),
            source,
        };
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(failed)?;
        }
        fs::write(&path, commit).map_err(failed)
    }

    /// The folder of a commit's files, or one in it, if it is there.
    pub(super) fn folder(&self, commit: &str, subfolder: Option<&str>) -> Option<PathBuf> {
        let mut folder = self.folder.join("snapshots").join(commit);
        if let Some(subfolder) = subfolder {
            folder.push(subfolder);
        }
        folder.is_dir().then_some(folder)
    }

    /// Removes a file that is not what it should be, with the content it points to.
    pub(super) fn discard(&self, file: &Path) {
        let content = fs::canonicalize(file);
        let removed = fs::remove_file(file);
        if let (Ok(content), Ok(folder)) = (content, fs::canonicalize(&self.folder))
            && content.starts_with(folder)
            && content != file
        {
            // On systems without links the file was the content.
            let _ = fs::remove_file(content);
        }
        if let Err(error) = removed {
            log::warn!("{}: cannot remove: {error}", file.display());
        }
    }

    /// Where the list of a commit's files is, or will be, of which some are not downloaded.
    #[cfg(feature = "datasets")]
    pub(super) fn listing(&self, commit: &str) -> PathBuf {
        self.folder.join("listings").join(format!("{commit}.json"))
    }

    /// Where a commit's file is, or will be.
    pub(super) fn file(&self, commit: &str, path: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit).join(path)
    }
}

/// Whether a revision is a commit's full hash.
pub(super) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|b| b.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

    fn cache(folder: &Path, id: &str) -> RepoCache {
        RepoCache::new(folder, "models", &RepoId::parse(id).unwrap())
    }

    #[test]
    fn is_laid_out_as_python_s_cache() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path(), "owner/name");
        cache.remember("refs/pr/1", COMMIT).unwrap();
        let repo = folder.path().join("models--owner--name");
        assert_eq!(
            fs::read_to_string(repo.join("refs/refs/pr/1")).unwrap(),
            COMMIT
        );
        assert_eq!(
            cache.file(COMMIT, "a/b"),
            repo.join("snapshots").join(COMMIT).join("a/b")
        );
        let bert = super::tests::cache(folder.path(), "bert-base-uncased");
        assert!(
            bert.file(COMMIT, "")
                .starts_with(folder.path().join("models--bert-base-uncased"))
        );
    }

    #[test]
    fn a_revision_stands_for_the_commit_it_was_downloaded_at() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path(), "owner/name");
        assert_eq!(cache.commit_of("main"), None);
        cache.remember("main", COMMIT).unwrap();
        assert_eq!(cache.commit_of("main").as_deref(), Some(COMMIT));
        assert_eq!(cache.commit_of(COMMIT).as_deref(), Some(COMMIT));
        // A file that someone damaged must not lead out of the cache.
        cache.remember("main", "../../elsewhere").unwrap();
        assert_eq!(cache.commit_of("main"), None);
    }

    #[test]
    fn only_a_folder_that_is_there_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path(), "owner/name");
        assert_eq!(cache.folder(COMMIT, None), None);
        fs::create_dir_all(cache.file(COMMIT, "sub")).unwrap();
        assert_eq!(cache.folder(COMMIT, None), Some(cache.file(COMMIT, "")));
        assert_eq!(
            cache.folder(COMMIT, Some("sub")),
            Some(cache.file(COMMIT, "sub"))
        );
        assert_eq!(cache.folder(COMMIT, Some("other")), None);
    }
}
