use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use burn::tensor::backend::Backend;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::file::{read, read_json, read_optional_fields};
use super::names;
use super::weights::read_safetensors;
use crate::encoder::EncoderConfig;
use crate::error::{ModuleError, RepoError, Result};
use crate::model::SimilarityFunction;
use crate::modules::{
    DenseConfig, MODULE_TYPES, Normalize, PoolingConfig, PoolingMode, SentenceModule,
};
use crate::text::Prompts;

/// One entry of `modules.json`.
#[derive(Debug, Clone, Deserialize)]
struct ModuleEntry {
    /// The module's folder; empty for the model's own.
    path: String,
    /// The module's Python path, of either generation; the last part says what it is.
    #[serde(rename = "type")]
    python_path: String,
}

impl ModuleEntry {
    fn type_name(&self) -> &str {
        let path = self.python_path.as_str();
        path.rsplit('.').next().unwrap_or(path)
    }
}

/// What a model folder's files say, weights left out.
#[derive(Debug)]
pub(super) struct Pipeline {
    /// The folder of the Transformer module.
    pub(super) transformer: PathBuf,
    /// The modules behind it: type, folder.
    modules: Vec<(String, PathBuf)>,
    /// Whether there is a `modules.json`; a bare Hugging Face folder has none.
    is_bare: bool,
}

impl Pipeline {
    /// Reads `modules.json`; a folder without one is a transformer with pooling.
    ///
    /// # Errors
    /// [`RepoError`] naming the file that is wrong, [`ModuleError::InvalidPipeline`] or
    /// [`ModuleError::UnknownType`].
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let file = folder.join(names::MODULES);
        if !file.exists() {
            return Ok(Self {
                transformer: folder.to_owned(),
                modules: Vec::new(),
                is_bare: true,
            });
        }
        let entries: Vec<ModuleEntry> = read_json(&file, "it lists the model's modules")?;
        for entry in &entries {
            require_inside(&file, &entry.path)?;
            if !MODULE_TYPES.contains(&entry.type_name()) {
                return Err(ModuleError::UnknownType {
                    found: entry.python_path.clone(),
                    known: MODULE_TYPES,
                }
                .into());
            }
        }
        match entries.split_first() {
            Some((first, rest)) if first.type_name() == "Transformer" => Ok(Self {
                transformer: folder.join(&first.path),
                modules: rest
                    .iter()
                    .map(|entry| (entry.type_name().to_owned(), folder.join(&entry.path)))
                    .collect(),
                is_bare: false,
            }),
            _ => Err(ModuleError::InvalidPipeline {
                reason: "the first module must be a Transformer".to_owned(),
            }
            .into()),
        }
    }

    /// Whether the folder has no `modules.json`.
    pub(super) fn is_bare(&self) -> bool {
        self.is_bare
    }

    /// The modules behind the transformer, whose token embeddings have size `hidden` and
    /// whose `config.json` has these fields.
    ///
    /// # Errors
    /// [`RepoError`] or [`ModuleError`] naming what is wrong with a module's files.
    pub(super) fn load_modules<B: Backend>(
        &self,
        hidden: usize,
        fields: &Map<String, Value>,
        device: &B::Device,
    ) -> Result<Vec<SentenceModule<B>>> {
        if self.is_bare {
            let mode = default_pooling(fields);
            log::warn!(
                "{}: no {}: using {} pooling over the encoder's token embeddings",
                self.transformer.display(),
                names::MODULES,
                mode.name()
            );
            let pooling = PoolingConfig::new(hidden, [mode]).init();
            return Ok(vec![SentenceModule::Pooling(pooling)]);
        }
        self.modules
            .iter()
            .map(|(type_name, folder)| load_module(type_name, folder, device))
            .collect()
    }
}

