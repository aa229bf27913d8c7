use std::collections::BTreeMap;

use burn::tensor::{Device, backend::Backend};

use super::SentenceTransformer;
use crate::adapter::{
    AdapterRegistry, DEFAULT_ADAPTER, LoraAdapter, LoraAdapterConfig, LoraConfig, LoraLinear,
    normalize_key, resolve_targets,
};
use crate::encoder::{Embedding, LayerNorm, LayerVisitor, Linears, Params, RmsNorm};
use crate::error::{Error, Result, StateDictError};
use crate::state_dict::{CollectTensors, SetTrainable, StateDict};

/// What became of the tensors of an adapter's file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AdapterLoadReport {
    /// The layers that were adapted.
    pub adapted_layers: Vec<String>,
    /// Tensors that belong to no adapted layer; they are not used.
    pub unexpected: Vec<String>,
}

impl<B: Backend> SentenceTransformer<B> {
    /// Adds a fresh LoRA adapter named `default` and makes it the only active one.
    ///
    /// The encoder is frozen: only adapters (and any Dense module) train from here on.
    ///
    /// ```no_run
    /// use burn::backend::{Autodiff, NdArray};
    /// use sentence_burn::{LoraConfig, SentenceTransformer, TaskType};
    ///
    /// let mut model =
    ///     SentenceTransformer::<Autodiff<NdArray>>::load("all-MiniLM-L6-v2", &Default::default())?;
    /// model.add_adapter(LoraConfig {
    ///     task_type: Some(TaskType::FeatureExtraction),
    ///     r: 64,
    ///     lora_alpha: 128.0,
    ///     lora_dropout: 0.1,
    ///     ..LoraConfig::default()
    /// })?;
    /// # Ok::<(), sentence_burn::Error>(())
    /// ```
    ///
    /// # Errors
    /// [`AdapterError`](crate::error::AdapterError) naming the field, the name or the
    /// targets that are wrong; the model is then as it was.
    pub fn add_adapter(&mut self, config: LoraConfig) -> Result<()> {
        self.add_named_adapter(DEFAULT_ADAPTER, config)
    }

    /// Adds a fresh LoRA adapter of any name and makes it the only active one.
    ///
    /// # Errors
    /// As [`add_adapter`](Self::add_adapter).
    pub fn add_named_adapter(&mut self, name: &str, mut config: LoraConfig) -> Result<()> {
        config.base_model_name_or_path = self.config.name_or_path.clone();
        config.revision = config.revision.or_else(|| self.config.revision.clone());
        let device = self.device();
        self.attach_adapter(name, config, true, |target, dims| {
            Ok(target.config.init(name, dims, &device))
        })
        .map(|_| ())
    }

    /// Adds an adapter from its configuration and tensors and makes it the only active
    /// one. Keys may have PEFT's prefix, and that of a model with a head, or none.
    ///
    /// `trainable` says whether it trains further; one that does not stays frozen
    /// whatever else is added or set.
    ///
    /// # Errors
    /// As [`add_adapter`](Self::add_adapter), and
    /// [`StateDictError`](crate::error::StateDictError) naming tensors that are missing or
    /// of another shape. The model is then as it was.
    pub fn add_adapter_with_weights(
        &mut self,
        name: &str,
        config: LoraConfig,
        tensors: StateDict,
        trainable: bool,
    ) -> Result<AdapterLoadReport> {
        let prefixes = self.config.encoder.head_prefixes();
        let mut tensors = tensors.rename(|key| Some(normalize_key(key, prefixes)));
        let device = self.device();
        let adapted_layers = self.attach_adapter(name, config, trainable, |target, dims| {
            let new = target.config;
            new.load(name, target.path, dims, &mut tensors, &device)
        })?;
        let unexpected: Vec<String> = tensors.keys().map(str::to_owned).collect();
        if let Some(first) = unexpected.first() {
            log::warn!(
                "adapter `{name}`: {} tensors belong to no adapted layer and are not used, the \
                 first is `{first}`",
                unexpected.len()
            );
        }
        Ok(AdapterLoadReport {
            adapted_layers,
            unexpected,
        })
    }

