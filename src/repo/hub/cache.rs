use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::digest::Digest;
use super::repo_id::RepoId;
use crate::error::HubError;

/// One repository's part of a cache that is laid out as `huggingface_hub` lays it out:
/// `refs/<revision>` holds a commit, `snapshots/<commit>/` its files, which point to their
/// contents in `blobs/`.
#[derive(Debug, Clone)]
pub(super) struct RepoCache {
    folder: PathBuf,
    locks: PathBuf,
}

impl RepoCache {
    /// The part of a repository, as Python names it.
    pub(super) fn new(cache_dir: &Path, repo: &RepoId) -> Self {
        let id = repo.to_string().replace('/', "--");
        let name = format!("{}--{id}", repo.kind.plural());
        Self {
            folder: cache_dir.join(&name),
            locks: cache_dir.join(".locks").join(name),
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

    /// The folder of what a revision was when it was last downloaded.
    pub(super) fn snapshot(&self, revision: &str, subfolder: Option<&str>) -> Option<PathBuf> {
        self.folder(&self.commit_of(revision)?, subfolder)
    }

    /// Notes that a commit, now whole, is what a revision stands for.
    pub(super) fn remember(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        if revision == commit {
            return Ok(());
        }
        let path = self.folder.join("refs").join(revision);
        let failed = unusable(&path);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(&failed)?;
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

    /// Where a file's content is, or will be; the folder is there.
    pub(super) fn content(&self, digest: &Digest) -> Result<PathBuf, HubError> {
        let folder = self.folder.join("blobs");
        fs::create_dir_all(&folder).map_err(unusable(&folder))?;
        Ok(folder.join(digest.to_string()))
    }

    /// Waits until no other process downloads that content, and keeps it that way until the
    /// lock is dropped.
    pub(super) fn lock(&self, digest: &Digest) -> Result<File, HubError> {
        let folder = self.locks.clone();
        fs::create_dir_all(&folder).map_err(unusable(&folder))?;
        let path = folder.join(format!("{digest}.lock"));
        let file = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(unusable(&path))?;
        file.lock().map_err(unusable(&path))?;
        Ok(file)
    }

    /// Makes a commit's file of a content.
    pub(super) fn link(&self, commit: &str, path: &str, content: &Path) -> Result<(), HubError> {
        let file = self.file(commit, path);
        let failed = unusable(&file);
        if let Some(parent) = file.parent() {
            fs::create_dir_all(parent).map_err(&failed)?;
        }
        match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        point(&file, path, content).map_err(failed)
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

/// Points to a content from a commit's file, relative to it: the cache can be moved.
#[cfg(unix)]
fn point(file: &Path, path: &str, content: &Path) -> io::Result<()> {
    let up = "../".repeat(path.split('/').count() + 1);
    let name = content.file_name().unwrap_or_default();
    std::os::unix::fs::symlink(Path::new(&up).join("blobs").join(name), file)
}

#[cfg(not(unix))]
fn point(file: &Path, _path: &str, content: &Path) -> io::Result<()> {
    fs::hard_link(content, file).or_else(|_| fs::copy(content, file).map(|_| ()))
}

fn unusable(path: &Path) -> impl Fn(io::Error) -> HubError + use<> {
    let path = path.to_owned();
    move |source| HubError::Cache {
        path: path.clone(),
        source,
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
        RepoCache::new(folder, &RepoId::parse(id).unwrap())
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
    fn a_commit_s_files_point_to_their_contents() {
        let folder = tempfile::tempdir().unwrap();
        let cache = cache(folder.path(), "owner/name");
        let digest = Digest::parse(COMMIT).unwrap();
        let content = cache.content(&digest).unwrap();
        let repo = folder.path().join("models--owner--name");
        assert_eq!(content, repo.join("blobs").join(COMMIT));
        fs::write(&content, "content").unwrap();
        for path in ["a", "b/c", "d/e/f"] {
            cache.link(COMMIT, path, &content).unwrap();
            // A second time, as after a download that repairs it.
            cache.link(COMMIT, path, &content).unwrap();
            assert_eq!(fs::read(cache.file(COMMIT, path)).unwrap(), b"content");
        }
        drop(cache.lock(&digest).unwrap());
        let lock = folder.path().join(".locks/models--owner--name");
        assert!(lock.join(format!("{COMMIT}.lock")).exists());
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