/// The pooling of a model that says none: the last token's of one made to tell the next
/// token, which alone has seen the whole text; else the mean.
fn default_pooling(fields: &Map<String, Value>) -> PoolingMode {
    let architecture = fields.get("architectures").and_then(|names| names.get(0));
    let architecture = architecture.and_then(Value::as_str).unwrap_or_default();
    let is_causal = fields.get("is_causal").and_then(Value::as_bool);
    if architecture.ends_with("ForCausalLM") && is_causal.unwrap_or(true) {
        PoolingMode::LastToken
    } else {
        PoolingMode::Mean
    }
}

fn load_module<B: Backend>(
    type_name: &str,
    folder: &Path,
    device: &B::Device,
) -> Result<SentenceModule<B>> {
    let file = folder.join(names::CONFIG);
    match type_name {
        "Pooling" => {
            let fields: Map<String, Value> = read_json(&file, "it says how to pool")?;
            Ok(SentenceModule::Pooling(
                PoolingConfig::from_json(&fields)?.init(),
            ))
        }
        "Dense" => {
            let fields: Map<String, Value> = read_json(&file, "it sizes the Dense module")?;
            let config = DenseConfig::from_json(&fields)?;
            let mut tensors = read_safetensors(&folder.join(names::WEIGHTS))?;
            let dense = config.load(&mut tensors, device)?;
            for key in tensors.keys() {
                log::warn!("{}: tensor `{key}` is not used", folder.display());
            }
            Ok(SentenceModule::Dense(dense))
        }
        "Normalize" => {
            let fields = read_optional_fields(&file)?.unwrap_or_default();
            for field in ["module_input_name", "module_output_name"] {
                let value = fields.get(field).and_then(Value::as_str);
                if let Some(found) = value.filter(|name| *name != "sentence_embedding") {
                    return Err(ModuleError::UnsupportedField {
                        module: "Normalize",
                        field,
                        found: found.to_owned(),
                    }
                    .into());
                }
            }
            Ok(SentenceModule::Normalize(Normalize))
        }
        other => Err(ModuleError::UnknownType {
            found: other.to_owned(),
            known: MODULE_TYPES,
        }
        .into()),
    }
}

/// Refuses a path that leads out of the folder that names it.
fn require_inside(file: &Path, path: &str) -> Result<()> {
    let inside = |component| matches!(component, Component::Normal(_) | Component::CurDir);
    if Path::new(path).components().all(inside) && !path.contains('\\') {
        return Ok(());
    }
    Err(RepoError::UnsafePath {
        path: file.to_owned(),
        found: path.to_owned(),
    }
    .into())
}

/// `sentence_bert_config.json`, as far as both generations matter here.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SentenceBertConfig {
    max_seq_length: Option<usize>,
    do_lower_case: bool,
}

/// What the transformer's folder says about texts.
#[derive(Debug)]
pub(super) struct TextConfig {
    /// The number of tokens a text is cut to.
    pub(super) max_seq_length: usize,
    /// Whether texts are lowercased first.
    pub(super) do_lower_case: bool,
    /// The tokenizer's files by name.
    pub(super) tokenizer_files: Vec<(String, Arc<[u8]>)>,
}

impl TextConfig {
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
            Some(path) => read_json(&path, "it limits the length of texts")?,
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
        let mut tokenizer_files = Vec::new();
        for name in names::TOKENIZER_FILES {
            let path = transformer.join(name);
            if name == names::TOKENIZER || path.exists() {
                let bytes = read(&path, "it is the tokenizer")?;
                tokenizer_files.push((name.to_owned(), bytes.into()));
            }
        }
        Ok(Self {
            max_seq_length: limit.min(encoder.token_limit()),
            do_lower_case: sentence_bert.do_lower_case,
            tokenizer_files,
        })
    }
}

/// `config_sentence_transformers.json`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SentenceTransformersConfig {
    #[serde(flatten)]
    prompts: Prompts,
    similarity_fn_name: Option<String>,
    truncate_dim: Option<usize>,
}

