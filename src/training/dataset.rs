use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{RepoError, Result, TrainingError};
use crate::repo::jsonl;

/// The names a label goes by, first one first.
const LABEL_NAMES: [&str; 4] = ["label", "labels", "score", "scores"];

/// Samples to train on: columns of texts, and a label where the data has one.
///
/// A column's place counts, its name does not: the first column is the anchor, the
/// second the positive, and so on, as the loss reads them.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    names: Vec<String>,
    columns: Vec<Vec<String>>,
    labels: Option<Vec<Vec<f32>>>,
}

impl Dataset {
    /// A data set of text columns, each with its name.
    ///
    /// # Errors
    /// [`TrainingError::UnequalColumns`] if a column is shorter or longer than the first.
    pub fn from_columns<N: Into<String>>(
        columns: impl IntoIterator<Item = (N, Vec<String>)>,
    ) -> Result<Self> {
        let (names, columns): (Vec<String>, Vec<Vec<String>>) = columns
            .into_iter()
            .map(|(name, texts)| (name.into(), texts))
            .unzip();
        let expected = columns.first().map_or(0, Vec::len);
        for (column, texts) in names.iter().zip(&columns) {
            if texts.len() != expected {
                return Err(TrainingError::UnequalColumns {
                    column: column.clone(),
                    expected,
                    found: texts.len(),
                }
                .into());
            }
        }
        Ok(Self {
            names,
            columns,
            labels: None,
        })
    }

    /// A data set of (anchor, positive) pairs.
    pub fn from_pairs<A: Into<String>, P: Into<String>>(
        pairs: impl IntoIterator<Item = (A, P)>,
    ) -> Self {
        let (anchors, positives) = pairs
            .into_iter()
            .map(|(anchor, positive)| (anchor.into(), positive.into()))
            .unzip();
        Self {
            names: vec!["anchor".to_owned(), "positive".to_owned()],
            columns: vec![anchors, positives],
            labels: None,
        }
    }

    /// Gives each sample its label, a row of numbers.
    ///
    /// # Errors
    /// [`TrainingError::UnequalColumns`] if there is not one row a sample.
    pub fn with_labels(mut self, labels: Vec<Vec<f32>>) -> Result<Self> {
        if labels.len() != self.len() {
            return Err(TrainingError::UnequalColumns {
                column: LABEL_NAMES[0].to_owned(),
                expected: self.len(),
                found: labels.len(),
            }
            .into());
        }
        self.labels = Some(labels);
        Ok(self)
    }

    /// Reads a file of one JSON object a line, all with the first one's keys.
    ///
    /// A key named `label`, `labels`, `score` or `scores` holds the label, a number or a
    /// list of numbers; every other key is a text column, in the first line's order.
    /// Blank lines are skipped.
    ///
    /// # Errors
    /// [`RepoError::InvalidLine`] names file and line; other [`RepoError`]s if the file
    /// cannot be read or is not UTF-8; [`TrainingError::EmptyDataset`].
    pub fn from_jsonl(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut reader = LineReader::default();
        for record in jsonl::records(path)? {
            let (line, object) = record?;
            reader
                .read(object)
                .map_err(|reason| RepoError::InvalidLine {
                    path: path.to_owned(),
                    line,
                    reason,
                })?;
        }
        match reader.dataset {
            Some(dataset) => Ok(dataset),
            None => Err(TrainingError::EmptyDataset {
                source_name: path.display().to_string(),
            }
            .into()),
        }
    }

    /// The number of samples.
    pub fn len(&self) -> usize {
        self.columns.first().map_or(0, Vec::len)
    }

    /// Whether there is no sample.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The text columns' names, in order.
    pub fn column_names(&self) -> &[String] {
        &self.names
    }

    /// The text columns, in order.
    pub fn columns(&self) -> &[Vec<String>] {
        &self.columns
    }

    /// The label of each sample.
    pub fn labels(&self) -> Option<&[Vec<f32>]> {
        self.labels.as_deref()
    }

    /// The numbers of one label.
    pub fn label_width(&self) -> Option<usize> {
        self.labels.as_ref()?.first().map(Vec::len)
    }

    /// Two data sets: the first `samples` of this one, and the rest.
    pub fn split_at(mut self, samples: usize) -> (Self, Self) {
        let at = samples.min(self.len());
        let columns = self
            .columns
            .iter_mut()
            .map(|texts| texts.split_off(at))
            .collect();
        let labels = self.labels.as_mut().map(|labels| labels.split_off(at));
        let rest = Self {
            names: self.names.clone(),
            columns,
            labels,
        };
        (self, rest)
    }
}

/// Reads one line after another into a data set.
#[derive(Default)]
struct LineReader {
    label: Option<String>,
    dataset: Option<Dataset>,
}

