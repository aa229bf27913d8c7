use burn::module::{Initializer, Module, Param};
use burn::tensor::{Distribution, Tensor, backend::Backend};

use super::{InitLoraWeights, LoraConfig, Target};
use crate::error::Result;
use crate::kernel::{Activation, LinearParams, LowRankParams, Mode, PackedWeight, linear};
use crate::state_dict::{ParamVisitor, StateDict};

/// The names of an adapter's two tensors behind the layer's path.
const LORA_A: &str = "lora_A.weight";
const LORA_B: &str = "lora_B.weight";

/// One adapter of one layer, as the configuration and the layer call for it.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraAdapterConfig {
    /// The rank.
    pub r: usize,
    /// The scale of the update.
    pub scaling: f64,
    /// The dropout on the layer's input.
    pub dropout: f64,
    /// How the weights are drawn.
    pub init_lora_weights: InitLoraWeights,
}

impl LoraAdapterConfig {
    /// What a model's configuration means for one of its targets.
    pub fn new(config: &LoraConfig, target: &Target) -> Self {
        Self {
            r: target.r,
            scaling: target.scaling,
            dropout: config.lora_dropout,
            init_lora_weights: config.init_lora_weights.clone(),
        }
    }

    /// A fresh adapter for a layer of these dimensions.
    pub fn init<B: Backend>(
        &self,
        name: &str,
        [d_output, d_input]: [usize; 2],
        device: &B::Device,
    ) -> LoraAdapter<B> {
        let uniform = |shape: [usize; 2]| {
            let bound = (shape[1] as f64).sqrt().recip();
            Tensor::random(shape, Distribution::Uniform(-bound, bound), device)
        };
        let (a, b) = ([self.r, d_input], [d_output, self.r]);
        let (lora_a, lora_b) = match &self.init_lora_weights {
            InitLoraWeights::Flag(true) => (uniform(a), Tensor::zeros(b, device)),
            InitLoraWeights::Flag(false) => (uniform(a), uniform(b)),
            // The only scheme that `LoraConfig::validate` lets through: gaussian.
            InitLoraWeights::Scheme(_) => {
                let normal = Distribution::Normal(0.0, (self.r as f64).recip());
                (Tensor::random(a, normal, device), Tensor::zeros(b, device))
            }
        };
        LoraAdapter::new(name, lora_a, lora_b, self)
    }

    /// An adapter from the tensors of the layer at `path`.
    ///
    /// # Errors
    /// [`StateDictError`](crate::error::StateDictError) naming the key that is missing or
    /// of another shape.
    pub fn load<B: Backend>(
        &self,
        name: &str,
        path: &str,
        [d_output, d_input]: [usize; 2],
        tensors: &mut StateDict,
        device: &B::Device,
    ) -> Result<LoraAdapter<B>> {
        let [key_a, key_b] = [LORA_A, LORA_B].map(|name| format!("{path}.{name}"));
        tensors.require(&[&key_a, &key_b])?;
        let lora_a = tensors.take(&key_a, [self.r, d_input], device)?;
        let lora_b = tensors.take(&key_b, [d_output, self.r], device)?;
        Ok(LoraAdapter::new(name, lora_a, lora_b, self))
    }
}

/// One adapter of one layer: the update `s · B · A` of its weight.
#[derive(Module, Debug)]
pub struct LoraAdapter<B: Backend> {
    #[module(skip)]
    name: String,
    /// `[r, d_input]`
    lora_a: Param<Tensor<B, 2>>,
    /// `[d_output, r]`
    lora_b: Param<Tensor<B, 2>>,
    #[module(skip)]
    packed: [PackedWeight; 2],
    #[module(skip)]
    scaling: f64,
    #[module(skip)]
    dropout: f64,
    #[module(skip)]
    applied: bool,
}

impl<B: Backend> LoraAdapter<B> {
    fn new(
        name: &str,
        lora_a: Tensor<B, 2>,
        lora_b: Tensor<B, 2>,
        config: &LoraAdapterConfig,
    ) -> Self {
        Self {
            name: name.to_owned(),
            lora_a: Param::from_tensor(lora_a),
            lora_b: Param::from_tensor(lora_b),
            packed: Default::default(),
            scaling: config.scaling,
            dropout: config.dropout,
            applied: true,
        }
    }