    /// Makes an adapter for every layer that the configuration targets, and only when all
    /// of them are made, puts them into the layers.
    fn attach_adapter(
        &mut self,
        name: &str,
        mut config: LoraConfig,
        trainable: bool,
        mut make: impl FnMut(NewAdapter<'_>, [usize; 2]) -> Result<LoraAdapter<B>>,
    ) -> Result<Vec<String>> {
        self.adapters.require_free(name)?;
        config.validate()?;
        let mut layers: Vec<(String, [usize; 2])> = Vec::new();
        self.for_each_linear(|path, layer| layers.push((path.to_owned(), layer.dims())));
        let paths: Vec<String> = layers.iter().map(|(path, _)| path.clone()).collect();
        let mut others = OtherPaths::default();
        self.visit_infallible(&mut others);
        let encoder = &self.config.encoder;
        let (defaults, model_type) = (encoder.default_lora_targets(), encoder.model_type());
        let targets = resolve_targets(&mut config, &paths, &others.0, defaults, model_type)?;
        let dims: BTreeMap<String, [usize; 2]> = layers.into_iter().collect();
        let mut made = BTreeMap::new();
        let mut missing: Option<(String, Vec<String>)> = None;
        for target in &targets {
            let new = NewAdapter {
                path: &target.path,
                config: LoraAdapterConfig::new(&config, target),
            };
            match make(new, dims[&target.path]) {
                Ok(adapter) => {
                    made.insert(target.path.clone(), adapter);
                }
                // Gather all that is missing, so that the error names it all.
                Err(Error::StateDict(StateDictError::Missing { owner, keys })) => {
                    missing.get_or_insert((owner, Vec::new())).1.extend(keys);
                }
                Err(error) => return Err(error),
            }
        }
        if let Some((owner, keys)) = missing {
            return Err(StateDictError::Missing { owner, keys }.into());
        }
        // Nothing can fail from here on.
        if self.adapters.is_empty() {
            self.set_encoder_trainable(false);
        }
        self.for_each_linear(|path, layer| {
            if let Some(adapter) = made.remove(path) {
                layer.add_adapter(adapter);
            }
        });
        self.adapters.add(name, config, trainable)?;
        self.apply_adapters();
        Ok(targets.into_iter().map(|target| target.path).collect())
    }

    /// The adapters that are active, in the order they were set.
    ///
    /// # Errors
    /// [`AdapterError::NoAdapter`](crate::error::AdapterError).
    pub fn active_adapters(&self) -> Result<Vec<String>> {
        self.adapters.require_any()?;
        Ok(self.adapters.active().to_vec())
    }

    /// Makes exactly these adapters active; several add up, none is the base model.
    ///
    /// # Errors
    /// [`AdapterError::NoAdapter`](crate::error::AdapterError) or
    /// [`AdapterError::UnknownName`](crate::error::AdapterError); nothing is changed.
    pub fn set_adapter<S: AsRef<str>>(&mut self, names: &[S]) -> Result<()> {
        self.adapters.set_active(names)?;
        self.apply_adapters();
        Ok(())
    }

    /// Lets the active adapters take part again.
    ///
    /// # Errors
    /// [`AdapterError::NoAdapter`](crate::error::AdapterError).
    pub fn enable_adapters(&mut self) -> Result<()> {
        self.adapters.set_enabled(true)?;
        self.apply_adapters();
        Ok(())
    }

    /// Leaves all adapters out: the base model, until
    /// [`enable_adapters`](Self::enable_adapters).
    ///
    /// # Errors
    /// [`AdapterError::NoAdapter`](crate::error::AdapterError).
    pub fn disable_adapters(&mut self) -> Result<()> {
        self.adapters.set_enabled(false)?;
        self.apply_adapters();
        Ok(())
    }

    /// The tensors of an adapter, or of the one active adapter, by the encoder's names:
    /// `encoder.layer.0.attention.self.query.lora_A.weight` and the like.
    ///
    /// # Errors
    /// [`AdapterError`](crate::error::AdapterError) where there is no such adapter, or not
    /// exactly one active.
    pub fn get_adapter_state_dict(&self, name: Option<&str>) -> Result<StateDict> {
        let entry = match name {
            Some(name) => self.adapters.get(name)?,
            None => self.adapters.only_active("get_adapter_state_dict")?,
        };
        let mut tensors = StateDict::new(format!("adapter `{}`", entry.name));
        let mut encoder = self.encoder.clone();
        let mut collect = CollectTensors(&mut tensors);
        encoder.visit_layers(&mut Linears(|path: &str, layer: &mut LoraLinear<B>| {
            layer.visit_adapter(&entry.name, path, &mut collect)
        }))?;
        Ok(tensors)
    }

    /// Removes adapters. The layers are then as if they had never had them; with the last
    /// adapter gone, the encoder is no longer frozen.
    ///
    /// # Errors
    /// [`AdapterError::NoAdapter`](crate::error::AdapterError) or
    /// [`AdapterError::UnknownName`](crate::error::AdapterError); nothing is changed.
    pub fn delete_adapter<S: AsRef<str>>(&mut self, names: &[S]) -> Result<()> {
        self.adapters.remove(names)?;
        self.for_each_linear(|_, layer| {
            for name in names {
                layer.remove_adapter(name.as_ref());
            }
        });
        if self.adapters.is_empty() {
            self.set_encoder_trainable(true);
        }
        self.apply_adapters();
        Ok(())
    }

    /// Folds the active adapters into the encoder's weights and removes all adapters: a
    /// plain model that embeds the same.
    ///
    /// # Errors
    /// [`AdapterError::NoAdapter`](crate::error::AdapterError).
    pub fn merge_and_unload(&mut self) -> Result<()> {
        self.adapters.require_any()?;
        self.for_each_linear(|_, layer| layer.merge_and_unload());
        self.adapters = AdapterRegistry::default();
        self.set_encoder_trainable(true);
        Ok(())
    }

    /// The model's adapters, and which of them are active.
    pub fn adapters(&self) -> &AdapterRegistry {
        &self.adapters
    }

    /// Tells the layers which adapters take part and which are trained.
    fn apply_adapters(&mut self) {
        let adapters = self.adapters.clone();
        self.for_each_linear(|_, layer| {
            layer.apply_adapters(|name| adapters.is_applied(name));
            layer.train_adapters(|name| adapters.is_trained(name));
        });
    }

    /// Says whether the Dense modules behind the encoder train.
    ///
    /// As in Python, they do unless told otherwise, also beside an adapter. They are saved
    /// in the adapter's folder then, and whoever loads only the adapter into the base model
    /// does not get them.
    pub fn set_modules_trainable(&mut self, trainable: bool) {
        for module in &mut self.modules {
            if let Err(error) = module.visit_params("", &mut SetTrainable(trainable)) {
                log::error!("a visitor that cannot fail failed: {error}");
            }
        }
    }

    fn set_encoder_trainable(&mut self, trainable: bool) {
        self.visit_infallible(&mut Params(SetTrainable(trainable)));
    }

    pub(super) fn for_each_linear(&mut self, mut run: impl FnMut(&str, &mut LoraLinear<B>)) {
        self.visit_infallible(&mut Linears(|path: &str, layer: &mut LoraLinear<B>| {
            run(path, layer);
            Ok(())
        }));
    }

    /// Walks a visitor that has no way to fail.
    fn visit_infallible<V: LayerVisitor<B>>(&mut self, visitor: &mut V) {
        if let Err(error) = self.encoder.visit_layers(visitor) {
            log::error!("a visitor that cannot fail failed: {error}");
        }
    }

    /// The device the model is on.
    pub fn device(&self) -> Device<B> {
        use burn::module::Module;
        self.encoder
            .devices()
            .into_iter()
            .next()
            .unwrap_or_default()
    }
}

/// The paths of the layers that are not linear.
#[derive(Default)]
struct OtherPaths(Vec<String>);

impl<B: Backend> LayerVisitor<B> for OtherPaths {
    fn linear(&mut self, _: &str, _: &mut LoraLinear<B>) -> Result<()> {
        Ok(())
    }

    fn embedding(&mut self, path: &str, _: &mut Embedding<B>) -> Result<()> {
        self.0.push(path.to_owned());
        Ok(())
    }

    fn layer_norm(&mut self, path: &str, _: &mut LayerNorm<B>) -> Result<()> {
        self.0.push(path.to_owned());
        Ok(())
    }

    fn rms_norm(&mut self, path: &str, _: &mut RmsNorm<B>) -> Result<()> {
        self.0.push(path.to_owned());
        Ok(())
    }
}

/// A layer that is about to get an adapter.
struct NewAdapter<'a> {
    path: &'a str,
    config: LoraAdapterConfig,
}
