use std::path::{Path, PathBuf};

use super::file::read_json;
use super::hub::HubOptions;
use super::names;
use super::pipeline::EmbeddingConfig;
use super::source::Source;
use super::weights::read_adapter_weights;
use serde_json::{Map, Value};

use crate::adapter::PeftConfig;
use crate::error::{RepoError, Result};
use crate::state_dict::StateDict;
use crate::text::Prompts;

/// A folder with PEFT's two files.
#[derive(Debug)]
pub(super) struct AdapterFolder {
    folder: PathBuf,
    config: PeftConfig,
    tensors: StateDict,
}

impl AdapterFolder {
    /// Reads the folder, if it has an adapter.
    ///
    /// # Errors
    /// As [`read`](Self::read), but for a folder without an adapter.
    pub(super) fn find(folder: &Path) -> Result<Option<Self>> {
        if folder.join(names::ADAPTER_CONFIG).exists() {
            Self::read(folder).map(Some)
        } else {
            Ok(None)
        }
    }

    /// Reads the folder's configuration and tensors.
    ///
    /// # Errors
    /// [`RepoError`] naming the file, [`AdapterError`](crate::error::AdapterError) naming
    /// the field that is wrong.
    pub(super) fn read(folder: &Path) -> Result<Self> {
        let config_file = folder.join(names::ADAPTER_CONFIG);
        let fields: Map<String, Value> = read_json(&config_file, "it describes the adapter")?;
        let config = PeftConfig::from_json(fields)?;
        config.validate()?;
        Ok(Self {
            folder: folder.to_owned(),
            tensors: read_adapter_weights(folder)?,
            config,
        })
    }

    /// The model that the adapter was trained on.
    ///
    /// # Errors
    /// [`RepoError::InvalidField`] where the configuration names none,
    /// [`RepoError::NestedAdapters`] where it is itself an adapter, and
    /// [`RepoError::NotFound`] or [`HubError`](crate::error::HubError).
    pub(super) fn base(&self, hub: &HubOptions) -> Result<Source> {
        let path = self.folder.join(names::ADAPTER_CONFIG);
        let Some(base) = self.config.base_model_name_or_path() else {
            return Err(RepoError::InvalidField {
                path,
                field: "base_model_name_or_path".to_owned(),
                expected: "the base model's folder or hub id".to_owned(),
                found: "null".to_owned(),
            }
            .into());
        };
        let mut hub = HubOptions::default_on(hub);
        // The base's revision is pinned in the configuration.
        hub.revision = self.config.revision().map_or(hub.revision, str::to_owned);
        let source = Source::resolve_beside(base, Some(&self.folder), &hub)?;
        let has = |name: &str| source.folder.join(name).exists();
        if has(names::ADAPTER_CONFIG) && !has(names::CONFIG) {
            return Err(RepoError::NestedAdapters {
                path,
                base: base.to_owned(),
            }
            .into());
        }
        Ok(source)
    }

    /// The prompts that the folder brings, if any of them says something.
    ///
    /// # Errors
    /// As for a model's.
    pub(super) fn prompts(&self) -> Result<Option<Prompts>> {
        let prompts = EmbeddingConfig::read(&self.folder)?.prompts;
        let says_something = prompts.prompts.values().any(|prompt| !prompt.is_empty());
        Ok(says_something.then_some(prompts))
    }

    /// The configuration and the tensors, which may hold NaN and infinity or not.
    pub(super) fn into_parts(self, allow_non_finite: bool) -> (PeftConfig, StateDict) {
        match allow_non_finite {
            true => (self.config, self.tensors),
            false => (self.config, self.tensors.finite()),
        }
    }
}
