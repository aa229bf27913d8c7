//! Data files read line by line: a record a line, each error with its file and line.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::error::{RepoError, Result};

/// The lines of a UTF-8 text file with their numbers, from 1; blank ones left out.
///
/// An error is about one line: the next call goes on behind it.
#[derive(Debug)]
pub(crate) struct Lines<R = BufReader<File>> {
    path: PathBuf,
    reader: R,
    number: usize,
    offset: usize,
}

impl Lines {
    /// Opens a text file.
    ///
    /// # Errors
    /// [`RepoError::Io`] if it cannot be opened.
    pub(crate) fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref().to_owned();
        match File::open(&path) {
            Ok(file) => Ok(Self::new(path, BufReader::new(file))),
            Err(source) => Err(RepoError::Io {
                path,
                action: "open",
                source,
            }
            .into()),
        }
    }
}

impl<R: BufRead> Lines<R> {
    /// The lines of what is read, where errors name the file.
    pub(crate) fn new(path: PathBuf, reader: R) -> Self {
        Self {
            path,
            reader,
            number: 0,
            offset: 0,
        }
    }

    /// The next line that is not blank, without its end.
    fn read(&mut self) -> Result<Option<(usize, String)>> {
        loop {
            let mut bytes = Vec::new();
            let read = self
                .reader
                .read_until(b'\n', &mut bytes)
                .map_err(|source| RepoError::Io {
                    path: self.path.clone(),
                    action: "read",
                    source,
                })?;
            if read == 0 {
                return Ok(None);
            }
            let start = self.offset;
            self.offset += read;
            self.number += 1;
            let text = String::from_utf8(bytes).map_err(|e| RepoError::NotUtf8 {
                path: self.path.clone(),
                offset: start + e.utf8_error().valid_up_to(),
            })?;
            let text = match self.number {
                1 => text.strip_prefix('\u{feff}').unwrap_or(&text),
                _ => &text,
            };
            if !text.trim().is_empty() {
                let text = text.strip_suffix('\n').unwrap_or(text);
                let text = text.strip_suffix('\r').unwrap_or(text);
                return Ok(Some((self.number, text.to_owned())));
            }
        }
    }
}

impl<R: BufRead> Iterator for Lines<R> {
    type Item = Result<(usize, String)>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

/// The records of a JSON-lines file with their line numbers, from 1.
///
/// Each item may be
/// - [`RepoError::InvalidLine`]: the line is not JSON or not such a record;
/// - [`RepoError::NotUtf8`], [`RepoError::Io`]: the file cannot be read.
///
/// # Errors
/// [`RepoError::Io`] if the file cannot be opened.
pub(crate) fn records<T: DeserializeOwned>(
    path: impl AsRef<Path>,
) -> Result<impl Iterator<Item = Result<(usize, T)>>> {
    Ok(records_of(Lines::open(path)?))
}

/// The same of lines that are read from elsewhere.
pub(crate) fn records_of<T: DeserializeOwned, R: BufRead>(
    lines: Lines<R>,
) -> impl Iterator<Item = Result<(usize, T)>> {
    let path = lines.path.clone();
    lines.map(move |line| {
        let (number, text) = line?;
        match serde_json::from_str(&text) {
            Ok(record) => Ok((number, record)),
            Err(e) => Err(RepoError::InvalidLine {
                path: path.clone(),
                line: number,
                reason: without_line(&e),
            }
            .into()),
        }
    })
}

/// A JSON error's message with its column alone: its line is always 1 here.
fn without_line(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let place = format!(" at line {} column {}", error.line(), error.column());
    match message.strip_suffix(&place) {
        Some(what) => format!("{what} at column {}", error.column()),
        None => message,
    }
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::error::Error;

    #[derive(Debug, Deserialize, PartialEq)]
    struct Text {
        text: String,
    }

    fn read(content: &[u8]) -> Vec<Result<(usize, Text)>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("texts.jsonl");
        std::fs::write(&path, content).unwrap();
        records(&path).unwrap().collect()
    }

    fn message(result: &Result<(usize, Text)>) -> String {
        result.as_ref().unwrap_err().to_string()
    }

    #[test]
    fn numbers_lines_and_leaves_blank_ones_out() {
        let content = "\u{feff}{\"text\": \"a\"}\r\n\n  \t\n{\"text\": \"b\\n\"}";
        let found: Vec<_> = read(content.as_bytes())
            .into_iter()
            .map(Result::unwrap)
            .collect();
        let text = |t: &str| Text { text: t.to_owned() };
        assert_eq!(found, [(1, text("a")), (4, text("b\n"))]);
        assert!(read(b"").is_empty());
    }

    #[test]
    fn a_bad_line_is_named_and_does_not_end_the_file() {
        let found = read(b"{\"text\": 1}\n{\"text\": \"b\"\n{}\n{\"text\": \"d\"}\n");
        assert!(
            message(&found[0]).ends_with(
                "texts.jsonl:1: invalid type: integer `1`, expected a string at column 10"
            )
        );
        assert!(
            message(&found[1]).contains("texts.jsonl:2: EOF while parsing an object at column")
        );
        assert!(message(&found[2]).ends_with("texts.jsonl:3: missing field `text` at column 2"));
        assert_eq!(found[3].as_ref().unwrap().0, 4);
    }

    #[test]
    fn bytes_that_are_not_utf_8_are_named_by_their_place() {
        let found = read(b"{\"text\": \"a\"}\n{\"text\": \"\xff\"}\n");
        assert!(matches!(
            &found[1],
            Err(Error::Repo(RepoError::NotUtf8 { path, offset: 24 })) if path.ends_with("texts.jsonl")
        ));
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = Lines::open("no/such.jsonl").unwrap_err();
        assert!(
            matches!(error, Error::Repo(RepoError::Io { path, action: "open", .. })
            if path == Path::new("no/such.jsonl"))
        );
    }
}
