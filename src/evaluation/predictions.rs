use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{RepoError, Result};

/// What a model finds for a query: a line of the file that an
/// [`InformationRetrievalEvaluator`](super::InformationRetrievalEvaluator) writes if
/// asked to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Prediction {
    /// The query's id.
    pub query_id: String,
    /// The query.
    pub query: String,
    /// The documents found, the most similar first.
    pub results: Vec<PredictedDocument>,
}

/// A document found for a query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PredictedDocument {
    /// The document's id.
    pub corpus_id: String,
    /// Its similarity to the query.
    pub score: f32,
}

/// Writes predictions, one a line.
///
/// # Errors
/// [`RepoError::Io`] if the file cannot be written.
pub(super) fn write(path: &Path, predictions: &[Prediction]) -> Result<()> {
    let write = || {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut file = BufWriter::new(File::create(path)?);
        for prediction in predictions {
            serde_json::to_writer(&mut file, prediction)?;
            file.write_all(b"\n")?;
        }
        file.flush()
    };
    Ok(write().map_err(|source: std::io::Error| RepoError::Io {
        path: path.to_owned(),
        action: "write",
        source,
    })?)
}