    /// `s · B(A(dropout(x)))` as the kernel takes it.
    fn params(&self) -> LowRankParams<'_, B> {
        LowRankParams {
            a: self.lora_a.val(),
            b: self.lora_b.val(),
            packed: &self.packed,
            scaling: self.scaling,
            dropout: self.dropout,
        }
    }

    /// `s · B · A`, `[d_output, d_input]`
    fn delta(&self) -> Tensor<B, 2> {
        self.lora_b.val().matmul(self.lora_a.val()) * self.scaling
    }
}

/// A linear layer's size: the configuration of [`LoraLinear`].
#[derive(Debug, Clone, Copy)]
pub struct LoraLinearConfig {
    /// The size of the input features.
    pub d_input: usize,
    /// The size of the output features.
    pub d_output: usize,
    /// Whether a bias is added.
    pub bias: bool,
    /// The deviation of a fresh layer's weight.
    pub initializer_range: f64,
}

impl LoraLinearConfig {
    /// A fresh layer without adapters. Its weight is drawn when it is first used.
    pub fn init<B: Backend>(&self, device: &B::Device) -> LoraLinear<B> {
        let weight = Initializer::Normal {
            mean: 0.0,
            std: self.initializer_range,
        };
        LoraLinear {
            weight: weight.init([self.d_output, self.d_input], device),
            bias: self
                .bias
                .then(|| Initializer::Zeros.init([self.d_output], device)),
            adapters: Vec::new(),
            packed: PackedWeight::default(),
        }
    }
}

/// A linear layer that carries any number of named adapters.
///
/// `y = x · Wᵀ + b + Σ sᵢ · Bᵢ(Aᵢ(dropoutᵢ(x)))` over the applied adapters.
#[derive(Module, Debug)]
pub struct LoraLinear<B: Backend> {
    /// `[d_output, d_input]`, as Hugging Face's files hold it.
    weight: Param<Tensor<B, 2>>,
    /// `[d_output]`
    bias: Option<Param<Tensor<B, 1>>>,
    adapters: Vec<LoraAdapter<B>>,
    #[module(skip)]
    packed: PackedWeight,
}

impl<B: Backend> LoraLinear<B> {
    /// Applies the layer and its applied adapters.
    ///
    /// # Shapes
    /// - input: `[tokens, d_input]`
    /// - output: `[tokens, d_output]`
    pub fn forward(&self, input: Tensor<B, 2>, mode: Mode) -> Tensor<B, 2> {
        self.forward_activated(input, Activation::Identity, mode)
    }

    /// Applies the layer, its applied adapters, and an activation behind them.
    ///
    /// # Shapes
    /// - input: `[tokens, d_input]`
    /// - output: `[tokens, d_output]`
    pub fn forward_activated(
        &self,
        input: Tensor<B, 2>,
        activation: Activation,
        mode: Mode,
    ) -> Tensor<B, 2> {
        let params = LinearParams {
            weight: self.weight.val(),
            bias: self.bias.as_ref().map(|bias| bias.val()),
            packed: &self.packed,
        };
        let applied = self.adapters.iter().filter(|adapter| adapter.applied);
        let updates = applied.map(LoraAdapter::params).collect();
        linear(input, params, updates, activation, mode)
    }

    /// The weight's shape, `[d_output, d_input]`.
    pub fn dims(&self) -> [usize; 2] {
        let shape = self.weight.lazy_shape();
        [shape[0], shape[1]]
    }

    /// Adds an adapter.
    pub fn add_adapter(&mut self, adapter: LoraAdapter<B>) {
        self.adapters.push(adapter);
    }

    /// Removes the adapters of that name; the layer is then as if it had never had them.
    pub fn remove_adapter(&mut self, name: &str) {
        self.adapters.retain(|adapter| adapter.name != name);
    }

    /// Says which adapters take part in the forward pass.
    pub fn apply_adapters(&mut self, applied: impl Fn(&str) -> bool) {
        for adapter in &mut self.adapters {
            adapter.applied = applied(&adapter.name);
        }
    }

    /// Says which adapters are trained.
    pub fn train_adapters(&mut self, trained: impl Fn(&str) -> bool) {
        for adapter in &mut self.adapters {
            let trained = trained(&adapter.name);
            for param in [&mut adapter.lora_a, &mut adapter.lora_b] {
                *param = param.clone().set_require_grad(trained);
            }
        }
    }

    /// Sets the dropout of every adapter.
    pub fn set_adapter_dropout(&mut self, dropout: f64) {
        for adapter in &mut self.adapters {
            adapter.dropout = dropout;
        }
    }

