use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde_json::{Map, Value};

use super::{NanoBeirEvaluator, NanoBeirOptions, RetrievalData};
use crate::data::{DataFiles, HubDataset, read_rows};
use crate::error::Result;
use crate::repo::HubOptions;

/// NanoBEIR in English on the hub.
pub const NANO_BEIR_REPOSITORY: &str = "sentence-transformers/NanoBEIR-en";

impl NanoBeirEvaluator {
    /// Downloads data sets from the hub, unless they are in the cache: of
    /// [`NANO_BEIR_REPOSITORY`], or of another repository in its layout, as translations
    /// are. That has the configurations `corpus` (`_id`, `text`), `queries` (`_id`, `text`)
    /// and `qrels` (`query-id`, `corpus-id`), each with the splits `NanoMSMARCO`, `NanoNQ`, ….
    /// Texts without a letter are left out.
    ///
    /// # Errors
    /// [`EvaluationError::UnknownDataset`](crate::error::EvaluationError::UnknownDataset) for
    /// a name that NanoBEIR does not have, those of [`HubDataset`], a row that has not those
    /// columns, and those of the data sets' evaluators.
    pub fn from_hub(id: &str, hub: &HubOptions, options: NanoBeirOptions) -> Result<Self> {
        let names = options.datasets()?;
        let open = |config: &str| HubDataset::open(id, Some(config), hub);
        let (corpus, queries, qrels) = (open("corpus")?, open("queries")?, open("qrels")?);
        let read = |name: &'static str| {
            let split = format!("Nano{name}");
            let data = RetrievalData {
                queries: texts(&queries.download(&split)?)?,
                corpus: texts(&corpus.download(&split)?)?,
                relevant: judgements(&qrels.download(&split)?)?,
            };
            Ok((name, data))
        };
        let sets: Result<Vec<_>> = names.into_iter().map(read).collect();
        Self::new(sets?, options)
    }
}

/// Ids with their texts.
fn texts(files: &DataFiles) -> Result<Vec<(String, String)>> {
    let mut texts = Vec::new();
    each(files, &["_id", "text"], |row| {
        texts.push((text(row, "_id")?, text(row, "text")?));
        Ok(())
    })?;
    Ok(texts)
}

/// The documents that answer a query, by the queries' ids.
fn judgements(files: &DataFiles) -> Result<HashMap<String, HashSet<String>>> {
    let mut relevant: HashMap<String, HashSet<String>> = HashMap::new();
    each(files, &["query-id", "corpus-id"], |row| {
        let documents = relevant.entry(text(row, "query-id")?).or_default();
        match row.get("corpus-id") {
            Some(Value::Array(ids)) => {
                for id in ids {
                    let id = id
                        .as_str()
                        .ok_or("`corpus-id` has a member that is no text")?;
                    documents.insert(id.to_owned());
                }
            }
            _ => {
                documents.insert(text(row, "corpus-id")?);
            }
        }
        Ok(())
    })?;
    Ok(relevant)
}

fn text(row: &Map<String, Value>, column: &str) -> std::result::Result<String, String> {
    match row.get(column) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(format!("`{column}` is {other}, expected a text")),
        None => Err(format!("`{column}` is missing")),
    }
}

fn each(
    files: &DataFiles,
    columns: &[&str],
    mut read: impl FnMut(&Map<String, Value>) -> std::result::Result<(), String>,
) -> Result<()> {
    let columns: Vec<String> = columns.iter().map(|column| column.to_string()).collect();
    for path in &files.paths {
        let path: &Path = path;
        for row in read_rows(path, files.format, &columns)? {
            let row = row?;
            read(&row.values).map_err(|reason| row.place.error(path, reason))?;
        }
    }
    Ok(())
}
