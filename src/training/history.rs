use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{RepoError, Result, TrainingError};
use crate::evaluation::Metrics;
use crate::repo::interruption::place;

/// What one optimiser step did: a line of `history.jsonl`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StepRecord {
    /// The step, from 1.
    pub step: usize,
    /// The epochs behind after this step, with their fraction.
    pub epoch: f64,
    /// The loss before the step, over all its batches.
    pub loss: f64,
    /// The learning rate that the step used.
    pub learning_rate: f64,
    /// The norm of all gradients together, before clipping.
    pub grad_norm: f64,
    /// The samples of the step by the seconds since the step before.
    pub pairs_per_second: f64,
}

/// The scores of a model at some step of its training.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvaluationRecord {
    /// The optimiser steps behind.
    pub step: usize,
    /// The epochs behind, with their fraction.
    pub epoch: f64,
    /// The name of the metric to judge by.
    pub primary_metric: String,
    /// All metrics.
    pub metrics: Metrics,
}

impl EvaluationRecord {
    /// The value of the metric to judge by.
    pub fn score(&self) -> Option<f64> {
        self.metrics.get(&self.primary_metric)
    }
}

/// The optimiser steps of a run, in order.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct History {
    records: Vec<StepRecord>,
}

impl History {
    /// Reads a `history.jsonl`. A last line that was cut off is left out.
    ///
    /// # Errors
    /// [`TrainingError::Io`] if the file cannot be read, [`RepoError::InvalidLine`]
    /// if a line other than the last is not a step.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = fs::read_to_string(path).map_err(|source| io_error(path, "read", source))?;
        let mut records = Vec::new();
        for (index, line) in text.split_inclusive('\n').enumerate() {
            let Some(line) = line.strip_suffix('\n') else {
                break;
            };
            let record = serde_json::from_str(line).map_err(|error| RepoError::InvalidLine {
                path: path.to_owned(),
                line: index + 1,
                reason: error.to_string(),
            })?;
            records.push(record);
        }
        Ok(Self { records })
    }

    /// The steps.
    pub fn records(&self) -> &[StepRecord] {
        &self.records
    }

    /// The losses, in order.
    pub fn losses(&self) -> Vec<f64> {
        self.records.iter().map(|record| record.loss).collect()
    }

    pub(super) fn truncate(&mut self, steps: usize) {
        self.records.truncate(steps);
    }

    fn push(&mut self, record: StepRecord) {
        self.records.push(record);
    }
}

/// Writes a history as it happens, and keeps it.
#[derive(Debug)]
pub(super) struct HistoryWriter {
    path: PathBuf,
    file: File,
    history: History,
}

impl HistoryWriter {
    /// Starts a new file.
    pub(super) fn create(path: PathBuf) -> Result<Self> {
        place();
        let file = File::create(&path).map_err(|source| io_error(&path, "create", source))?;
        Ok(Self {
            path,
            file,
            history: History::default(),
        })
    }

    /// Continues a file after its first `steps` lines; what came after them is dropped.
    pub(super) fn resume(path: PathBuf, steps: usize) -> Result<Self> {
        let mut history = History::read(&path)?;
        history.truncate(steps);
        let failed = |source| io_error(&path, "shorten", source);
        let mut reader = BufReader::new(File::open(&path).map_err(failed)?);
        let mut line = Vec::new();
        let mut kept = 0;
        for _ in 0..steps {
            line.clear();
            kept += reader.read_until(b'\n', &mut line).map_err(failed)? as u64;
        }
        let mut file = File::options().write(true).open(&path).map_err(failed)?;
        file.set_len(kept).map_err(failed)?;
        io::Seek::seek(&mut file, io::SeekFrom::End(0)).map_err(failed)?;
        Ok(Self {
            path,
            file,
            history,
        })
    }

    /// Writes one step: it is in the file when this returns.
    pub(super) fn append(&mut self, record: StepRecord) -> Result<()> {
        let mut line =
            serde_json::to_string(&record).map_err(|error| TrainingError::InvalidFile {
                path: self.path.clone(),
                reason: error.to_string(),
            })?;
        line.push('\n');
        place();
        let written = self.file.write_all(line.as_bytes());
        written.map_err(|source| io_error(&self.path, "write", source))?;
        self.history.push(record);
        Ok(())
    }

