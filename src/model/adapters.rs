use burn::tensor::{Device, backend::Backend};

use super::SentenceTransformer;
use crate::adapter::{
    AdapterEntry, AdapterLoadReport, AdapterRegistry, DEFAULT_ADAPTER, PeftConfig, normalize_key,
};
use crate::encoder::AdapterParams;
use crate::error::Result;
use crate::state_dict::{CollectTensors, SetTrainable, StateDict};
use crate::text::Prompts;

/// An adapter's weights on their way into a model.
#[derive(Debug, Clone)]
pub struct AdapterWeights {
    /// The adapter's name in the model.
    pub name: String,
    /// The tensors, by PEFT's keys with or without its prefix, or that of a model with a head.
    pub tensors: StateDict,
    /// Whether the adapter trains further; one that does not stays frozen whatever else is
    /// added or set.
    pub trainable: bool,
    /// Whether a missing tensor, or one of another shape, is an error; else the weight stays
    /// fresh and the report says so.
    pub strict: bool,
    /// Whether the adapter takes the place of the one of the same name.
    pub replace: bool,
    /// The prompts that come with the adapter, before the model's own of the same names.
    pub prompts: Option<Prompts>,
}

impl AdapterWeights {
    /// Weights for a frozen adapter of the name `default`, all of which must be there.
    pub fn new(tensors: StateDict) -> Self {
        Self {
            name: DEFAULT_ADAPTER.to_owned(),
            tensors,
            trainable: false,
            strict: true,
            replace: false,
            prompts: None,
        }
    }
}

impl<B: Backend> SentenceTransformer<B> {
    /// Adds a fresh adapter named `default` and makes it the only active one.
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
    pub fn add_adapter(&mut self, config: impl Into<PeftConfig>) -> Result<()> {
        self.add_named_adapter(DEFAULT_ADAPTER, config)
    }

    /// Adds a fresh adapter of any name and makes it the only active one.
    ///
    /// # Errors
    /// As [`add_adapter`](Self::add_adapter).
    pub fn add_named_adapter(&mut self, name: &str, config: impl Into<PeftConfig>) -> Result<()> {
        let mut config = config.into();
        let revision = config.revision().map(str::to_owned);
        config.set_base(
            self.config.name_or_path.clone(),
            revision.or_else(|| self.config.revision.clone()),
        );
        self.adapters.require_free(name)?;
        let (made, _) = self.make_adapter(name, &mut config, None)?;
        let entry = AdapterEntry {
            name: name.to_owned(),
            config,
            trainable: true,
            report: None,
        };
        self.attach_adapter(entry, made)
    }

    /// Adds an adapter from its configuration and tensors and makes it the only active one;
    /// one that takes another's place is active where that was.
    ///
    /// # Errors
    /// As [`add_adapter`](Self::add_adapter), and
    /// [`StateDictError`](crate::error::StateDictError) naming tensors that are missing or
    /// of another shape. The model is then as it was.
    pub fn add_adapter_with_weights(
        &mut self,
        config: impl Into<PeftConfig>,
        weights: AdapterWeights,
    ) -> Result<AdapterLoadReport> {
        let AdapterWeights {
            name,
            tensors,
            trainable,
            strict,
            replace,
            prompts,
        } = weights;
        match replace {
            true => self.adapters.get(&name).map(|_| ())?,
            false => self.adapters.require_free(&name)?,
        }
        let mut config = config.into();
        let prefixes = self.config.encoder.head_prefixes();
        let mut tensors = tensors.rename(|key| Some(normalize_key(key, prefixes)));
        let source = Some((&mut tensors, strict));
        let (made, keys) = self.make_adapter(&name, &mut config, source)?;
        let unexpected: Vec<String> = tensors.keys().map(str::to_owned).collect();
        let report = AdapterLoadReport {
            adapted_layers: made.keys().cloned().collect(),
            loaded: keys.loaded,
            missing: keys.missing,
            unexpected,
            mismatched: keys.mismatched,
        };
        warn_of_gaps(&name, &report);
        let entry = AdapterEntry {
            name: name.clone(),
            config,
            trainable,
            report: Some(report.clone()),
        };
        self.attach_adapter(entry, made)?;
        let of_adapters = &mut self.config_mut().adapters.prompts;
        match prompts {
            Some(prompts) => of_adapters.insert(name, prompts),
            None => of_adapters.remove(&name),
        };
        Ok(report)
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
        self.unmerge_for("set_adapter");
        self.apply_adapters();
        Ok(())
    }

    /// Lets the active adapters take part again.
    ///
    /// # Errors
    /// [`AdapterError::NoAdapter`](crate::error::AdapterError).
    pub fn enable_adapters(&mut self) -> Result<()> {
        self.adapters.set_enabled(true)?;
        self.unmerge_for("enable_adapters");
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
        self.unmerge_for("disable_adapters");
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
        encoder.visit_layers(&mut AdapterParams {
            name: &entry.name,
            prefix: "",
            visitor: CollectTensors(&mut tensors),
        })?;
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
        self.unmerge_for("delete_adapter");
        self.for_each_layer(|_, layer| {
            for name in names {
                layer.remove_adapter(name.as_ref());
            }
        });
        self.forget_adapters(|name| names.iter().any(|deleted| deleted.as_ref() == name));
        if self.adapters.is_empty() {
            self.set_encoder_trainable(true);
        }
        self.apply_adapters();
        Ok(())
    }

    /// What became of the tensors that an adapter was loaded from; `None` where it was not
    /// loaded but added.
    ///
    /// # Errors
    /// [`AdapterError::NoAdapter`](crate::error::AdapterError) or
    /// [`AdapterError::UnknownName`](crate::error::AdapterError).
    pub fn adapter_report(&self, name: &str) -> Result<Option<&AdapterLoadReport>> {
        Ok(self.adapters.get(name)?.report.as_ref())
    }

    /// The model's adapters, and which of them are active.
    pub fn adapters(&self) -> &AdapterRegistry {
        &self.adapters
    }

    /// Removes what the model keeps of adapters beside their weights.
    pub(super) fn forget_adapters(&mut self, is_forgotten: impl Fn(&str) -> bool) {
        let config = self.config_mut();
        config
            .adapters
            .prompts
            .retain(|name, _| !is_forgotten(name));
        for adapters in [&mut config.adapters.query, &mut config.adapters.document] {
            if adapters.iter().flatten().any(|name| is_forgotten(name)) {
                *adapters = None;
            }
        }
    }

    /// Says whether the modules behind the encoder train, those that have weights.
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

fn warn_of_gaps(name: &str, report: &AdapterLoadReport) {
    if let Some(first) = report.unexpected.first() {
        log::warn!(
            "adapter `{name}`: {} tensors belong to no adapted layer and are not used, the first \
             is `{first}`",
            report.unexpected.len()
        );
    }
    let mismatched = report.mismatched.iter().map(|mismatch| &mismatch.key);
    let fresh: Vec<&String> = report.missing.iter().chain(mismatched).collect();
    if let Some(first) = fresh.first() {
        log::warn!(
            "adapter `{name}`: {} weights were not loaded and are fresh, the first is `{first}`",
            fresh.len()
        );
    }
}
