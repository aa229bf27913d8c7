//! Data sets out of files, on this machine or on the hub.

use std::collections::VecDeque;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::Dataset;
use super::columns::{Columns, Sample};
use super::options::{BadRows, DatasetOptions, HubDatasetOptions};
use crate::data::{
    DataFormat, HubDataset, Rows, SplitPart, count_rows, is_about_one_row, read_rows,
};
use crate::error::{Result, TrainingError};

impl Dataset {
    /// Reads a file of one JSON object a line, all with the first one's keys.
    ///
    /// A key named `label`, `labels`, `score` or `scores` holds the label, a number or a
    /// list of numbers; every other key is a text column, in the first line's order.
    /// Blank lines are skipped.
    ///
    /// # Errors
    /// [`RepoError::InvalidLine`](crate::error::RepoError::InvalidLine) names file and line;
    /// other [`RepoError`](crate::error::RepoError)s if the file cannot be read or is not
    /// UTF-8; [`TrainingError::EmptyDataset`].
    pub fn from_jsonl(path: impl AsRef<Path>) -> Result<Self> {
        let options = DatasetOptions {
            format: Some(DataFormat::Json),
            ..DatasetOptions::default()
        };
        Self::from_files(&[path], &options)
    }

    /// Reads a data file, whose extension says its format: `.jsonl`, `.ndjson`, `.json`,
    /// `.csv`, `.tsv`, each also with `.gz` behind it, or `.parquet`.
    ///
    /// # Errors
    /// As [`from_files`](Self::from_files).
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_files(&[path], &DatasetOptions::default())
    }

    /// Reads data files one behind the other, all with the first one's columns: the label
    /// by its name, as [`from_jsonl`](Self::from_jsonl) says, every other column a text.
    ///
    /// # Errors
    /// [`RepoError::InvalidLine`](crate::error::RepoError::InvalidLine) or
    /// [`DataError::InvalidRow`](crate::error::DataError::InvalidRow) for a row that cannot
    /// be read, unless such are to be skipped;
    /// [`DataError::UnknownFormat`](crate::error::DataError::UnknownFormat) for an unknown
    /// extension; other errors that name the file; [`TrainingError::EmptyDataset`].
    pub fn from_files<P: AsRef<Path>>(paths: &[P], options: &DatasetOptions) -> Result<Self> {
        let paths = paths.iter().map(|path| path.as_ref().to_owned()).collect();
        Self::collect(FileSamples::new(paths, options.clone(), 0..usize::MAX))
    }

    /// Downloads a data set of the Hugging Face Hub, unless it is in the cache, and reads
    /// it.
    ///
    /// ```no_run
    /// # use sentence_burn::training::{Dataset, HubDatasetOptions};
    /// # fn main() -> sentence_burn::Result<()> {
    /// let options = HubDatasetOptions { split: "train[:1000]".into(), ..Default::default() };
    /// let pairs = Dataset::from_hub("sentence-transformers/gooaq", &options)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// Those of [`HubDataset`] and of [`from_files`](Self::from_files).
    pub fn from_hub(id: &str, options: &HubDatasetOptions) -> Result<Self> {
        Self::collect(FileSamples::from_hub(id, options)?)
    }

    fn collect(mut samples: FileSamples) -> Result<Self> {
        let found: Vec<Sample> = samples.by_ref().collect::<Result<_>>()?;
        samples.tell_skipped();
        if found.is_empty() {
            let source_name = samples.source_name;
            return Err(TrainingError::EmptyDataset { source_name }.into());
        }
        Ok(Self {
            skipped_rows: samples.skipped,
            ..Self::from_samples(samples.names(), found)
        })
    }
}

/// The samples of data files, read as they are asked for.
pub(super) struct FileSamples {
    options: DatasetOptions,
    source_name: String,
    files: VecDeque<PathBuf>,
    file: Option<(PathBuf, Rows)>,
    columns: Option<Columns>,
    /// The rows that are taken, of all files together.
    range: Range<usize>,
    /// The rows behind.
    row: usize,
    skipped: usize,
}

