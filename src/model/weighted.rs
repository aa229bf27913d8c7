use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::TensorData;
use burn::tensor::backend::Backend;

use super::SentenceTransformer;
use crate::adapter::combination::{
    Combination, CombinationOptions, LayerFactors, WeightedCombination,
};
use crate::adapter::{
    AdaptedEmbedding, AdaptedLayerNorm, AdaptedLinear, AdaptedRmsNorm, AdapterEntry, Bias,
    Ia3Config, InitLoraWeights, LayerKind, LoraConfig, LowRank, ModuleNames, PeftConfig,
};
use crate::encoder::LayerVisitor;
use crate::error::{AdapterError, Error, Result};
use crate::state_dict::StateDict;

impl<B: Backend> SentenceTransformer<B> {
    /// Adds an adapter that combines others, each with a weight, which may be negative
    /// (PEFT's `add_weighted_adapter`). It is frozen, and what is active stays so.
    ///
    /// The scales of the adapters are part of what is combined: the new one's scale is 1,
    /// whatever those of the others are. IA³ adapters are combined too: their vectors are
    /// summed, and `combination` does not count.
    ///
    /// # Errors
    /// [`AdapterError`] where the name is taken, where an adapter holds what cannot be
    /// combined (DoRA, biases, modules saved in full, trained tokens), where the types, the
    /// ranks or an option do not suit; the model is then as it was.
    pub fn add_weighted_adapter(
        &mut self,
        adapters: &[(&str, f64)],
        name: &str,
        combination: Combination,
        options: CombinationOptions,
    ) -> Result<()> {
        self.adapters.require_free(name)?;
        self.adapters.require_any()?;
        let entries = adapters
            .iter()
            .map(|(name, _)| self.adapters.get(name).cloned());
        let entries = entries.collect::<Result<Vec<_>>>()?;
        let weights: Vec<f64> = adapters.iter().map(|&(_, weight)| weight).collect();
        let (mut config, mut tensors) = match entries.first().map(|entry| &entry.config) {
            Some(PeftConfig::Ia3(_)) => self.combine_ia3(&entries, &weights)?,
            _ => self.combine_lora(&entries, &weights, combination, options)?,
        };
        let (made, _) = self.make_adapter(name, &mut config, Some((&mut tensors, true)))?;
        let active = self.adapters.active().to_vec();
        let entry = AdapterEntry {
            name: name.to_owned(),
            config,
            trainable: false,
            report: None,
        };
        self.attach_adapter(entry, made)?;
        self.set_adapter(&active)
    }

    fn combine_lora(
        &self,
        entries: &[AdapterEntry],
        weights: &[f64],
        combination: Combination,
        options: CombinationOptions,
    ) -> Result<(PeftConfig, StateDict)> {
        let mut plain = self.clone();
        let mut configs = Vec::new();
        for entry in entries {
            configs.push(combinable(entry)?);
            plain.convert_to_plain_lora(&entry.name)?;
        }
        let mut factors = entries
            .iter()
            .map(|entry| plain.factors_of(&entry.name))
            .collect::<Result<Vec<_>>>()?;
        let largest = |layers: &BTreeMap<String, LayerFactors>| {
            let ranks = layers.values().map(|layer| layer.factors.r());
            ranks.max().unwrap_or(0)
        };
        let ranks: Vec<usize> = factors.iter().map(largest).collect();
        let mut combined = WeightedCombination::new(combination, weights, &ranks, options)?;
        let mut tensors = StateDict::new("the combined adapters");
        let paths: BTreeSet<String> = factors.iter().flat_map(|f| f.keys().cloned()).collect();
        let sites = plain.layer_sites();
        let is_table = |path: &str| {
            let site = sites.iter().find(|site| site.path == path);
            site.is_some_and(|site| matches!(site.kind, LayerKind::Embedding { .. }))
        };
        let r = combined.r();
        for path in &paths {
            let parts: Vec<Option<LayerFactors>> = factors
                .iter_mut()
                .map(|layers| layers.remove(path))
                .collect();
            let layer = combined.combine(path, &parts)?;
            let [a, b] = match is_table(path) {
                true => ["lora_embedding_A", "lora_embedding_B"],
                false => ["lora_A.weight", "lora_B.weight"],
            };
            for (key, matrix) in [(a, layer.a()), (b, layer.b())] {
                let data = TensorData::new(matrix.values().to_vec(), matrix.shape());
                tensors.insert(format!("{path}.{key}"), data);
            }
        }
        let config = LoraConfig {
            r,
            lora_alpha: r as f64,
            target_modules: union(configs.iter().map(|config| config.target_modules.as_ref()))?,
            base_model_name_or_path: self.config.name_or_path.clone(),
            revision: self.config.revision.clone(),
            task_type: configs.first().and_then(|config| config.task_type),
            init_lora_weights: InitLoraWeights::default(),
            inference_mode: true,
            ..LoraConfig::default()
        };
        let mut config = PeftConfig::from(config);
        plain.target_exactly(&mut config, &paths)?;
        Ok((config, tensors))
    }

