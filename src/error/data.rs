use std::path::PathBuf;

/// What can be wrong with data files and data set repositories.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DataError {
    /// A file's name does not say what its rows are written in.
    #[error(
        "{}: no data file by its extension: expected one of {}", path.display(), known.join(", ")
    )]
    UnknownFormat {
        /// The file.
        path: PathBuf,
        /// The extensions that are read.
        known: Vec<&'static str>,
    },
    /// A file breaks its format, so that nothing behind that place can be read.
    #[error("{}: {reason}", path.display())]
    InvalidFile {
        /// The file.
        path: PathBuf,
        /// Where and what.
        reason: String,
    },
    /// A row of a file that has no lines does not say what it must.
    #[error("{}: row {row}: {reason}", path.display())]
    InvalidRow {
        /// The file.
        path: PathBuf,
        /// The row's number, from 1.
        row: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A column that is asked for is not there.
    #[error("{source_name}: no column `{found}`, the columns are {known:?}")]
    UnknownColumn {
        /// The file, or what else the data came from.
        source_name: String,
        /// The column asked for.
        found: String,
        /// The columns that are there.
        known: Vec<String>,
    },
    /// A data set has several configurations, or not the one asked for.
    #[error("data set `{id}` has {}, choose one of {known:?}", wanted(found))]
    UnknownConfig {
        /// The repository.
        id: String,
        /// The configuration asked for.
        found: Option<String>,
        /// The configurations that are there.
        known: Vec<String>,
    },
    /// A data set has no such split.
    #[error("data set `{id}` has no split `{found}`, its splits are {known:?}")]
    UnknownSplit {
        /// The repository.
        id: String,
        /// The split asked for.
        found: String,
        /// The splits that are there.
        known: Vec<String>,
    },
    /// A split that is asked for cannot be understood.
    #[error("split `{found}`: {reason}; expected a name as `train`, or a part as `train[:1000]`")]
    InvalidSplit {
        /// What was asked for.
        found: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A data set repository has no file in a format that is read.
    #[error("data set `{id}` has no data files in {}", known.join(", "))]
    NoDataFiles {
        /// The repository.
        id: String,
        /// The extensions that are read.
        known: Vec<&'static str>,
    },
}

fn wanted(found: &Option<String>) -> String {
    match found {
        Some(config) => format!("no configuration `{config}`"),
        None => "several configurations".to_owned(),
    }
}
