use std::path::Path;

use burn::tensor::backend::Backend;
use clap::Args;
use sentence_burn::{LoadAdapterOptions, Result, SentenceTransformer};

/// The adapters to load into a model, and which of them to use.
#[derive(Args)]
pub(crate) struct AdapterArgs {
    /// An adapter to load into the model: a folder or hub id, or NAME=FOLDER. May be repeated.
    #[arg(long, value_name = "[NAME=]DIR")]
    adapter: Vec<String>,
    /// The adapters to use, separated by commas; without it, all are used and add up.
    #[arg(long, value_delimiter = ',')]
    active: Option<Vec<String>>,
}

impl AdapterArgs {
    /// Loads them.
    pub(crate) fn load_into<B: Backend>(&self, model: &mut SentenceTransformer<B>) -> Result<()> {
        for adapter in &self.adapter {
            let is_folder = Path::new(adapter).is_dir();
            let (name, source) = match adapter.split_once('=') {
                Some((name, source)) if !is_folder => (name, source),
                // The first without a name is PEFT's `default`, others go by their folder.
                _ if model.adapters().is_empty() => ("default", adapter.as_str()),
                _ => (adapter.as_str(), adapter.as_str()),
            };
            let options = LoadAdapterOptions {
                name: name.to_owned(),
                ..LoadAdapterOptions::default()
            };
            model.load_adapter_with(source, &options)?;
        }
        match &self.active {
            Some(active) => model.set_adapter(active),
            None if self.adapter.is_empty() => Ok(()),
            None => model.set_adapter(&model.adapters().names()),
        }
    }
}
