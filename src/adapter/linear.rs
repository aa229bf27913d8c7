use burn::module::{Initializer, Module, Param};
use burn::tensor::{Tensor, backend::Backend};

use super::layer::{assign, copy_of, replace_or_push};
use super::pass::{activate, active, groups};
use super::{
    AdaptedLayer, InputRecorder, LayerAdapter, LayerKind, LayerPlan, LinearAdapter, LinearUpdate,
    LowRankUpdate, MergedLayer, MergedLinear, Pass, Replaced, UpdateConfig,
};
use crate::error::Result;
use crate::kernel::{Activation, LinearParams, Mode, PackedWeight, linear};
use crate::state_dict::ParamVisitor;

/// A linear layer's size: the configuration of [`AdaptedLinear`].
#[derive(Debug, Clone, Copy)]
pub struct AdaptedLinearConfig {
    /// The size of the input features.
    pub d_input: usize,
    /// The size of the output features.
    pub d_output: usize,
    /// Whether a bias is added.
    pub bias: bool,
    /// The deviation of a fresh layer's weight.
    pub initializer_range: f64,
}

impl AdaptedLinearConfig {
    /// A fresh layer without adapters. Its weight is drawn when it is first used.
    pub fn init<B: Backend>(&self, device: &B::Device) -> AdaptedLinear<B> {
        let weight = Initializer::Normal {
            mean: 0.0,
            std: self.initializer_range,
        };
        AdaptedLinear {
            weight: weight.init([self.d_output, self.d_input], device),
            bias: self
                .bias
                .then(|| Initializer::Zeros.init([self.d_output], device)),
            packed: PackedWeight::default(),
            adapters: Vec::new(),
            merged: None,
            recorder: None,
        }
    }
}

/// A linear layer that carries any number of named adapters.
///
/// With LoRA adapters alone: `y = x · Wᵀ + b + Σ sᵢ · Bᵢ(Aᵢ(dropoutᵢ(x)))`.
#[derive(Module, Debug)]
pub struct AdaptedLinear<B: Backend> {
    /// `[d_output, d_input]`, as Hugging Face's files hold it.
    weight: Param<Tensor<B, 2>>,
    /// `[d_output]`
    bias: Option<Param<Tensor<B, 1>>>,
    #[module(skip)]
    packed: PackedWeight,
    adapters: Vec<LinearAdapter<B>>,
    merged: Option<MergedLinear<B>>,
    /// Where the layer's inputs are written down, while someone asks for them.
    #[module(skip)]
    recorder: Option<InputRecorder>,
}

impl<B: Backend> AdaptedLinear<B> {
    /// Applies the layer and its adapters.
    ///
    /// # Shapes
    /// - input: `[tokens, d_input]`
    /// - output: `[tokens, d_output]`
    pub fn forward(&self, input: Tensor<B, 2>, pass: Pass<'_>) -> Tensor<B, 2> {
        self.forward_activated(input, Activation::Identity, pass)
    }

    /// Applies the layer, its adapters, and an activation behind them.
    ///
    /// # Shapes
    /// - input: `[tokens, d_input]`
    /// - output: `[tokens, d_output]`
    pub fn forward_activated(
        &self,
        input: Tensor<B, 2>,
        activation: Activation,
        pass: Pass<'_>,
    ) -> Tensor<B, 2> {
        if let Some(recorder) = &self.recorder {
            recorder.record(&input);
        }
        if let Some(merged) = &self.merged {
            let params = LinearParams {
                weight: merged.weight.val(),
                bias: merged.bias.as_ref().map(|bias| bias.val()),
                packed: &merged.packed,
            };
            return linear(input, params, Vec::new(), activation, pass.mode);
        }
        let [tokens, _] = input.dims();
        let groups = groups(&self.adapters, pass, tokens);
        if let [(_, adapters)] = &groups[..] {
            return self.forward_group(input, adapters, activation, pass.mode);
        }
        // One product of all tokens, if what differs between them can be added to it.
        let all_sums = groups.iter().flat_map(|(_, adapters)| adapters);
        let has_bias = |update: &LowRankUpdate<B>| update.scaled_bias().is_some();
        if all_sums
            .clone()
            .all(|a| a.sum().is_some_and(|update| !has_bias(update)))
        {
            let mut updates = Vec::new();
            for (rows, adapters) in &groups {
                for update in adapters.iter().filter_map(|adapter| adapter.sum()) {
                    updates.push(update.params(Some(rows.clone())));
                }
            }
            return linear(input, self.params(&[]), updates, activation, pass.mode);
        }
        let parts = groups.into_iter().map(|(rows, adapters)| {
            let part = input.clone().narrow(0, rows.start, rows.len());
            self.forward_group(part, &adapters, activation, pass.mode)
        });
        Tensor::cat(parts.collect(), 0)
    }