    /// Makes what was written survive a power cut.
    pub(super) fn sync(&self) -> Result<()> {
        self.file
            .sync_data()
            .map_err(|source| io_error(&self.path, "write", source))
    }

    /// The steps so far.
    pub(super) fn history(&self) -> &History {
        &self.history
    }
}

/// Writes the evaluations of a run, one a line.
pub(super) fn write_evaluations(path: &Path, evaluations: &[EvaluationRecord]) -> Result<()> {
    let mut text = String::new();
    for record in evaluations {
        text.push_str(&serde_json::to_string(record).map_err(|error| invalid(path, error))?);
        text.push('\n');
    }
    fs::write(path, text).map_err(|source| io_error(path, "write", source))
}

fn invalid(path: &Path, error: serde_json::Error) -> crate::Error {
    TrainingError::InvalidFile {
        path: path.to_owned(),
        reason: error.to_string(),
    }
    .into()
}

fn io_error(path: &Path, action: &'static str, source: io::Error) -> crate::Error {
    TrainingError::Io {
        path: path.to_owned(),
        action,
        source,
    }
    .into()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::error::Error;

    pub(in crate::training) fn record(step: usize) -> StepRecord {
        StepRecord {
            step,
            epoch: step as f64 / 10.0,
            loss: 1.0 / (step as f64 + 0.3),
            learning_rate: 1e-5 * step as f64,
            grad_norm: 0.1,
            pairs_per_second: 12.5,
        }
    }

    pub(in crate::training) fn history(steps: usize) -> History {
        let records = (1..=steps).map(record).collect();
        History { records }
    }

    pub(in crate::training) fn evaluation(step: usize, value: f64) -> EvaluationRecord {
        let metric = "cosine_ndcg@10 < 1";
        EvaluationRecord {
            step,
            epoch: step as f64 / 10.0,
            primary_metric: metric.to_owned(),
            metrics: [(metric, value)].into_iter().collect(),
        }
    }

    fn written(steps: usize) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("history.jsonl");
        let mut writer = HistoryWriter::create(path.clone()).unwrap();
        for step in 1..=steps {
            writer.append(record(step)).unwrap();
            assert_eq!(History::read(&path).unwrap().records().len(), step);
        }
        (dir, path)
    }

    #[test]
    fn reads_back_what_it_wrote() {
        let (_dir, path) = written(3);
        let history = History::read(&path).unwrap();
        let expected: Vec<usize> = vec![1, 2, 3];
        let steps: Vec<usize> = history.records().iter().map(|r| r.step).collect();
        assert_eq!(steps, expected);
        assert!((history.losses()[1] - record(2).loss).abs() < 1e-15);
        let first = fs::read_to_string(&path).unwrap();
        assert!(
            first.starts_with(r#"{"step":1,"epoch":0.1,"loss":"#),
            "{first}"
        );
    }

    #[test]
    fn a_cut_off_last_line_is_left_out() {
        let (_dir, path) = written(3);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, &text[..text.len() - 10]).unwrap();
        assert_eq!(History::read(&path).unwrap().records().len(), 2);
        fs::write(&path, format!("{{\"step\":1\n{text}")).unwrap();
        assert!(matches!(
            History::read(&path),
            Err(Error::Repo(RepoError::InvalidLine { line: 1, .. }))
        ));
    }

    #[test]
    fn evaluations_are_a_line_each() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("evaluations.jsonl");
        let records = [evaluation(0, 0.25), evaluation(10, f64::NAN)];
        write_evaluations(&path, &records).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        let read: Vec<EvaluationRecord> = text
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        assert_eq!(read[0], records[0]);
        assert!(read[1].score().unwrap().is_nan());
    }

    #[test]
    fn resuming_drops_the_steps_that_will_come_again() {
        let (_dir, path) = written(5);
        let before = fs::read_to_string(&path).unwrap();
        let mut writer = HistoryWriter::resume(path.clone(), 2).unwrap();
        assert_eq!(writer.history().records().len(), 2);
        writer.append(record(3)).unwrap();
        let after = fs::read_to_string(&path).unwrap();
        assert!(before.starts_with(&after));
        assert_eq!(after.lines().count(), 3);
    }
}