    /// The sum of IA³ vectors, of those adapters that have the layer.
    fn combine_ia3(
        &self,
        entries: &[AdapterEntry],
        weights: &[f64],
    ) -> Result<(PeftConfig, StateDict)> {
        let mut sums: BTreeMap<String, TensorData> = BTreeMap::new();
        let mut configs: Vec<&Ia3Config> = Vec::new();
        for (entry, &weight) in entries.iter().zip(weights) {
            let PeftConfig::Ia3(config) = &entry.config else {
                return Err(not_combinable(entry, "another type than the first"));
            };
            if config
                .modules_to_save
                .as_ref()
                .is_some_and(|m| !m.is_empty())
            {
                return Err(not_combinable(entry, "modules saved in full"));
            }
            configs.push(config);
            for (key, vector) in self.get_adapter_state_dict(Some(&entry.name))?.iter() {
                let weighted = vector.iter::<f64>().map(|value| (value * weight) as f32);
                let weighted: Vec<f32> = weighted.collect();
                let sum = match sums.get(key) {
                    None => weighted,
                    Some(sum) if sum.shape == vector.shape => sum
                        .iter::<f32>()
                        .zip(weighted)
                        .map(|(a, b)| a + b)
                        .collect(),
                    Some(_) => {
                        let holds = format!("`{key}` on the other side of the layer");
                        return Err(not_combinable(entry, &holds));
                    }
                };
                sums.insert(key.to_owned(), TensorData::new(sum, vector.shape.clone()));
            }
        }
        let mut tensors = StateDict::new("the combined adapters");
        let mut paths = BTreeSet::new();
        for (key, sum) in sums {
            paths.insert(key.trim_end_matches(".ia3_l").to_owned());
            tensors.insert(key, sum);
        }
        let mut config = PeftConfig::from(Ia3Config {
            target_modules: union(configs.iter().map(|config| config.target_modules.as_ref()))?,
            feedforward_modules: union(
                configs
                    .iter()
                    .map(|config| config.feedforward_modules.as_ref()),
            )?,
            base_model_name_or_path: self.config.name_or_path.clone(),
            revision: self.config.revision.clone(),
            task_type: configs.first().and_then(|config| config.task_type),
            inference_mode: true,
            ..Ia3Config::default()
        });
        self.clone().target_exactly(&mut config, &paths)?;
        Ok((config, tensors))
    }

    /// Names the layers one by one where the configuration means others than these.
    fn target_exactly(&mut self, config: &mut PeftConfig, paths: &BTreeSet<String>) -> Result<()> {
        let plan = self.plan(&mut config.clone())?;
        if !plan.keys().eq(paths) {
            config.set_target_modules(ModuleNames::List(paths.iter().cloned().collect()));
        }
        Ok(())
    }

