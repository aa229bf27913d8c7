use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use tempfile::{NamedTempFile, TempPath};

use super::commit;
use super::interruption::place;
use crate::error::{RepoError, Result};

/// Reads a whole file.
///
/// # Errors
/// [`RepoError::MissingFile`] with what it is needed for, or [`RepoError::Io`].
pub(super) fn read(path: &Path, needed_for: &'static str) -> Result<Vec<u8>> {
    match fs::read(path) {
        Ok(bytes) => Ok(bytes),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Err(RepoError::MissingFile {
            path: path.to_owned(),
            needed_for,
        }
        .into()),
        Err(source) => Err(io_error(path, "read", source)),
    }
}

/// Reads a JSON file.
///
/// # Errors
/// As [`read`], and [`RepoError::NotUtf8`] or [`RepoError::Json`].
pub(super) fn read_json<T: DeserializeOwned>(path: &Path, needed_for: &'static str) -> Result<T> {
    let bytes = read(path, needed_for)?;
    let text = std::str::from_utf8(&bytes).map_err(|e| RepoError::NotUtf8 {
        path: path.to_owned(),
        offset: e.valid_up_to(),
    })?;
    Ok(
        serde_json::from_str(text).map_err(|source| RepoError::Json {
            path: path.to_owned(),
            source,
        })?,
    )
}

/// Reads the fields of a JSON file that may be absent.
///
/// # Errors
/// As [`read_json`], but for a file that is not there.
pub(super) fn read_optional_fields(path: &Path) -> Result<Option<Map<String, Value>>> {
    if !path.exists() {
        return Ok(None);
    }
    read_json(path, "the model's configuration").map(Some)
}

pub(super) fn io_error(path: &Path, action: &'static str, source: io::Error) -> crate::Error {
    RepoError::Io {
        path: path.to_owned(),
        action,
        source,
    }
    .into()
}

/// Writes a folder's files so that a failure leaves the old ones: each is written whole
/// beside its place, and only when all of them are, they are renamed into place. Where a
/// renaming fails, those before it are undone; where the process ends there, by the next one
/// that opens the folder.
#[derive(Debug)]
pub(super) struct FolderWriter {
    folder: PathBuf,
    staged: Vec<(TempPath, String)>,
    removed: Vec<String>,
}

impl FolderWriter {
    /// A writer for a folder, which is made if it is not there.
    ///
    /// # Errors
    /// [`RepoError::Io`].
    pub(super) fn new(folder: &Path) -> Result<Self> {
        place();
        fs::create_dir_all(folder).map_err(|e| io_error(folder, "create", e))?;
        commit::recover(folder)?;
        Ok(Self {
            folder: folder.to_owned(),
            staged: Vec::new(),
            removed: Vec::new(),
        })
    }

    /// Stages a file.
    ///
    /// # Errors
    /// [`RepoError::Io`]; the file's old content is untouched.
    pub(super) fn stage(&mut self, name: &str, content: &[u8]) -> Result<()> {
        self.stage_with(name, |path| {
            fs::write(path, content).map_err(|e| io_error(path, "write", e))
        })
    }

    /// Stages a file that `write` writes to the path it is given.
    ///
    /// # Errors
    /// `write`'s, and [`RepoError::Io`].
    pub(super) fn stage_with(
        &mut self,
        name: &str,
        write: impl FnOnce(&Path) -> Result<()>,
    ) -> Result<()> {
        let path = self.folder.join(name);
        let file = self.temporary(&path)?;
        place();
        write(&file).map_err(|error| in_place(error, &file, &path))?;
        place();
        // Opened anew: `write` may have put another file in its place.
        let synced = fs::File::open(&file).and_then(|file| {
            readable_by_all(&file)?;
            file.sync_all()
        });
        synced.map_err(|e| io_error(&path, "write", e))?;
        self.staged.push((file, name.to_owned()));
        Ok(())
    }

    /// An empty file beside the one at `path`.
    fn temporary(&self, path: &Path) -> Result<TempPath> {
        let parent = path.parent().unwrap_or(&self.folder);
        fs::create_dir_all(parent).map_err(|e| io_error(parent, "create", e))?;
        place();
        let file = NamedTempFile::new_in(parent).map_err(|e| io_error(path, "write", e))?;
        Ok(file.into_temp_path())
    }

