use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::file::{read, read_json, read_optional_fields};
use super::names;
use crate::error::{RepoError, Result, TextError};
use crate::text::{TokenizerFields, Vocabulary, tokenizer_json};

/// A tokenizer's files by name.
pub(super) type TokenizerFiles = Vec<(String, Arc<[u8]>)>;

const VOCAB_TXT: &str = "vocab.txt";
const VOCAB_JSON: &str = "vocab.json";
const MERGES: &str = "merges.txt";

/// What a tokenizer's vocabulary can lie in that this crate does not put together.
const FOREIGN: [&str; 6] = [
    "sentencepiece.bpe.model",
    "spiece.model",
    "tokenizer.model",
    "spm.model",
    VOCAB_JSON,
    VOCAB_TXT,
];

/// Reads a tokenizer's files. Where there is no `tokenizer.json`, it is put together from the
/// files that came before it, and is one of those returned.
///
/// # Errors
/// [`RepoError::MissingFile`] where there is no vocabulary,
/// [`RepoError::UnreadableTokenizer`] where it is of a kind that this crate does not know,
/// [`TextError::InvalidTokenizer`] where the files make no tokenizer.
pub(super) fn read_tokenizer_files(folder: &Path, model_type: &str) -> Result<TokenizerFiles> {
    let mut files = TokenizerFiles::new();
    let path = folder.join(names::TOKENIZER);
    if !path.exists()
        && let Some(json) = put_together(folder, model_type)?
    {
        files.push((names::TOKENIZER.to_owned(), json.into_bytes().into()));
    }
    for name in names::TOKENIZER_FILES {
        let path = folder.join(name);
        let is_known = files.iter().any(|(known, _)| known == name);
        if !is_known && (name == names::TOKENIZER || path.exists()) {
            let bytes = read(&path, "it is the tokenizer")?;
            files.push((name.to_owned(), bytes.into()));
        }
    }
    Ok(files)
}

/// The kind of a tokenizer whose vocabulary lies in files of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bert,
    Mpnet,
    Roberta,
}

impl Kind {
    /// What the configuration calls the tokenizer, or else the encoder's usual one.
    fn of(config: &Map<String, Value>, model_type: &str) -> Option<Self> {
        let class = config.get("tokenizer_class").and_then(Value::as_str);
        match class.map(|class| class.strip_suffix("Fast").unwrap_or(class)) {
            Some("BertTokenizer" | "DistilBertTokenizer" | "ElectraTokenizer") => Some(Self::Bert),
            Some("MPNetTokenizer") => Some(Self::Mpnet),
            Some("RobertaTokenizer") => Some(Self::Roberta),
            Some(_) => None,
            None => match model_type {
                "bert" | "distilbert" | "electra" => Some(Self::Bert),
                "mpnet" => Some(Self::Mpnet),
                "roberta" => Some(Self::Roberta),
                _ => None,
            },
        }
    }
}

fn put_together(folder: &Path, model_type: &str) -> Result<Option<String>> {
    let foreign = FOREIGN.iter().map(|name| folder.join(name));
    let Some(foreign) = foreign.into_iter().find(|path| path.exists()) else {
        return Ok(None);
    };
    let optional = |name: &str| -> Result<Map<String, Value>> {
        Ok(read_optional_fields(&folder.join(name))?.unwrap_or_default())
    };
    let fields = TokenizerFields {
        config: optional(names::TOKENIZER_CONFIG)?,
        special_tokens: optional("special_tokens_map.json")?,
        added_tokens: optional("added_tokens.json")?,
    };
    let exists = |name: &str| folder.join(name).exists();
    let (path, json) = match Kind::of(&fields.config, model_type) {
        Some(kind @ (Kind::Bert | Kind::Mpnet)) if exists(VOCAB_TXT) => {
            let path = folder.join(VOCAB_TXT);
            let vocab = &read_text(&path)?;
            let is_mpnet = kind == Kind::Mpnet;
            let vocabulary = Vocabulary::WordPiece { vocab, is_mpnet };
            (path, tokenizer_json(vocabulary, &fields))
        }
        Some(Kind::Roberta) if exists(VOCAB_JSON) && exists(MERGES) => {
            let path = folder.join(VOCAB_JSON);
            let vocab: Map<String, Value> = read_json(&path, "it is the tokenizer's vocabulary")?;
            let merges = &read_text(&folder.join(MERGES))?;
            let vocabulary = Vocabulary::ByteLevel {
                vocab: &vocab,
                merges,
            };
            (path, tokenizer_json(vocabulary, &fields))
        }
        _ => return Err(RepoError::UnreadableTokenizer { path: foreign }.into()),
    };
    match json {
        Ok(json) => Ok(Some(json)),
        Err(reason) => Err(TextError::InvalidTokenizer { path, reason }.into()),
    }
}

