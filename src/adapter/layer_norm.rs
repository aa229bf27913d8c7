use burn::module::{Initializer, Module, Param};
use burn::tensor::{Tensor, backend::Backend};

use super::layer::{assign, copy_of, frozen, replace_or_push};
use super::pass::{NamedAdapter, activate, active, groups};
use super::{AdaptedLayer, LayerAdapter, LayerKind, LayerPlan, MergedLayer, Pass, Replaced};
use crate::error::Result;
use crate::kernel::{LayerNormParams, add_layer_norm, layer_norm};
use crate::state_dict::ParamVisitor;

/// One adapter of one layer norm: parameters in place of its own.
#[derive(Module, Debug)]
pub struct LayerNormAdapter<B: Backend> {
    #[module(skip)]
    name: String,
    #[module(skip)]
    place: Option<usize>,
    weight: Option<Param<Tensor<B, 1>>>,
    bias: Option<Param<Tensor<B, 1>>>,
}

impl<B: Backend> NamedAdapter for LayerNormAdapter<B> {
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

impl<B: Backend> LayerNormAdapter<B> {
    /// Visits the adapter's parameters, keyed behind the layer's path as in PEFT's files.
    ///
    /// # Errors
    /// The visitor's.
    pub fn visit_params<V: ParamVisitor<B>>(&mut self, path: &str, visitor: &mut V) -> Result<()> {
        if let Some(weight) = &mut self.weight {
            visitor.visit(format!("{path}.weight"), weight)?;
        }
        match &mut self.bias {
            Some(bias) => visitor.visit(format!("{path}.bias"), bias),
            None => Ok(()),
        }
    }
}

/// Layer normalisation with the epsilon of the model's configuration, which carries any
/// number of named adapters.
#[derive(Module, Debug)]
pub struct AdaptedLayerNorm<B: Backend> {
    /// `[hidden]`
    weight: Param<Tensor<B, 1>>,
    /// `[hidden]`
    bias: Option<Param<Tensor<B, 1>>>,
    #[module(skip)]
    epsilon: f64,
    adapters: Vec<LayerNormAdapter<B>>,
    merged: Option<MergedLayerNorm<B>>,
}

/// A norm's weight, and its bias where it has one.
type Chosen<'a, B> = (&'a Param<Tensor<B, 1>>, Option<&'a Param<Tensor<B, 1>>>);

/// A layer norm's parameters with adapters folded in.
#[derive(Module, Debug)]
pub struct MergedLayerNorm<B: Backend> {
    weight: Param<Tensor<B, 1>>,
    bias: Option<Param<Tensor<B, 1>>>,
}

impl<B: Backend> AdaptedLayerNorm<B> {
    /// A fresh norm: weight 1, bias 0.
    pub fn init(hidden: usize, epsilon: f64, device: &B::Device) -> Self {
        Self {
            weight: Initializer::Ones.init([hidden], device),
            bias: Some(Initializer::Zeros.init([hidden], device)),
            epsilon,
            adapters: Vec::new(),
            merged: None,
        }
    }

    /// A fresh norm that adds no bias: weight 1.
    pub fn init_without_bias(hidden: usize, epsilon: f64, device: &B::Device) -> Self {
        Self {
            bias: None,
            ..Self::init(hidden, epsilon, device)
        }
    }

    /// Normalises each token.
    ///
    /// # Shapes
    /// - input: `[tokens, hidden]`
    /// - output: `[tokens, hidden]`
    pub fn forward(&self, input: Tensor<B, 2>, pass: Pass<'_>) -> Tensor<B, 2> {
        self.by_group(input, None, pass, |input, _, params| {
            layer_norm(input, params)
        })
    }

    /// Normalises the sum of a residual connection: `norm(dropout(input) + residual)`.
    ///
    /// # Shapes
    /// - input, residual: `[tokens, hidden]`
    /// - output: `[tokens, hidden]`
    pub fn forward_residual(
        &self,
        input: Tensor<B, 2>,
        residual: Tensor<B, 2>,
        dropout: f64,
        pass: Pass<'_>,
    ) -> Tensor<B, 2> {
        self.by_group(input, Some(residual), pass, |input, residual, params| {
            add_layer_norm(input, residual, params, dropout, pass.mode)
        })
    }