    /// Stages a JSON file, indented as Python's library does.
    ///
    /// # Errors
    /// As [`stage`](Self::stage).
    pub(super) fn stage_json(&mut self, name: &str, value: &Value) -> Result<()> {
        self.stage(name, format!("{value:#}").as_bytes())
    }

    /// Has a file removed once the staged ones are in place, if it is there then.
    pub(super) fn remove(&mut self, name: &str) {
        self.removed.push(name.to_owned());
    }

    /// The folder written to.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Puts the staged files into place.
    ///
    /// # Errors
    /// [`RepoError::Io`]; the folder then has its old files.
    pub(super) fn commit(self) -> Result<()> {
        commit::commit(&self.folder, self.staged, self.removed)
    }
}

/// An error about a file that is on its way into its place, as one about that place.
fn in_place(error: crate::Error, staged: &Path, place: &Path) -> crate::Error {
    match error {
        crate::Error::Repo(RepoError::Io {
            path,
            action,
            source,
        }) if path == staged => io_error(place, action, source),
        other => other,
    }
}

/// Temporary files are private to their owner; a model's files are not.
#[cfg(unix)]
fn readable_by_all(file: &fs::File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

#[cfg(not(unix))]
fn readable_by_all(_: &fs::File) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn what_is_not_committed_leaves_the_old_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        fs::write(&path, "old").unwrap();
        let mut writer = FolderWriter::new(folder.path()).unwrap();
        writer.stage("a.txt", b"new").unwrap();
        drop(writer);
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        let mut writer = FolderWriter::new(folder.path()).unwrap();
        writer.stage("a.txt", b"new").unwrap();
        writer.stage("b/c.txt", b"deep").unwrap();
        writer.commit().unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new");
        assert_eq!(
            fs::read_to_string(folder.path().join("b/c.txt")).unwrap(),
            "deep"
        );
    }

    #[test]
    fn a_commit_that_fails_half_way_leaves_the_old_files() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("a"), "old").unwrap();
        fs::write(path("gone"), "old").unwrap();
        let mut writer = FolderWriter::new(folder.path()).unwrap();
        for name in ["a", "b", "c/d", "last"] {
            writer.stage(name, b"new").unwrap();
        }
        writer.remove("gone");
        // No file can take a folder's place.
        fs::create_dir(path("last")).unwrap();
        let error = writer.commit().unwrap_err();
        assert!(
            matches!(&error, Error::Repo(RepoError::Io { path: named, .. }) if *named == path("last")),
            "{error}"
        );
        assert_eq!(fs::read_to_string(path("a")).unwrap(), "old");
        assert_eq!(fs::read_to_string(path("gone")).unwrap(), "old");
        let names = fs::read_dir(folder.path()).unwrap();
        let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["a", "c", "gone", "last"]);
        assert_eq!(fs::read_dir(path("c")).unwrap().count(), 0);
    }

    #[test]
    fn files_that_are_no_longer_meant_go_when_the_new_ones_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("old"), "old").unwrap();
        let mut writer = FolderWriter::new(folder.path()).unwrap();
        writer.stage("new", b"new").unwrap();
        writer.remove("old");
        writer.remove("never");
        assert!(path("old").exists());
        writer.commit().unwrap();
        assert!(path("new").exists() && !path("old").exists());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn files_that_are_missing_or_no_json_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.json");
        let read = || read_json::<Value>(&path, "this test").unwrap_err();
        assert!(matches!(
            read(),
            Error::Repo(RepoError::MissingFile {
                needed_for: "this test",
                ..
            })
        ));
        fs::write(&path, b"{\"a\": \xff}").unwrap();
        assert!(matches!(
            read(),
            Error::Repo(RepoError::NotUtf8 { offset: 6, .. })
        ));
        fs::write(&path, "{\"a\": ").unwrap();
        let error = read();
        assert!(matches!(error, Error::Repo(RepoError::Json { .. })));
        assert!(error.to_string().contains("x.json"));
    }
}
