use std::path::{Path, PathBuf};

use burn::tensor::backend::Backend;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::file::{read, read_json, read_optional_fields};
use super::load::LoadOptions;
use super::module_folder::load_module;
use super::named_path::path_inside;
use super::names;
use super::router_file::RouterFile;
use super::tokenizer_folder::{TokenizerFiles, read_tokenizer_files};
use crate::encoder::EncoderConfig;
use crate::error::{ModuleError, RepoError, Result};
use crate::model::SimilarityFunction;
use crate::modules::{MODULE_TYPES, PoolingConfig, PoolingMode, SentenceModule, Step};
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

/// What a module is, by its Python path: `sentence_transformers.models.Pooling`,
/// `sentence_transformers.models.Pooling.Pooling` and
/// `sentence_transformers.sentence_transformer.modules.pooling.Pooling` are all a Pooling.
///
/// # Errors
/// [`ModuleError::UnknownType`], also for a module of that name that is not Sentence
/// Transformers' own.
pub(super) fn type_name(python_path: &str) -> Result<&'static str> {
    let unknown = || ModuleError::UnknownType {
        found: python_path.to_owned(),
        known: MODULE_TYPES,
    };
    let (package, name) = python_path.rsplit_once('.').ok_or_else(unknown)?;
    let known = MODULE_TYPES.iter().find(|known| **known == name);
    let is_own = |package: &str| {
        let mut parts = package.split('.');
        parts.next() == Some("sentence_transformers")
            && matches!(
                parts.next(),
                Some("models" | "base" | "sentence_transformer")
            )
    };
    Ok(known.filter(|_| is_own(package)).ok_or_else(unknown)?)
}

/// A folder of what reads texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct InputFolder {
    pub(super) folder: PathBuf,
    /// Whether it is a StaticEmbedding's; else it is a Transformer's.
    pub(super) is_static: bool,
}

/// What a model folder's files say, weights left out.
#[derive(Debug, Default)]
pub(super) struct Pipeline {
    /// What reads texts: the first Transformer first.
    pub(super) inputs: Vec<InputFolder>,
    /// The modules behind: type, folder.
    modules: Vec<(&'static str, PathBuf)>,
    /// The model's steps.
    pub(super) steps: Vec<Step>,
    /// Whether there is a `modules.json`; a bare Hugging Face folder has none.
    is_bare: bool,
    /// The number of routers that what is being read lies in.
    pub(super) depth: usize,
}

impl Pipeline {
    /// Reads `modules.json`; a folder without one is a transformer with pooling, or what
    /// model2vec saved.
    ///
    /// # Errors
    /// [`RepoError`] naming the file that is wrong, [`ModuleError::InvalidPipeline`] or
    /// [`ModuleError::UnknownType`].
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let file = folder.join(names::MODULES);
        let mut pipeline = Self::default();
        if !file.exists() {
            let is_static = is_model2vec(folder)?;
            pipeline.is_bare = !is_static;
            let step = pipeline.add_input(folder.to_owned(), is_static);
            pipeline.steps = vec![step];
            return Ok(pipeline);
        }
        let entries: Vec<ModuleEntry> = read_json(&file, "it lists the model's modules")?;
        for entry in &entries {
            let path = path_inside(&file, &entry.path)?;
            let step = pipeline.add(type_name(&entry.python_path)?, path)?;
            pipeline.steps.push(step);
        }
        match pipeline.steps.first() {
            Some(Step::Input(_) | Step::Router(_)) => {}
            _ => {
                return Err(ModuleError::InvalidPipeline {
                    reason: "the first module must be one that reads texts: a Transformer, a \
                             StaticEmbedding or a Router"
                        .to_owned(),
                }
                .into());
            }
        }
        pipeline.put_transformer_first();
        Ok(pipeline)
    }

    /// Adds what lies in a folder, and gives the step that it makes.
    pub(super) fn add(&mut self, type_name: &'static str, folder: PathBuf) -> Result<Step> {
        match type_name {
            "Transformer" => Ok(self.add_input(folder, false)),
            "StaticEmbedding" => Ok(self.add_input(folder, true)),
            "Router" | "Asym" => {
                let file = RouterFile::read(&folder)?;
                Ok(Step::Router(file.into_router(&folder, self)?))
            }
            module => {
                self.modules.push((module, folder));
                Ok(Step::Module(self.modules.len() - 1))
            }
        }
    }

