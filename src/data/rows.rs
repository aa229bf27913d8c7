use std::path::Path;

use serde_json::{Map, Value};

use super::format::DataFormat;
use super::{delimited, json, parquet_file};
use crate::error::{DataError, Error, RepoError, Result};

/// A row of a data file.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Where it is in the file.
    pub place: Place,
    /// The values of its columns, in their order. A value of a csv file is always a text.
    pub values: Map<String, Value>,
}

/// Where a row is in its file, from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The line it begins in.
    Line(usize),
    /// Its number, in a file that has no lines.
    Row(usize),
}

/// The rows of a data file, read one after another.
pub type Rows = Box<dyn Iterator<Item = Result<Row>> + Send>;

/// Opens a data file. Of a parquet file only `columns` are read, where they are given and
/// the file has them all.
///
/// An item may be an error. If [`is_about_one_row`], the next item is the row behind it;
/// otherwise there is none.
///
/// # Errors
/// [`DataError::UnknownFormat`] if neither `format` nor the extension says how to read it,
/// [`RepoError::Io`] if it cannot be opened, [`DataError::InvalidFile`] if it is none of
/// that format.
pub fn read_rows(path: &Path, format: Option<DataFormat>, columns: &[String]) -> Result<Rows> {
    let format = match format {
        Some(format) => format,
        None => DataFormat::of(path)?,
    };
    let rows = match format {
        DataFormat::Json => json::rows(path)?,
        DataFormat::Csv => delimited::rows(path, b',')?,
        DataFormat::Tsv => delimited::rows(path, b'\t')?,
        DataFormat::Parquet => parquet_file::rows(path, columns)?,
    };
    Ok(Box::new(UntilBroken { rows: Some(rows) }))
}

/// Ends behind the first error that is not about one row.
struct UntilBroken {
    rows: Option<Rows>,
}

impl Iterator for UntilBroken {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        let item = self.rows.as_mut()?.next();
        if let Some(Err(error)) = &item
            && !is_about_one_row(error)
        {
            self.rows = None;
        }
        item
    }
}

/// Whether an error is about one row alone, so that the others can be read without it.
pub fn is_about_one_row(error: &Error) -> bool {
    matches!(
        error,
        Error::Repo(RepoError::InvalidLine { .. } | RepoError::NotUtf8 { .. })
            | Error::Data(DataError::InvalidRow { .. })
    )
}

impl Place {
    /// The error that something is wrong with the row of a file.
    pub fn error(self, path: &Path, reason: String) -> Error {
        let path = path.to_owned();
        match self {
            Self::Line(line) => RepoError::InvalidLine { path, line, reason }.into(),
            Self::Row(row) => DataError::InvalidRow { path, row, reason }.into(),
        }
    }
}

/// The number of rows of a data file; those that cannot be read count too.
///
/// # Errors
/// Those of [`read_rows`] and of its items that are not about one row.
pub fn count_rows(path: &Path, format: Option<DataFormat>) -> Result<usize> {
    if format.map_or_else(|| DataFormat::of(path), Ok)? == DataFormat::Parquet {
        return parquet_file::count(path);
    }
    let mut count = 0;
    for row in read_rows(path, format, &[])? {
        match row {
            Err(error) if !is_about_one_row(&error) => return Err(error),
            _ => count += 1,
        }
    }
    Ok(count)
}
