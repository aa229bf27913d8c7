use std::path::Path;

use burn::tensor::backend::Backend;
use serde::Serialize;
use serde_json::{Map, Value};

use super::file::{FolderWriter, read_json, read_optional_fields};
use super::load::LoadOptions;
use super::names;
use super::weights::{read_weights, write_safetensors};
use crate::error::{ModuleError, RepoError, Result};
use crate::model::Layout;
use crate::modules::{
    DenseConfig, DropoutConfig, LayerNormConfig, MODULE_TYPES, NormalizeConfig, PoolingConfig,
    SentenceModule, WeightedLayerPoolingConfig,
};
use crate::state_dict::{CollectTensors, StateDict};

/// Reads a module of that type from its folder.
///
/// # Errors
/// [`RepoError`] or [`ModuleError`] naming what is wrong with its files.
pub(super) fn load_module<B: Backend>(
    type_name: &str,
    folder: &Path,
    options: &LoadOptions,
    device: &B::Device,
) -> Result<SentenceModule<B>> {
    let file = folder.join(names::CONFIG);
    let fields = |needed_for| -> Result<Map<String, Value>> { read_json(&file, needed_for) };
    match type_name {
        "Pooling" => {
            let config = PoolingConfig::from_json(&fields("it says how to pool")?)?;
            Ok(SentenceModule::Pooling(config.init()))
        }
        "WeightedLayerPooling" => {
            let fields = fields("it says what layers count")?;
            let config = WeightedLayerPoolingConfig::from_json(&fields)?;
            let load = |tensors: &mut StateDict| config.load(tensors, device);
            Ok(SentenceModule::WeightedLayerPooling(with_weights(
                folder, options, load,
            )?))
        }
        "Dense" => {
            let config = DenseConfig::from_json(&fields("it sizes the Dense module")?)?;
            let load = |tensors: &mut StateDict| config.load(tensors, device);
            Ok(SentenceModule::Dense(with_weights(folder, options, load)?))
        }
        "LayerNorm" => {
            let config = LayerNormConfig::from_json(&fields("it sizes the LayerNorm module")?)?;
            let load = |tensors: &mut StateDict| config.load(tensors, device);
            Ok(SentenceModule::LayerNorm(with_weights(
                folder, options, load,
            )?))
        }
        "Dropout" => {
            let fields = read_optional_fields(&file)?.unwrap_or_default();
            Ok(SentenceModule::Dropout(
                DropoutConfig::from_json(&fields)?.init(),
            ))
        }
        "Normalize" => {
            let fields = read_optional_fields(&file)?.unwrap_or_default();
            let config = NormalizeConfig::from_json(&fields)?;
            Ok(SentenceModule::Normalize(config.init()))
        }
        other => Err(ModuleError::UnknownType {
            found: other.to_owned(),
            known: MODULE_TYPES,
        }
        .into()),
    }
}

fn with_weights<M>(
    folder: &Path,
    options: &LoadOptions,
    load: impl FnOnce(&mut StateDict) -> Result<M>,
) -> Result<M> {
    let mut tensors = read_weights(folder, options)?;
    let module = load(&mut tensors)?;
    for key in tensors.keys() {
        log::warn!("{}: tensor `{key}` is not used", folder.display());
    }
    Ok(module)
}

/// Stages a module's files: its configuration, and its weights if it has any.
///
/// # Errors
/// [`RepoError`] naming the file.
pub(super) fn stage_module<B: Backend>(
    module: &SentenceModule<B>,
    path: &str,
    writer: &mut FolderWriter,
) -> Result<()> {
    let within = Layout::within(path);
    let mut tensors = StateDict::new(path);
    let mut collected = module.clone();
    collected.visit_params("", &mut CollectTensors(&mut tensors))?;
    if !tensors.is_empty() {
        let name = format!("{within}{}", names::WEIGHTS);
        writer.stage_with(&name, |path| write_safetensors(&tensors, path))?;
    }
    let file = format!("{within}{}", names::CONFIG);
    let config = match module {
        SentenceModule::Pooling(pooling) => pooling.config().to_json(),
        SentenceModule::WeightedLayerPooling(pooling) => to_json(pooling.config(), &file)?,
        SentenceModule::Dense(dense) => to_json(dense.config(), &file)?,
        SentenceModule::LayerNorm(norm) => to_json(&norm.config(), &file)?,
        SentenceModule::Dropout(dropout) => to_json(dropout.config(), &file)?,
        SentenceModule::Normalize(normalize) => normalize.config().to_json(),
    };
    writer.stage_json(&file, &config)
}

fn to_json(config: &impl Serialize, file: &str) -> Result<Value> {
    Ok(
        serde_json::to_value(config).map_err(|source| RepoError::Json {
            path: file.into(),
            source,
        })?,
    )
}
