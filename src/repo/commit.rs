//! Putting many files into place at once: all of them, or none, whatever happens on the way.
//!
//! Before the first file of a folder is replaced, the old ones are kept in a folder beside
//! them, with a list of what is to change. While the list is there, the commit is not through:
//! whoever opens the folder next and finds it puts the old files back.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use tempfile::{TempDir, TempPath};

use super::file::io_error;
use super::interruption::place;
use super::named_path::path_inside;
use crate::error::Result;

/// What folders of old files begin with.
const PREFIX: &str = ".replaced";

const LIST: &str = "list.json";
const LOCK: &str = "lock";

/// A file that a commit changes.
#[derive(Debug, Serialize, Deserialize)]
struct Change {
    /// Where it is in the folder.
    path: String,
    /// The number of the old file among those that are kept, if there was one.
    kept: Option<usize>,
}

/// Puts files into their places in a folder, and removes others.
///
/// # Errors
/// [`RepoError::Io`](crate::error::RepoError) naming the file; the folder then has its old
/// files.
pub(super) fn commit(
    folder: &Path,
    staged: Vec<(TempPath, String)>,
    removed: Vec<String>,
) -> Result<()> {
    let kept = Kept::keep(folder, staged.iter().map(|(_, name)| name).chain(&removed))?;
    let staged = staged.into_iter().try_for_each(|(file, name)| {
        let path = folder.join(name);
        place();
        let replaced = file.persist(&path);
        replaced.map_err(|e| io_error(&path, "write", e.error))
    });
    let changed = staged.and_then(|()| {
        removed.into_iter().try_for_each(|name| {
            let path = folder.join(name);
            place();
            gone(fs::remove_file(&path)).map_err(|e| io_error(&path, "remove", e))
        })
    });
    match changed {
        Ok(()) => kept.forget(folder),
        Err(_) => kept.restore(folder),
    }
    changed
}

/// The old files of a commit.
struct Kept {
    /// Goes with all in it when this is let go.
    folder: TempDir,
    changes: Vec<Change>,
    /// Held until the commit is through.
    _lock: File,
}

impl Kept {
    fn keep<'a>(folder: &Path, names: impl Iterator<Item = &'a String>) -> Result<Self> {
        let failed = |e| io_error(folder, "write", e);
        place();
        let kept = tempfile::Builder::new().prefix(PREFIX).tempdir_in(folder);
        let kept = kept.map_err(failed)?;
        place();
        let lock = File::create(kept.path().join(LOCK)).map_err(failed)?;
        // Some file systems have no locks.
        if let Err(error) = lock.lock() {
            log::debug!("{}: cannot lock: {error}", folder.display());
        }
        let mut changes = Vec::new();
        for (number, name) in names.enumerate() {
            let path = folder.join(name);
            let kept = match fs::symlink_metadata(&path) {
                Ok(found) if found.is_dir() => {
                    return Err(io_error(&path, "write", io::ErrorKind::IsADirectory.into()));
                }
                Ok(_) => {
                    let target = kept.path().join(number.to_string());
                    place();
                    // A second name for the old file costs nothing.
                    let second = fs::hard_link(&path, &target);
                    let second = second.or_else(|_| fs::copy(&path, &target).map(drop));
                    second.map_err(|e| io_error(&path, "keep", e))?;
                    Some(number)
                }
                Err(_) => None,
            };
            changes.push(Change {
                path: name.clone(),
                kept,
            });
        }
        let list = kept.path().join(LIST);
        let unfinished = kept.path().join("list.unfinished");
        let written = serde_json::to_vec(&changes).map_err(io::Error::from);
        let written = written.and_then(|list| {
            place();
            fs::write(&unfinished, list)?;
            File::open(&unfinished)?.sync_all()?;
            place();
            fs::rename(&unfinished, list_path(kept.path()))
        });
        written.map_err(|e| io_error(&list, "write", e))?;
        sync(kept.path());
        sync(folder);
        Ok(Self {
            folder: kept,
            changes,
            _lock: lock,
        })
    }

    /// The new files are in place.
    fn forget(self, folder: &Path) {
        let folders: BTreeSet<PathBuf> = self
            .changes
            .iter()
            .filter_map(|change| folder.join(&change.path).parent().map(Path::to_owned))
            .collect();
        folders.iter().for_each(|folder| sync(folder));
        place();
        if let Err(error) = fs::remove_file(list_path(self.folder.path())) {
            let list = list_path(self.folder.path());
            log::error!("{}: cannot remove: {error}", list.display());
        }
        sync(self.folder.path());
        place();
    }

    /// Puts the old files back.
    fn restore(self, folder: &Path) {
        if let Err(error) = put_back(folder, self.folder.path(), &self.changes) {
            log::error!("{error}");
            // What could not be put back is not to be lost with the folder.
            let _ = self.folder.keep();
        }
    }
}

