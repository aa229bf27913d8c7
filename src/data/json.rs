//! A JSON object a line, or one JSON array of objects.

use std::io::{self, BufRead, Read};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::format::open_text;
use super::rows::{Place, Row, Rows};
use crate::error::{DataError, RepoError, Result};
use crate::repo::jsonl::{self, Lines};

pub(super) fn rows(path: &Path) -> Result<Rows> {
    let mut elements = Elements {
        path: path.to_owned(),
        reader: Counted {
            reader: open_text(path)?,
            line: 1,
        },
        begun: false,
    };
    let first = elements.skip_to_text()?;
    if first == Some(b'[') {
        return Ok(Box::new(elements));
    }
    // From the beginning again, so that lines and bytes are counted from there.
    let lines = Lines::new(path.to_owned(), open_text(path)?);
    Ok(Box::new(jsonl::records_of(lines).map(|record| {
        let (line, values) = record?;
        let place = Place::Line(line);
        Ok(Row { place, values })
    })))
}

/// The elements of an array that is read as they are asked for.
struct Elements<R> {
    path: PathBuf,
    reader: Counted<R>,
    begun: bool,
}

impl<R: BufRead> Elements<R> {
    /// Reads up to the next byte that is no white space, and gives it.
    fn skip_to_text(&mut self) -> Result<Option<u8>> {
        loop {
            let first = self.reader.fill_buf().map(|bytes| bytes.first().copied());
            let Some(first) = first.map_err(|e| self.io(e))? else {
                return Ok(None);
            };
            // The bytes of a UTF-8 mark at the beginning of the file go with white space.
            let mark = !self.begun && [0xef, 0xbb, 0xbf].contains(&first);
            if !first.is_ascii_whitespace() && !mark {
                return Ok(Some(first));
            }
            self.reader.consume(1);
        }
    }

    fn read(&mut self) -> Result<Option<Row>> {
        let expected = match self.begun {
            false => b'[',
            true => b',',
        };
        match self.skip_to_text()? {
            Some(b']') if self.begun => return Ok(None),
            Some(found) if found == expected => self.reader.consume(1),
            found => return Err(self.broken(expected, found)),
        }
        let first = !self.begun;
        self.begun = true;
        match self.skip_to_text()? {
            Some(b'{') => {}
            Some(b']') if first => return Ok(None),
            found => return Err(self.broken(b'{', found)),
        }
        let place = Place::Line(self.reader.line);
        let mut deserializer = serde_json::Deserializer::from_reader(&mut self.reader);
        match Map::<String, Value>::deserialize(&mut deserializer) {
            Ok(values) => Ok(Some(Row { place, values })),
            Err(error) if error.is_io() => Err(self.io(error.into())),
            Err(error) => {
                let reason = format!("the object of line {}: {error}", line_of(place));
                Err(self.invalid(reason))
            }
        }
    }

    fn broken(&self, expected: u8, found: Option<u8>) -> crate::Error {
        let found = match found {
            Some(byte) => format!("`{}`", byte.escape_ascii()),
            None => "the end of the file".to_owned(),
        };
        let expected = expected as char;
        self.invalid(format!(
            "line {}: {found}, expected `{expected}` of an array of objects",
            self.reader.line
        ))
    }

    fn invalid(&self, reason: String) -> crate::Error {
        let path = self.path.clone();
        DataError::InvalidFile { path, reason }.into()
    }

    fn io(&self, source: io::Error) -> crate::Error {
        RepoError::Io {
            path: self.path.clone(),
            action: "read",
            source,
        }
        .into()
    }
}

fn line_of(place: Place) -> usize {
    match place {
        Place::Line(line) | Place::Row(line) => line,
    }
}

impl<R: BufRead> Iterator for Elements<R> {
    type Item = Result<Row>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

/// Knows which line it is in.
struct Counted<R> {
    reader: R,
    line: usize,
}

impl<R: BufRead> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.line += buffer[..read].iter().filter(|&&b| b == b'\n').count();
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Counted<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.reader.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        if let Ok(bytes) = self.reader.fill_buf() {
            let read = &bytes[..amount.min(bytes.len())];
            self.line += read.iter().filter(|&&b| b == b'\n').count();
        }
        self.reader.consume(amount);
    }
}
