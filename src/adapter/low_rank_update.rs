use std::ops::Range;

use burn::module::{Initializer, Module, Param};
use burn::tensor::{Distribution, Tensor, backend::Backend};

use super::layer::frozen;
use super::{InitLoraWeights, InitScheme, LowRank, Matrix, TorchGenerator, initialization};
use crate::error::Result;
use crate::kernel::{LowRankParams, Mode, PackedWeight, low_rank};
use crate::state_dict::ParamVisitor;

/// How a linear layer is updated by LoRA, or by AdaLoRA.
#[derive(Debug, Clone, PartialEq)]
pub struct LowRankConfig {
    /// The rank.
    pub r: usize,
    /// The scale of the update.
    pub scaling: f64,
    /// The dropout on the layer's input.
    pub dropout: f64,
    /// How the weights are drawn.
    pub init_lora_weights: InitLoraWeights,
    /// Whether direction and magnitude are apart (DoRA).
    pub use_dora: bool,
    /// Whether B has a bias.
    pub lora_bias: bool,
    /// Whether A's rows are scaled by singular values (AdaLoRA).
    pub adaptive: bool,
}

impl LowRankConfig {
    /// An update for a layer with that weight. What is drawn is drawn when it is first used,
    /// or now where a scheme needs all of it at once; `fresh` says whether it will be used,
    /// or loaded over.
    ///
    /// # Errors
    /// [`AdapterError`](crate::error::AdapterError) where the weight cannot be decomposed, or
    /// has a side shorter than the rank.
    pub fn init<B: Backend>(&self, weight: &Tensor<B, 2>, fresh: bool) -> Result<LowRankUpdate<B>> {
        let [d_output, d_input] = weight.dims();
        let device = weight.device();
        let (a, b) = ([self.r, d_input], [d_output, self.r]);
        // PyTorch's initialisation of a linear layer.
        let linear = |shape: [usize; 2]| {
            let bound = (shape[1] as f64).sqrt().recip();
            let uniform = Initializer::Uniform {
                min: -bound,
                max: bound,
            };
            uniform.init(shape, &device)
        };
        let normal = |shape: [usize; 2], std| {
            let normal = Initializer::Normal { mean: 0.0, std };
            normal.init(shape, &device)
        };
        let zeros = |shape: [usize; 2]| Initializer::Zeros.init(shape, &device);
        let (lora_a, lora_b) = match &self.init_lora_weights {
            _ if self.adaptive => (normal(a, 0.02), normal(b, 0.02)),
            InitLoraWeights::Flag(true) => (linear(a), zeros(b)),
            InitLoraWeights::Flag(false) => (linear(a), linear(b)),
            InitLoraWeights::Scheme(InitScheme::Gaussian) => {
                (normal(a, (self.r as f64).recip()), zeros(b))
            }
            // Until the data pass, as by default.
            InitLoraWeights::Scheme(_) => (linear(a), zeros(b)),
        };
        let update = LowRankUpdate {
            lora_a,
            lora_b,
            lora_e: self
                .adaptive
                .then(|| Initializer::Zeros.init([self.r, 1], &device)),
            bias: self
                .lora_bias
                .then(|| Initializer::Zeros.init([d_output], &device)),
            magnitude: self
                .use_dora
                .then(|| Initializer::Ones.init([d_output], &device)),
            replaced: None,
            packed: Default::default(),
            scaling: self.scaling,
            dropout: self.dropout,
        };
        let InitLoraWeights::Scheme(scheme) = &self.init_lora_weights else {
            return Ok(update);
        };
        let matrix = || Matrix::from_tensor(weight.clone());
        let part = match scheme {
            InitScheme::Orthogonal if fresh => {
                let mut generator = TorchGenerator::new(drawn_seed::<B>(&device));
                let drawn = initialization::orthogonal(weight.dims(), self.r, &mut generator)?;
                let (a, b) = drawn.into_factors();
                return Ok(LowRankUpdate {
                    lora_a: Param::from_tensor(a.into_tensor(&device)),
                    lora_b: Param::from_tensor(b.into_tensor(&device)),
                    ..update
                });
            }
            InitScheme::Pissa => initialization::pissa(&matrix(), self.r, self.scaling)?,
            InitScheme::PissaNiter(iterations) if fresh => {
                // The same for the same weight, unlike PEFT's.
                let mut generator = TorchGenerator::new(0);
                let (r, scaling) = (self.r, self.scaling);
                initialization::pissa_niter(&matrix(), r, scaling, *iterations, &mut generator)?
            }
            InitScheme::PissaNiter(_) => {
                log::warn!(
                    "an adapter with init_lora_weights `{}` is loaded as PiSSA: PEFT does not \
                     say which random numbers its part of the weights came from",
                    String::from(scheme.clone())
                );
                initialization::pissa(&matrix(), self.r, self.scaling)?
            }
            InitScheme::Olora => initialization::olora(&matrix(), self.r)?,
            _ => return Ok(update),
        };
        Ok(update.replacing(part, weight))
    }
}

