//! Files of texts, read a line at a time.

use std::cell::RefCell;
use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use serde::Deserialize;

/// A text, and the adapter it is to go through, if it names one.
#[derive(Deserialize)]
pub(crate) struct Line {
    pub(crate) text: String,
    #[serde(default)]
    pub(crate) adapter: Option<String>,
}

/// The lines of `.txt` with a text a line, or of `.jsonl` with `{"text": …}` or
/// `{"text": …, "adapter": …}` a line.
pub(crate) struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    is_json: bool,
    number: usize,
}

impl Lines {
    pub(crate) fn open(path: &Path) -> Result<Self, Box<dyn Error>> {
        let named = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
        let is_json = match path.extension().and_then(|extension| extension.to_str()) {
            Some("txt") => false,
            Some("jsonl") => true,
            _ => return Err(named(&"expected .txt or .jsonl").into()),
        };
        Ok(Self {
            reader: BufReader::new(File::open(path).map_err(|e| named(&e))?),
            path: path.to_owned(),
            is_json,
            number: 0,
        })
    }

    fn read(&mut self) -> Result<Option<Line>, String> {
        loop {
            let mut bytes = Vec::new();
            let named = |e: &dyn std::fmt::Display, number: usize| {
                format!("{}:{number}: {e}", self.path.display())
            };
            self.number += 1;
            let read = self.reader.read_until(b'\n', &mut bytes);
            if read.map_err(|e| named(&e, self.number))? == 0 {
                return Ok(None);
            }
            let line = std::str::from_utf8(&bytes).map_err(|e| named(&e, self.number))?;
            let line = line.strip_suffix('\n').unwrap_or(line);
            let line = line.strip_suffix('\r').unwrap_or(line);
            if !self.is_json {
                let text = line.to_owned();
                return Ok(Some(Line {
                    text,
                    adapter: None,
                }));
            }
            if !line.trim().is_empty() {
                let line = serde_json::from_str(line).map_err(|e| named(&e, self.number))?;
                return Ok(Some(line));
            }
        }
    }
}

impl Iterator for Lines {
    type Item = Result<Line, String>;

    fn next(&mut self) -> Option<Self::Item> {
        self.read().transpose()
    }
}

/// The texts of lines up to the first that cannot be read, and where it is said why.
pub(crate) fn texts(lines: Lines) -> (impl Iterator<Item = String>, Rc<RefCell<Option<String>>>) {
    let failure = Rc::new(RefCell::new(None));
    let failed = Rc::clone(&failure);
    let texts = lines.map_while(move |line| match line {
        Ok(line) => Some(line.text),
        Err(error) => {
            failed.replace(Some(error));
            None
        }
    });
    (texts, failure)
}
