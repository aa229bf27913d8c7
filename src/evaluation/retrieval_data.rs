use std::collections::{HashMap, HashSet};
use std::path::Path;

use serde::Deserialize;

use crate::error::{RepoError, Result};
use crate::repo::jsonl::{self, Lines};

/// Queries, a corpus, and which documents answer which query.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetrievalData {
    /// The queries: id and text.
    pub queries: Vec<(String, String)>,
    /// The documents: id and text.
    pub corpus: Vec<(String, String)>,
    /// The ids of the documents that answer a query, by the query's id.
    pub relevant: HashMap<String, HashSet<String>>,
}

#[derive(Deserialize)]
struct Document {
    #[serde(rename = "_id")]
    id: String,
    #[serde(default)]
    title: Option<String>,
    text: String,
}

#[derive(Deserialize)]
struct Query {
    #[serde(rename = "_id")]
    id: String,
    text: String,
}

const QRELS_HEADER: [&str; 3] = ["query-id", "corpus-id", "score"];

impl RetrievalData {
    /// Reads a folder in BEIR's layout:
    /// - `corpus.jsonl`, a document a line: `{"_id", "title", "text"}`, where the title may
    ///   be absent. A document's text is title and text with a space between.
    /// - `queries.jsonl`, a query a line: `{"_id", "text"}`.
    /// - `qrels.tsv`, a judgement a line: query id, document id and score between tabs,
    ///   below the header `query-id corpus-id score`. A score above 0 says relevant; in a
    ///   file without that column all judgements do, as NanoBEIR has them.
    ///
    /// # Errors
    /// A [`RepoError`] naming the file, and the line where there is one: a file that is
    /// missing or not UTF-8, a line that is not such a record, an id that was there before.
    pub fn from_folder(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let corpus = read_texts(&folder.join("corpus.jsonl"), |document: Document| {
            let title = document.title.unwrap_or_default();
            let text = format!("{title} {}", document.text);
            (document.id, text.trim().to_owned())
        })?;
        let queries = read_texts(&folder.join("queries.jsonl"), |query: Query| {
            (query.id, query.text)
        })?;
        let relevant = read_qrels(&folder.join("qrels.tsv"))?;
        Ok(Self {
            queries,
            corpus,
            relevant,
        })
    }
}

/// Reads records that have an id each.
fn read_texts<T: serde::de::DeserializeOwned>(
    path: &Path,
    id_and_text: impl Fn(T) -> (String, String),
) -> Result<Vec<(String, String)>> {
    let mut texts = Vec::new();
    let mut lines: HashMap<String, usize> = HashMap::new();
    for record in jsonl::records(path)? {
        let (line, record) = record?;
        let (id, text) = id_and_text(record);
        if let Some(first) = lines.insert(id.clone(), line) {
            let reason = format!("`_id` `{id}` is already that of line {first}");
            return Err(invalid(path, line, reason));
        }
        texts.push((id, text));
    }
    Ok(texts)
}

fn read_qrels(path: &Path) -> Result<HashMap<String, HashSet<String>>> {
    let mut lines = Lines::open(path)?;
    let header = lines.next().transpose()?;
    let (line, header) = header.unwrap_or((1, String::new()));
    let columns = header.split('\t').count();
    if columns < 2
        || !header
            .split('\t')
            .eq(QRELS_HEADER.into_iter().take(columns))
    {
        let reason = format!(
            "the header is `{header}`, expected `{}`",
            QRELS_HEADER.join("\t")
        );
        return Err(invalid(path, line, reason));
    }
    let mut relevant: HashMap<String, HashSet<String>> = HashMap::new();
    for line in lines {
        let (line, text) = line?;
        let fields: Vec<&str> = text.split('\t').collect();
        let (query, document, score) = match fields[..] {
            [query, document, score] if columns == 3 => (query, document, score),
            [query, document] if columns == 2 => (query, document, "1"),
            _ => {
                let reason = format!("{} fields between tabs, expected {columns}", fields.len());
                return Err(invalid(path, line, reason));
            }
        };
        let parsed: Option<f64> = score.trim().parse().ok();
        let Some(parsed) = parsed.filter(|s| s.is_finite()) else {
            let reason = format!("the score is `{score}`, expected a number");
            return Err(invalid(path, line, reason));
        };
        if parsed > 0.0 {
            relevant
                .entry(query.to_owned())
                .or_default()
                .insert(document.to_owned());
        }
    }
    Ok(relevant)
}

