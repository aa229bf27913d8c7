use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;

use serde_json::{Map, Value, json};

use crate::error::{RepoError, Result};

/// How mined negatives are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NegativeFormat {
    /// A row for each negative: anchor, positive, negative.
    #[default]
    Triplet,
    /// A row for each positive: anchor, positive and all negatives. Anchors with fewer
    /// negatives than asked for are left out.
    NTuple,
    /// A row for each document: anchor, document, and 1 for a positive or 0 for a
    /// negative.
    LabeledPair,
    /// A row for each positive: anchor, documents and as many labels, the positive first.
    LabeledList,
}

/// A mined row: an anchor and the documents that it is to be compared with.
#[derive(Debug, Clone, PartialEq)]
pub struct MinedRow {
    /// The anchor.
    pub anchor: String,
    /// The documents: positive and negative of a triplet, positive and negatives of a tuple
    /// or a list, the one document of a pair.
    pub documents: Vec<String>,
    /// For each document 1 if it is a positive, else 0.
    pub labels: Vec<u8>,
    /// For each document its similarity to the anchor.
    pub scores: Vec<f32>,
}

/// Mined negatives.
#[derive(Debug, Clone, PartialEq)]
pub struct HardNegatives {
    /// How the rows are laid out.
    pub format: NegativeFormat,
    /// The rows, in the order of the anchors.
    pub rows: Vec<MinedRow>,
}

impl HardNegatives {
    /// The rows as JSON objects, with the reference's columns: `anchor`, `positive` and
    /// - `negative`, and with scores `scores` of both documents;
    /// - `negative_1`, `negative_2`, …, and with scores `scores` of all documents;
    /// - `label`, or with scores `score` instead;
    /// - `labels`, or with scores `scores` instead; `positive` is the list of documents.
    pub fn to_json(&self, with_scores: bool) -> impl Iterator<Item = Value> + '_ {
        self.rows
            .iter()
            .map(move |row| self.record(row, with_scores))
    }

    /// Writes the rows, one a line, as [`to_json`](Self::to_json) gives them.
    ///
    /// # Errors
    /// [`RepoError::Io`] if the file cannot be written.
    pub fn write_jsonl(&self, path: impl AsRef<Path>, with_scores: bool) -> Result<()> {
        let path = path.as_ref();
        let write = || {
            let mut file = BufWriter::new(File::create(path)?);
            for record in self.to_json(with_scores) {
                writeln!(file, "{record}")?;
            }
            file.into_inner()?.sync_all()
        };
        Ok(write().map_err(|source| RepoError::Io {
            path: path.to_owned(),
            action: "write",
            source,
        })?)
    }

    fn record(&self, row: &MinedRow, with_scores: bool) -> Value {
        let MinedRow {
            anchor,
            documents,
            labels,
            scores,
        } = row;
        let mut record = Map::new();
        let mut add = |name: &str, value: Value| record.insert(name.to_owned(), value);
        add("anchor", json!(anchor));
        match self.format {
            NegativeFormat::LabeledPair => {
                add("positive", json!(documents.first()));
                match with_scores {
                    true => add("score", json!(scores.first())),
                    false => add("label", json!(labels.first())),
                };
            }
            NegativeFormat::LabeledList => {
                add("positive", json!(documents));
                match with_scores {
                    true => add("scores", json!(scores)),
                    false => add("labels", json!(labels)),
                };
            }
            NegativeFormat::Triplet | NegativeFormat::NTuple => {
                for (place, document) in documents.iter().enumerate() {
                    let name = match (place, self.format) {
                        (0, _) => "positive".to_owned(),
                        (_, NegativeFormat::Triplet) => "negative".to_owned(),
                        _ => format!("negative_{place}"),
                    };
                    add(&name, json!(document));
                }
                if with_scores {
                    add("scores", json!(scores));
                }
            }
        }
        Value::Object(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn negatives(format: NegativeFormat, documents: usize) -> HardNegatives {
        let row = MinedRow {
            anchor: "a".to_owned(),
            documents: (0..documents).map(|i| format!("d{i}")).collect(),
            labels: (0..documents).map(|i| u8::from(i == 0)).collect(),
            scores: (0..documents).map(|i| i as f32 / 2.0).collect(),
        };
        HardNegatives {
            format,
            rows: vec![row],
        }
    }

    #[test]
    fn each_format_has_its_columns() {
        let lines = |format, documents| {
            [false, true].map(|with_scores| {
                let negatives = negatives(format, documents);
                let lines: Vec<String> = negatives
                    .to_json(with_scores)
                    .map(|record| record.to_string())
                    .collect();
                lines.concat()
            })
        };
        assert_eq!(
            lines(NegativeFormat::Triplet, 2),
            [
                r#"{"anchor":"a","positive":"d0","negative":"d1"}"#,
                r#"{"anchor":"a","positive":"d0","negative":"d1","scores":[0.0,0.5]}"#,
            ]
        );
        assert_eq!(
            lines(NegativeFormat::NTuple, 3),
            [
                r#"{"anchor":"a","positive":"d0","negative_1":"d1","negative_2":"d2"}"#,
                concat!(
                    r#"{"anchor":"a","positive":"d0","negative_1":"d1","negative_2":"d2","#,
                    r#""scores":[0.0,0.5,1.0]}"#
                ),
            ]
        );
        assert_eq!(
            lines(NegativeFormat::LabeledPair, 1),
            [
                r#"{"anchor":"a","positive":"d0","label":1}"#,
                r#"{"anchor":"a","positive":"d0","score":0.0}"#,
            ]
        );
        assert_eq!(
            lines(NegativeFormat::LabeledList, 2),
            [
                r#"{"anchor":"a","positive":["d0","d1"],"labels":[1,0]}"#,
                r#"{"anchor":"a","positive":["d0","d1"],"scores":[0.0,0.5]}"#,
            ]
        );
    }

    #[test]
    fn a_file_has_a_line_for_each_row() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mined.jsonl");
        let negatives = negatives(NegativeFormat::Triplet, 2);
        negatives.write_jsonl(&path, false).unwrap();
        let line = "{\"anchor\":\"a\",\"positive\":\"d0\",\"negative\":\"d1\"}\n";
        assert_eq!(std::fs::read_to_string(&path).unwrap(), line);
        let error = negatives.write_jsonl(folder.path(), false).unwrap_err();
        assert!(error.to_string().contains("cannot write"));
    }
}