    /// Applies the layer and these adapters to all of the input.
    fn forward_group(
        &self,
        input: Tensor<B, 2>,
        adapters: &[&LinearAdapter<B>],
        activation: Activation,
        mode: Mode,
    ) -> Tensor<B, 2> {
        let mut params = self.params(adapters);
        if adapters.iter().all(|adapter| match &adapter.update {
            Some(LinearUpdate::LowRank(update)) => update.is_sum(),
            Some(_) => false,
            None => true,
        }) {
            let updates = || adapters.iter().filter_map(|adapter| adapter.low_rank());
            for bias in updates().filter_map(LowRankUpdate::scaled_bias) {
                params.bias = Some(match params.bias {
                    Some(sum) => sum + bias,
                    None => bias,
                });
            }
            let updates = updates().map(|update| update.params(None)).collect();
            return linear(input, params, updates, activation, mode);
        }
        let input = adapters
            .iter()
            .fold(input, |input, adapter| match &adapter.update {
                Some(LinearUpdate::Rescale(rescale)) => rescale.scale_input(input),
                _ => input,
            });
        let (weight, bias) = (params.weight.clone(), params.bias.clone());
        let output = linear(
            input.clone(),
            params,
            Vec::new(),
            Activation::Identity,
            mode,
        );
        let output = adapters.iter().fold(output, |output, adapter| {
            let delta = match &adapter.update {
                None => return output,
                Some(LinearUpdate::Rescale(rescale)) => return rescale.scale_output(output),
                Some(LinearUpdate::LowRank(update)) => {
                    let (weight, bias) = (weight.clone(), bias.clone());
                    return update.apply(output, input.clone(), weight, bias, mode);
                }
                Some(LinearUpdate::Hadamard(update)) => update.dropped_delta(mode),
                Some(LinearUpdate::Kronecker(update)) => update.dropped_delta(mode),
            };
            match delta {
                Some(delta) => output + input.clone().matmul(delta.transpose()),
                None => output,
            }
        });
        activation.forward(output)
    }