fn invalid(path: &Path, line: usize, reason: String) -> crate::error::Error {
    RepoError::InvalidLine {
        path: path.to_owned(),
        line,
        reason,
    }
    .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CORPUS: &str = concat!(
        "{\"_id\": \"d1\", \"title\": \"A title\", \"text\": \"and a text. \"}\n",
        "{\"_id\": \"d2\", \"title\": \"\", \"text\": \" no title\"}\n",
        "{\"_id\": \"d3\", \"text\": \"title absent\", \"metadata\": {}}\n",
    );
    const QUERIES: &str = "{\"_id\": \"q1\", \"text\": \" as it is \"}\n";
    const QRELS: &str =
        "query-id\tcorpus-id\tscore\nq1\td1\t2\nq1\td2\t0\r\nq1\td3\t0.5\nq2\td1\t-1\n";

    fn read(corpus: &str, queries: &str, qrels: &str) -> Result<RetrievalData> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("corpus.jsonl"), corpus).unwrap();
        std::fs::write(folder.path().join("queries.jsonl"), queries).unwrap();
        std::fs::write(folder.path().join("qrels.tsv"), qrels).unwrap();
        RetrievalData::from_folder(folder.path())
    }

    fn message(corpus: &str, queries: &str, qrels: &str) -> String {
        read(corpus, queries, qrels).unwrap_err().to_string()
    }

    #[test]
    fn reads_a_folder_in_beir_s_layout() {
        let data = read(CORPUS, QUERIES, QRELS).unwrap();
        let pair = |id: &str, text: &str| (id.to_owned(), text.to_owned());
        assert_eq!(
            data.corpus,
            [
                pair("d1", "A title and a text."),
                pair("d2", "no title"),
                pair("d3", "title absent"),
            ]
        );
        assert_eq!(data.queries, [pair("q1", " as it is ")]);
        let ids = HashSet::from(["d1".to_owned(), "d3".to_owned()]);
        assert_eq!(data.relevant, HashMap::from([("q1".to_owned(), ids)]));
    }

    #[test]
    fn a_bad_record_is_named_with_file_and_line() {
        let corpus = format!("{CORPUS}{{\"title\": \"no id\", \"text\": \"\"}}\n");
        assert!(message(&corpus, QUERIES, QRELS).contains("corpus.jsonl:4: missing field `_id`"));
        let corpus = format!("{CORPUS}{{\"_id\": \"d2\", \"text\": \"again\"}}\n");
        assert!(
            message(&corpus, QUERIES, QRELS)
                .ends_with("corpus.jsonl:4: `_id` `d2` is already that of line 2")
        );
        assert!(message(CORPUS, "[]\n", QRELS).contains("queries.jsonl:1: "));
    }

    #[test]
    fn a_bad_judgement_is_named_with_file_and_line() {
        let bad_line = |line: &str| message(CORPUS, QUERIES, &format!("{QRELS}{line}\n"));
        assert!(bad_line("q1\td1").ends_with("qrels.tsv:6: 2 fields between tabs, expected 3"));
        for score in ["high", "NaN", ""] {
            let reason = format!("qrels.tsv:6: the score is `{score}`, expected a number");
            assert!(bad_line(&format!("q1\td1\t{score}")).ends_with(&reason));
        }
        let header = message(CORPUS, QUERIES, "q1\td1\t1\n");
        assert!(
            header
                .contains("qrels.tsv:1: the header is `q1\td1\t1`, expected `query-id\tcorpus-id")
        );
        assert!(message(CORPUS, QUERIES, "").contains("qrels.tsv:1: the header is ``"));
    }

    #[test]
    fn judgements_without_a_score_are_relevant() {
        let data = read(CORPUS, QUERIES, "query-id\tcorpus-id\nq1\td2\n").unwrap();
        let ids = HashSet::from(["d2".to_owned()]);
        assert_eq!(data.relevant, HashMap::from([("q1".to_owned(), ids)]));
        let error = message(CORPUS, QUERIES, "query-id\tcorpus-id\nq1\td2\t0\n");
        assert!(error.ends_with("qrels.tsv:2: 3 fields between tabs, expected 2"));
        assert!(message(CORPUS, QUERIES, "query-id\n").contains("the header is `query-id`"));
    }

    #[test]
    fn a_missing_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = RetrievalData::from_folder(folder.path())
            .unwrap_err()
            .to_string();
        assert!(error.contains("corpus.jsonl: cannot open"), "{error}");
    }
}
