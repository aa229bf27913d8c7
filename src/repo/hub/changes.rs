use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use hf_hub::repository::CommitOperation;

use super::repo_id::RepoId;
use crate::error::{HubError, RepoError, Result};
use crate::repo::{names, sharding};

/// What turns the files that are there into those of the folder.
pub(super) fn operations(
    repo: &RepoId,
    folder: &Path,
    there: &BTreeSet<String>,
) -> Result<Vec<CommitOperation>> {
    let files = files_below(folder)?;
    let is_adapter = files.contains_key(names::ADAPTER_CONFIG);
    let is_whole = files.contains_key(names::CONFIG);
    // Both together would be read as one model.
    let holds = match (is_whole, is_adapter) {
        (false, true) if there.contains(names::CONFIG) => Some("a whole model"),
        (true, false) if there.contains(names::ADAPTER_CONFIG) => Some("an adapter"),
        _ => None,
    };
    if let Some(holds) = holds {
        return Err(HubError::Occupied {
            id: repo.to_string(),
            holds,
        }
        .into());
    }
    let has_weights = |folder: &str| {
        let mut paths = files.keys().map(|path| split(path));
        paths.any(|(other, name)| other == folder && sharding::is_weights(name))
    };
    let is_stale = |path: &&String| {
        let (folder, name) = split(path);
        sharding::is_weights(name) && !files.contains_key(*path) && has_weights(folder)
    };
    let stale = there.iter().filter(is_stale).map(CommitOperation::delete);
    let mut operations: Vec<CommitOperation> = stale.collect();
    let added = files
        .into_iter()
        .map(|(path, file)| CommitOperation::add_file(path, file));
    operations.extend(added);
    Ok(operations)
}

/// A path's folder and name.
fn split(path: &str) -> (&str, &str) {
    path.rsplit_once('/').unwrap_or(("", path))
}

/// The files below a folder by their paths in a repository; not those that begin with a
/// dot, which are no part of a model.
fn files_below(folder: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![(folder.to_owned(), String::new())];
    while let Some((folder, within)) = folders.pop() {
        let failed = |source| RepoError::Io {
            path: folder.clone(),
            action: "read",
            source,
        };
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name();
            let name = name.to_string_lossy();
            if name.starts_with('.') {
                continue;
            }
            let path = format!("{within}{name}");
            if entry.path().is_dir() {
                folders.push((entry.path(), format!("{path}/")));
            } else {
                files.insert(path, entry.path());
            }
        }
    }
    Ok(files)
}