    /// The low-rank updates of an adapter by layer.
    fn factors_of(&mut self, name: &str) -> Result<BTreeMap<String, LayerFactors>> {
        let mut visitor = Factors {
            name,
            layers: BTreeMap::new(),
            not_plain: None,
        };
        self.encoder.visit_layers(&mut visitor)?;
        match visitor.not_plain {
            None => Ok(visitor.layers),
            Some(path) => Err(AdapterError::NotCombinable {
                name: name.to_owned(),
                holds: format!("more than A and B in `{path}`"),
            }
            .into()),
        }
    }
}

/// The LoRA configuration of an adapter that can be combined with others.
fn combinable(entry: &AdapterEntry) -> Result<&LoraConfig> {
    let Some(config) = entry.config.as_lora() else {
        return Err(not_combinable(entry, "another type than LoRA"));
    };
    let has_modules = config
        .modules_to_save
        .as_ref()
        .is_some_and(|m| !m.is_empty());
    for (holds, what) in [
        (config.use_dora, "DoRA's magnitudes"),
        (config.lora_bias, "biases of B"),
        (config.bias != Bias::None, "biases of the base"),
        (has_modules, "modules saved in full"),
        (config.trainable_token_indices.is_some(), "trained tokens"),
    ] {
        if holds {
            return Err(not_combinable(entry, what));
        }
    }
    Ok(config)
}

fn not_combinable(entry: &AdapterEntry, holds: &str) -> Error {
    AdapterError::NotCombinable {
        name: entry.name.clone(),
        holds: holds.to_owned(),
    }
    .into()
}

/// The names of all of them: one list, or one expression.
fn union<'a>(names: impl Iterator<Item = Option<&'a ModuleNames>>) -> Result<Option<ModuleNames>> {
    let mut list: BTreeSet<String> = BTreeSet::new();
    let mut patterns: Vec<String> = Vec::new();
    for names in names.flatten() {
        match names {
            ModuleNames::List(names) => list.extend(names.iter().cloned()),
            ModuleNames::Pattern(pattern) => patterns.push(format!("({pattern})")),
        }
    }
    match (list.is_empty(), patterns.is_empty()) {
        (true, true) => Ok(None),
        (false, true) => Ok(Some(ModuleNames::List(list.into_iter().collect()))),
        (true, false) => Ok(Some(ModuleNames::Pattern(patterns.join("|")))),
        (false, false) => Err(AdapterError::InvalidField {
            field: "target_modules".to_owned(),
            expected: "lists alone or expressions alone in adapters to combine".to_owned(),
            found: "both".to_owned(),
        }
        .into()),
    }
}

/// Gathers an adapter's low-rank updates.
struct Factors<'a> {
    name: &'a str,
    layers: BTreeMap<String, LayerFactors>,
    /// A layer whose update is more than A and B.
    not_plain: Option<String>,
}

impl Factors<'_> {
    fn insert(&mut self, path: &str, is_plain: bool, (factors, scaling): (LowRank, f64)) {
        if !is_plain {
            self.not_plain.get_or_insert_with(|| path.to_owned());
        }
        let layer = LayerFactors { factors, scaling };
        self.layers.insert(path.to_owned(), layer);
    }
}

impl<B: Backend> LayerVisitor<B> for Factors<'_> {
    fn linear(&mut self, path: &str, layer: &mut AdaptedLinear<B>) -> Result<()> {
        if let Some(update) = layer.low_rank(self.name) {
            self.insert(path, update.is_plain(), update.factors());
        }
        Ok(())
    }

    fn embedding(&mut self, path: &str, layer: &mut AdaptedEmbedding<B>) -> Result<()> {
        if let Some(update) = layer.table_update(self.name) {
            self.insert(path, update.is_plain(), update.factors());
        }
        Ok(())
    }

    fn layer_norm(&mut self, _: &str, _: &mut AdaptedLayerNorm<B>) -> Result<()> {
        Ok(())
    }

    fn rms_norm(&mut self, _: &str, _: &mut AdaptedRmsNorm<B>) -> Result<()> {
        Ok(())
    }
}
