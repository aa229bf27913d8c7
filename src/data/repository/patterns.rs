//! Which files of a folder belong to which split, by their names: the rules of Hugging
//! Face's `datasets` (`datasets/data_files.py`).

use std::collections::HashMap;

use fancy_regex::Regex;
use indexmap::{IndexMap, IndexSet};

use super::glob::{Glob, has_wildcards};
use crate::data::format::DataFormat;

/// The files of each split, by their paths in the repository.
pub(super) type SplitFiles = IndexMap<String, Vec<String>>;

/// The splits that are known, in their order, with the words that stand for them.
const SPLIT_KEYWORDS: [(&str, &[&str]); 3] = [
    ("train", &["train", "training"]),
    ("validation", &["validation", "valid", "dev", "val"]),
    ("test", &["test", "testing", "eval", "evaluation"]),
];

/// Files that hold no rows, whatever pattern matches them.
const IGNORED: [&str; 6] = [
    "README.md",
    "config.json",
    "dataset_info.json",
    "dataset_infos.json",
    "dummy_data.zip",
    "dataset_dict.json",
];

/// The files that a pattern matches, sorted.
pub(super) fn matching(pattern: &str, paths: &[&str]) -> Result<Vec<String>, String> {
    let glob = Glob::new(pattern)?;
    let own_name = name_of(pattern);
    let ignored = |path: &str| {
        let name = name_of(path);
        IGNORED.contains(&name) && name != own_name
    };
    let found = paths
        .iter()
        .filter(|path| !ignored(path) && glob.matches(path));
    let mut found: Vec<String> = found.map(|path| path.to_string()).collect();
    found.sort();
    Ok(found)
}

/// The data files that the patterns of a split match, each once.
///
/// # Errors
/// Says which pattern is wrong, or names no file.
pub(super) fn data_files(patterns: &[String], paths: &[&str]) -> Result<Vec<String>, String> {
    let mut files: IndexSet<String> = IndexSet::new();
    for pattern in patterns {
        let mut found = matching(pattern, paths)?;
        found.retain(|path| DataFormat::of_name(name_of(path)).is_some());
        if found.is_empty() && !has_wildcards(pattern) {
            return Err(format!("`{pattern}` is no data file of the repository"));
        }
        files.extend(found);
    }
    Ok(files.into_iter().collect())
}

/// The splits of a folder (`""`, or with a `/` at its end) by the names of its files and
/// folders.
pub(super) fn by_name(folder: &str, paths: &[&str]) -> Result<SplitFiles, String> {
    let sharded = sharded(folder, paths)?;
    if !sharded.is_empty() {
        return Ok(sharded);
    }
    let in_folders = |keyword: &str| {
        [
            format!("{folder}**/{keyword}/**"),
            format!("{folder}**/{keyword}[-._ 0-9]*/**"),
            format!("{folder}**/*[-._ 0-9]{keyword}/**"),
            format!("{folder}**/*[-._ 0-9]{keyword}[-._ 0-9]*/**"),
        ]
    };
    let in_names = |keyword: &str| {
        [
            format!("{folder}**/{keyword}[-._ 0-9]*"),
            format!("{folder}**/*[-._ 0-9]{keyword}[-._ 0-9]*"),
        ]
    };
    let all = [("train", vec![format!("{folder}**")])];
    let folders = SPLIT_KEYWORDS.map(|(split, words)| {
        let patterns = words.iter().flat_map(|word| in_folders(word));
        (split, patterns.collect())
    });
    let names = SPLIT_KEYWORDS.map(|(split, words)| {
        let patterns = words.iter().flat_map(|word| in_names(word));
        (split, patterns.collect())
    });
    for rules in [&folders[..], &names[..], &all[..]] {
        let mut splits = SplitFiles::new();
        for (split, patterns) in rules {
            let found: Result<Vec<_>, _> = patterns
                .iter()
                .map(|pattern| matching(pattern, paths))
                .collect();
            // A split counts although its files may be none that are read.
            if found?.iter().any(|files| !files.is_empty()) {
                splits.insert((*split).to_owned(), data_files(patterns, paths)?);
            }
        }
        if !splits.is_empty() {
            return Ok(splits);
        }
    }
    Ok(SplitFiles::new())
}

/// The splits of files such as `data/train-00000-of-00002.parquet`.
fn sharded(folder: &str, paths: &[&str]) -> Result<SplitFiles, String> {
    const DIGITS: &str = "[0-9][0-9][0-9][0-9][0-9]";
    let pattern = |split: &str| format!("{folder}data/{split}-{DIGITS}-of-{DIGITS}*.*");
    let name = Regex::new(r"\A(.+)-[0-9]{5}-of-[0-9]{5}").map_err(|e| e.to_string())?;
    let matched = matching(&pattern("*"), paths)?;
    let mut found: IndexSet<String> = IndexSet::new();
    for path in &matched {
        let captured = name.captures(name_of(path)).ok().flatten();
        if let Some(split) = captured.as_ref().and_then(|captures| captures.get(1)) {
            found.insert(split.as_str().to_owned());
        }
    }
    let place = |split: &String| {
        let known = SPLIT_KEYWORDS.iter().position(|(name, _)| name == split);
        known.unwrap_or(SPLIT_KEYWORDS.len())
    };
    found.sort_by_cached_key(|split| (place(split), split.clone()));
    // A split's files lie side by side: with many splits, none is looked for among all.
    let files = |split: String| {
        let begin = format!("{folder}data/{split}-");
        let first = matched.partition_point(|path| *path < begin);
        let own = matched[first..].iter().map(String::as_str);
        let own: Vec<&str> = own.take_while(|path| path.starts_with(&begin)).collect();
        let files = data_files(&[pattern(&split)], &own)?;
        Ok((split, files))
    };
    found.into_iter().map(files).collect()
}

