//! The files that a run's evaluations leave: one line each, and the evaluators' own CSV.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::history::{self, EvaluationRecord};
use crate::error::{Result, TrainingError};

/// The evaluations' name in the folder of a run.
const EVALUATIONS: &str = "evaluations.jsonl";
/// The folder of the evaluators' own files, as in the reference.
const FOLDER: &str = "eval";
/// How a file ends that is written beside its place.
const UNFINISHED: &str = "csv.unfinished";

/// Where evaluators write to.
pub(super) fn folder(output_dir: &Path) -> PathBuf {
    output_dir.join(FOLDER)
}

/// Writes the evaluations of a run, one a line.
pub(super) fn write(output_dir: &Path, evaluations: &[EvaluationRecord]) -> Result<()> {
    history::write_evaluations(&output_dir.join(EVALUATIONS), evaluations)
}

/// Takes out of the evaluators' CSV files what is not of these evaluations: a run that goes
/// on will write it again, a new one begins its own.
pub(super) fn keep(output_dir: &Path, evaluations: &[EvaluationRecord]) -> Result<()> {
    let folder = folder(output_dir);
    if !folder.is_dir() {
        return Ok(());
    }
    let steps: HashSet<String> = evaluations
        .iter()
        .map(|evaluation| evaluation.step.to_string())
        .collect();
    let failed = |path: &Path, action| {
        let path = path.to_owned();
        move |source: io::Error| TrainingError::Io {
            path,
            action,
            source,
        }
    };
    for entry in fs::read_dir(&folder).map_err(failed(&folder, "list"))? {
        let path = entry.map_err(failed(&folder, "list"))?.path();
        if path.to_string_lossy().ends_with(UNFINISHED) {
            fs::remove_file(&path).map_err(failed(&path, "remove"))?;
            continue;
        }
        if path.extension().is_none_or(|extension| extension != "csv") {
            continue;
        }
        let text = fs::read_to_string(&path).map_err(failed(&path, "read"))?;
        let kept = rows_of(&text, &steps);
        if kept != text {
            let beside = path.with_extension(UNFINISHED);
            fs::write(&beside, kept).map_err(failed(&beside, "write"))?;
            fs::rename(&beside, &path).map_err(failed(&path, "rename into place"))?;
        }
    }
    Ok(())
}

/// The headers of a CSV file of evaluations and its whole rows of these steps; nothing where
/// not even the headers are whole, and another file as it is.
fn rows_of(text: &str, steps: &HashSet<String>) -> String {
    if !text.contains('\n') {
        return String::new();
    }
    let mut lines = text.split_inclusive('\n');
    let Some(headers) = lines.next().filter(|line| line.starts_with("epoch,steps,")) else {
        return text.to_owned();
    };
    let is_kept = |line: &&str| {
        let step = line.split(',').nth(1);
        line.ends_with('\n') && step.is_some_and(|step| steps.contains(step))
    };
    let rows = lines.filter(is_kept);
    std::iter::once(headers).chain(rows).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_rows_of_known_steps_stay() {
        let steps = HashSet::from(["0".to_owned(), "5".to_owned()]);
        let text = "epoch,steps,x\r\n0,0,0.1\r\n0.5,5,0.2\r\n1.0,10,0.3\r\n";
        let expected = "epoch,steps,x\r\n0,0,0.1\r\n0.5,5,0.2\r\n";
        assert_eq!(rows_of(text, &steps), expected);
        assert_eq!(
            rows_of("epoch,steps,x\r\n0.5,5,0.", &steps),
            "epoch,steps,x\r\n"
        );
        assert_eq!(
            rows_of("query,document\n1,10\n", &steps),
            "query,document\n1,10\n"
        );
        assert_eq!(rows_of("epoch,ste", &steps), "");
    }

    #[test]
    fn other_files_and_no_folder_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        keep(dir.path(), &[]).unwrap();
        let folder = folder(dir.path());
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("a.csv"), "epoch,steps,x\n1,5,2\n").unwrap();
        fs::write(folder.join("a.csv.unfinished"), "epoch").unwrap();
        fs::write(folder.join("b.jsonl"), "epoch,steps,x\n1,5,2\n").unwrap();
        keep(dir.path(), &[]).unwrap();
        let read = |name| fs::read_to_string(folder.join(name)).unwrap();
        assert_eq!(read("a.csv"), "epoch,steps,x\n");
        assert_eq!(read("b.jsonl"), "epoch,steps,x\n1,5,2\n");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
    }
}