    /// Runs on tokens of the same adapters at a time, and on all at once where that is all
    /// the same.
    fn by_group(
        &self,
        input: Tensor<B, 2>,
        residual: Option<Tensor<B, 2>>,
        pass: Pass<'_>,
        run: impl Fn(Tensor<B, 2>, Option<Tensor<B, 2>>, LayerNormParams<B>) -> Tensor<B, 2>,
    ) -> Tensor<B, 2> {
        let [tokens, _] = input.dims();
        let groups = groups(&self.adapters, pass, tokens);
        if let [(_, adapters)] = &groups[..] {
            return run(input, residual, self.params(adapters));
        }
        let parts = groups.into_iter().map(|(rows, adapters)| {
            let part = |tensor: Tensor<B, 2>| tensor.narrow(0, rows.start, rows.len());
            let residual = residual.clone().map(part);
            run(part(input.clone()), residual, self.params(&adapters))
        });
        Tensor::cat(parts.collect(), 0)
    }

    /// The weight and bias of the first adapter that replaces them, or the norm's own.
    fn chosen<'a>(&'a self, adapters: &[&'a LayerNormAdapter<B>]) -> Chosen<'a, B> {
        if let Some(merged) = &self.merged {
            return (&merged.weight, merged.bias.as_ref());
        }
        let weight = adapters.iter().find_map(|adapter| adapter.weight.as_ref());
        let bias = adapters.iter().find_map(|adapter| adapter.bias.as_ref());
        (weight.unwrap_or(&self.weight), bias.or(self.bias.as_ref()))
    }

    fn params(&self, adapters: &[&LayerNormAdapter<B>]) -> LayerNormParams<B> {
        let (weight, bias) = self.chosen(adapters);
        let weight = weight.val();
        LayerNormParams {
            bias: match bias {
                Some(bias) => bias.val(),
                None => weight.zeros_like(),
            },
            weight,
            epsilon: self.epsilon,
        }
    }

    /// Visits the norm's own parameters, keyed behind the layer's path.
    ///
    /// # Errors
    /// The visitor's.
    pub fn visit_params<V: ParamVisitor<B>>(&mut self, path: &str, visitor: &mut V) -> Result<()> {
        visitor.visit(format!("{path}.weight"), &mut self.weight)?;
        match &mut self.bias {
            Some(bias) => visitor.visit(format!("{path}.bias"), bias),
            None => Ok(()),
        }
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

impl<B: Backend> AdaptedLayer<B> for AdaptedLayerNorm<B> {
    fn kind(&self) -> LayerKind {
        LayerKind::LayerNorm
    }

    fn new_adapter(&self, name: &str, plan: &LayerPlan, _: bool) -> Result<LayerAdapter<B>> {
        Ok(LayerAdapter::LayerNorm(LayerNormAdapter {
            name: name.to_owned(),
            place: None,
            weight: (plan.replaced == Replaced::Everything).then(|| copy_of(&self.weight)),
            bias: match plan.replaced {
                Replaced::Nothing => None,
                Replaced::Bias | Replaced::Everything => self.bias.as_ref().map(copy_of),
            },
        }))
    }

    fn init_magnitude(&self, _: &mut LayerAdapter<B>) {}

    fn add_adapter(&mut self, adapter: LayerAdapter<B>) {
        if let LayerAdapter::LayerNorm(adapter) = adapter {
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
        let (weight, bias) = self.chosen(&adapters);
        Some(MergedLayer::LayerNorm(MergedLayerNorm {
            weight: frozen(weight.val()),
            bias: bias.map(|bias| frozen(bias.val())),
        }))
    }

    fn set_merged(&mut self, merged: Option<MergedLayer<B>>) {
        self.merged = match merged {
            Some(MergedLayer::LayerNorm(merged)) => Some(merged),
            _ => None,
        };
    }

    fn unload(&mut self) {
        if let Some(merged) = self.merged.take() {
            assign(&mut self.weight, merged.weight);
            if let (Some(own), Some(bias)) = (&mut self.bias, merged.bias) {
                assign(own, bias);
            }
        }
        self.adapters.clear();
    }
}

impl<B: Backend> MergedLayerNorm<B> {
    /// Visits the folded parameters, keyed behind the layer's path.
    ///
    /// # Errors
    /// The visitor's.
    pub fn visit_params<V: ParamVisitor<B>>(&mut self, path: &str, visitor: &mut V) -> Result<()> {
        visitor.visit(format!("{path}.weight"), &mut self.weight)?;
        match &mut self.bias {
            Some(bias) => visitor.visit(format!("{path}.bias"), bias),
            None => Ok(()),
        }
    }
}