impl LineReader {
    fn read(&mut self, mut object: Map<String, Value>) -> std::result::Result<(), String> {
        let dataset = match &mut self.dataset {
            Some(dataset) => dataset,
            None => {
                let label = LABEL_NAMES.iter().find(|name| object.contains_key(**name));
                self.label = label.map(|name| (*name).to_owned());
                let is_text = |key: &&String| Some(*key) != self.label.as_ref();
                let names: Vec<String> = object.keys().filter(is_text).cloned().collect();
                if names.is_empty() {
                    return Err("no text column".to_owned());
                }
                self.dataset.insert(Dataset {
                    columns: vec![Vec::new(); names.len()],
                    names,
                    labels: self.label.is_some().then(Vec::new),
                })
            }
        };

        let mut texts = Vec::with_capacity(dataset.names.len());
        for name in &dataset.names {
            match object.shift_remove(name) {
                Some(Value::String(text)) => texts.push(text),
                Some(other) => return Err(format!("`{name}` is {other}, expected a text")),
                None => return Err(format!("`{name}` is missing")),
            }
        }
        let label = match &self.label {
            Some(name) => Some(read_label(name, object.shift_remove(name))?),
            None => None,
        };
        if let Some(key) = object.keys().next() {
            return Err(format!("`{key}` is not a key of the first line"));
        }
        if let (Some(label), Some(labels)) = (label, &mut dataset.labels) {
            let width = labels.first().map_or(label.len(), Vec::len);
            if label.len() != width {
                return Err(format!(
                    "the label has {} numbers, expected {width}",
                    label.len()
                ));
            }
            labels.push(label);
        }
        for (column, text) in dataset.columns.iter_mut().zip(texts) {
            column.push(text);
        }
        Ok(())
    }
}

fn read_label(name: &str, value: Option<Value>) -> std::result::Result<Vec<f32>, String> {
    let number = |value: &Value| value.as_f64().map(|number| number as f32);
    let label = match &value {
        Some(Value::Array(values)) => values.iter().map(number).collect(),
        Some(value) => number(value).map(|number| vec![number]),
        None => return Err(format!("`{name}` is missing")),
    };
    match label {
        Some(label) if !label.is_empty() => Ok(label),
        _ => Err(format!("`{name}` must be a number or a list of numbers")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use std::io::Write;

    fn file(content: &[u8]) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content).unwrap();
        file
    }

    fn read(content: &str) -> Result<Dataset> {
        Dataset::from_jsonl(file(content.as_bytes()).path())
    }

    #[test]
    fn columns_keep_the_first_lines_order() {
        let dataset = read(
            "{\"question\": \"a\", \"answer\": \"b\"}\r\n\n{\"answer\": \"d\", \"question\": \"c\"}\n",
        )
        .unwrap();
        assert_eq!(dataset.column_names(), ["question", "answer"]);
        assert_eq!(dataset.columns(), [["a", "c"], ["b", "d"]]);
        assert_eq!((dataset.len(), dataset.label_width()), (2, None));
    }

    #[test]
    fn labels_are_numbers_or_lists() {
        let scored = read(r#"{"s1": "a", "score": 0.5, "s2": "b"}"#).unwrap();
        assert_eq!(scored.column_names(), ["s1", "s2"]);
        assert_eq!(scored.labels(), Some(&[vec![0.5]][..]));
        let listed = read(r#"{"q": "a", "labels": [1, 2]}"#).unwrap();
        assert_eq!(listed.label_width(), Some(2));
    }

    #[test]
    fn a_bad_line_is_named() {
        let good = r#"{"anchor": "a", "positive": "b"}"#;
        for (bad, expected) in [
            ("{\"anchor\": \"a\", ", "EOF"),
            ("[1]", "expected a map"),
            (r#"{"anchor": "a"}"#, "`positive` is missing"),
            (r#"{"anchor": "a", "positive": null}"#, "`positive` is null"),
            (
                r#"{"anchor": "a", "positive": "b", "x": "c"}"#,
                "`x` is not a key",
            ),
        ] {
            let content = format!("{good}\n\n{bad}\n{good}\n");
            let Err(Error::Repo(RepoError::InvalidLine { line, reason, .. })) = read(&content)
            else {
                panic!("{bad} passed");
            };
            assert_eq!(line, 3);
            assert!(reason.contains(expected), "{reason}");
        }
        let uneven = "{\"a\": \"x\", \"label\": [1]}\n{\"a\": \"x\", \"label\": [1, 2]}";
        assert!(matches!(
            read(uneven),
            Err(Error::Repo(RepoError::InvalidLine { line: 2, .. }))
        ));
    }

    #[test]
    fn files_that_cannot_be_read_are_named() {
        let bytes = file(b"{\"a\": \"x\"}\n\xff\n");
        let Err(Error::Repo(RepoError::NotUtf8 { path, offset })) =
            Dataset::from_jsonl(bytes.path())
        else {
            panic!("bytes passed as UTF-8");
        };
        assert_eq!((path.as_path(), offset), (bytes.path(), 11));
        assert!(matches!(
            read("\n \n"),
            Err(Error::Training(TrainingError::EmptyDataset { .. }))
        ));
        assert!(matches!(
            Dataset::from_jsonl("/no/such/file.jsonl"),
            Err(Error::Repo(RepoError::Io { .. }))
        ));
    }

    #[test]
    fn columns_must_be_of_one_length() {
        let texts = |n: usize| vec!["x".to_owned(); n];
        assert!(matches!(
            Dataset::from_columns([("a", texts(2)), ("b", texts(3))]),
            Err(Error::Training(TrainingError::UnequalColumns {
                expected: 2,
                found: 3,
                ..
            }))
        ));
        assert!(
            Dataset::from_pairs([("a", "b")])
                .with_labels(Vec::new())
                .is_err()
        );
    }

    #[test]
    fn splits_keep_every_sample() {
        let dataset = Dataset::from_pairs((0..5).map(|i| (format!("a{i}"), format!("p{i}"))));
        let (head, tail) = dataset.split_at(3);
        assert_eq!(head.columns()[0], ["a0", "a1", "a2"]);
        assert_eq!(tail.columns()[1], ["p3", "p4"]);
        let (_, none) = head.split_at(9);
        assert!(none.is_empty());
    }
}
