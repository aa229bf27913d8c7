use std::path::Path;

use burn::tensor::backend::Backend;
use serde_json::{Value, json};

use super::file::FolderWriter;
use super::model_card::model_card;
use super::names;
use super::source::is_relative_path;
use super::weights::write_safetensors;
use crate::adapter::{AdapterEntry, saved_key};
use crate::error::{RepoError, Result};
use crate::model::SentenceTransformer;
use crate::modules::SentenceModule;
use crate::state_dict::{CollectTensors, StateDict};

impl<B: Backend> SentenceTransformer<B> {
    /// Saves the model as a folder that Python's Sentence Transformers 5.x and 6.x load.
    ///
    /// With an adapter, the encoder is left out: the folder holds the one active adapter
    /// and everything else, and names its base. Every file is written whole before the
    /// first is put in place: a failed save leaves the old ones.
    ///
    /// # Errors
    /// [`AdapterError::NotOneActive`](crate::error::AdapterError) where several adapters or
    /// none are active, [`RepoError::Occupied`] where an adapter would lie beside a whole
    /// model or the other way round, [`RepoError::Io`] where a file cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        if self.adapters().is_empty() {
            if folder.join(names::ADAPTER_CONFIG).exists() {
                // It would be read as part of the model.
                return Err(RepoError::Occupied {
                    folder: folder.to_owned(),
                    holds: "an adapter",
                }
                .into());
            }
            let mut writer = FolderWriter::new(folder)?;
            self.stage_encoder(&mut writer)?;
            self.stage_pipeline(folder, &mut writer)?;
            return writer.commit();
        }
        let adapter = self.adapters().only_active("save")?;
        if folder.join(names::CONFIG).exists() {
            // Python would take the folder for a whole model and load a random encoder.
            return Err(RepoError::Occupied {
                folder: folder.to_owned(),
                holds: "a whole model",
            }
            .into());
        }
        let mut writer = FolderWriter::new(folder)?;
        self.stage_adapter(adapter, folder, &mut writer)?;
        self.stage_pipeline(folder, &mut writer)?;
        writer.commit()
    }

    /// Saves only the active adapter's two files, as PEFT itself would.
    ///
    /// # Errors
    /// [`AdapterError::NoAdapter`](crate::error::AdapterError) or
    /// [`AdapterError::NotOneActive`](crate::error::AdapterError), and [`RepoError::Io`]
    /// where a file cannot be written.
    pub fn save_adapter(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        let adapter = self.adapters().only_active("save_adapter")?;
        let mut writer = FolderWriter::new(folder)?;
        self.stage_adapter(adapter, folder, &mut writer)?;
        writer.commit()
    }

    fn stage_adapter(
        &self,
        adapter: &AdapterEntry,
        folder: &Path,
        writer: &mut FolderWriter,
    ) -> Result<()> {
        let mut config = adapter.config.clone();
        // A path relative to the folder it was read from means nothing in this one.
        if config
            .base_model_name_or_path
            .as_deref()
            .is_some_and(is_relative_path)
        {
            config.base_model_name_or_path = self.config().name_or_path.clone();
        }
        let json = config.to_json().map_err(|source| RepoError::Json {
            path: folder.join(names::ADAPTER_CONFIG),
            source,
        })?;
        let tensors = self.get_adapter_state_dict(Some(&adapter.name))?;
        let tensors = tensors.rename(|key| Some(saved_key(key)));
        writer.stage_with(names::ADAPTER_WEIGHTS, |path| {
            write_safetensors(&tensors, path)
        })?;
        writer.stage(names::ADAPTER_CONFIG, json.as_bytes())
    }

    fn stage_encoder(&self, writer: &mut FolderWriter) -> Result<()> {
        let tensors = self.config().encoder.state_dict(self.encoder())?;
        writer.stage_with(names::WEIGHTS, |path| write_safetensors(&tensors, path))?;
        let fields = Value::Object(self.config().encoder_fields.clone());
        writer.stage_json(names::CONFIG, &fields)
    }

    /// Everything but the encoder, by the names of the legacy generation, which readers of
    /// both know.
    fn stage_pipeline(&self, folder: &Path, writer: &mut FolderWriter) -> Result<()> {
        let mut entries = vec![json!({
            "idx": 0,
            "name": "0",
            "path": "",
            "type": "sentence_transformers.models.Transformer",
        })];
        for (index, module) in self.modules().iter().enumerate() {
            let idx = index + 1;
            let type_name = module.type_name();
            let path = format!("{idx}_{type_name}");
            self.stage_module(module, folder, &path, writer)?;
            entries.push(json!({
                "idx": idx,
                "name": idx.to_string(),
                "path": path,
                "type": format!("sentence_transformers.models.{type_name}"),
            }));
        }
        writer.stage_json(names::MODULES, &Value::Array(entries))?;
        let config = self.config();
        let sentence_bert = json!({
            "max_seq_length": self.max_seq_length(),
            "do_lower_case": config.do_lower_case,
        });
        writer.stage_json(names::SENTENCE_BERT, &sentence_bert)?;
        let mut sentence_transformers = json!({
            "model_type": "SentenceTransformer",
            "prompts": config.prompts.prompts,
            "default_prompt_name": config.prompts.default_prompt_name,
            "similarity_fn_name": config.similarity_fn.name(),
        });
        if let Some(dim) = config.truncate_dim {
            sentence_transformers["truncate_dim"] = dim.into();
        }
        writer.stage_json(names::SENTENCE_TRANSFORMERS, &sentence_transformers)?;
        for (name, content) in &config.tokenizer_files {
            writer.stage(name, content)?;
        }
        writer.stage(names::MODEL_CARD, model_card(self).as_bytes())
    }

    fn stage_module(
        &self,
        module: &SentenceModule<B>,
        folder: &Path,
        path: &str,
        writer: &mut FolderWriter,
    ) -> Result<()> {
        let config = match module {
            SentenceModule::Pooling(pooling) => pooling.config().to_json(),
            SentenceModule::Dense(dense) => {
                let mut tensors = StateDict::new(path);
                dense
                    .clone()
                    .visit_params("", &mut CollectTensors(&mut tensors))?;
                let name = format!("{path}/{}", names::WEIGHTS);
                writer.stage_with(&name, |path| write_safetensors(&tensors, path))?;
                serde_json::to_value(dense.config()).map_err(|source| RepoError::Json {
                    path: folder.join(path).join(names::CONFIG),
                    source,
                })?
            }
            SentenceModule::Normalize(_) => json!({}),
        };
        writer.stage_json(&format!("{path}/{}", names::CONFIG), &config)
    }
}