fn read_text(path: &Path) -> Result<String> {
    let bytes = read(path, "it is the tokenizer's vocabulary")?;
    Ok(String::from_utf8(bytes).map_err(|e| RepoError::NotUtf8 {
        path: path.to_owned(),
        offset: e.utf8_error().valid_up_to(),
    })?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use crate::text::TextTokenizer;
    use std::fs;
    use std::path::PathBuf;

    fn fixtures() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/files")
    }

    fn tokenizer(name: &str, max_length: usize) -> TextTokenizer {
        let folder = fixtures().join("tokenizers").join(name);
        let model_type = name.split('_').next().unwrap();
        let files = read_tokenizer_files(&folder, model_type).unwrap();
        let (_, json) = files
            .iter()
            .find(|(name, _)| name == names::TOKENIZER)
            .unwrap();
        TextTokenizer::from_json(json, &folder, max_length).unwrap()
    }

    #[test]
    fn tokenizers_of_several_files_give_python_s_ids() {
        let json = fs::read_to_string(fixtures().join("expected.json")).unwrap();
        let expected: Value = serde_json::from_str(&json).unwrap();
        let texts: Vec<String> = serde_json::from_value(expected["texts"].clone()).unwrap();
        let kinds = expected["ids"].as_object().unwrap();
        assert_eq!(kinds.len(), 6);
        let mut all: Vec<Vec<Vec<u32>>> = Vec::new();
        for (name, ids) in kinds {
            for (max_length, ids) in [(4096, ids), (16, &expected["cut"][name])] {
                let ids: Vec<Vec<u32>> = serde_json::from_value(ids.clone()).unwrap();
                let found = tokenizer(name, max_length).encode(&texts, None).unwrap();
                for ((found, ids), text) in found.iter().zip(&ids).zip(&texts) {
                    assert_eq!(&found.ids, ids, "{name} {max_length} {text:?}");
                }
                // Negative control: no two kinds of tokenizers give the same.
                assert!(!all.contains(&ids), "{name} {max_length}");
                all.push(ids);
            }
        }
    }

    #[test]
    fn vocabularies_of_other_kinds_are_named_with_what_helps() {
        let folder = tempfile::tempdir().unwrap();
        let read = |model_type: &str| {
            let error = read_tokenizer_files(folder.path(), model_type).unwrap_err();
            (error.to_string(), error)
        };
        let (_, error) = read("bert");
        assert!(matches!(error, Error::Repo(RepoError::MissingFile { .. })));
        let file = folder.path().join("sentencepiece.bpe.model");
        fs::write(&file, b"x").unwrap();
        let (text, error) = read("xlm-roberta");
        assert!(
            matches!(error, Error::Repo(RepoError::UnreadableTokenizer { path }) if path == file)
        );
        assert!(text.contains("save_pretrained"), "{text}");
        fs::remove_file(file).unwrap();
        fs::write(folder.path().join(VOCAB_TXT), b"a\n\xff").unwrap();
        let (_, error) = read("bert");
        assert!(matches!(
            error,
            Error::Repo(RepoError::NotUtf8 { offset: 2, .. })
        ));
        let (_, error) = read("qwen3");
        assert!(matches!(
            error,
            Error::Repo(RepoError::UnreadableTokenizer { .. })
        ));
        fs::write(folder.path().join(VOCAB_TXT), "").unwrap();
        let config = r#"{"cls_token": null}"#;
        fs::write(folder.path().join(names::TOKENIZER_CONFIG), config).unwrap();
        let (text, error) = read("bert");
        assert!(matches!(
            error,
            Error::Text(TextError::InvalidTokenizer { .. })
        ));
        assert!(text.contains("cls_token"), "{text}");
    }
}