/// The splits of the branch that the hub converts data sets to: `default/train/0000.parquet`
/// of the configuration `default`.
pub(super) fn converted(paths: &[&str]) -> IndexMap<String, SplitFiles> {
    let mut configs: IndexMap<String, SplitFiles> = IndexMap::new();
    let mut sorted = paths.to_vec();
    sorted.sort_unstable();
    for path in sorted {
        let parts: Vec<&str> = path.split('/').collect();
        if let [config, split, file] = parts[..]
            && DataFormat::of_name(file) == Some(DataFormat::Parquet)
        {
            let splits = configs.entry(config.to_owned()).or_default();
            let split = split.strip_prefix("partial-").unwrap_or(split);
            let files = splits.entry(split.to_owned()).or_default();
            files.push(path.to_owned());
        }
    }
    configs
}

/// What is missing of files that say how many they are, as `train-00000-of-00002.parquet`
/// does: the first file's name whose fellows are not all there.
pub(super) fn incomplete(files: &[String]) -> Result<Option<String>, String> {
    let shard = Regex::new(r"\A(.*-)([0-9]{5})(-of-([0-9]{5}))").map_err(|e| e.to_string())?;
    let parts = |file: &String| {
        let captures = shard.captures(file).ok().flatten()?;
        let text = |group| captures.get(group).map_or("", |m| m.as_str()).to_owned();
        Some((text(1), text(3), text(4).parse::<usize>().ok()?))
    };
    let all: Vec<_> = files.iter().map(parts).collect();
    let mut fellows: HashMap<_, usize> = HashMap::new();
    for own in all.iter().flatten() {
        *fellows.entry(own).or_default() += 1;
    }
    let is_lacking = |own: &Option<_>| {
        own.as_ref()
            .is_some_and(|own: &(_, _, _)| fellows[own] < own.2)
    };
    let lacking = all.iter().position(is_lacking);
    Ok(lacking.map(|place| files[place].clone()))
}

/// The files in the format that most of them have, and that format.
///
/// Of formats that are equally common parquet goes first, then JSON.
pub(super) fn in_one_format(files: Vec<String>) -> (Vec<String>, Option<DataFormat>) {
    let of = |file: &String| DataFormat::of_name(name_of(file));
    let formats = [
        DataFormat::Tsv,
        DataFormat::Csv,
        DataFormat::Json,
        DataFormat::Parquet,
    ];
    let count = |format: &DataFormat| {
        files
            .iter()
            .filter(|file| of(file) == Some(*format))
            .count()
    };
    // The last of several maxima is taken.
    let format = formats.into_iter().max_by_key(count);
    let own = files.into_iter().filter(|file| of(file) == format);
    (own.collect(), format)
}

fn name_of(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    /// Layouts of repositories with the splits that `datasets` finds in them.
    fn layouts() -> Vec<(Vec<String>, Value)> {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/tests/fixtures/data_files/layouts.json"
        );
        let text = std::fs::read_to_string(path).unwrap();
        let layouts: Vec<Value> = serde_json::from_str(&text).unwrap();
        layouts
            .into_iter()
            .map(|layout| {
                let files = serde_json::from_value(layout["files"].clone()).unwrap();
                (files, layout["splits"].clone())
            })
            .collect()
    }

    #[test]
    fn splits_by_name_are_those_of_python_s_datasets() {
        let layouts = layouts();
        assert!(layouts.len() > 10);
        for (files, expected) in layouts {
            let paths: Vec<&str> = files.iter().map(String::as_str).collect();
            let found = serde_json::to_value(by_name("", &paths).unwrap()).unwrap();
            assert_eq!(found.to_string(), expected.to_string(), "{files:?}");
            // Where nothing tells the splits apart, another name moves the files.
            let moved: Vec<String> = files.iter().map(|file| format!("x/{file}x")).collect();
            let moved: Vec<&str> = moved.iter().map(String::as_str).collect();
            assert_ne!(
                serde_json::to_value(by_name("", &moved).unwrap()).unwrap(),
                expected
            );
        }
    }

    #[test]
    fn files_of_one_format_are_taken() {
        let files = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        let (found, format) = in_one_format(files(&["a.csv", "a.parquet"]));
        assert_eq!(
            (found, format),
            (files(&["a.parquet"]), Some(DataFormat::Parquet))
        );
        let (found, format) = in_one_format(files(&["a.csv", "a.json", "b.csv.gz"]));
        assert_eq!(
            (found, format),
            (files(&["a.csv", "b.csv.gz"]), Some(DataFormat::Csv))
        );
    }

    #[test]
    fn a_part_of_several_is_noticed() {
        let files =
            |names: &[&str]| -> Vec<String> { names.iter().map(|name| name.to_string()).collect() };
        let (first, second) = (
            "data/train-00000-of-00002.parquet",
            "data/train-00001-of-00002.parquet",
        );
        assert_eq!(incomplete(&files(&[first, second, "a.csv"])).unwrap(), None);
        assert_eq!(
            incomplete(&files(&[second])).unwrap().as_deref(),
            Some(second)
        );
        assert_eq!(
            incomplete(&files(&[first, "b-00001-of-00002.parquet"]))
                .unwrap()
                .as_deref(),
            Some(first)
        );
    }

    #[test]
    fn a_converted_branch_has_a_folder_for_each_split() {
        let paths = [
            ".gitattributes",
            "default/train/0001.parquet",
            "default/train/0000.parquet",
            "other/partial-test/0000.parquet",
        ];
        let configs = converted(&paths);
        assert_eq!(
            configs["default"]["train"],
            ["default/train/0000.parquet", "default/train/0001.parquet"]
        );
        assert_eq!(configs["other"]["test"].len(), 1);
    }
}