    /// Folds the applied adapters into the weight and removes all adapters.
    pub fn merge_and_unload(&mut self) {
        let applied = self.adapters.iter().filter(|adapter| adapter.applied);
        let delta = applied
            .map(LoraAdapter::delta)
            .reduce(|sum, delta| sum + delta);
        if let Some(delta) = delta {
            self.weight = self.weight.clone().map(|weight| {
                let trained = weight.is_require_grad();
                (weight + delta).detach().set_require_grad(trained)
            });
            // A clone of the layer that is not merged keeps its own.
            self.packed = PackedWeight::default();
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

    /// Visits the parameters of the adapter of that name, if the layer has it, keyed
    /// behind the layer's path as in PEFT's files.
    ///
    /// # Errors
    /// The visitor's.
    pub fn visit_adapter<V: ParamVisitor<B>>(
        &mut self,
        name: &str,
        path: &str,
        visitor: &mut V,
    ) -> Result<()> {
        for adapter in self
            .adapters
            .iter_mut()
            .filter(|adapter| adapter.name == name)
        {
            visitor.visit(format!("{path}.{LORA_A}"), &mut adapter.lora_a)?;
            visitor.visit(format!("{path}.{LORA_B}"), &mut adapter.lora_b)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};

    const DIMS: [usize; 2] = [3, 5];

    fn layer_with(adapters: &[(&str, f64)]) -> LoraLinear<TestBackend> {
        let config = LoraLinearConfig {
            d_input: 5,
            d_output: 3,
            bias: true,
            initializer_range: 0.5,
        };
        let mut layer = config.init(&device());
        for &(name, scaling) in adapters {
            let config = LoraAdapterConfig {
                r: 2,
                scaling,
                dropout: 0.0,
                // Not a no-op: B is not zero.
                init_lora_weights: InitLoraWeights::Flag(false),
            };
            layer.add_adapter(config.init(name, DIMS, &device()));
        }
        layer
    }

    fn input() -> Tensor<TestBackend, 2> {
        Tensor::random([4, 5], Distribution::Default, &device())
    }

    fn difference(a: Tensor<TestBackend, 2>, b: Tensor<TestBackend, 2>) -> f32 {
        (a - b).abs().max().into_scalar()
    }

    #[test]
    fn a_fresh_adapter_changes_nothing_unless_told_to() {
        let x = input();
        for (init, is_no_op) in [
            (InitLoraWeights::Flag(true), true),
            (InitLoraWeights::Scheme("gaussian".to_owned()), true),
            (InitLoraWeights::Flag(false), false),
        ] {
            let mut layer = layer_with(&[]);
            let base = layer.forward(x.clone(), Mode::Inference);
            let config = LoraAdapterConfig {
                r: 2,
                scaling: 1.5,
                dropout: 0.0,
                init_lora_weights: init,
            };
            layer.add_adapter(config.init("a", DIMS, &device()));
            let difference = difference(layer.forward(x.clone(), Mode::Inference), base);
            assert_eq!(difference == 0.0, is_no_op);
        }
    }

    #[test]
    fn applied_adapters_add_up_and_others_do_not_count() {
        let (x, mut layer) = (input(), layer_with(&[("a", 1.5), ("b", 0.25)]));
        let mut forward = |applied: &[&str]| {
            layer.apply_adapters(|name| applied.contains(&name));
            layer.forward(x.clone(), Mode::Inference)
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
    fn merging_gives_the_same_outputs_with_alpha_apart_from_r() {
        let (x, mut layer) = (input(), layer_with(&[("a", 1.5), ("b", 0.25)]));
        let unmerged = layer.forward(x.clone(), Mode::Inference);
        layer.merge_and_unload();
        assert!(layer.adapters.is_empty());
        assert!(difference(layer.forward(x, Mode::Inference), unmerged) < 1e-5);
    }

    #[test]
    fn removing_an_adapter_leaves_the_layer_as_it_was() {
        let (x, mut layer) = (input(), layer_with(&[]));
        let base = layer.forward(x.clone(), Mode::Inference);
        let config = LoraAdapterConfig {
            r: 1,
            scaling: 2.0,
            dropout: 0.5,
            init_lora_weights: InitLoraWeights::Flag(false),
        };
        layer.add_adapter(config.init("a.b", DIMS, &device()));
        layer.remove_adapter("a.b");
        assert_eq!(difference(layer.forward(x, Mode::Training), base), 0.0);
    }
}
