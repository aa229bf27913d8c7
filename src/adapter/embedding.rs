use burn::module::{Initializer, Module, Param};
use burn::tensor::{Int, Tensor, backend::Backend};

use super::layer::{assign, copy_of, frozen, replace_or_push};
use super::pass::{NamedAdapter, activate, active, groups};
use super::{
    AdaptedLayer, LayerAdapter, LayerKind, LayerPlan, MergedLayer, Pass, Replaced, TableUpdate,
    TrainedTokens, UpdateConfig,
};
use crate::error::Result;
use crate::kernel::embed;
use crate::state_dict::ParamVisitor;

/// One adapter of one embedding table.
#[derive(Module, Debug)]
pub struct EmbeddingAdapter<B: Backend> {
    #[module(skip)]
    name: String,
    #[module(skip)]
    place: Option<usize>,
    update: Option<TableUpdate<B>>,
    tokens: Option<TrainedTokens<B>>,
    /// A table in place of the layer's own.
    weight: Option<Param<Tensor<B, 2>>>,
}

impl<B: Backend> NamedAdapter for EmbeddingAdapter<B> {
    fn name(&self) -> &str {
        &self.name
    }

    fn place(&self) -> Option<usize> {
        self.place
    }

    fn set_place(&mut self, place: Option<usize>) {
        self.place = place;
    }
}

impl<B: Backend> EmbeddingAdapter<B> {
    /// Visits the adapter's parameters, keyed behind the layer's path as in PEFT's files.
    ///
    /// # Errors
    /// The visitor's.
    pub fn visit_params<V: ParamVisitor<B>>(&mut self, path: &str, visitor: &mut V) -> Result<()> {
        if let Some(update) = &mut self.update {
            update.visit_params(path, visitor)?;
        }
        if let Some(tokens) = &mut self.tokens {
            tokens.visit_params(path, visitor)?;
        }
        match &mut self.weight {
            Some(weight) => visitor.visit(format!("{path}.weight"), weight),
            None => Ok(()),
        }
    }

    fn is_on_rows(&self) -> bool {
        self.update.is_some() || self.tokens.is_some()
    }
}

/// A table of embeddings that carries any number of named adapters.
#[derive(Module, Debug)]
pub struct AdaptedEmbedding<B: Backend> {
    /// `[entries, hidden]`
    weight: Param<Tensor<B, 2>>,
    adapters: Vec<EmbeddingAdapter<B>>,
    merged: Option<MergedEmbedding<B>>,
}

/// A table with adapters folded in.
#[derive(Module, Debug)]
pub struct MergedEmbedding<B: Backend> {
    weight: Param<Tensor<B, 2>>,
}

/// What is to be looked up in a table, for a sum of several ([`sum_lookups`]).
#[derive(Debug)]
pub enum Lookup<B: Backend> {
    /// The rows of a table.
    Table(Tensor<B, 2>, Tensor<B, 1, Int>),
    /// Rows that adapters have changed already.
    Rows(Tensor<B, 2>),
}

/// The sum of what is looked up in several tables.
///
/// # Shapes
/// - each: `[tokens]`
/// - output: `[tokens, hidden]`
pub fn sum_lookups<B: Backend>(lookups: Vec<Lookup<B>>) -> Tensor<B, 2> {
    let mut tables = Vec::new();
    let mut changed = Vec::new();
    for lookup in lookups {
        match lookup {
            Lookup::Table(table, ids) => tables.push((table, ids)),
            Lookup::Rows(rows) => changed.push(rows),
        }
    }
    let plain = (!tables.is_empty() || changed.is_empty()).then(|| embed(tables));
    let sum = plain
        .into_iter()
        .chain(changed)
        .reduce(|sum, rows| sum + rows);
    sum.unwrap_or_else(|| embed(Vec::new()))
}

impl<B: Backend> AdaptedEmbedding<B> {
    /// A fresh table, drawn when it is first used.
    pub fn init(entries: usize, hidden: usize, initializer_range: f64, device: &B::Device) -> Self {
        let weight = Initializer::Normal {
            mean: 0.0,
            std: initializer_range,
        };
        Self {
            weight: weight.init([entries, hidden], device),
            adapters: Vec::new(),
            merged: None,
        }
    }

    /// Looks up embeddings.
    ///
    /// # Shapes
    /// - ids: `[tokens]`, each below the number of entries
    /// - output: `[tokens, hidden]`
    pub fn forward(&self, ids: Tensor<B, 1, Int>, pass: Pass<'_>) -> Tensor<B, 2> {
        sum_lookups(vec![self.lookup(ids, pass)])
    }

    /// What to look up, for a sum of several ([`sum_lookups`]).
    pub fn lookup(&self, ids: Tensor<B, 1, Int>, pass: Pass<'_>) -> Lookup<B> {
        if let Some(merged) = &self.merged {
            return Lookup::Table(merged.weight.val(), ids);
        }
        let [tokens] = ids.dims();
        let groups = groups(&self.adapters, pass, tokens);
        if let [(_, adapters)] = &groups[..] {
            return match adapters.iter().any(|adapter| adapter.is_on_rows()) {
                true => Lookup::Rows(self.rows(ids, adapters)),
                false => Lookup::Table(self.table(adapters), ids),
            };
        }
        let parts = groups.into_iter().map(|(rows, adapters)| {
            self.rows(ids.clone().narrow(0, rows.start, rows.len()), &adapters)
        });
        Lookup::Rows(Tensor::cat(parts.collect(), 0))
    }

