use std::collections::BTreeMap;

use burn::tensor::backend::Backend;

use super::SentenceTransformer;
use crate::adapter::{
    AdaptedLayer, AdapterEntry, AdapterPlan, AdapterRegistry, EncoderSites, LayerAdapter,
    LayerSite, PeftConfig, plan_adapter,
};
use crate::encoder::{AdapterParams, LayerVisitor, Layers, Params};
use crate::error::{AdapterError, Result};
use crate::state_dict::{DrawParams, LoadTensors, LoadedKeys, SetTrainable, StateDict};

/// What the adapter methods do to the encoder's layers.
impl<B: Backend> SentenceTransformer<B> {
    /// Makes an adapter for every layer that the configuration means: fresh, or from tensors,
    /// which what was loaded is taken out of. The model stays as it is.
    pub(super) fn make_adapter(
        &mut self,
        name: &str,
        config: &mut PeftConfig,
        source: Option<(&mut StateDict, bool)>,
    ) -> Result<(BTreeMap<String, LayerAdapter<B>>, LoadedKeys)> {
        self.home
            .executes(|| self.make_adapter_here(name, config, source))
    }

    fn make_adapter_here(
        &mut self,
        name: &str,
        config: &mut PeftConfig,
        source: Option<(&mut StateDict, bool)>,
    ) -> Result<(BTreeMap<String, LayerAdapter<B>>, LoadedKeys)> {
        let plan = self.plan(config)?;
        let is_fresh = source.is_none();
        let mut made = BTreeMap::new();
        self.try_each_layer(|path, layer| {
            if let Some(plan) = plan.get(path) {
                made.insert(path.to_owned(), layer.new_adapter(name, plan, is_fresh)?);
            }
            Ok(())
        })?;
        let mut keys = LoadedKeys::default();
        if let Some((tensors, strict)) = source {
            let device = self.device();
            let mut load = LoadTensors::new(tensors, &device);
            for (path, adapter) in &mut made {
                adapter.visit_params(path, &mut load)?;
            }
            keys = match strict {
                true => load.finish()?,
                false => load.into_keys(),
            };
        }
        self.for_each_layer(|path, layer| {
            let lacks = |key: &String| key.starts_with(path) && key.contains("magnitude");
            if let Some(adapter) = made.get_mut(path)
                && (is_fresh || keys.missing.iter().any(lacks))
            {
                layer.init_magnitude(adapter);
            }
        });
        for (path, adapter) in &mut made {
            adapter.visit_params(path, &mut DrawParams)?;
        }
        Ok((made, keys))
    }

    /// The encoder's layers, as adapters see them.
    pub(super) fn layer_sites(&mut self) -> Vec<LayerSite> {
        let mut sites = Vec::new();
        self.for_each_layer(|path, layer| {
            sites.push(LayerSite {
                path: path.to_owned(),
                kind: layer.kind(),
            });
        });
        sites
    }

    /// What an adapter of this configuration does to each layer.
    pub(super) fn plan(&mut self, config: &mut PeftConfig) -> Result<AdapterPlan> {
        if self.config.encoder.is_static() {
            return Err(AdapterError::NoTransformer.into());
        }
        let sites = self.layer_sites();
        let encoder = &self.config.encoder;
        let encoder = EncoderSites {
            layers: &sites,
            model_type: encoder.model_type(),
            default_targets: encoder.default_lora_targets(),
        };
        plan_adapter(config, &encoder)
    }

    /// Puts an adapter into its layers; nothing can fail any more.
    pub(super) fn attach_adapter(
        &mut self,
        entry: AdapterEntry,
        mut made: BTreeMap<String, LayerAdapter<B>>,
    ) -> Result<()> {
        self.unmerge_for("adding an adapter");
        if self.adapters.is_empty() {
            self.set_encoder_trainable(false);
        }
        self.for_each_layer(|path, layer| match made.remove(path) {
            Some(adapter) => layer.add_adapter(adapter),
            // One that took another's place need not be on the same layers.
            None => layer.remove_adapter(&entry.name),
        });
        match self.adapters.names().contains(&entry.name) {
            true => self.adapters.replace(entry)?,
            false => self.adapters.add(entry)?,
        }
        self.apply_adapters();
        Ok(())
    }

    /// Tells the layers which adapters take part and which are trained.
    pub(super) fn apply_adapters(&mut self) {
        let applied = self.adapters.applied().to_vec();
        self.for_each_layer(|_, layer| layer.activate_adapters(&applied));
        for name in self.adapters.names() {
            let trained = self.adapters.is_trained(&name);
            self.visit_infallible(&mut AdapterParams {
                name: &name,
                prefix: "",
                visitor: SetTrainable(trained),
            });
        }
    }

    /// Removes every adapter from the layers; what is merged becomes their own.
    pub(super) fn unload_layers(&mut self) {
        self.for_each_layer(|_, layer| layer.unload());
        self.adapters = AdapterRegistry::default();
        self.forget_adapters(|_| true);
        self.set_encoder_trainable(true);
    }

    pub(super) fn set_encoder_trainable(&mut self, trainable: bool) {
        self.visit_infallible(&mut Params(SetTrainable(trainable)));
    }

    pub(super) fn for_each_layer(&mut self, mut run: impl FnMut(&str, &mut dyn AdaptedLayer<B>)) {
        self.visit_infallible(&mut Layers(
            |path: &str, layer: &mut dyn AdaptedLayer<B>| {
                run(path, layer);
                Ok(())
            },
        ));
    }

    fn try_each_layer(
        &mut self,
        run: impl FnMut(&str, &mut dyn AdaptedLayer<B>) -> Result<()>,
    ) -> Result<()> {
        self.encoder.visit_layers(&mut Layers(run))
    }

    /// Walks a visitor that has no way to fail.
    fn visit_infallible<V: LayerVisitor<B>>(&mut self, visitor: &mut V) {
        if let Err(error) = self.encoder.visit_layers(visitor) {
            log::error!("a visitor that cannot fail failed: {error}");
        }
    }
}