fn list_path(kept: &Path) -> PathBuf {
    kept.join(LIST)
}

/// Puts the files of a folder back that a commit kept which was cut off, if one was. A commit
/// that is under way is waited for.
///
/// # Errors
/// [`RepoError::Io`](crate::error::RepoError) or
/// [`RepoError::Json`](crate::error::RepoError) where they cannot be put back.
pub(super) fn recover(folder: &Path) -> Result<()> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let is_kept = entry.file_name().to_string_lossy().starts_with(PREFIX);
        // Not a link to a folder.
        if is_kept && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            recover_from(folder, &entry.path())?;
        }
    }
    Ok(())
}

fn recover_from(folder: &Path, kept: &Path) -> Result<()> {
    let lock = kept.join(LOCK);
    let list = list_path(kept);
    // Whoever writes there begins with the lock: without one, nothing has been kept yet.
    let Ok(file) = File::open(&lock) else {
        return Ok(());
    };
    if let Err(error) = file.lock() {
        // Whether someone is still writing cannot be told.
        log::warn!("{}: cannot lock: {error}: left as it is", lock.display());
        return Ok(());
    }
    if list.exists() {
        let changes: Vec<Change> = super::file::read_json(&list, "it says what to put back")?;
        log::warn!(
            "{}: a save was cut off here, its folder gets its old files back",
            folder.display()
        );
        put_back(folder, kept, &changes)?;
    }
    match fs::remove_dir_all(kept) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            log::warn!("{}: cannot remove: {error}", kept.display());
        }
        _ => {}
    }
    Ok(())
}

/// Gives each changed file back what it was. Can be cut off and done again.
fn put_back(folder: &Path, kept: &Path, changes: &[Change]) -> Result<()> {
    for change in changes {
        // The file itself may be a link to anywhere.
        let (parent, name) = change.path.rsplit_once('/').unwrap_or(("", &change.path));
        let path = path_inside(&folder.join(LIST), parent)?.join(name);
        if matches!(name, "" | "." | "..") || name.contains(['\\', '\0']) {
            return Err(io_error(
                &path,
                "put back",
                io::ErrorKind::InvalidFilename.into(),
            ));
        }
        place();
        let undone = match change.kept {
            // A second time, it has been put back already.
            Some(number) => gone(fs::rename(kept.join(number.to_string()), &path)),
            None => gone(fs::remove_file(&path)),
        };
        undone.map_err(|e| io_error(&path, "put back", e))?;
    }
    place();
    let list = list_path(kept);
    gone(fs::remove_file(&list)).map_err(|e| io_error(&list, "remove", e))
}

