use std::collections::HashSet;

use serde::Deserialize;

use super::cache::is_commit;
use super::digest::Digest;
use super::explain::Explainer;
use super::http::Http;
use super::is_plain_path;
use super::repo_id::RepoId;
use crate::error::HubError;

/// Folders that hold nothing a model is loaded from; training's checkpoints besides.
const SKIPPED_FOLDERS: [&str; 2] = ["onnx", "openvino"];

/// The most pages of a list that are asked for; a list that goes round in circles has no end.
const MOST_PAGES: usize = 2_000;

/// The most bytes that a list takes in memory, over all of its pages.
const MOST_BYTES: usize = 512 << 20;

/// A file as the hub lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RemoteFile {
    pub(super) path: String,
    pub(super) size: u64,
    pub(super) digest: Digest,
}

/// What the hub says about a repository's revision.
#[derive(Deserialize)]
struct Info {
    #[serde(default)]
    sha: String,
}

/// What the hub says about a file or a folder.
#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    oid: String,
    #[serde(default)]
    size: u64,
    lfs: Option<LargeFile>,
}

/// A file that lies beside the repository; its entry's own digest is that of a pointer.
#[derive(Deserialize)]
struct LargeFile {
    oid: String,
    size: u64,
}

/// Asks what a revision stands for now.
pub(super) fn commit_of(
    http: &Http,
    repo: &RepoId,
    revision: &str,
    explainer: Explainer<'_>,
) -> Result<String, HubError> {
    if is_commit(revision) {
        return Ok(revision.to_owned());
    }
    let RepoId { kind, owner, name } = repo;
    let mut url = http.url(["api", kind.plural(), owner, name, "revision", revision]);
    url.set_query(Some("expand=sha"));
    let info = http.json::<Info>(&url);
    let (info, _) = info.map_err(|failure| explainer.explain(failure))?;
    match is_commit(&info.sha) {
        true => Ok(info.sha),
        false => Err(explainer.unexpected(format!("`{}` as the commit of `{revision}`", info.sha))),
    }
}

/// Asks for the files at a revision, or below a folder there.
pub(super) fn list(
    http: &Http,
    repo: &RepoId,
    revision: &str,
    folder: Option<&str>,
    explainer: Explainer<'_>,
) -> Result<Vec<RemoteFile>, HubError> {
    let RepoId { kind, owner, name } = repo;
    let route = ["api", kind.plural(), owner, name, "tree", revision];
    let folders = folder.unwrap_or_default().split('/');
    let mut url = http.url(route.into_iter().chain(folders));
    url.set_query(Some("recursive=true&expand=false"));
    let mut files = Vec::new();
    let mut next = Some(url);
    let (mut pages, mut bytes) = (0, 0);
    while let Some(url) = next {
        pages += 1;
        if pages > MOST_PAGES {
            return Err(explainer.unexpected(format!("more than {MOST_PAGES} pages of files")));
        }
        let page = http.json::<Vec<Entry>>(&url);
        let (entries, following) = page.map_err(|failure| explainer.explain(failure))?;
        for entry in entries.into_iter().filter(|entry| entry.kind == "file") {
            bytes += size_of::<RemoteFile>() + entry.path.len();
            if bytes > MOST_BYTES {
                return Err(explainer.unexpected(format!("more than {MOST_BYTES} bytes of files")));
            }
            files.push(file(entry, explainer)?);
        }
        next = following;
    }
    Ok(files)
}

fn file(entry: Entry, explainer: Explainer<'_>) -> Result<RemoteFile, HubError> {
    let Entry {
        path, oid, size, ..
    } = entry;
    if !is_plain_path(&path) {
        return Err(explainer.unexpected(format!("a file named `{path}`")));
    }
    let (oid, size) = match entry.lfs {
        Some(large) => (large.oid, large.size),
        None => (oid, size),
    };
    match Digest::parse(&oid) {
        Some(digest) => Ok(RemoteFile { path, size, digest }),
        None => Err(explainer.unexpected(format!("`{oid}` as the digest of {path}"))),
    }
}

/// The files to take, in the order to take them in.
///
/// Those that say what a folder is come last: a folder that an interrupted download left
/// behind then loads as nothing, rather than as something else.
pub(super) fn select(listed: &[RemoteFile], subfolder: Option<&str>) -> Vec<RemoteFile> {
    let within = |path: &'_ str| match subfolder {
        Some(folder) => path
            .strip_prefix(folder)
            .and_then(|rest| rest.strip_prefix('/'))
            .map(str::to_owned),
        None => Some(path.to_owned()),
    };
    let folder_of = |path: &str| {
        path.rsplit_once('/')
            .map_or("", |(folder, _)| folder)
            .to_owned()
    };
    let safe: HashSet<String> = listed
        .iter()
        .filter(|file| is_safetensors(&file.path))
        .map(|file| folder_of(&file.path))
        .collect();
    let mut files: Vec<(u8, &RemoteFile)> = listed
        .iter()
        // The same weights once more.
        .filter(|file| !is_pickle(&file.path) || !safe.contains(&folder_of(&file.path)))
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
        _ => is_weights(path) || matches!(name, "vocab.txt" | "merges.txt"),
    }
}

/// Whether a file, or one of several together, is the weights of an encoder, a module or an
/// adapter.
pub(super) fn is_weights(path: &str) -> bool {
    is_safetensors(path) || is_pickle(path)
}

/// `model-00001-of-00002` as well; not the same weights in another precision.
fn is_safetensors(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.strip_suffix(".safetensors").is_some_and(|stem| {
        let stem = stem.strip_prefix("adapter_").unwrap_or(stem);
        stem == "model" || stem.starts_with("model-")
    })
}

/// As [`is_safetensors`], of the files that PyTorch writes.
fn is_pickle(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    name.strip_suffix(".bin").is_some_and(|stem| {
        let whole = ["pytorch_model", "adapter_model"].contains(&stem);
        whole || stem.starts_with("pytorch_model-")
    })
}

/// The weights among the files that are in formats this crate does not read.
pub(super) fn other_weights(listed: Vec<RemoteFile>) -> Vec<String> {
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
            digest: Digest::parse(&"0".repeat(40)).unwrap(),
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
            "training_args.bin",
        ];
        assert_eq!(selected(&needed, None), needed);
        assert_eq!(selected(&not_needed, None), [""; 0]);
        assert_eq!(
            other_weights(files(&not_needed)),
            [
                "flax_model.msgpack",
                "model_O3.onnx",
                "openvino/openvino_model.bin",
                "training_args.bin"
            ]
        );
    }

    #[test]
    fn pytorchs_files_are_taken_where_a_folder_has_no_others() {
        let pickled = [
            "2_Dense/pytorch_model.bin",
            "adapter_model.bin",
            "pytorch_model-00001-of-00002.bin",
            "pytorch_model.bin.index.json",
        ];
        assert_eq!(selected(&pickled, None), pickled);
        let both = [
            "2_Dense/pytorch_model.bin",
            "model.safetensors",
            "pytorch_model.bin",
        ];
        assert_eq!(selected(&both, None), both[..2]);
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
