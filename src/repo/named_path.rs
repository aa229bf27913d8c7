use std::path::{Component, Path, PathBuf};

use crate::error::{RepoError, Result};

/// The path that a file of a folder names: one of that folder, or of one in it.
///
/// A link may not lead out of the folder either, but to the contents of a hub's cache: a
/// commit's files are links to them.
///
/// # Errors
/// [`RepoError::UnsafePath`].
pub(super) fn path_inside(file: &Path, path: &str) -> Result<PathBuf> {
    let folder = file.parent().unwrap_or(Path::new(""));
    let found = folder.join(path);
    let inside = |component| matches!(component, Component::Normal(_) | Component::CurDir);
    let is_plain = Path::new(path).components().all(inside) && !path.contains(['\\', '\0']);
    if is_plain && !leads_out(folder, &found) {
        return Ok(found);
    }
    Err(RepoError::UnsafePath {
        path: file.to_owned(),
        found: path.to_owned(),
    }
    .into())
}

/// Whether links lead to elsewhere. What is not there leads nowhere.
fn leads_out(folder: &Path, path: &Path) -> bool {
    let folder = match folder.as_os_str().is_empty() {
        true => Path::new("."),
        false => folder,
    };
    match (folder.canonicalize(), path.canonicalize()) {
        (Ok(folder), Ok(path)) => !path.starts_with(folder) && !is_cached_content(&path),
        _ => false,
    }
}

/// Whether this is `models--…/blobs/…`, as `huggingface_hub` and this crate lay out their cache.
fn is_cached_content(path: &Path) -> bool {
    let mut names = path.ancestors().skip(1).map(Path::file_name);
    let blobs = names.next().flatten();
    let repository = names.next().flatten().map(|name| name.to_string_lossy());
    blobs.is_some_and(|name| name == "blobs")
        && repository.is_some_and(|name| name.starts_with("models--"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use std::fs;

    fn is_refused(file: &Path, path: &str) -> bool {
        match path_inside(file, path) {
            Ok(found) => {
                assert_eq!(found, file.parent().unwrap().join(path));
                false
            }
            Err(Error::Repo(RepoError::UnsafePath { found, .. })) => found == path,
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn paths_stay_in_the_folder() {
        let file = Path::new("some/folder/modules.json");
        for path in ["", "1_Pooling", "a/b", "./a", "..a"] {
            assert!(!is_refused(file, path), "{path}");
        }
        for path in ["..", "../x", "/x", "a/../../x", "a\\..\\x", "a\0b"] {
            assert!(is_refused(file, path), "{path}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_lead_out_to_the_contents_of_a_cache_alone() {
        use std::os::unix::fs::symlink;
        let root = tempfile::tempdir().unwrap();
        let repository = root.path().join("models--owner--name");
        let snapshot = repository.join("snapshots/0123");
        let elsewhere = root.path().join("elsewhere");
        for folder in [&repository.join("blobs"), &snapshot.join("own"), &elsewhere] {
            fs::create_dir_all(folder).unwrap();
        }
        fs::write(repository.join("blobs/abc"), "content").unwrap();
        fs::write(elsewhere.join("secret"), "content").unwrap();
        let file = snapshot.join("model.safetensors.index.json");
        for (name, target) in [
            ("cached", "../../blobs/abc"),
            ("within", "own"),
            ("nowhere", "own/absent"),
        ] {
            symlink(target, snapshot.join(name)).unwrap();
            assert!(!is_refused(&file, name), "{name}");
        }
        for (name, target) in [
            ("file", "../../../elsewhere/secret"),
            ("folder", "../../../elsewhere"),
            ("above", ".."),
        ] {
            symlink(target, snapshot.join(name)).unwrap();
            assert!(is_refused(&file, name), "{name}");
        }
        assert!(is_refused(&file, "folder/secret"));
    }
}
