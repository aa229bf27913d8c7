use std::path::Path;

use burn::tensor::backend::Backend;
use serde_json::{Value, json};

use super::file::FolderWriter;
use super::model_card::model_card;
use super::names;
use super::sharding::stage_weights;
use super::source::is_relative_path;
use super::weights::write_safetensors;
use crate::adapter::{AdapterEntry, DEFAULT_ADAPTER, saved_key};
use crate::error::{RepoError, Result};
use crate::model::SentenceTransformer;
use crate::modules::SentenceModule;
use crate::state_dict::{CollectTensors, StateDict};

/// How a model is saved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SaveOptions {
    /// The most bytes of tensors in one weights file. A larger encoder is saved as several
    /// files and an index of them, as Transformers saves it.
    pub max_shard_size: u64,
    /// Whether to write a model card. Without, a `README.md` that is there stays.
    pub model_card: bool,
}

impl Default for SaveOptions {
    fn default() -> Self {
        Self {
            max_shard_size: 5_000_000_000,
            model_card: true,
        }
    }
}

impl<B: Backend> SentenceTransformer<B> {
    /// Saves the model as a folder that Python's Sentence Transformers 5.x and 6.x load.
    ///
    /// With an adapter, the encoder is left out: the folder holds the one active adapter
    /// and everything else, and names its base. Every file is written whole before the
    /// first is put in place: a failed save leaves the old ones, and so does one that is cut
    /// off, but for the moment in which the files are renamed.
    ///
    /// # Errors
    /// [`AdapterError::NotOneActive`](crate::error::AdapterError) where several adapters or
    /// none are active, [`RepoError::Occupied`] where an adapter would lie beside a whole
    /// model or the other way round, [`RepoError::Io`] where a file cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        self.save_with(folder, &SaveOptions::default())
    }

    /// Saves the model with options; see [`save`](Self::save).
    ///
    /// # Errors
    /// As [`save`](Self::save).
    pub fn save_with(&self, folder: impl AsRef<Path>, options: &SaveOptions) -> Result<()> {
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
            self.stage_encoder(options, &mut writer)?;
            self.stage_pipeline(folder, options, &mut writer)?;
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
        self.stage_adapter(adapter, "", folder, &mut writer)?;
        self.stage_pipeline(folder, options, &mut writer)?;
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
        self.stage_adapter(adapter, "", folder, &mut writer)?;
        writer.commit()
    }

    /// Saves every adapter as PEFT itself would save several: one named `default` in the
    /// folder, each other in a folder of its own inside, whose name is the adapter's, with
    /// what a file name cannot hold written as `%2F` and the like.
    ///
    /// # Errors
    /// [`AdapterError::NoAdapter`](crate::error::AdapterError), and [`RepoError::Io`] where a
    /// file cannot be written; the folder is then as it was.
    pub fn save_adapters(&self, folder: impl AsRef<Path>) -> Result<()> {
        let folder = folder.as_ref();
        self.adapters().require_any()?;
        let mut writer = FolderWriter::new(folder)?;
        for adapter in self.adapters().entries() {
            let within = match adapter.name == DEFAULT_ADAPTER {
                true => String::new(),
                false => format!("{}/", file_name(&adapter.name)),
            };
            self.stage_adapter(adapter, &within, folder, &mut writer)?;
        }
        writer.commit()
    }

    /// Saves the model with its active adapters folded in: a plain Sentence Transformers
    /// folder. The model itself keeps its adapters apart.
    ///
    /// # Errors
    /// As [`merge_and_unload`](Self::merge_and_unload) and [`save`](Self::save).
    pub fn save_merged(&self, folder: impl AsRef<Path>) -> Result<()> {
        let mut merged = self.clone();
        merged.merge_and_unload()?;
        merged.save(folder)
    }

    fn stage_adapter(
        &self,
        adapter: &AdapterEntry,
        within: &str,
        folder: &Path,
        writer: &mut FolderWriter,
    ) -> Result<()> {
        let is_reproducible = adapter.config.is_reproducible();
        let mut config = adapter.config.clone();
        let tensors = if is_reproducible {
            self.get_adapter_state_dict(Some(&adapter.name))?
        } else {
            // Nobody else finds the part of the weights that it stands in for.
            let mut plain = self.clone();
            plain.convert_to_plain_lora(&adapter.name)?;
            config = plain.adapters().get(&adapter.name)?.config.clone();
            plain.get_adapter_state_dict(Some(&adapter.name))?
        };
        // A path relative to the folder it was read from means nothing in this one.
        if config
            .base_model_name_or_path()
            .is_some_and(is_relative_path)
        {
            let revision = config.revision().map(str::to_owned);
            config.set_base(self.config().name_or_path.clone(), revision);
        }
        let json = config.to_json().map_err(|source| RepoError::Json {
            path: folder.join(within).join(names::ADAPTER_CONFIG),
            source,
        })?;
        let tensors = tensors.rename(|key| Some(saved_key(key)));
        writer.stage_with(&format!("{within}{}", names::ADAPTER_WEIGHTS), |path| {
            write_safetensors(&tensors, path)
        })?;
        let file = format!("{within}{}", names::ADAPTER_CONFIG);
        writer.stage(&file, json.as_bytes())
    }

    fn stage_encoder(&self, options: &SaveOptions, writer: &mut FolderWriter) -> Result<()> {
        let tensors = self.config().encoder.state_dict(self.encoder())?;
        stage_weights(&tensors, options.max_shard_size, writer)?;
        let fields = Value::Object(self.config().encoder_fields.clone());
        writer.stage_json(names::CONFIG, &fields)
    }

    /// Everything but the encoder, by the names of the legacy generation, which readers of
    /// both know.
    fn stage_pipeline(
        &self,
        folder: &Path,
        options: &SaveOptions,
        writer: &mut FolderWriter,
    ) -> Result<()> {
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
        if options.model_card {
            writer.stage(names::MODEL_CARD, model_card(self).as_bytes())?;
        }
        Ok(())
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

/// A name that any file system can hold, from any text.
fn file_name(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    let mut name = String::new();
    for (place, byte) in text.bytes().enumerate() {
        // A dot in front hides a file, or means a folder above.
        if is_plain(byte) || (byte == b'.' && place > 0) {
            name.push(char::from(byte));
        } else {
            name.push_str(&format!("%{byte:02X}"));
        }
    }
    match name.is_empty() {
        true => "%".to_owned(),
        false => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_name_becomes_a_file_s_and_no_two_the_same() {
        let names = [
            "a.b", "../x", "", "%", "a/b", "a%2Fb", "ä", "train", ".", "..",
        ];
        let files: Vec<String> = names.iter().map(|name| file_name(name)).collect();
        assert_eq!(
            files[..6],
            ["a.b", "%2E.%2Fx", "%", "%25", "a%2Fb", "a%252Fb"]
        );
        let mut different = files.clone();
        different.sort();
        different.dedup();
        assert_eq!(different.len(), files.len());
        assert!(
            files
                .iter()
                .all(|file| !file.contains('/') && !file.starts_with('.'))
        );
    }
}
