use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;

use super::{Metrics, prefixed};
use crate::error::{RepoError, Result};

/// When in a training run an evaluation takes place. Outside of one, both are `None`, which
/// the reference's files have as -1.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct EvaluatedAt {
    /// The epochs so far.
    pub epoch: Option<f64>,
    /// The steps so far.
    pub steps: Option<usize>,
}

/// A CSV file that an evaluator adds a row to each time: name and columns are those of
/// Sentence Transformers' evaluator.
#[derive(Debug, Clone, PartialEq)]
pub struct CsvReport {
    file_name: String,
    columns: Vec<Column>,
    line_end: &'static str,
}

#[derive(Debug, Clone, PartialEq)]
struct Column {
    header: String,
    metric: String,
    sign: f64,
}

impl CsvReport {
    pub(super) fn new(file_name: String) -> Self {
        Self {
            file_name,
            columns: Vec::new(),
            line_end: "\r\n",
        }
    }

    /// The same file with plain line ends, as the reference's retrieval evaluators write.
    pub(super) fn with_plain_line_ends(mut self) -> Self {
        self.line_end = "\n";
        self
    }

    /// The same file with another column, which holds a metric of an evaluator of that
    /// name.
    pub(super) fn column(self, header: impl Into<String>, evaluator: &str, metric: &str) -> Self {
        self.signed_column(header, evaluator, metric, 1.0)
    }

    /// The same, the metric times `sign`.
    pub(super) fn signed_column(
        mut self,
        header: impl Into<String>,
        evaluator: &str,
        metric: &str,
        sign: f64,
    ) -> Self {
        self.columns.push(Column {
            header: header.into(),
            metric: prefixed(evaluator, metric),
            sign,
        });
        self
    }

    /// The file's name.
    pub fn file_name(&self) -> &str {
        &self.file_name
    }

    /// The names of the columns: `epoch`, `steps`, and one for each metric.
    pub fn headers(&self) -> Vec<&str> {
        let metrics = self.columns.iter().map(|column| column.header.as_str());
        ["epoch", "steps"].into_iter().chain(metrics).collect()
    }

    /// Adds a row to the file in `folder`, below the headers where the file is new.
    ///
    /// # Errors
    /// [`RepoError::Io`] if the file cannot be written.
    pub fn append(
        &self,
        folder: impl AsRef<Path>,
        at: EvaluatedAt,
        metrics: &Metrics,
    ) -> Result<()> {
        let path = folder.as_ref().join(&self.file_name);
        let epoch = at.epoch.map_or("-1".to_owned(), as_python);
        let steps = at.steps.map_or("-1".to_owned(), |steps| steps.to_string());
        let values = self.columns.iter().map(|column| {
            let value = metrics.get(&column.metric).unwrap_or(f64::NAN);
            as_python(column.sign * value)
        });
        let row: Vec<String> = [epoch, steps].into_iter().chain(values).collect();
        let write = || {
            fs::create_dir_all(folder.as_ref())?;
            let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
            let mut text = String::new();
            if file.metadata()?.len() == 0 {
                text = self.headers().join(",") + self.line_end;
            }
            text += &row.join(",");
            text += self.line_end;
            file.write_all(text.as_bytes())
        };
        Ok(write().map_err(|source| RepoError::Io {
            path: path.clone(),
            action: "write",
            source,
        })?)
    }
}

/// A number as Python prints it.
fn as_python(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    let size = value.abs();
    if value.is_infinite() || size == 0.0 || (1e-4..1e16).contains(&size) {
        return format!("{value:?}");
    }
    let written = format!("{value:e}");
    let (digits, exponent) = written.split_once('e').unwrap_or((&written, "0"));
    match exponent.strip_prefix('-') {
        Some(exponent) => format!("{digits}e-{exponent:0>2}"),
        None => format!("{digits}e+{exponent:0>2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_as_python_writes_them() {
        for (value, expected) in [
            (0.5, "0.5"),
            (1.0, "1.0"),
            (-0.0, "-0.0"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (-2.5e-7, "-2.5e-07"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (1.0 / 3.0, "0.3333333333333333"),
            (f64::NAN, "nan"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(as_python(value), expected);
        }
    }

    #[test]
    fn rows_gather_below_one_line_of_headers() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().join("eval");
        let report = CsvReport::new("results.csv".to_owned())
            .column("MAP", "dev", "map")
            .signed_column("MSE", "dev", "negative_mse", -1.0)
            .column("lost", "dev", "lost");
        let metrics: Metrics = [("dev_map", 0.25), ("dev_negative_mse", -2.0)]
            .into_iter()
            .collect();
        let at = EvaluatedAt {
            epoch: Some(0.5),
            steps: Some(20),
        };
        report
            .append(&folder, Default::default(), &metrics)
            .unwrap();
        report.append(&folder, at, &metrics).unwrap();
        let text = fs::read_to_string(folder.join("results.csv")).unwrap();
        let expected = "epoch,steps,MAP,MSE,lost\r\n-1,-1,0.25,2.0,nan\r\n0.5,20,0.25,2.0,nan\r\n";
        assert_eq!(text, expected);

        let inside_a_file = folder.join("results.csv");
        let error = report.append(&inside_a_file, at, &metrics).unwrap_err();
        assert!(error.to_string().contains("cannot write"), "{error}");
    }
}