impl FileSamples {
    pub(super) fn new(paths: Vec<PathBuf>, options: DatasetOptions, range: Range<usize>) -> Self {
        let shown: Vec<String> = paths
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        Self {
            options,
            source_name: match shown.is_empty() {
                true => "an empty list of files".to_owned(),
                false => shown.join(", "),
            },
            files: paths.into(),
            file: None,
            columns: None,
            range,
            row: 0,
            skipped: 0,
        }
    }

    pub(super) fn from_hub(id: &str, options: &HubDatasetOptions) -> Result<Self> {
        let (paths, files, range) = download(id, options)?;
        let mut samples = Self::new(paths, files, range);
        samples.source_name = format!("data set `{id}`, split `{}`", options.split);
        Ok(samples)
    }

    /// Reads the samples behind what other files have shown of the columns.
    pub(super) fn with_columns(mut self, columns: Option<Columns>) -> Self {
        self.columns = columns;
        self
    }

    /// The text columns' names; none before the first sample.
    pub(super) fn names(&self) -> &[String] {
        self.columns.as_ref().map_or(&[], Columns::names)
    }

    pub(super) fn columns(&self) -> Option<&Columns> {
        self.columns.as_ref()
    }

    pub(super) fn source_name(&self) -> &str {
        &self.source_name
    }

    /// The rows that were skipped.
    pub(super) fn skipped(&self) -> usize {
        self.skipped
    }

    fn tell_skipped(&self) {
        if self.skipped > 0 {
            log::warn!("{}: {} rows skipped", self.source_name, self.skipped);
        }
    }

    /// The next row that is taken.
    fn read(&mut self) -> Result<Option<Sample>> {
        while self.row < self.range.end {
            let (path, rows) = match &mut self.file {
                Some(file) => file,
                None => {
                    let Some(path) = self.files.pop_front() else {
                        return Ok(None);
                    };
                    let rows = read_rows(&path, self.options.format, &self.options.columns)?;
                    self.file.insert((path, rows))
                }
            };
            let Some(row) = rows.next() else {
                self.file = None;
                continue;
            };
            let taken = self.range.contains(&self.row);
            self.row += 1;
            if !taken && row.as_ref().err().is_none_or(is_about_one_row) {
                continue;
            }
            let sample = row.and_then(|row| {
                let columns = match &mut self.columns {
                    Some(columns) => Ok(columns),
                    None => Columns::of(&row.values, &self.options)
                        .map(|columns| self.columns.insert(columns)),
                };
                let sample = columns.and_then(|columns| columns.read(row.values));
                sample.map_err(|reason| row.place.error(path, reason))
            });
            match sample {
                Err(error)
                    if self.options.bad_rows == BadRows::Skip && is_about_one_row(&error) =>
                {
                    log::warn!("{error}: skipped");
                    self.skipped += 1;
                }
                sample => return sample.map(Some),
            }
        }
        Ok(None)
    }
}

impl Iterator for FileSamples {
    type Item = Result<Sample>;

    fn next(&mut self) -> Option<Self::Item> {
        let sample = self.read().transpose();
        if let Some(Err(_)) = sample {
            // What comes behind an error is not asked for.
            self.range.end = 0;
        }
        sample
    }
}

