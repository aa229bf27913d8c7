//! Files of embeddings, written a window at a time.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use sentence_burn::model::{QuantizedEmbeddings, QuantizedValues};

use super::npy;

/// A file on its way: beside where it goes, until it is whole.
pub(crate) struct Output {
    path: PathBuf,
    partial: PathBuf,
    file: BufWriter<File>,
    is_npy: bool,
    /// The rows that the file is to have.
    rows: usize,
    written: usize,
    is_whole: bool,
}

impl Output {
    /// Begins a `.npy` or `.jsonl` file of so many embeddings.
    pub(crate) fn create(path: &Path, rows: usize) -> Result<Self, String> {
        let is_npy = match path.extension().and_then(|extension| extension.to_str()) {
            Some("npy") => true,
            Some("jsonl") => false,
            _ => return Err(format!("{}: expected .npy or .jsonl", path.display())),
        };
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = File::create(&partial).map_err(|e| format!("{}: {e}", partial.display()))?;
        Ok(Self {
            path: path.to_owned(),
            file: BufWriter::new(file),
            partial,
            is_npy,
            rows,
            written: 0,
            is_whole: false,
        })
    }

    /// Adds embeddings, the first time with what stands before them.
    pub(crate) fn add(&mut self, embeddings: &QuantizedEmbeddings) -> Result<(), String> {
        let QuantizedEmbeddings { shape, values } = embeddings;
        let mut content = Vec::new();
        if self.is_npy {
            if self.written == 0 {
                content = npy::header(values, [self.rows, shape[1]]);
            }
            content.extend(npy::bytes(values));
        } else {
            content = jsonl(values, shape[1]);
        }
        self.written += shape[0];
        let written = self.file.write_all(&content);
        written.map_err(|e| format!("{}: {e}", self.partial.display()))
    }

    /// Puts the file where it goes.
    pub(crate) fn finish(mut self) -> Result<(), String> {
        if self.written != self.rows {
            let (path, rows) = (self.path.display(), self.rows);
            return Err(format!(
                "{path}: {} embeddings of {rows} texts",
                self.written
            ));
        }
        let flushed = self.file.flush();
        flushed.map_err(|e| format!("{}: {e}", self.partial.display()))?;
        fs::rename(&self.partial, &self.path)
            .map_err(|e| format!("{}: {e}", self.path.display()))?;
        self.is_whole = true;
        Ok(())
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if !self.is_whole {
            // There is nothing to do about a file that cannot be removed.
            let _ = fs::remove_file(&self.partial);
        }
    }
}

/// A line of JSON for each row.
fn jsonl(values: &QuantizedValues, columns: usize) -> Vec<u8> {
    fn lines<T: serde::Serialize>(values: &[T], columns: usize) -> Vec<u8> {
        let rows = values.chunks(columns.max(1));
        let lines = rows.map(|row| format!("{}\n", serde_json::json!({ "embedding": row })));
        lines.collect::<String>().into_bytes()
    }
    match values {
        QuantizedValues::F32(values) => lines(values, columns),
        QuantizedValues::I8(values) => lines(values, columns),
        QuantizedValues::U8(values) => lines(values, columns),
    }
}