    /// The table that these adapters update: the layer's own, or the first adapter's that
    /// replaces it.
    fn table(&self, adapters: &[&EmbeddingAdapter<B>]) -> Tensor<B, 2> {
        let replaced = adapters.iter().find_map(|adapter| adapter.weight.as_ref());
        replaced.unwrap_or(&self.weight).val()
    }

    fn rows(&self, ids: Tensor<B, 1, Int>, adapters: &[&EmbeddingAdapter<B>]) -> Tensor<B, 2> {
        let table = self.table(adapters);
        let rows = embed(vec![(table.clone(), ids.clone())]);
        adapters.iter().fold(rows, |rows, adapter| {
            // Tokens' own rows stand under a low-rank update, as PEFT's wrapper does.
            let rows = match &adapter.tokens {
                Some(tokens) => tokens.apply(rows, ids.clone()),
                None => rows,
            };
            match &adapter.update {
                Some(update) => update.apply(rows, ids.clone(), &table),
                None => rows,
            }
        })
    }

    /// The low-rank update of the adapter of that name, if the table has one.
    pub fn table_update(&self, name: &str) -> Option<&TableUpdate<B>> {
        let adapter = self.adapters.iter().find(|adapter| adapter.name == name)?;
        adapter.update.as_ref()
    }

    /// The table's shape, `[entries, hidden]`.
    pub fn dims(&self) -> [usize; 2] {
        let shape = self.weight.lazy_shape();
        [shape[0], shape[1]]
    }

    /// Visits the table, keyed behind the layer's path.
    ///
    /// # Errors
    /// The visitor's.
    pub fn visit_params<V: ParamVisitor<B>>(&mut self, path: &str, visitor: &mut V) -> Result<()> {
        visitor.visit(format!("{path}.weight"), &mut self.weight)
    }

    /// Visits the parameters of the adapter of that name, if the layer has it, keyed behind
    /// the layer's path as in PEFT's files.
    ///
    /// # Errors
    /// The visitor's.
    pub fn visit_adapter<V: ParamVisitor<B>>(
        &mut self,
        name: &str,
        path: &str,
        visitor: &mut V,
    ) -> Result<()> {
        match self.adapters.iter_mut().find(|a| a.name == name) {
            Some(adapter) => adapter.visit_params(path, visitor),
            None => Ok(()),
        }
    }
}

impl<B: Backend> AdaptedLayer<B> for AdaptedEmbedding<B> {
    fn kind(&self) -> LayerKind {
        LayerKind::Embedding {
            entries: self.dims()[0],
        }
    }

    fn new_adapter(&self, name: &str, plan: &LayerPlan, _: bool) -> Result<LayerAdapter<B>> {
        let device = self.weight.lazy_device();
        Ok(LayerAdapter::Embedding(EmbeddingAdapter {
            name: name.to_owned(),
            place: None,
            update: match &plan.update {
                Some(UpdateConfig::Table(config)) => Some(config.init(self.dims(), &device)),
                _ => None,
            },
            tokens: plan
                .tokens
                .as_ref()
                .map(|tokens| TrainedTokens::new(tokens, &self.weight.val())),
            weight: (plan.replaced == Replaced::Everything).then(|| copy_of(&self.weight)),
        }))
    }

    fn init_magnitude(&self, adapter: &mut LayerAdapter<B>) {
        if let LayerAdapter::Embedding(EmbeddingAdapter {
            update: Some(update),
            ..
        }) = adapter
        {
            update.init_magnitude(&self.weight.val());
        }
    }

    fn add_adapter(&mut self, adapter: LayerAdapter<B>) {
        if let LayerAdapter::Embedding(adapter) = adapter {
            replace_or_push(&mut self.adapters, adapter);
        }
    }

    fn remove_adapter(&mut self, name: &str) {
        self.adapters.retain(|adapter| adapter.name != name);
    }

    fn activate_adapters(&mut self, active: &[String]) {
        activate(&mut self.adapters, active);
    }

    fn set_adapter_dropout(&mut self, _: f64) {}

    fn merge_adapters(&self) -> Option<MergedLayer<B>> {
        let adapters = active(&self.adapters);
        if adapters.is_empty() {
            return None;
        }
        let table = self.table(&adapters);
        let merged = adapters.iter().fold(table.clone(), |merged, adapter| {
            let merged = match &adapter.tokens {
                Some(tokens) => tokens.merge(merged),
                None => merged,
            };
            match &adapter.update {
                Some(update) => update.merge(merged, &table),
                None => merged,
            }
        });
        Some(MergedLayer::Embedding(MergedEmbedding {
            weight: frozen(merged),
        }))
    }

    fn set_merged(&mut self, merged: Option<MergedLayer<B>>) {
        self.merged = match merged {
            Some(MergedLayer::Embedding(merged)) => Some(merged),
            _ => None,
        };
    }

    fn unload(&mut self) {
        if let Some(merged) = self.merged.take() {
            assign(&mut self.weight, merged.weight);
        }
        self.adapters.clear();
    }
}

impl<B: Backend> MergedEmbedding<B> {
    /// Visits the folded table, keyed behind the layer's path.
    ///
    /// # Errors
    /// The visitor's.
    pub fn visit_params<V: ParamVisitor<B>>(&mut self, path: &str, visitor: &mut V) -> Result<()> {
        visitor.visit(format!("{path}.weight"), &mut self.weight)
    }
}
