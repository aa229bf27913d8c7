//! Data set repositories on the hub, read as Hugging Face's `datasets` reads those without
//! a script: files by the card's `configs`, or by their names.

mod card;
mod glob;
mod patterns;
mod split;
mod yaml;

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;

pub use self::split::{SplitPart, SplitSlice};

use self::card::Config;
use self::patterns::SplitFiles;
use super::format::{DATA_EXTENSIONS, DataFormat};
use crate::error::{DataError, Error, HubError, RepoError, Result};
use crate::repo::hub::{DatasetRepository, HubOptions};

/// Where the hub keeps its conversions to parquet.
const CONVERTED: &str = "refs/convert/parquet";

/// The name of the only configuration of a data set that lists none.
const DEFAULT_CONFIG: &str = "default";

/// A configuration of a data set on the Hugging Face Hub: what files each split has.
///
/// The files are those that the card's `configs` name; otherwise those whose names or
/// folders say a split, such as `train.jsonl` or `data/test-00000-of-00001.parquet`; else
/// all. A repository without files that can be read is looked for in the hub's own
/// conversion, the revision `refs/convert/parquet`.
#[derive(Debug)]
pub struct HubDataset {
    id: String,
    repository: DatasetRepository,
    splits: SplitFiles,
    format: Option<DataFormat>,
}

/// Data files on this machine, read one behind the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataFiles {
    /// Where they are.
    pub paths: Vec<PathBuf>,
    /// What they are written in; by their names if `None`.
    pub format: Option<DataFormat>,
}

impl HubDataset {
    /// Finds out what files a data set has: of the configuration `config`, or of the only
    /// one or the default if `None`. Nothing but the card is downloaded yet.
    ///
    /// # Errors
    /// [`HubError`] if the repository cannot be read, [`DataError::UnknownConfig`],
    /// [`DataError::NoDataFiles`], and [`DataError::InvalidFile`] for a card that is wrong.
    pub fn open(id: &str, config: Option<&str>, options: &HubOptions) -> Result<Self> {
        if options.subfolder.is_some() {
            return Err(HubError::InvalidOption {
                option: "subfolder",
                expected: "none: a data set's files are found by its configuration",
                found: options.subfolder.clone().unwrap_or_default(),
            }
            .into());
        }
        let repository = DatasetRepository::open(id, options)?;
        let configs = read_card(&repository)?;
        let paths: Vec<&str> = repository.paths().collect();
        let (splits, format) = match configs.is_empty() {
            false => {
                let chosen = choose(id, configs.iter().map(Config::as_choice), config)?;
                files_of(id, &configs[chosen], &paths)?
            }
            true => {
                let splits = patterns::by_name("", &paths);
                let splits = splits.map_err(|reason| invalid(id, reason))?;
                (splits, None)
            }
        };
        let (splits, of_files) = in_one_format(splits);
        if splits.is_empty() {
            return Self::open_converted(id, config, options);
        }
        if configs.is_empty() && config.is_some_and(|config| config != DEFAULT_CONFIG) {
            choose(id, [(DEFAULT_CONFIG, true)].into_iter(), config)?;
        }
        drop(paths);
        Ok(Self {
            id: id.to_owned(),
            repository,
            splits,
            format: format.or(of_files),
        })
    }

    /// The same from the hub's own conversion to parquet.
    fn open_converted(id: &str, config: Option<&str>, options: &HubOptions) -> Result<Self> {
        let none = || DataError::NoDataFiles {
            id: id.to_owned(),
            known: DATA_EXTENSIONS.to_vec(),
        };
        let converted = HubOptions {
            revision: CONVERTED.to_owned(),
            ..options.clone()
        };
        let repository = match DatasetRepository::open(id, &converted) {
            Ok(repository) => repository,
            Err(Error::Hub(HubError::RevisionNotFound { .. } | HubError::NotCached { .. })) => {
                return Err(none().into());
            }
            Err(error) => return Err(error),
        };
        let paths: Vec<&str> = repository.paths().collect();
        let mut configs: IndexMap<String, SplitFiles> = patterns::converted(&paths);
        drop(paths);
        if configs.is_empty() {
            return Err(none().into());
        }
        log::info!("`{id}` has no data files that are read: its conversion to parquet is taken");
        let names = configs
            .keys()
            .map(|name| (name.as_str(), name == DEFAULT_CONFIG));
        let chosen = choose(id, names, config)?;
        let splits = configs.swap_remove_index(chosen).unwrap_or_default().1;
        Ok(Self {
            id: id.to_owned(),
            repository,
            splits,
            format: Some(DataFormat::Parquet),
        })
    }

