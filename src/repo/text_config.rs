use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::file::{read, read_json, read_optional_fields};
use super::names;
use super::tokenizer_folder::{TokenizerFiles, read_tokenizer_files};
use crate::encoder::EncoderConfig;
use crate::error::{RepoError, Result};

/// `sentence_bert_config.json`, as far as both generations matter here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SentenceBertConfig {
    max_seq_length: Option<usize>,
    do_lower_case: bool,
    transformer_task: Option<String>,
    module_output_name: Option<String>,
    modality_config: Option<Map<String, Value>>,
}

impl SentenceBertConfig {
    /// Refuses what makes of a text something else than the token embeddings of the encoder's
    /// last layer.
    fn validate(&self, path: &Path) -> Result<()> {
        let modalities = self.modality_config.as_ref();
        let of_text = |field: &str| {
            let text = modalities.and_then(|modalities| modalities.get("text"));
            let value = text
                .and_then(|text| text.get(field))
                .and_then(Value::as_str);
            value.map(str::to_owned)
        };
        for (field, expected, found) in [
            (
                "transformer_task",
                "feature-extraction",
                self.transformer_task.clone(),
            ),
            (
                "module_output_name",
                "token_embeddings",
                self.module_output_name.clone(),
            ),
            ("modality_config.text.method", "forward", of_text("method")),
            (
                "modality_config.text.method_output_name",
                "last_hidden_state",
                of_text("method_output_name"),
            ),
        ] {
            if let Some(found) = found.filter(|found| found != expected) {
                return Err(RepoError::InvalidField {
                    path: path.to_owned(),
                    field: field.to_owned(),
                    expected: expected.to_owned(),
                    found,
                }
                .into());
            }
        }
        Ok(())
    }
}

/// What the folder of what reads texts says about them.
#[derive(Debug)]
pub(super) struct TextConfig {
    /// The number of tokens a text is cut to.
    pub(super) max_seq_length: usize,
    /// Whether texts are lowercased first.
    pub(super) do_lower_case: bool,
    /// The tokenizer's files by name.
    pub(super) tokenizer_files: TokenizerFiles,
}

impl TextConfig {
    /// Reads a StaticEmbedding's tokenizer, which is all that it has.
    ///
    /// # Errors
    /// [`RepoError`] naming the file that is missing or wrong.
    pub(super) fn of_static(folder: &Path) -> Result<Self> {
        let bytes = read(&folder.join(names::TOKENIZER), "it is the tokenizer")?;
        Ok(Self {
            max_seq_length: usize::MAX,
            do_lower_case: false,
            tokenizer_files: vec![(names::TOKENIZER.to_owned(), bytes.into())],
        })
    }

    /// Reads the files that say how texts are tokenized.
    ///
    /// The maximum length is what `sentence_bert_config.json` says, as the legacy
    /// generation does; otherwise `model_max_length` of `tokenizer_config.json`, as 6.x
    /// does, and at most the encoder's own. None exceeds the encoder's positions.
    ///
    /// # Errors
    /// [`RepoError`] naming the file that is missing or wrong.
    pub(super) fn read(transformer: &Path, encoder: &EncoderConfig) -> Result<Self> {
        let sentence_bert = [names::SENTENCE_BERT]
            .into_iter()
            .chain(names::SENTENCE_BERT_OF_OLD)
            .map(|name| transformer.join(name))
            .find(|path| path.exists());
        let sentence_bert: SentenceBertConfig = match sentence_bert {
            Some(path) => {
                let config: SentenceBertConfig = read_json(&path, "it limits the length of texts")?;
                config.validate(&path)?;
                config
            }
            None => SentenceBertConfig::default(),
        };
        let file = transformer.join(names::TOKENIZER_CONFIG);
        let fields = read_optional_fields(&file)?.unwrap_or_default();
        // Tokenizers without a limit write 10³⁰, which is no 64-bit integer.
        let model_max_length = match fields.get("model_max_length") {
            None | Some(Value::Null) => None,
            Some(value) => Some(value.as_f64().ok_or_else(|| RepoError::InvalidField {
                path: file,
                field: "model_max_length".to_owned(),
                expected: "a number".to_owned(),
                found: value.to_string(),
            })?),
        };
        let max_tokens = encoder.max_tokens();
        let limit = match (sentence_bert.max_seq_length, model_max_length) {
            (Some(explicit), _) => explicit,
            (None, Some(length)) if length < max_tokens as f64 => length as usize,
            _ => max_tokens,
        };
        Ok(Self {
            max_seq_length: limit.min(encoder.token_limit()),
            do_lower_case: sentence_bert.do_lower_case,
            tokenizer_files: read_tokenizer_files(transformer, encoder.model_type())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use std::fs;

    #[test]
    fn a_transformer_that_gives_something_else_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let config = serde_json::json!({ "model_type": "bert" });
        let config = EncoderConfig::from_json(config.as_object().unwrap()).unwrap();
        fs::write(folder.path().join(names::TOKENIZER), "{}").unwrap();
        for (field, json) in [
            (
                "transformer_task",
                serde_json::json!({ "transformer_task": "fill-mask" }),
            ),
            (
                "module_output_name",
                serde_json::json!({ "module_output_name": "sentence_embedding" }),
            ),
            (
                "modality_config.text.method_output_name",
                serde_json::json!({ "modality_config": { "text": {
                    "method": "forward", "method_output_name": "pooler_output",
                } } }),
            ),
        ] {
            let file = folder.path().join(names::SENTENCE_BERT);
            fs::write(file, json.to_string()).unwrap();
            let error = TextConfig::read(folder.path(), &config).unwrap_err();
            assert!(
                matches!(&error, Error::Repo(RepoError::InvalidField { field: f, .. }) if f == field),
                "{error}"
            );
        }
    }

    #[test]
    fn the_maximum_length_comes_from_where_each_generation_keeps_it() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        let length_of = |model_type: &str| {
            let config = serde_json::json!({
                "model_type": model_type, "max_position_embeddings": 48,
            });
            let config = EncoderConfig::from_json(config.as_object().unwrap()).unwrap();
            let text = TextConfig::read(folder.path(), &config).unwrap();
            text.max_seq_length
        };
        let length = || length_of("bert");
        write(names::TOKENIZER, "{}");
        assert_eq!(length(), 48);
        write(
            names::TOKENIZER_CONFIG,
            r#"{"model_max_length": 1000000000000000019884624838656}"#,
        );
        assert_eq!(length(), 48);
        write(names::TOKENIZER_CONFIG, r#"{"model_max_length": 40}"#);
        assert_eq!(length(), 40);
        write(names::SENTENCE_BERT_OF_OLD[0], r#"{"max_seq_length": 44}"#);
        assert_eq!(length(), 44);
        write(
            names::SENTENCE_BERT,
            r#"{"max_seq_length": 32, "do_lower_case": true}"#,
        );
        assert_eq!(length(), 32);
        write(names::SENTENCE_BERT, r#"{"max_seq_length": 512}"#);
        assert_eq!(length(), 48);
        assert_eq!(length_of("roberta"), 46);
        assert_eq!(length_of("qwen3"), 512);
        write(names::SENTENCE_BERT, "{}");
        write(names::TOKENIZER_CONFIG, r#"{"model_max_length": 64}"#);
        assert_eq!(length_of("qwen3"), 48);
    }
}
