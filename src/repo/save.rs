use std::path::Path;

use burn::tensor::backend::Backend;
use serde_json::{Value, json};

use super::file::FolderWriter;
use super::input_folder::SavedInput;
use super::model_card::model_card;
use super::module_folder::stage_module;
use super::names;
use super::router_file::RouterFile;
use super::source::is_relative_path;
use super::weights::write_safetensors;
use crate::adapter::{AdapterEntry, DEFAULT_ADAPTER, saved_key};
use crate::error::{RepoError, Result};
use crate::model::{Layout, RouteInput, SentenceTransformer, file_name};
use crate::modules::Step;

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
    /// first is put in place: a failed save leaves the old ones. Where the process ends while
    /// files are put in place, whoever loads the folder next, or saves there, puts the old ones
    /// back.
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
        let layout = self.layout();
        let own = layout.inputs.first().map_or("", String::as_str);
        if self.adapters().is_empty() {
            if folder.join(own).join(names::ADAPTER_CONFIG).exists() {
                // It would be read as part of the model.
                return Err(RepoError::Occupied {
                    folder: folder.to_owned(),
                    holds: "an adapter",
                }
                .into());
            }
            let mut writer = FolderWriter::new(folder)?;
            self.own_input()
                .stage_encoder(own, options.max_shard_size, &mut writer)?;
            self.stage_pipeline(&layout, options, &mut writer)?;
            return writer.commit();
        }
        let adapter = self.adapters().only_active("save")?;
        if folder.join(own).join(names::CONFIG).exists() {
            // Python would take the folder for a whole model and load a random encoder.
            return Err(RepoError::Occupied {
                folder: folder.to_owned(),
                holds: "a whole model",
            }
            .into());
        }
        let mut writer = FolderWriter::new(folder)?;
        self.stage_adapter(adapter, &Layout::within(own), folder, &mut writer)?;
        self.stage_pipeline(&layout, options, &mut writer)?;
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

    fn own_input(&self) -> SavedInput<'_, B> {
        let config = self.config();
        SavedInput {
            tokenizer: self.tokenizer(),
            encoder: self.encoder(),
            config: &config.encoder,
            encoder_fields: &config.encoder_fields,
            do_lower_case: config.do_lower_case,
            tokenizer_files: &config.tokenizer_files,
        }
    }

    /// Everything but the model's own encoder, by the names of the legacy generation, which
    /// readers of both know.
    fn stage_pipeline(
        &self,
        layout: &Layout,
        options: &SaveOptions,
        writer: &mut FolderWriter,
    ) -> Result<()> {
        let type_name = |step: &Step| self.step_type(step);
        let mut entries = Vec::new();
        for (index, step) in self.steps().iter().enumerate() {
            let path = Layout::top(index, step, &type_name);
            self.stage_routers(step, &path, writer)?;
            entries.push(json!({
                "idx": index,
                "name": index.to_string(),
                "path": path,
                "type": format!("sentence_transformers.models.{}", type_name(step)),
            }));
        }
        writer.stage_json(names::MODULES, &Value::Array(entries))?;
        let others = self.route_inputs().iter().map(route_input);
        let inputs = [self.own_input()].into_iter().chain(others);
        for (index, (input, path)) in inputs.zip(&layout.inputs).enumerate() {
            if index > 0 {
                input.stage_encoder(path, options.max_shard_size, writer)?;
            }
            input.stage_texts(path, writer)?;
        }
        for (module, path) in self.modules().iter().zip(&layout.modules) {
            stage_module(module, path, writer)?;
        }
        let config = self.config();
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
        match options.model_card {
            true => writer.stage(names::MODEL_CARD, model_card(self).as_bytes()),
            false => Ok(()),
        }
    }

    /// The configuration of a Router, and of those in its routes.
    fn stage_routers(&self, step: &Step, path: &str, writer: &mut FolderWriter) -> Result<()> {
        let Step::Router(router) = step else {
            return Ok(());
        };
        let type_name = |step: &Step| self.step_type(step);
        let within = Layout::within(path);
        let json = RouterFile::of(router, &type_name).to_json();
        writer.stage_json(&format!("{within}{}", names::ROUTER), &json)?;
        for route in router.routes() {
            for (index, step) in route.steps.iter().enumerate() {
                let folder = Layout::of_route(&route.name, index, type_name(step));
                self.stage_routers(step, &format!("{within}{folder}"), writer)?;
            }
        }
        Ok(())
    }
}

fn route_input<B: Backend>(input: &RouteInput<B>) -> SavedInput<'_, B> {
    SavedInput {
        tokenizer: &input.tokenizer,
        encoder: &input.encoder,
        config: &input.config.encoder,
        encoder_fields: &input.config.encoder_fields,
        do_lower_case: input.config.do_lower_case,
        tokenizer_files: &input.config.tokenizer_files,
    }
}