/// That a file is not there is no failure.
fn gone(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Has a folder itself written, as far as the system can.
fn sync(folder: &Path) {
    if cfg!(unix)
        && let Err(error) = File::open(folder).and_then(|folder| folder.sync_all())
    {
        log::debug!("{}: cannot sync: {error}", folder.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::file::FolderWriter;
    use crate::repo::interruption::{process_that_ends_at, stop_at_the_place_of_this_process};
    use std::collections::BTreeMap;
    use std::env;

    const FOLDER: &str = "SENTENCE_BURN_TEST_FOLDER";

    fn old(folder: &Path) {
        fs::create_dir_all(folder.join("sub")).unwrap();
        for name in ["a", "sub/b", "gone"] {
            fs::write(folder.join(name), format!("old {name}")).unwrap();
        }
    }

    fn write_new(folder: &Path) {
        let mut writer = FolderWriter::new(folder).unwrap();
        for name in ["a", "sub/b", "more/c"] {
            writer
                .stage(name, format!("new {name}").as_bytes())
                .unwrap();
        }
        writer.remove("gone");
        writer.commit().unwrap();
    }

    /// The files of a folder, but for what is hidden.
    fn files(folder: &Path) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        let mut folders = vec![folder.to_owned()];
        while let Some(next) = folders.pop() {
            for entry in fs::read_dir(next).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(folder).unwrap().to_string_lossy();
                match path.is_dir() {
                    _ if name.rsplit('/').next().unwrap().starts_with('.') => {}
                    true => folders.push(path),
                    false => {
                        let content = fs::read_to_string(&path).unwrap();
                        found.insert(name.into_owned(), content);
                    }
                }
            }
        }
        found
    }

    fn expected(age: &str, names: &[&str]) -> BTreeMap<String, String> {
        let file = |name: &&str| (name.to_string(), format!("{age} {name}"));
        names.iter().map(file).collect()
    }

    #[test]
    fn the_process_that_is_cut_off() {
        let Some(folder) = env::var_os(FOLDER) else {
            return;
        };
        stop_at_the_place_of_this_process();
        match Path::new(&folder).join("recover").exists() {
            true => recover(Path::new(&folder)).unwrap(),
            false => write_new(Path::new(&folder)),
        }
    }

    #[test]
    fn cut_off_at_any_place_a_folder_has_its_old_files_or_its_new_ones() {
        let test = "repo::commit::tests::the_process_that_is_cut_off";
        let (before, after) = (
            expected("old", &["a", "sub/b", "gone"]),
            expected("new", &["a", "sub/b", "more/c"]),
        );
        let (mut were_old, mut were_mixed, mut were_new) = (0, 0, 0);
        let mut ended = 0;
        loop {
            let folder = tempfile::tempdir().unwrap();
            old(folder.path());
            let told = [(FOLDER, folder.path().to_str().unwrap())];
            if !process_that_ends_at(ended + 1, test, &told) {
                assert_eq!(files(folder.path()), after);
                break;
            }
            ended += 1;
            let found = files(folder.path());
            were_mixed += usize::from(found != before && found != after);
            // Recovering is cut off as well, wherever it can be.
            fs::write(folder.path().join("recover"), "").unwrap();
            for place in 1.. {
                if !process_that_ends_at(place, test, &told) {
                    break;
                }
            }
            fs::remove_file(folder.path().join("recover")).unwrap();
            let found = files(folder.path());
            were_old += usize::from(found == before);
            were_new += usize::from(found == after);
            assert!(found == before || found == after, "{ended}: {found:?}");
            // And the next save goes through.
            write_new(folder.path());
            assert_eq!(files(folder.path()), after);
        }
        assert!(
            were_old > 5 && were_mixed > 1 && were_new > 0,
            "{were_old} old, {were_mixed} mixed, {were_new} new of {ended}"
        );
    }

    #[test]
    fn what_was_cut_off_leads_nowhere_else() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("model");
        let kept = folder.join(".replacedx");
        fs::create_dir_all(&kept).unwrap();
        let outside = root.path().join("outside");
        fs::write(&outside, "mine").unwrap();
        fs::write(kept.join(LOCK), "").unwrap();
        for list in [
            r#"[{"path": "../outside", "kept": null}]"#,
            r#"[{"path": "a/..", "kept": null}]"#,
            r#"[{"path": "a", "kept": "../../outside"}]"#,
            r#"[{"path": 3}]"#,
        ] {
            fs::write(kept.join(LIST), list).unwrap();
            assert!(recover(&folder).is_err(), "{list}");
            assert_eq!(fs::read_to_string(&outside).unwrap(), "mine");
        }
    }

    #[test]
    fn one_who_opens_a_folder_waits_for_a_commit_that_is_under_way() {
        let folder = tempfile::tempdir().unwrap();
        old(folder.path());
        let names = ["a".to_owned()];
        let kept = Kept::keep(folder.path(), names.iter()).unwrap();
        fs::write(folder.path().join("a.new"), "new a").unwrap();
        fs::rename(folder.path().join("a.new"), folder.path().join("a")).unwrap();
        std::thread::scope(|scope| {
            let opened = scope.spawn(|| recover(folder.path()).unwrap());
            std::thread::sleep(std::time::Duration::from_millis(50));
            kept.forget(folder.path());
            opened.join().unwrap();
        });
        assert_eq!(
            fs::read_to_string(folder.path().join("a")).unwrap(),
            "new a"
        );
    }
}