    /// The names of the splits.
    pub fn splits(&self) -> impl Iterator<Item = &str> {
        self.splits.keys().map(String::as_str)
    }

    /// Downloads the files of a split, unless they are in the cache.
    ///
    /// # Errors
    /// [`DataError::UnknownSplit`] lists the splits; [`DataError::InvalidFile`] if some of
    /// its files are not in the repository; [`HubError`] if a file cannot be had.
    pub fn download(&self, split: &str) -> Result<DataFiles> {
        let files = self
            .splits
            .get(split)
            .ok_or_else(|| DataError::UnknownSplit {
                id: self.id.clone(),
                found: split.to_owned(),
                known: self.splits().map(str::to_owned).collect(),
            })?;
        let incomplete = patterns::incomplete(files).map_err(|reason| invalid(&self.id, reason))?;
        if let Some(file) = incomplete {
            let reason = format!("split `{split}` has not all the files that `{file}` is one of");
            return Err(invalid(&self.id, reason));
        }
        let paths: Result<_> = files
            .iter()
            .map(|file| self.repository.fetch(file))
            .collect();
        Ok(DataFiles {
            paths: paths?,
            format: self.format,
        })
    }
}

impl Config {
    fn as_choice(&self) -> (&str, bool) {
        (&self.name, self.default || self.name == DEFAULT_CONFIG)
    }
}

/// The place of the configuration that is asked for, or of the default.
fn choose<'a>(
    id: &str,
    configs: impl Iterator<Item = (&'a str, bool)>,
    wanted: Option<&str>,
) -> Result<usize> {
    let configs: Vec<(&str, bool)> = configs.collect();
    let found = match wanted {
        Some(wanted) => configs.iter().position(|(name, _)| *name == wanted),
        None if configs.len() == 1 => Some(0),
        None => configs.iter().position(|(_, default)| *default),
    };
    Ok(found.ok_or_else(|| DataError::UnknownConfig {
        id: id.to_owned(),
        found: wanted.map(str::to_owned),
        known: configs.iter().map(|(name, _)| name.to_string()).collect(),
    })?)
}

/// The configurations of the card, if it lists some.
fn read_card(repository: &DatasetRepository) -> Result<Vec<Config>> {
    // What the second says goes before what the card says.
    for name in [".huggingface.yaml", "README.md"] {
        if !repository.paths().any(|path| path == name) {
            continue;
        }
        let path = repository.fetch(name)?;
        let text = fs::read_to_string(&path).map_err(|source| RepoError::Io {
            path: path.clone(),
            action: "read",
            source,
        })?;
        let configs = card::read_configs(&path, &text)?;
        if !configs.is_empty() {
            return Ok(configs);
        }
    }
    Ok(Vec::new())
}

/// The files of a configuration's splits.
fn files_of(id: &str, config: &Config, paths: &[&str]) -> Result<(SplitFiles, Option<DataFormat>)> {
    let folder = match &config.data_dir {
        Some(folder) => format!("{}/", folder.trim_matches('/')),
        None => String::new(),
    };
    let splits = match &config.data_files {
        None => patterns::by_name(&folder, paths),
        Some(splits) => splits
            .iter()
            .map(|(split, patterns)| {
                let within = |pattern: &String| format!("{folder}{pattern}");
                let patterns: Vec<String> = patterns.iter().map(within).collect();
                Ok((split.clone(), patterns::data_files(&patterns, paths)?))
            })
            .collect(),
    };
    let format = match config.separator.as_deref() {
        None => None,
        Some(",") => Some(DataFormat::Csv),
        Some("\t") => Some(DataFormat::Tsv),
        Some(other) => {
            let reason = format!("values separated by {other:?} are not read, only `,` and tabs");
            return Err(invalid(id, reason));
        }
    };
    let splits = splits.map_err(|reason| invalid(id, reason))?;
    Ok((splits, format))
}

/// The files of the format that most have, and that format; splits without one left out.
fn in_one_format(splits: SplitFiles) -> (SplitFiles, Option<DataFormat>) {
    let all = splits.values().flatten().cloned().collect();
    let (kept, format) = patterns::in_one_format(all);
    let kept: HashSet<String> = kept.into_iter().collect();
    let mut splits = splits;
    for files in splits.values_mut() {
        files.retain(|file| kept.contains(file));
    }
    splits.retain(|_, files| !files.is_empty());
    (splits, format)
}

fn invalid(id: &str, reason: String) -> Error {
    DataError::InvalidFile {
        path: Path::new("datasets").join(id),
        reason,
    }
    .into()
}