/// What the model's folder says about embeddings.
#[derive(Debug, Default)]
pub(super) struct EmbeddingConfig {
    pub(super) prompts: Prompts,
    pub(super) similarity_fn: SimilarityFunction,
    pub(super) truncate_dim: Option<usize>,
}

impl EmbeddingConfig {
    /// Reads `config_sentence_transformers.json`, if it is there.
    ///
    /// # Errors
    /// [`RepoError`] naming the file and the field, or
    /// [`ModelError::UnknownSimilarity`](crate::error::ModelError).
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let file = folder.join(names::SENTENCE_TRANSFORMERS);
        if !file.exists() {
            return Ok(Self::default());
        }
        let config: SentenceTransformersConfig = read_json(&file, "it holds the prompts")?;
        if let Some(name) = &config.prompts.default_prompt_name
            && !config.prompts.prompts.contains_key(name)
        {
            let known: Vec<_> = config.prompts.prompts.keys().collect();
            return Err(RepoError::InvalidField {
                path: file,
                field: "default_prompt_name".to_owned(),
                expected: format!("one of {known:?}"),
                found: name.clone(),
            }
            .into());
        }
        Ok(Self {
            prompts: config.prompts,
            similarity_fn: match config.similarity_fn_name {
                Some(name) => SimilarityFunction::from_name(&name)?,
                None => SimilarityFunction::default(),
            },
            truncate_dim: config.truncate_dim.filter(|dim| *dim > 0),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use std::fs;

    #[test]
    fn paths_that_lead_out_of_the_folder_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        for path in ["../x", "/x", "a/../../x", "a\\..\\x"] {
            let json = serde_json::json!([{ "path": path, "type": "a.Transformer" }]);
            fs::write(folder.path().join(names::MODULES), json.to_string()).unwrap();
            let error = Pipeline::read(folder.path()).unwrap_err();
            assert!(
                matches!(&error, Error::Repo(RepoError::UnsafePath { found, .. }) if found == path)
            );
        }
    }

    #[test]
    fn only_causal_language_models_are_pooled_by_their_last_token() {
        for (fields, expected) in [
            (serde_json::json!({}), PoolingMode::Mean),
            (
                serde_json::json!({ "architectures": ["Qwen3Model"] }),
                PoolingMode::Mean,
            ),
            (
                serde_json::json!({ "architectures": ["Qwen3ForCausalLM"] }),
                PoolingMode::LastToken,
            ),
            (
                serde_json::json!({ "architectures": ["Qwen3ForCausalLM"], "is_causal": false }),
                PoolingMode::Mean,
            ),
        ] {
            assert_eq!(default_pooling(fields.as_object().unwrap()), expected);
        }
    }

    #[test]
    fn unknown_modules_and_orders_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let read = |json: serde_json::Value| {
            fs::write(folder.path().join(names::MODULES), json.to_string()).unwrap();
            Pipeline::read(folder.path()).unwrap_err()
        };
        let error = read(serde_json::json!([{ "path": "", "type": "my.models.Whitening" }]));
        assert!(
            matches!(&error, Error::Module(ModuleError::UnknownType { found, .. })
            if found == "my.models.Whitening")
        );
        for json in [
            serde_json::json!([]),
            serde_json::json!([{ "path": "1_Pooling", "type": "x.Pooling" }]),
        ] {
            assert!(matches!(
                read(json),
                Error::Module(ModuleError::InvalidPipeline { .. })
            ));
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

    #[test]
    fn a_default_prompt_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let json = r#"{"prompts": {"query": "q: "}, "default_prompt_name": "sts"}"#;
        fs::write(folder.path().join(names::SENTENCE_TRANSFORMERS), json).unwrap();
        let error = EmbeddingConfig::read(folder.path()).unwrap_err();
        assert!(error.to_string().contains("default_prompt_name"), "{error}");
    }
}