/// A seed from the backend's generator, which its own seed replays.
fn drawn_seed<B: Backend>(device: &B::Device) -> u64 {
    let drawn = Tensor::<B, 1>::random([2], Distribution::Uniform(0.0, 65536.0), device);
    let drawn = drawn.into_data();
    let halves = drawn.iter::<f64>().map(|half| half as u64);
    halves.fold(0, |seed, half| seed << 16 | half)
}

/// A linear layer's weight and bias.
pub(super) type Params<B> = (Tensor<B, 2>, Option<Tensor<B, 1>>);

/// The low-rank update `s · B · A` of one linear layer
/// (LoRA, <https://arxiv.org/abs/2106.09685>), with what its variants add to it.
#[derive(Module, Debug)]
pub struct LowRankUpdate<B: Backend> {
    /// `[r, d_input]`
    lora_a: Param<Tensor<B, 2>>,
    /// `[d_output, r]`
    lora_b: Param<Tensor<B, 2>>,
    /// `[r, 1]`: AdaLoRA's singular values (<https://arxiv.org/abs/2303.10512>).
    lora_e: Option<Param<Tensor<B, 2>>>,
    /// `[d_output]`: B's bias.
    bias: Option<Param<Tensor<B, 1>>>,
    /// `[d_output]`: DoRA's length of each of the weight's rows
    /// (<https://arxiv.org/abs/2402.09353>).
    magnitude: Option<Param<Tensor<B, 1>>>,
    /// The part of the weight that the update began as, which it stands in for.
    replaced: Option<ReplacedPart<B>>,
    #[module(skip)]
    packed: [PackedWeight; 2],
    #[module(skip)]
    scaling: f64,
    #[module(skip)]
    dropout: f64,
}

/// A part `s · B₀ · A₀` of a layer's weight that an update stands in for (PiSSA, OLoRA).
///
/// PEFT takes it out of the base's weight; here the base stays as it is.
#[derive(Module, Debug)]
pub struct ReplacedPart<B: Backend> {
    /// `[d_output, d_input]`: the weight without the part.
    rest: Param<Tensor<B, 2>>,
    /// `[r, d_input]`
    lora_a: Param<Tensor<B, 2>>,
    /// `[d_output, r]`
    lora_b: Param<Tensor<B, 2>>,
    #[module(skip)]
    packed: PackedWeight,
}

impl<B: Backend> LowRankUpdate<B> {
    /// Begins as a part of the layer's weight, which it stands in for.
    fn replacing(self, part: LowRank, weight: &Tensor<B, 2>) -> Self {
        let device = weight.device();
        let delta = part.delta(self.scaling).into_tensor(&device);
        let (lora_a, lora_b) = part.into_factors();
        let [lora_a, lora_b] = [lora_a, lora_b].map(|matrix| matrix.into_tensor::<B>(&device));
        Self {
            lora_a: Param::from_tensor(lora_a.clone()),
            lora_b: Param::from_tensor(lora_b.clone()),
            replaced: Some(ReplacedPart {
                rest: frozen(weight.clone() - delta),
                lora_a: frozen(lora_a),
                lora_b: frozen(lora_b),
                packed: PackedWeight::default(),
            }),
            ..self
        }
    }

