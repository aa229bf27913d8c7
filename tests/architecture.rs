//! Folders are the way data flows: each may use those before it, and none behind it.

use std::fs;
use std::path::{Path, PathBuf};

/// What each folder of `src` may use inside the crate.
const MAY_USE: [(&str, &[&str]); 14] = [
    ("error", &[]),
    ("state_dict", &["error"]),
    ("kernel", &["error"]),
    ("text", &["error", "kernel"]),
    ("adapter", &["error", "state_dict", "kernel"]),
    (
        "encoder",
        &["error", "state_dict", "kernel", "adapter", "text"],
    ),
    ("modules", &["error", "state_dict", "kernel", "text"]),
    (
        "model",
        &[
            "error",
            "state_dict",
            "kernel",
            "adapter",
            "encoder",
            "modules",
            "text",
        ],
    ),
    (
        "repo",
        &[
            "error",
            "state_dict",
            "kernel",
            "adapter",
            "encoder",
            "modules",
            "text",
            "model",
        ],
    ),
    ("data", &["error", "repo"]),
    ("loss", &["error", "kernel", "model"]),
    ("search", &["error", "kernel", "model"]),
    (
        "evaluation",
        &["error", "text", "model", "repo", "data", "search"],
    ),
    (
        "training",
        &[
            "error",
            "model",
            "loss",
            "text",
            "repo",
            "data",
            "evaluation",
        ],
    ),
];

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files
}

/// The folders that a file names behind `crate::`, tests left out.
fn used_folders(source: &str) -> Vec<&str> {
    let code = source
        .split("#[cfg(test)]\nmod tests")
        .next()
        .unwrap_or(source);
    let mut used = Vec::new();
    for line in code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
    {
        for part in line.split("crate::").skip(1) {
            let end = part
                .find(|c: char| !c.is_ascii_lowercase() && c != '_')
                .unwrap_or(part.len());
            used.push(&part[..end]);
        }
    }
    used
}

/// The first import that runs against the flow of data, if any.
fn violation(folder: &str, source: &str) -> Option<String> {
    let (_, allowed) = MAY_USE.iter().find(|(name, _)| *name == folder)?;
    // `crate::Error` and `crate::Result` end before the first capital: an empty name.
    let foreign = |used: &&str| !used.is_empty() && *used != folder && !allowed.contains(used);
    used_folders(source)
        .into_iter()
        .find(foreign)
        .map(str::to_owned)
}

#[test]
fn imports_run_one_way() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for entry in fs::read_dir(&src).unwrap() {
        let path = entry.unwrap().path();
        let folder = path.file_name().unwrap().to_string_lossy().into_owned();
        if !path.is_dir() {
            continue;
        }
        assert!(
            MAY_USE.iter().any(|(name, _)| *name == folder),
            "{folder} has no place"
        );
        for file in rust_files(&path) {
            let source = fs::read_to_string(&file).unwrap();
            if let Some(used) = violation(&folder, &source) {
                panic!("{} uses crate::{used}", file.display());
            }
        }
    }
}

#[test]
fn a_wrong_import_would_be_noticed() {
    assert_eq!(
        violation("kernel", "use crate::model::Mode;").as_deref(),
        Some("model")
    );
    assert_eq!(
        violation("text", "fn f() -> crate::repo::X {}").as_deref(),
        Some("repo")
    );
    assert_eq!(
        violation(
            "encoder",
            "use crate::adapter::LoraLinear;\nuse crate::Error;"
        ),
        None
    );
}

#[test]
fn unsafe_code_stays_in_kernel() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in rust_files(&src) {
        let in_kernel = file.starts_with(src.join("kernel"));
        let source = fs::read_to_string(&file).unwrap();
        assert!(
            in_kernel || !source.contains("unsafe "),
            "{}",
            file.display()
        );
    }
}

/// The lines, from 1, of unsafe code that no comment says the safety of: `SAFETY:` above a block
/// or an implementation, `# Safety` in the documentation of a function.
fn unexplained(source: &str) -> Vec<usize> {
    let lines: Vec<&str> = source.lines().collect();
    let code = |line: &str| line.split("//").next().unwrap_or_default().to_owned();
    let is_said = |at: usize, words: &str, reach: usize| {
        let above = &lines[at.saturating_sub(reach)..at];
        above.iter().any(|line| line.contains(words))
    };
    let is_unexplained = |&at: &usize| {
        let line = code(lines[at]);
        let block = line.contains("unsafe {") || line.contains("unsafe impl");
        (block && !is_said(at, "SAFETY:", 6))
            || (line.contains("unsafe fn") && !is_said(at, "# Safety", 14))
    };
    let found = (0..lines.len()).filter(is_unexplained);
    found.map(|at| at + 1).collect()
}

#[test]
fn unsafe_code_says_why_it_is_safe() {
    let kernel = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/kernel");
    let mut explained = 0;
    for file in rust_files(&kernel) {
        let source = fs::read_to_string(&file).unwrap();
        explained += source.matches("unsafe {").count();
        let found = unexplained(&source);
        assert!(found.is_empty(), "{} {found:?}", file.display());
    }
    assert!(explained > 10, "{explained}");
}

#[test]
fn unsafe_code_without_a_word_would_be_noticed() {
    for source in [
        "let x = unsafe { y() };",
        "// Safe enough.\nunsafe impl Send for X {}",
        "/// Does it.\nunsafe fn f() {}",
    ] {
        assert!(!unexplained(source).is_empty(), "{source}");
    }
    for source in [
        "// SAFETY: it is.\nlet x =\n    unsafe { y() };",
        "/// # Safety\n/// Be careful.\nunsafe fn f() {}",
        "// What unsafe { } means.",
    ] {
        assert!(unexplained(source).is_empty(), "{source}");
    }
}
