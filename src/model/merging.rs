use std::collections::BTreeMap;

use burn::tensor::backend::Backend;

use super::SentenceTransformer;
use crate::adapter::{AdaptedLinear, MergedLayer};
use crate::encoder::Linears;
use crate::error::{AdapterError, Result};
use crate::state_dict::FindNotFinite;

impl<B: Backend> SentenceTransformer<B> {
    /// Folds the active adapters into the encoder's weights, until
    /// [`unmerge_adapter`](Self::unmerge_adapter): encoding costs what the base model does.
    ///
    /// The weights that were are kept, so that unmerging gives back the very same. Whatever
    /// changes the active adapters unmerges first.
    ///
    /// # Errors
    /// [`AdapterError::NoAdapter`], or [`AdapterError::NotFinite`] where a merged weight would
    /// hold NaN or infinity; the model is then as it was.
    pub fn merge_adapter(&mut self) -> Result<()> {
        self.adapters.require_any()?;
        let applied = self.adapters.applied().to_vec();
        let mut merged: BTreeMap<String, MergedLayer<B>> = BTreeMap::new();
        self.home.executes(|| {
            self.for_each_layer(|path, layer| {
                if let Some(layer) = layer.merge_adapters() {
                    merged.insert(path.to_owned(), layer);
                }
            });
        });
        let mut broken = FindNotFinite::default();
        for (path, layer) in &mut merged {
            layer.visit_params(path, &mut broken)?;
        }
        if let Some(key) = broken.0 {
            let adapters = applied;
            return Err(AdapterError::NotFinite { key, adapters }.into());
        }
        self.for_each_layer(|path, layer| layer.set_merged(merged.remove(path)));
        self.adapters.set_merged(applied);
        self.apply_adapters();
        Ok(())
    }

    /// Takes merged adapters out of the encoder's weights again; does nothing where none are.
    ///
    /// # Errors
    /// [`AdapterError::NoAdapter`].
    pub fn unmerge_adapter(&mut self) -> Result<()> {
        self.adapters.require_any()?;
        self.for_each_layer(|_, layer| layer.set_merged(None));
        self.adapters.set_merged(Vec::new());
        self.apply_adapters();
        Ok(())
    }

    /// Folds the active adapters into the encoder's weights and removes all adapters: a
    /// plain model that embeds the same.
    ///
    /// # Errors
    /// As [`merge_adapter`](Self::merge_adapter).
    pub fn merge_and_unload(&mut self) -> Result<()> {
        self.merge_adapter()?;
        self.unload_layers();
        Ok(())
    }

    /// Makes an adapter that began as a part of its layers' weights (PiSSA, OLoRA) a plain
    /// LoRA of twice the rank, which embeds the same and which anyone can add to the base as
    /// it is; does nothing to others.
    ///
    /// # Errors
    /// [`AdapterError::NoAdapter`] or [`AdapterError::UnknownName`].
    pub fn convert_to_plain_lora(&mut self, name: &str) -> Result<()> {
        let Some(config) = self.adapters.get(name)?.config.as_lora() else {
            return Ok(());
        };
        let config = config.plain();
        let make_plain = |_: &str, layer: &mut AdaptedLinear<B>| {
            layer.make_plain(name);
            Ok(())
        };
        self.home
            .executes(|| self.encoder.visit_layers(&mut Linears(make_plain)))?;
        self.adapters.set_config(name, config.into())
    }

    /// Removes all adapters: the base model.
    ///
    /// # Errors
    /// [`AdapterError::NoAdapter`].
    pub fn unload(&mut self) -> Result<()> {
        self.unmerge_adapter()?;
        self.unload_layers();
        Ok(())
    }

    /// Unmerges before `reason` changes what is active, and says so.
    pub(super) fn unmerge_for(&mut self, reason: &'static str) {
        if self.adapters.merged().is_empty() {
            return;
        }
        log::warn!(
            "{reason} unmerges the adapters {:?} first",
            self.adapters.merged()
        );
        self.for_each_layer(|_, layer| layer.set_merged(None));
        self.adapters.set_merged(Vec::new());
    }
}