    /// The weight without the part that the update stands in for, if it does.
    pub(super) fn rest(&self) -> Option<(Tensor<B, 2>, &PackedWeight)> {
        let replaced = self.replaced.as_ref()?;
        Some((replaced.rest.val(), &replaced.packed))
    }

    /// Makes an update that began as a part of the layer's weight one that can be added to
    /// that weight as it is: `A = [A; A₀]`, `B = [B, −B₀]`, of twice the rank.
    pub(super) fn make_plain(&mut self) {
        let Some(replaced) = self.replaced.take() else {
            return;
        };
        let join = |own: &Param<Tensor<B, 2>>, other: Tensor<B, 2>, dim| {
            own.clone().map(|own| {
                let trained = own.is_require_grad();
                let joined = Tensor::cat(vec![own.detach(), other.detach()], dim);
                joined.detach().set_require_grad(trained)
            })
        };
        self.lora_a = join(&self.lora_a, replaced.lora_a.val(), 0);
        self.lora_b = join(&self.lora_b, replaced.lora_b.val().neg(), 1);
        self.packed = Default::default();
    }

    /// Whether the update is a sum that a kernel can add to the layer's product.
    pub(super) fn is_sum(&self) -> bool {
        self.magnitude.is_none()
    }

    /// `s · B(A(dropout(x)))` of some of the input's rows as the kernel takes it; B's bias left
    /// out.
    pub(super) fn params(&self, rows: Option<Range<usize>>) -> LowRankParams<'_, B> {
        LowRankParams {
            a: self.scaled_a(),
            b: self.lora_b.val(),
            packed: &self.packed,
            scaling: self.scaling,
            dropout: self.dropout,
            rows,
        }
    }

    /// `s · b` of B's bias.
    pub(super) fn scaled_bias(&self) -> Option<Tensor<B, 1>> {
        let bias = self.bias.as_ref()?;
        Some(bias.val() * self.scaling)
    }

    /// The output of a layer with that weight and bias, so far, with the update applied.
    ///
    /// For DoRA: `m/‖W + s·BA‖ ⊙ (output − b + s·BAx) + b`, the norm without gradient. PEFT
    /// takes the output of the adapters before it for the base's, and while it drops out
    /// computes the base anew from the dropped-out input.
    ///
    /// # Shapes
    /// - input: `[tokens, d_input]`
    /// - output: `[tokens, d_output]`
    pub(super) fn apply(
        &self,
        output: Tensor<B, 2>,
        input: Tensor<B, 2>,
        weight: Tensor<B, 2>,
        bias: Option<Tensor<B, 1>>,
        mode: Mode,
    ) -> Tensor<B, 2> {
        let Some(magnitude) = &self.magnitude else {
            let output = output + low_rank(input, self.params(None), mode);
            return match self.scaled_bias() {
                Some(bias) => output + bias.unsqueeze(),
                None => output,
            };
        };
        let factor = (magnitude.val() / self.row_norms(weight.clone())).unsqueeze::<2>();
        if mode == Mode::Training && self.dropout > 0.0 {
            let input = crate::kernel::dropout(input, self.dropout, mode);
            let update = low_rank(input.clone(), self.params(None), Mode::Inference);
            let base = input.matmul(weight.transpose());
            // `output` keeps the base of the whole input: only what DoRA changes is added.
            return output + base * (factor.clone() - 1.0) + update * factor;
        }
        let update = low_rank(input, self.params(None), mode);
        match bias {
            Some(bias) => {
                let bias = bias.unsqueeze::<2>();
                (output - bias.clone() + update) * factor + bias
            }
            None => (output + update) * factor,
        }
    }

    /// `s · B · A`, `[d_output, d_input]`
    pub(super) fn delta(&self) -> Tensor<B, 2> {
        self.lora_b.val().matmul(self.scaled_a()) * self.scaling
    }

    /// The weight and bias, so far, with the update folded in; `base` are the layer's own.
    ///
    /// DoRA scales what other adapters have added to the bias as it does in the forward pass;
    /// PEFT forgets to.
    pub(super) fn merge(&self, so_far: Params<B>, base: &Params<B>) -> Params<B> {
        let (weight, bias) = so_far;
        let weight = weight + self.delta();
        let Some(magnitude) = &self.magnitude else {
            let bias = match (bias, self.scaled_bias()) {
                (Some(bias), Some(own)) => Some(bias + own),
                (bias, own) => bias.or(own),
            };
            return (weight, bias);
        };
        let factor = magnitude.val() / self.row_norms(base.0.clone());
        let bias = match (bias, &base.1) {
            (Some(bias), Some(base)) => Some((bias - base.clone()) * factor.clone() + base.clone()),
            (bias, _) => bias.map(|bias| bias * factor.clone()),
        };
        (weight * factor.unsqueeze_dim::<2>(1), bias)
    }

    /// Sets DoRA's magnitude to that of the weight with the update, which changes nothing.
    pub(super) fn init_magnitude(&mut self, weight: Tensor<B, 2>) {
        if self.magnitude.is_some() {
            let weight = self.rest().map_or(weight, |(rest, _)| rest);
            let norms = self.row_norms(weight).detach();
            self.magnitude = Some(Param::from_tensor(norms));
        }
    }

    /// `‖W + s·BA‖` of each row, `[d_output]`, without gradient.
    fn row_norms(&self, weight: Tensor<B, 2>) -> Tensor<B, 1> {
        let sum = (weight + self.delta()).detach();
        (sum.clone() * sum).sum_dim(1).sqrt().squeeze_dim(1)
    }

    /// A, its rows scaled where they are.
    fn scaled_a(&self) -> Tensor<B, 2> {
        match &self.lora_e {
            Some(singular_values) => self.lora_a.val() * singular_values.val(),
            None => self.lora_a.val(),
        }
    }

    /// A and B, their rows scaled where they are, and the scale of their product.
    pub fn factors(&self) -> (LowRank, f64) {
        let a = Matrix::from_tensor(self.scaled_a());
        let b = Matrix::from_tensor(self.lora_b.val());
        (LowRank::from_factors(a, b), self.scaling)
    }

    /// Whether the update is A and B alone.
    pub fn is_plain(&self) -> bool {
        self.magnitude.is_none() && self.bias.is_none() && self.replaced.is_none()
    }

    /// Sets the dropout on the input.
    pub(super) fn set_dropout(&mut self, dropout: f64) {
        self.dropout = dropout;
    }

    /// Visits the parameters, keyed behind the layer's path as in PEFT's files.
    pub(super) fn visit_params<V: ParamVisitor<B>>(
        &mut self,
        path: &str,
        visitor: &mut V,
    ) -> Result<()> {
        if let Some(lora_e) = &mut self.lora_e {
            visitor.visit(format!("{path}.lora_A"), &mut self.lora_a)?;
            visitor.visit(format!("{path}.lora_B"), &mut self.lora_b)?;
            return visitor.visit(format!("{path}.lora_E"), lora_e);
        }
        visitor.visit(format!("{path}.lora_A.weight"), &mut self.lora_a)?;
        visitor.visit(format!("{path}.lora_B.weight"), &mut self.lora_b)?;
        if let Some(bias) = &mut self.bias {
            visitor.visit(format!("{path}.lora_B.bias"), bias)?;
        }
        match &mut self.magnitude {
            Some(magnitude) => visitor.visit(format!("{path}.{MAGNITUDE}"), magnitude),
            None => Ok(()),
        }
    }
}

/// The name of DoRA's magnitudes behind the layer's path.
pub(super) const MAGNITUDE: &str = "lora_magnitude_vector";
