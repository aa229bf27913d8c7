use std::collections::BTreeMap;

use crate::data::DataFormat;
use crate::repo::HubOptions;

/// How data files become samples.
#[derive(Debug, Clone, Default)]
pub struct DatasetOptions {
    /// The files' columns to take, in this order, among them a label's; all if empty. What
    /// is not taken may hold anything.
    pub columns: Vec<String>,
    /// Other names for columns, by the names they have in the files. A column that is then
    /// called `label`, `labels`, `score` or `scores` is the label.
    pub rename: BTreeMap<String, String>,
    /// What becomes of rows that cannot be read.
    pub bad_rows: BadRows,
    /// What the files are written in; by their extensions if `None`.
    pub format: Option<DataFormat>,
}

/// What becomes of rows that cannot be read: not JSON, with a value missing, not a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BadRows {
    /// The first one is an error, which names file and line.
    #[default]
    Stop,
    /// They are left out; the log names each, and their number is kept.
    Skip,
}

/// Which part of a data set on the hub to take, and how it becomes samples.
#[derive(Debug, Clone)]
pub struct HubDatasetOptions {
    /// The configuration: the only one, or the default, if `None`.
    pub config: Option<String>,
    /// The split, or a part of it, as Python's `load_dataset` takes it: `train`,
    /// `train[:1000]`, `train[10%:20%]`, `train[-500:]`.
    pub split: String,
    /// How its files become samples.
    pub files: DatasetOptions,
    /// Which revision, from where, with which token, and where to keep it.
    pub hub: HubOptions,
}

impl Default for HubDatasetOptions {
    fn default() -> Self {
        Self {
            config: None,
            split: "train".to_owned(),
            files: DatasetOptions::default(),
            hub: HubOptions::default(),
        }
    }
}
