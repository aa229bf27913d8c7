use burn::module::{Initializer, Module, Param};
use burn::tensor::{Tensor, backend::Backend};

use super::layer::{assign, copy_of, frozen, replace_or_push};
use super::pass::{NamedAdapter, activate, active, groups};
use super::{AdaptedLayer, LayerAdapter, LayerKind, LayerPlan, MergedLayer, Pass, Replaced};
use crate::error::Result;
use crate::kernel::{RmsNormParams, rms_norm};
use crate::state_dict::ParamVisitor;

/// What a model's root-mean-square norms have in common.
#[derive(Debug, Clone, Copy)]
pub struct RmsNormConfig {
    /// What is added to the mean square.
    pub epsilon: f64,
    /// What is added to the weight: 0, or 1 in Gemma's, whose weights begin at 0.
    pub offset: f64,
}

impl RmsNormConfig {
    /// A fresh norm: its factors are 1.
    pub fn init<B: Backend>(&self, hidden: usize, device: &B::Device) -> AdaptedRmsNorm<B> {
        let weight = Initializer::Constant {
            value: 1.0 - self.offset,
        };
        AdaptedRmsNorm {
            weight: weight.init([hidden], device),
            epsilon: self.epsilon,
            offset: self.offset,
            adapters: Vec::new(),
            merged: None,
        }
    }
}

/// One adapter of one root-mean-square norm: a weight in place of its own.
#[derive(Module, Debug)]
pub struct RmsNormAdapter<B: Backend> {
    #[module(skip)]
    name: String,
    #[module(skip)]
    place: Option<usize>,
    weight: Option<Param<Tensor<B, 1>>>,
}

impl<B: Backend> NamedAdapter for RmsNormAdapter<B> {
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

impl<B: Backend> RmsNormAdapter<B> {
    /// Visits the adapter's parameters, keyed behind the layer's path as in PEFT's files.
    ///
    /// # Errors
    /// The visitor's.
    pub fn visit_params<V: ParamVisitor<B>>(&mut self, path: &str, visitor: &mut V) -> Result<()> {
        match &mut self.weight {
            Some(weight) => visitor.visit(format!("{path}.weight"), weight),
            None => Ok(()),
        }
    }
}

/// Root-mean-square normalisation that carries any number of named adapters.
#[derive(Module, Debug)]
pub struct AdaptedRmsNorm<B: Backend> {
    /// `[hidden]`
    weight: Param<Tensor<B, 1>>,
    #[module(skip)]
    epsilon: f64,
    #[module(skip)]
    offset: f64,
    adapters: Vec<RmsNormAdapter<B>>,
    merged: Option<MergedRmsNorm<B>>,
}

/// A root-mean-square norm's weight with adapters folded in.
#[derive(Module, Debug)]
pub struct MergedRmsNorm<B: Backend> {
    weight: Param<Tensor<B, 1>>,
}

impl<B: Backend> AdaptedRmsNorm<B> {
    /// Normalises each row, of which each token has the same number.
    ///
    /// # Shapes
    /// - input: `[rows, hidden]`
    /// - output: `[rows, hidden]`
    pub fn forward(&self, input: Tensor<B, 2>, pass: Pass<'_>) -> Tensor<B, 2> {
        let [rows, _] = input.dims();
        let tokens = pass
            .routes
            .and_then(|routes| Some(routes.last()?.tokens.end));
        let groups = groups(&self.adapters, pass, tokens.unwrap_or(rows));
        if let [(_, adapters)] = &groups[..] {
            return rms_norm(input, self.params(adapters));
        }
        // A token's heads are normed by themselves, and are rows of their own.
        let each = rows / tokens.unwrap_or(rows).max(1);
        let parts = groups.into_iter().map(|(tokens, adapters)| {
            let part = input
                .clone()
                .narrow(0, tokens.start * each, tokens.len() * each);
            rms_norm(part, self.params(&adapters))
        });
        Tensor::cat(parts.collect(), 0)
    }

    /// The parameters of the first adapter that replaces them, or the norm's own.
    fn params(&self, adapters: &[&RmsNormAdapter<B>]) -> RmsNormParams<B> {
        let replaced = || adapters.iter().find_map(|a| a.weight.as_ref());
        let weight = match &self.merged {
            Some(merged) => &merged.weight,
            None => replaced().unwrap_or(&self.weight),
        };
        RmsNormParams {
            weight: weight.val(),
            offset: self.offset,
            epsilon: self.epsilon,
        }
    }

    /// Visits the norm's own weight, keyed behind the layer's path.
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

impl<B: Backend> AdaptedLayer<B> for AdaptedRmsNorm<B> {
    fn kind(&self) -> LayerKind {
        LayerKind::RmsNorm
    }

    fn new_adapter(&self, name: &str, plan: &LayerPlan, _: bool) -> Result<LayerAdapter<B>> {
        Ok(LayerAdapter::RmsNorm(RmsNormAdapter {
            name: name.to_owned(),
            place: None,
            weight: (plan.replaced == Replaced::Everything).then(|| copy_of(&self.weight)),
        }))
    }

    fn init_magnitude(&self, _: &mut LayerAdapter<B>) {}

    fn add_adapter(&mut self, adapter: LayerAdapter<B>) {
        if let LayerAdapter::RmsNorm(adapter) = adapter {
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
        let weight = frozen(self.params(&adapters).weight);
        Some(MergedLayer::RmsNorm(MergedRmsNorm { weight }))
    }

    fn set_merged(&mut self, merged: Option<MergedLayer<B>>) {
        self.merged = match merged {
            Some(MergedLayer::RmsNorm(merged)) => Some(merged),
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

impl<B: Backend> MergedRmsNorm<B> {
    /// Visits the folded weight, keyed behind the layer's path.
    ///
    /// # Errors
    /// The visitor's.
    pub fn visit_params<V: ParamVisitor<B>>(&mut self, path: &str, visitor: &mut V) -> Result<()> {
        visitor.visit(format!("{path}.weight"), &mut self.weight)
    }
}
