use std::path::{Path, PathBuf};

use burn::tensor::backend::Backend;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::file::{read_json, read_optional_fields};
use super::load::LoadOptions;
use super::module_folder::load_module;
use super::named_path::path_inside;
use super::names;
use super::router_file::RouterFile;
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
    fn a_default_prompt_that_is_not_there_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let json = r#"{"prompts": {"query": "q: "}, "default_prompt_name": "sts"}"#;
        fs::write(folder.path().join(names::SENTENCE_TRANSFORMERS), json).unwrap();
        let error = EmbeddingConfig::read(folder.path()).unwrap_err();
        assert!(error.to_string().contains("default_prompt_name"), "{error}");
    }
}
