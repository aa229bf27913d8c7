//! The folders that checkpoints lie in: each is whole, or has a name that says that it is not.

use std::fs;
#[cfg(unix)]
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Result, TrainingError};
use crate::repo::interruption::place;

/// What a checkpoint's name begins with; its step follows.
pub(super) const PREFIX: &str = "checkpoint-";

/// What the name of one ends with that is being written.
pub(super) const UNFINISHED: &str = ".unfinished";

/// What the name of one ends with that is being removed.
const REMOVED: &str = ".removed";

/// Removes a checkpoint, if it is there, so that no half of it is ever seen.
pub(super) fn remove(path: &Path) -> Result<()> {
    let (Some(dir), Some(name)) = (path.parent(), path.file_name()) else {
        return Ok(());
    };
    if !path.exists() {
        return Ok(());
    }
    let removed = dir.join(format!(".{}{REMOVED}", name.to_string_lossy()));
    remove_dir(&removed)?;
    place();
    fs::rename(path, &removed).map_err(|e| io_error(path, "remove", e))?;
    remove_dir(&removed)
}

/// Removes what a run that was cut off left half written or half removed.
pub(super) fn clean(output_dir: &Path) -> Result<()> {
    for path in entries(output_dir)? {
        let name = file_name(&path);
        let ours = name.starts_with(&format!(".{PREFIX}"));
        if ours && (name.ends_with(UNFINISHED) || name.ends_with(REMOVED)) {
            remove_dir(&path)?;
        }
    }
    Ok(())
}

/// The checkpoints in a folder, oldest first.
pub(super) fn list(output_dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found: Vec<(usize, PathBuf)> = entries(output_dir)?
        .into_iter()
        .filter_map(|path| Some((file_name(&path).strip_prefix(PREFIX)?.parse().ok()?, path)))
        .collect();
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e| io_error(dir, "list", e);
    fs::read_dir(dir)
        .map_err(failed)?
        .map(|entry| Ok(entry.map_err(failed)?.path()))
        .collect()
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

pub(super) fn remove_dir(path: &Path) -> Result<()> {
    place();
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(io_error(path, "remove", error))
        }
        _ => Ok(()),
    }
}

/// Makes a folder's files survive a power cut.
pub(super) fn sync_tree(dir: &Path) -> Result<()> {
    for path in entries(dir)? {
        match path.is_dir() {
            true => sync_tree(&path)?,
            false => sync(&path)?,
        }
    }
    sync(dir)
}

#[cfg(unix)]
pub(super) fn sync(path: &Path) -> Result<()> {
    File::open(path)
        .and_then(|file| file.sync_all())
        .map_err(|e| io_error(path, "write", e))
}

/// Elsewhere a folder, or a file open for reading, cannot be synced.
#[cfg(not(unix))]
pub(super) fn sync(_path: &Path) -> Result<()> {
    Ok(())
}

pub(super) fn io_error(path: &Path, action: &'static str, source: io::Error) -> crate::Error {
    TrainingError::Io {
        path: path.to_owned(),
        action,
        source,
    }
    .into()
}