    fn add_input(&mut self, folder: PathBuf, is_static: bool) -> Step {
        self.inputs.push(InputFolder { folder, is_static });
        Step::Input(self.inputs.len() - 1)
    }

    /// Makes the first Transformer input 0: as in Python, it is the one that adapters go on.
    fn put_transformer_first(&mut self) {
        let first = self.inputs.iter().position(|input| !input.is_static);
        let Some(first) = first.filter(|&first| first > 0) else {
            return;
        };
        self.inputs[..=first].rotate_right(1);
        for step in &mut self.steps {
            step.renumber_inputs(&|input| match input {
                input if input == first => 0,
                input if input < first => input + 1,
                input => input,
            });
        }
    }

    /// The folder of the Transformer that adapters go on; of a model without one, that of what
    /// reads texts.
    pub(super) fn own_folder(&self) -> &Path {
        let own = self.inputs.first();
        own.map_or(Path::new(""), |input| &input.folder)
    }

    /// Whether the folder has no `modules.json`.
    pub(super) fn is_bare(&self) -> bool {
        self.is_bare
    }

    /// The modules behind what reads texts; a bare folder gets one, which pools the encoder's
    /// token embeddings of size `hidden` as `config.json` of these fields asks for.
    ///
    /// # Errors
    /// [`RepoError`] or [`ModuleError`] naming what is wrong with a module's files.
    pub(super) fn load_modules<B: Backend>(
        &mut self,
        hidden: usize,
        fields: &Map<String, Value>,
        options: &LoadOptions,
        device: &B::Device,
    ) -> Result<Vec<SentenceModule<B>>> {
        if self.is_bare {
            let mode = default_pooling(fields);
            log::warn!(
                "{}: no {}: using {} pooling over the encoder's token embeddings",
                self.own_folder().display(),
                names::MODULES,
                mode.name()
            );
            let pooling = PoolingConfig::new(hidden, [mode]).init();
            self.steps.push(Step::Module(0));
            return Ok(vec![SentenceModule::Pooling(pooling)]);
        }
        self.modules
            .iter()
            .map(|(type_name, folder)| load_module(type_name, folder, options, device))
            .collect()
    }
}

/// Whether a bare folder is one that model2vec saved.
fn is_model2vec(folder: &Path) -> Result<bool> {
    let fields = read_optional_fields(&folder.join(names::CONFIG))?;
    let model_type = fields.as_ref().and_then(|fields| fields.get("model_type"));
    Ok(model_type.and_then(Value::as_str) == Some("model2vec"))
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
            let json = serde_json::json!([{ "path": path, "type": "sentence_transformers.models.Transformer" }]);
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
        for name in [
            "my.models.Whitening",
            "sentence_transformers.models.LSTM",
            "sentence_transformers.sparse_encoder.modules.SpladePooling",
            // Somebody's own, whatever it is called.
            "modeling_my.Transformer",
            "Transformer",
        ] {
            let error = read(serde_json::json!([{ "path": "", "type": name }]));
            assert!(
                matches!(&error, Error::Module(ModuleError::UnknownType { found, .. }) if found == name)
            );
        }
        for json in [
            serde_json::json!([]),
            serde_json::json!([{ "path": "1_Pooling", "type": "sentence_transformers.models.Pooling" }]),
        ] {
            assert!(matches!(
                read(json),
                Error::Module(ModuleError::InvalidPipeline { .. })
            ));
        }
    }

    #[test]
    fn module_types_are_known_by_the_names_of_both_generations() {
        for (path, expected) in [
            ("sentence_transformers.models.Transformer", "Transformer"),
            ("sentence_transformers.models.Dense.Dense", "Dense"),
            ("sentence_transformers.models.Asym", "Asym"),
            ("sentence_transformers.base.modules.router.Router", "Router"),
            (
                "sentence_transformers.sentence_transformer.modules.layer_norm.LayerNorm",
                "LayerNorm",
            ),
        ] {
            assert_eq!(type_name(path).unwrap(), expected);
        }
    }

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

    #[test]
    fn a_default_prompt_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let json = r#"{"prompts": {"query": "q: "}, "default_prompt_name": "sts"}"#;
        fs::write(folder.path().join(names::SENTENCE_TRANSFORMERS), json).unwrap();
        let error = EmbeddingConfig::read(folder.path()).unwrap_err();
        assert!(error.to_string().contains("default_prompt_name"), "{error}");
    }
}
