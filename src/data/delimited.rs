//! Values between commas or tabs, with a header: RFC 4180 as the csv crate reads it.

use std::path::Path;

use csv::ErrorKind;
use serde_json::Value;

use super::format::open_text;
use super::rows::{Place, Row, Rows};
use crate::error::{DataError, Error, RepoError, Result};

pub(super) fn rows(path: &Path, delimiter: u8) -> Result<Rows> {
    let path = path.to_owned();
    let mut reader = csv::ReaderBuilder::new()
        .delimiter(delimiter)
        .from_reader(open_text(&path)?);
    let header = reader.headers().map_err(|error| explain(&path, error))?;
    let header: Vec<String> = header.iter().map(str::to_owned).collect();
    let twice = header
        .iter()
        .enumerate()
        .find(|(place, name)| header[..*place].contains(name));
    if let Some((_, name)) = twice {
        let reason = format!("the header names column `{name}` twice");
        return Err(DataError::InvalidFile { path, reason }.into());
    }
    Ok(Box::new(reader.into_records().map(move |record| {
        let record = record.map_err(|error| explain(&path, error))?;
        let place = Place::Line(line(record.position()));
        let texts = record.iter().map(|text| Value::String(text.to_owned()));
        let values = header.iter().cloned().zip(texts).collect();
        Ok(Row { place, values })
    })))
}

fn line(position: Option<&csv::Position>) -> usize {
    position.map_or(1, |position| position.line() as usize)
}

fn explain(path: &Path, error: csv::Error) -> Error {
    let path = path.to_owned();
    let reason = error.to_string();
    match error.into_kind() {
        ErrorKind::Io(source) => RepoError::Io {
            path,
            action: "read",
            source,
        }
        .into(),
        ErrorKind::Utf8 { pos, err } => {
            let reason = format!("not UTF-8: {err}");
            Place::Line(line(pos.as_ref())).error(&path, reason)
        }
        ErrorKind::UnequalLengths {
            pos,
            expected_len,
            len,
        } => {
            let reason = format!("{len} values, the header has {expected_len}");
            Place::Line(line(pos.as_ref())).error(&path, reason)
        }
        _ => DataError::InvalidFile { path, reason }.into(),
    }
}
