//! Data files and data set repositories: rows of named values, read one after another.
//!
//! - [`read_rows`] reads a file of JSON, csv, tsv or parquet.
//! - [`HubDataset`] finds and downloads the files of a repository on the Hugging Face Hub.

mod delimited;
mod format;
mod json;
mod parquet_file;
mod parquet_pages;
mod repository;
mod rows;

pub use format::{DATA_EXTENSIONS, DataFormat};
pub use repository::{DataFiles, HubDataset, SplitPart, SplitSlice};
pub use rows::{Place, Row, Rows, count_rows, is_about_one_row, read_rows};