    /// The weight and bias that these adapters update: the layer's own, or the first
    /// adapter's that replaces them; without the parts that updates stand in for.
    fn params<'a>(&'a self, adapters: &[&'a LinearAdapter<B>]) -> LinearParams<'a, B> {
        let weight = adapters
            .iter()
            .find_map(|adapter| Some((adapter.weight.as_ref()?, &adapter.packed)));
        let (weight, packed) = weight.unwrap_or((&self.weight, &self.packed));
        let mut rests = adapters.iter().filter_map(|a| a.low_rank()?.rest());
        let (weight, packed) = match rests.next() {
            None => (weight.val(), packed),
            Some((first, packed)) => {
                let without = |sum, (rest, _)| sum + (rest - self.weight.val());
                (rests.fold(first, without), packed)
            }
        };
        let bias = adapters.iter().find_map(|adapter| adapter.bias.as_ref());
        LinearParams {
            weight,
            bias: bias.or(self.bias.as_ref()).map(|bias| bias.val()),
            packed,
        }
    }

    /// The weight's shape, `[d_output, d_input]`.
    pub fn dims(&self) -> [usize; 2] {
        let shape = self.weight.lazy_shape();
        [shape[0], shape[1]]
    }

    /// Whether a bias is added.
    pub fn has_bias(&self) -> bool {
        self.bias.is_some()
    }

    /// The layer's own weight, `[d_output, d_input]`.
    pub fn weight(&self) -> Tensor<B, 2> {
        self.weight.val()
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

    /// Writes the layer's inputs down from now on, or no longer.
    pub fn record_inputs(&mut self, recorder: Option<InputRecorder>) {
        self.recorder = recorder;
    }

    /// Makes the adapter of that name one that can be added to the layer's weight as it is,
    /// where it replaces a part of it; its rank is doubled then.
    pub fn make_plain(&mut self, name: &str) {
        let adapter = self.adapters.iter_mut().find(|a| a.name == name);
        if let Some(LinearUpdate::LowRank(update)) = adapter.and_then(|a| a.update.as_mut()) {
            update.make_plain();
        }
    }

    /// The low-rank update of the adapter of that name, if the layer has one.
    pub fn low_rank(&self, name: &str) -> Option<&LowRankUpdate<B>> {
        let adapter = self.adapters.iter().find(|adapter| adapter.name == name)?;
        adapter.low_rank()
    }

    /// Makes what is merged the layer's own, and removes all adapters.
    fn unload_merged(&mut self) {
        if let Some(merged) = self.merged.take() {
            assign(&mut self.weight, merged.weight);
            match (&mut self.bias, merged.bias) {
                (Some(own), Some(bias)) => assign(own, bias),
                (own @ None, bias) => *own = bias,
                (Some(_), None) => {}
            }
            self.packed = merged.packed;
        }
        self.adapters.clear();
    }

    /// Visits the layer's own parameters, keyed behind the layer's path.
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

impl<B: Backend> AdaptedLayer<B> for AdaptedLinear<B> {
    fn kind(&self) -> LayerKind {
        LayerKind::Linear
    }

    fn new_adapter(&self, name: &str, plan: &LayerPlan, fresh: bool) -> Result<LayerAdapter<B>> {
        let (dims, device) = (self.dims(), self.weight.lazy_device());
        let update = match &plan.update {
            Some(UpdateConfig::LowRank(config)) => {
                let update = config.init(&self.weight.val(), fresh)?;
                Some(LinearUpdate::LowRank(update))
            }
            Some(UpdateConfig::Rescale(config)) => {
                Some(LinearUpdate::Rescale(config.init(dims, &device)))
            }
            Some(UpdateConfig::Hadamard(config)) => {
                Some(LinearUpdate::Hadamard(config.init(dims, &device)))
            }
            Some(UpdateConfig::Kronecker(config)) => {
                Some(LinearUpdate::Kronecker(config.init(dims, &device)))
            }
            Some(UpdateConfig::Table(_)) | None => None,
        };
        let bias = || self.bias.as_ref().map(copy_of);
        Ok(LayerAdapter::Linear(LinearAdapter {
            name: name.to_owned(),
            place: None,
            update,
            weight: (plan.replaced == Replaced::Everything).then(|| copy_of(&self.weight)),
            bias: match plan.replaced {
                Replaced::Nothing => None,
                Replaced::Bias | Replaced::Everything => bias(),
            },
            packed: PackedWeight::default(),
        }))
    }

    fn init_magnitude(&self, adapter: &mut LayerAdapter<B>) {
        if let LayerAdapter::Linear(LinearAdapter {
            update: Some(LinearUpdate::LowRank(update)),
            ..
        }) = adapter
        {
            update.init_magnitude(self.weight.val());
        }
    }

    fn add_adapter(&mut self, adapter: LayerAdapter<B>) {
        if let LayerAdapter::Linear(adapter) = adapter {
            replace_or_push(&mut self.adapters, adapter);
        }
    }

    fn remove_adapter(&mut self, name: &str) {
        self.adapters.retain(|adapter| adapter.name != name);
    }

    fn activate_adapters(&mut self, active: &[String]) {
        activate(&mut self.adapters, active);
    }

    fn set_adapter_dropout(&mut self, dropout: f64) {
        for adapter in &mut self.adapters {
            adapter.set_dropout(dropout);
        }
    }

    fn merge_adapters(&self) -> Option<MergedLayer<B>> {
        let adapters = active(&self.adapters);
        let params = self.params(&adapters);
        MergedLinear::fold(params.weight, params.bias, &adapters).map(MergedLayer::Linear)
    }

    fn set_merged(&mut self, merged: Option<MergedLayer<B>>) {
        self.merged = match merged {
            Some(MergedLayer::Linear(merged)) => Some(merged),
            _ => None,
        };
    }

    fn unload(&mut self) {
        self.unload_merged();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::{InitLoraWeights, InitScheme, LowRankConfig};
    use crate::backend_under_test::{TestBackend, device};
    use burn::tensor::Distribution;

    fn layer() -> AdaptedLinear<TestBackend> {
        let config = AdaptedLinearConfig {
            d_input: 5,
            d_output: 3,
            bias: true,
            initializer_range: 0.5,
        };
        config.init(&device())
    }

    fn low_rank(scaling: f64, init_lora_weights: InitLoraWeights) -> LowRankConfig {
        LowRankConfig {
            r: 2,
            scaling,
            dropout: 0.0,
            init_lora_weights,
            use_dora: false,
            lora_bias: false,
            adaptive: false,
        }
    }

    fn add(layer: &mut AdaptedLinear<TestBackend>, name: &str, config: LowRankConfig) {
        let plan = LayerPlan {
            update: Some(UpdateConfig::LowRank(config)),
            tokens: None,
            replaced: Replaced::Nothing,
        };
        let mut adapter = layer.new_adapter(name, &plan, true).unwrap();
        layer.init_magnitude(&mut adapter);
        layer.add_adapter(adapter);
    }

    /// Not a no-op: B is not zero.
    fn layer_with(adapters: &[(&str, f64)]) -> AdaptedLinear<TestBackend> {
        let mut layer = layer();
        for &(name, scaling) in adapters {
            let config = low_rank(scaling, InitLoraWeights::Flag(false));
            add(&mut layer, name, config);
        }
        layer
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn input() -> Tensor<TestBackend, 2> {
        Tensor::random([4, 5], Distribution::Default, &device())
    }

    fn difference(a: Tensor<TestBackend, 2>, b: Tensor<TestBackend, 2>) -> f32 {
        (a - b).abs().max().into_scalar()
    }

    const INFERENCE: Pass<'static> = Pass {
        mode: Mode::Inference,
        routes: None,
    };

    #[test]
    fn a_fresh_adapter_changes_nothing_unless_told_to() {
        let x = input();
        for (init, use_dora, is_no_op) in [
            (InitLoraWeights::Flag(true), false, true),
            (InitLoraWeights::Flag(true), true, true),
            (InitLoraWeights::Scheme(InitScheme::Gaussian), false, true),
            (InitLoraWeights::Flag(false), false, false),
        ] {
            let mut layer = layer();
            let base = layer.forward(x.clone(), INFERENCE);
            let config = LowRankConfig {
                use_dora,
                ..low_rank(1.5, init)
            };
            add(&mut layer, "a", config);
            layer.activate_adapters(&names(&["a"]));
            let difference = difference(layer.forward(x.clone(), INFERENCE), base);
            assert_eq!(difference < 1e-6, is_no_op, "{difference}");
        }
    }

    #[test]
    fn active_adapters_add_up_and_others_do_not_count() {
        let (x, mut layer) = (input(), layer_with(&[("a", 1.5), ("b", 0.25)]));
        let mut forward = |active: &[&str]| {
            layer.activate_adapters(&names(active));
            layer.forward(x.clone(), INFERENCE)
        };
        let (none, a, b, both) = (
            forward(&[]),
            forward(&["a"]),
            forward(&["b"]),
            forward(&["a", "b"]),
        );
        let sum = a.clone() + b - none.clone();
        assert!(difference(both, sum) < 1e-6);
        assert!(difference(a, none) > 1e-3);
    }

    #[test]
    fn tokens_go_through_the_adapters_of_their_route() {
        use crate::adapter::AdapterRoute;
        let (x, mut layer) = (input(), layer_with(&[("a", 1.5), ("b", 0.25)]));
        let route = |tokens, adapters: &[&str]| AdapterRoute {
            tokens,
            adapters: names(adapters).into(),
        };
        let routes = [
            route(0..1, &["b"]),
            route(1..3, &[]),
            route(3..4, &["a", "b"]),
        ];
        let routed = |layer: &AdaptedLinear<TestBackend>| {
            let pass = Pass {
                routes: Some(&routes),
                ..INFERENCE
            };
            layer.forward(x.clone(), pass)
        };
        for with_bias in [false, true] {
            if with_bias {
                // No longer a sum that one product can take.
                let config = LowRankConfig {
                    use_dora: true,
                    ..low_rank(2.0, InitLoraWeights::Flag(false))
                };
                add(&mut layer, "a", config);
            }
            let output = routed(&layer);
            for route in &routes {
                layer.activate_adapters(&route.adapters);
                let (start, length) = (route.tokens.start, route.tokens.len());
                let alone = layer.forward(x.clone(), INFERENCE).narrow(0, start, length);
                let part = output.clone().narrow(0, start, length);
                assert!(difference(part, alone) < 1e-6);
            }
        }
    }

    #[test]
    fn merging_gives_the_same_outputs_and_unmerging_the_very_weights() {
        let (x, mut layer) = (input(), layer_with(&[("a", 1.5), ("b", 0.25)]));
        layer.activate_adapters(&names(&["a", "b"]));
        let unmerged = layer.forward(x.clone(), INFERENCE);
        let merged = layer.merge_adapters();
        layer.set_merged(merged);
        assert!(difference(layer.forward(x.clone(), INFERENCE), unmerged.clone()) < 1e-5);
        layer.set_merged(None);
        assert_eq!(
            difference(layer.forward(x.clone(), INFERENCE), unmerged.clone()),
            0.0
        );
        let merged = layer.merge_adapters();
        layer.set_merged(merged);
        layer.unload();
        assert!(layer.adapters.is_empty());
        assert!(difference(layer.forward(x, INFERENCE), unmerged) < 1e-5);
    }

    #[test]
    fn removing_an_adapter_leaves_the_layer_as_it_was() {
        let (x, mut layer) = (input(), layer());
        let base = layer.forward(x.clone(), INFERENCE);
        let config = low_rank(2.0, InitLoraWeights::Flag(false));
        add(&mut layer, "a.b", config);
        layer.activate_adapters(&names(&["a.b"]));
        assert!(difference(layer.forward(x.clone(), INFERENCE), base.clone()) > 1e-3);
        layer.remove_adapter("a.b");
        assert_eq!(difference(layer.forward(x, INFERENCE), base), 0.0);
    }
}
