//! What a data set's card says about its files: the `configs` of its YAML header.

use std::path::Path;

use yaml_rust2::Yaml;

use super::yaml;
use crate::error::{DataError, Result};

/// A configuration: a part of the data set that is loaded by its name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Config {
    pub name: String,
    /// The patterns of each split's files; by the files' names if there are none.
    pub data_files: Option<Vec<(String, Vec<String>)>>,
    /// The folder that the patterns are relative to.
    pub data_dir: Option<String>,
    pub default: bool,
    /// What is between the values of a csv file.
    pub separator: Option<String>,
}

/// The configurations that a card lists; `text` is a README, or a whole YAML file.
///
/// # Errors
/// [`DataError::InvalidFile`] says what is wrong with the list.
pub(super) fn read_configs(path: &Path, text: &str) -> Result<Vec<Config>> {
    let invalid = |reason: String| DataError::InvalidFile {
        path: path.to_owned(),
        reason,
    };
    let is_card = path.extension().is_some_and(|extension| extension == "md");
    let header = match is_card {
        true => header(text),
        false => Some(text),
    };
    let Some(header) = header else {
        return Ok(Vec::new());
    };
    let documents = yaml::load(header).map_err(invalid)?;
    let configs = match documents.first().map(|document| &document["configs"]) {
        None | Some(Yaml::BadValue | Yaml::Null) => return Ok(Vec::new()),
        Some(Yaml::Array(configs)) => configs,
        Some(_) => return Err(invalid("`configs` is no list".to_owned()).into()),
    };
    let read = configs.iter().map(read_config);
    let configs: std::result::Result<Vec<Config>, String> = read.collect();
    Ok(configs.map_err(invalid)?)
}

/// What is between the lines of dashes at the beginning of a README.
fn header(text: &str) -> Option<&str> {
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let rest = text.strip_prefix("---")?;
    let rest = rest.strip_prefix('\r').unwrap_or(rest).strip_prefix('\n')?;
    let end = rest.match_indices("---").find(|(place, _)| {
        let before = &rest[..*place];
        before.is_empty() || before.ends_with('\n')
    })?;
    Some(&rest[..end.0])
}

fn read_config(yaml: &Yaml) -> std::result::Result<Config, String> {
    let Some(name) = scalar(&yaml["config_name"]) else {
        return Err("a member of `configs` has no `config_name`".to_owned());
    };
    let data_files = match &yaml["data_files"] {
        Yaml::BadValue | Yaml::Null => None,
        files => Some(read_data_files(files).ok_or_else(|| {
            format!(
                "`data_files` of configuration `{name}` must be a pattern, a list of patterns, or \
                 a list of members with `split` and `path`"
            )
        })?),
    };
    let separator = ["sep", "delimiter"].map(|key| yaml[key].as_str());
    Ok(Config {
        name,
        data_files,
        data_dir: yaml["data_dir"].as_str().map(str::to_owned),
        default: yaml["default"].as_bool() == Some(true),
        separator: separator.into_iter().flatten().next().map(str::to_owned),
    })
}

fn read_data_files(yaml: &Yaml) -> Option<Vec<(String, Vec<String>)>> {
    let train = |patterns| vec![("train".to_owned(), patterns)];
    if let Some(pattern) = yaml.as_str() {
        return Some(train(vec![pattern.to_owned()]));
    }
    if let Some(splits) = yaml.as_hash() {
        let split = |(name, path): (&Yaml, &Yaml)| Some((scalar(name)?, paths(path)?));
        return splits.iter().map(split).collect();
    }
    let members = yaml.as_vec()?;
    if members.iter().all(|member| member.as_str().is_some()) {
        return Some(train(paths(yaml)?));
    }
    let mut splits: Vec<(String, Vec<String>)> = Vec::new();
    for member in members {
        let split = scalar(&member["split"])?;
        if splits.iter().any(|(known, _)| *known == split) {
            return None;
        }
        splits.push((split, paths(&member["path"])?));
    }
    Some(splits)
}

/// A pattern or a list of them.
fn paths(yaml: &Yaml) -> Option<Vec<String>> {
    match yaml {
        Yaml::String(path) => Some(vec![path.clone()]),
        Yaml::Array(paths) => paths
            .iter()
            .map(|path| path.as_str().map(str::to_owned))
            .collect(),
        _ => None,
    }
}

/// A name, which YAML may take for a number.
fn scalar(yaml: &Yaml) -> Option<String> {
    match yaml {
        Yaml::String(text) | Yaml::Real(text) => Some(text.clone()),
        Yaml::Integer(number) => Some(number.to_string()),
        Yaml::Boolean(flag) => Some(flag.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Config>> {
        read_configs(Path::new("README.md"), text)
    }

    #[test]
    fn every_way_of_writing_data_files_is_read() {
        let card = r#"---
language:
- en
configs:
- config_name: pair
  default: true
  data_files:
  - split: train
    path: pair/train-*
  - split: test
    path:
    - a.csv
    - b.csv
  sep: "\t"
- config_name: one
  data_files: one.csv
- config_name: 2
  data_files: [a/*, b/*]
  data_dir: sub
- config_name: by_name
---
# A data set
"#;
        let configs = read(card).unwrap();
        let names: Vec<&str> = configs.iter().map(|config| config.name.as_str()).collect();
        assert_eq!(names, ["pair", "one", "2", "by_name"]);
        let strings = |patterns: &[&str]| -> Vec<String> {
            patterns.iter().map(|pattern| pattern.to_string()).collect()
        };
        assert_eq!(
            configs[0].data_files,
            Some(vec![
                ("train".to_owned(), strings(&["pair/train-*"])),
                ("test".to_owned(), strings(&["a.csv", "b.csv"])),
            ])
        );
        assert!(configs[0].default && !configs[1].default);
        assert_eq!(configs[0].separator.as_deref(), Some("\t"));
        let train = |patterns: &[&str]| Some(vec![("train".to_owned(), strings(patterns))]);
        assert_eq!(configs[1].data_files, train(&["one.csv"]));
        assert_eq!(configs[2].data_files, train(&["a/*", "b/*"]));
        assert_eq!(configs[2].data_dir.as_deref(), Some("sub"));
        assert_eq!(configs[3].data_files, None);
    }

    #[test]
    fn a_card_without_a_header_lists_nothing() {
        for text in [
            "",
            "# Title\n---\nconfigs: 1\n---\n",
            "---\nlicense: mit\n---\n",
            "---\n",
        ] {
            assert_eq!(read(text).unwrap(), [], "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (header, expected) in [
            ("configs: 1", "no list"),
            ("configs:\n- data_files: x", "no `config_name`"),
            (
                "configs:\n- config_name: a\n  data_files:\n  - split: x",
                "`data_files`",
            ),
            ("configs: [", "README.md: "),
        ] {
            let error = read(&format!("---\n{header}\n---\n"))
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