/// The files of a split on the hub, on this machine, how to read them, and which of their
/// rows.
pub(super) fn download(
    id: &str,
    options: &HubDatasetOptions,
) -> Result<(Vec<PathBuf>, DatasetOptions, Range<usize>)> {
    let part: SplitPart = options.split.parse()?;
    let dataset = HubDataset::open(id, options.config.as_deref(), &options.hub)?;
    let files = dataset.download(&part.name)?;
    let format = options.files.format.or(files.format);
    let range = match part.rows.absolute() {
        Some(range) => range,
        None => {
            let counts = files.paths.iter().map(|path| count_rows(path, format));
            part.rows.of(counts.sum::<Result<usize>>()?)
        }
    };
    let files_options = DatasetOptions {
        format,
        ..options.files.clone()
    };
    Ok((files.paths, files_options, range))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use serde_json::Value;

    use super::*;
    use crate::error::{DataError, Error, RepoError};

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

    fn fixture(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/fixtures/data_files")
            .join(name)
    }

    fn expected(name: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(fixture("expected.json")).unwrap();
        let expected: Value = serde_json::from_str(&text).unwrap();
        expected[name].as_array().unwrap().clone()
    }

    #[test]
    fn every_format_holds_the_rows_that_python_reads() {
        let rows = expected("pairs");
        for name in [
            "pairs.jsonl",
            "pairs.jsonl.gz",
            "pairs.json",
            "pairs.csv",
            "pairs.tsv",
            "pairs.none.parquet",
            "pairs.snappy.parquet",
            "pairs.zstd.parquet",
            "pairs.gzip.parquet",
            "pairs.lz4.parquet",
        ] {
            let dataset = Dataset::from_file(fixture(name)).unwrap();
            assert_eq!(dataset.column_names(), ["question", "answer"], "{name}");
            assert_eq!(dataset.len(), rows.len());
            for (place, row) in rows.iter().enumerate() {
                assert_eq!(row["question"], dataset.columns()[0][place], "{name}");
                assert_eq!(row["answer"], dataset.columns()[1][place], "{name}");
                let score = row["score"].as_f64().unwrap() as f32;
                assert_eq!(dataset.labels().unwrap()[place], [score], "{name}");
            }
        }
        // A reader that took the wrong delimiter would find one column.
        let options = DatasetOptions {
            format: Some(DataFormat::Csv),
            ..Default::default()
        };
        assert!(Dataset::from_files(&[fixture("pairs.tsv")], &options).is_err());
    }

    #[test]
    fn columns_are_chosen_and_renamed_while_reading() {
        let options = DatasetOptions {
            columns: ["large", "embedding", "dictionary"]
                .map(String::from)
                .into(),
            rename: [("embedding".to_owned(), "label".to_owned())].into(),
            ..Default::default()
        };
        let dataset = Dataset::from_files(&[fixture("types.parquet")], &options).unwrap();
        assert_eq!(dataset.column_names(), ["large", "dictionary"]);
        let rows = expected("types");
        for (place, row) in rows.iter().enumerate() {
            assert_eq!(row["large"], dataset.columns()[0][place]);
            assert_eq!(row["dictionary"], dataset.columns()[1][place]);
            let numbers = row["embedding"].as_array().unwrap();
            let numbers: Vec<f32> = numbers.iter().map(|n| n.as_f64().unwrap() as f32).collect();
            assert_eq!(dataset.labels().unwrap()[place], numbers);
        }
        let error = |columns: &[&str]| {
            let options = DatasetOptions {
                columns: columns.iter().map(|column| column.to_string()).collect(),
                ..Default::default()
            };
            Dataset::from_files(&[fixture("types.parquet")], &options)
                .unwrap_err()
                .to_string()
        };
        let found = error(&["large", "int64"]);
        assert!(
            found.contains("row 1: `int64` is 0, expected a text"),
            "{found}"
        );
        assert!(error(&["large", "optional"]).contains("row 2: `optional` is null"));
        assert!(error(&["large", "no"]).contains("no column `no`, the columns are [\"large\""));
    }

    #[test]
    fn bad_rows_are_skipped_and_counted_as_asked() {
        let content = concat!(
            "{\"a\": \"1\", \"b\": \"2\"}\nnot JSON\n{\"a\": \"3\"}\n{\"a\": null, \"b\": \"4\"}\n",
            "{\"a\": \"5\", \"b\": \"6\"}\n"
        );
        let file = file(content.as_bytes());
        let options = DatasetOptions {
            bad_rows: BadRows::Skip,
            format: Some(DataFormat::Json),
            ..Default::default()
        };
        let dataset = Dataset::from_files(&[file.path()], &options).unwrap();
        assert_eq!(dataset.columns(), [["1", "5"], ["2", "6"]]);
        assert_eq!(dataset.skipped_rows(), 3);
        assert!(matches!(
            Dataset::from_jsonl(file.path()),
            Err(Error::Repo(RepoError::InvalidLine { line: 2, .. }))
        ));
        let optional = DatasetOptions {
            columns: vec!["optional".to_owned()],
            bad_rows: BadRows::Skip,
            ..Default::default()
        };
        let dataset = Dataset::from_files(&[fixture("types.parquet")], &optional).unwrap();
        assert_eq!((dataset.len(), dataset.skipped_rows()), (5, 2));
    }

    #[test]
    fn files_are_read_one_behind_the_other() {
        let paths = ["pairs.csv", "pairs.zstd.parquet"].map(fixture);
        let both = Dataset::from_files(&paths, &DatasetOptions::default()).unwrap();
        let one = Dataset::from_file(&paths[0]).unwrap();
        assert_eq!(both.split_at(one.len()), (one.clone(), one));
        let other = [fixture("pairs.csv"), fixture("types.parquet")];
        let error = Dataset::from_files(&other, &DatasetOptions::default()).unwrap_err();
        assert!(
            matches!(&error, Error::Data(DataError::InvalidRow { row: 1, reason, .. })
                if reason == "`question` is missing"),
            "{error}"
        );
    }

    #[test]
    fn what_cannot_be_read_on_is_named_even_when_bad_rows_are_skipped() {
        let skip = |path: &Path| {
            let options = DatasetOptions {
                bad_rows: BadRows::Skip,
                ..Default::default()
            };
            Dataset::from_files(&[path], &options)
                .unwrap_err()
                .to_string()
        };
        assert!(skip(&fixture("pairs.brotli.parquet")).contains("brotli"));
        assert!(skip(&fixture("generate.py")).contains("expected one of .jsonl, .ndjson"));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cut.json");
        std::fs::write(&path, "[{\"a\": \"b\"},\n{\"a\": \"c\"").unwrap();
        assert!(skip(&path).contains("cut.json: the object of line 2: EOF"));
        std::fs::write(&path, "\u{feff} [{\"a\": \"b\"};").unwrap();
        assert!(skip(&path).contains("line 1: `;`, expected `,`"));
        let path = folder.path().join("twice.csv");
        std::fs::write(&path, "a,a\n1,2\n").unwrap();
        assert!(skip(&path).contains("column `a` twice"));
        let whole = std::fs::read(fixture("pairs.snappy.parquet")).unwrap();
        let path = folder.path().join("cut.parquet");
        std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
        assert!(skip(&path).contains("cut.parquet: "));
        let gz = std::fs::read(fixture("pairs.jsonl.gz")).unwrap();
        let path = folder.path().join("cut.jsonl.gz");
        std::fs::write(&path, &gz[..gz.len() / 2]).unwrap();
        assert!(skip(&path).contains("cut.jsonl.gz: cannot read"));
    }

    #[test]
    fn a_damaged_parquet_file_is_an_error_and_no_panic() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("damaged.parquet");
        let mut errors = 0;
        for name in ["pairs.none.parquet", "types.parquet"] {
            let whole = std::fs::read(fixture(name)).unwrap();
            for place in (0..whole.len()).step_by(23) {
                let mut bytes = whole.clone();
                bytes[place] ^= 0xff;
                std::fs::write(&path, &bytes).unwrap();
                errors += usize::from(Dataset::from_file(&path).is_err());
            }
        }
        assert!(errors > 20);
    }

    #[test]
    fn csv_lines_are_named_and_labels_are_numbers() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        let read = |content: &str| {
            std::fs::write(&path, content).unwrap();
            Dataset::from_file(&path)
        };
        let labels = read("text,label\n\"a\nb\",\"[1, 2.5]\"\nc,\"[0, 1]\"\n").unwrap();
        assert_eq!(labels.labels().unwrap(), [[1.0, 2.5], [0.0, 1.0]]);
        for (content, line, expected) in [
            ("a,b\n1\n", 2, "1 values, the header has 2"),
            ("a,label\n\"x\ny\",1\nz,none\n", 4, "`label` is \"none\""),
        ] {
            let error = read(content).unwrap_err();
            assert!(
                matches!(&error, Error::Repo(RepoError::InvalidLine { line: found, reason, .. })
                    if *found == line && reason.contains(expected)),
                "{error}"
            );
        }
    }
}
