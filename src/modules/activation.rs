use burn::tensor::{Distribution, Tensor, activation, backend::Backend};

use crate::kernel::{Activation, Mode};

/// An activation of a Dense module: any of `torch.nn`'s that is made without arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DenseActivation {
    /// One that the linear kernel applies itself.
    Fused(Activation),
    /// `x` above 0, `eˣ - 1` below.
    Elu,
    /// The same, of unit slope at 0 for any α.
    Celu,
    /// ELU, scaled so that networks normalise themselves.
    Selu,
    /// `x` above 0, `0.01 x` below.
    LeakyRelu,
    /// `x` above 0, `w x` below, `w` being trained.
    PRelu,
    /// `x` above 0, `s x` below: `s` drawn from [⅛, ⅓] in training, its mean otherwise.
    RRelu,
    /// `x` between 0 and 6.
    Relu6,
    /// `x` between -1 and 1.
    Hardtanh,
    /// `x / 6 + ½` between 0 and 1.
    Hardsigmoid,
    /// `x · hardsigmoid(x)`
    Hardswish,
    /// `x` outside ±½, 0 inside.
    Hardshrink,
    /// `x` less ½ towards 0, 0 inside ±½.
    Softshrink,
    /// `x - tanh(x)`
    Tanhshrink,
    /// `ln(1 + eˣ)`
    Softplus,
    /// `x / (1 + |x|)`
    Softsign,
    /// `x · tanh(softplus(x))`
    Mish,
    /// `ln σ(x)`
    LogSigmoid,
    /// `eˣ / Σ eˣ` over each embedding.
    Softmax,
    /// The same of `-x`.
    Softmin,
    /// `ln softmax(x)`
    LogSoftmax,
    /// The first half of each embedding times `σ` of the second.
    Glu,
}

/// Every activation by its name in `torch.nn`.
const ACTIVATIONS: [(&str, DenseActivation); 27] = [
    ("Tanh", DenseActivation::Fused(Activation::Tanh)),
    ("Identity", DenseActivation::Fused(Activation::Identity)),
    ("GELU", DenseActivation::Fused(Activation::Gelu)),
    ("ReLU", DenseActivation::Fused(Activation::Relu)),
    ("SiLU", DenseActivation::Fused(Activation::Silu)),
    ("Sigmoid", DenseActivation::Fused(Activation::Sigmoid)),
    ("ELU", DenseActivation::Elu),
    ("CELU", DenseActivation::Celu),
    ("SELU", DenseActivation::Selu),
    ("LeakyReLU", DenseActivation::LeakyRelu),
    ("PReLU", DenseActivation::PRelu),
    ("RReLU", DenseActivation::RRelu),
    ("ReLU6", DenseActivation::Relu6),
    ("Hardtanh", DenseActivation::Hardtanh),
    ("Hardsigmoid", DenseActivation::Hardsigmoid),
    ("Hardswish", DenseActivation::Hardswish),
    ("Hardshrink", DenseActivation::Hardshrink),
    ("Softshrink", DenseActivation::Softshrink),
    ("Tanhshrink", DenseActivation::Tanhshrink),
    ("Softplus", DenseActivation::Softplus),
    ("Softsign", DenseActivation::Softsign),
    ("Mish", DenseActivation::Mish),
    ("LogSigmoid", DenseActivation::LogSigmoid),
    ("Softmax", DenseActivation::Softmax),
    ("Softmin", DenseActivation::Softmin),
    ("LogSoftmax", DenseActivation::LogSoftmax),
    ("GLU", DenseActivation::Glu),
];

/// The names that [`DenseActivation::from_path`] knows behind the module's path.
pub(super) const ACTIVATION_NAMES: &[&str] = &[
    "Tanh",
    "Identity",
    "GELU",
    "ReLU",
    "SiLU",
    "Sigmoid",
    "ELU",
    "CELU",
    "SELU",
    "LeakyReLU",
    "PReLU",
    "RReLU",
    "ReLU6",
    "Hardtanh",
    "Hardsigmoid",
    "Hardswish",
    "Hardshrink",
    "Softshrink",
    "Tanhshrink",
    "Softplus",
    "Softsign",
    "Mish",
    "LogSigmoid",
    "Softmax",
    "Softmin",
    "LogSoftmax",
    "GLU",
];

/// The slopes that RReLU draws from.
const RRELU: [f64; 2] = [1.0 / 8.0, 1.0 / 3.0];

/// SELU's α and scale (<https://arxiv.org/abs/1706.02515>).
const SELU: [f64; 2] = [1.673_263_242_354_377_2, 1.050_700_987_355_480_5];

impl DenseActivation {
    /// The activation of that Python path: `torch.nn.modules.activation.GELU`,
    /// `torch.nn.modules.linear.Identity`, or the short `torch.nn.GELU`.
    pub fn from_path(path: &str) -> Option<Self> {
        let (module, name) = path.rsplit_once('.')?;
        let is_known = match module {
            "torch.nn" => true,
            "torch.nn.modules.linear" => name == "Identity",
            "torch.nn.modules.activation" => name != "Identity",
            _ => false,
        };
        let found = ACTIVATIONS.iter().find(|(known, _)| *known == name);
        found.filter(|_| is_known).map(|&(_, found)| found)
    }

    /// The activation's Python path.
    pub fn path(self) -> String {
        let name = ACTIVATIONS.iter().find(|(_, known)| *known == self);
        match name.map_or("Identity", |&(name, _)| name) {
            "Identity" => "torch.nn.modules.linear.Identity".to_owned(),
            name => format!("torch.nn.modules.activation.{name}"),
        }
    }

    /// The part that the linear kernel applies.
    pub(super) fn fused(self) -> Activation {
        match self {
            Self::Fused(activation) => activation,
            _ => Activation::Identity,
        }
    }

    /// Whether Python applies it over the batch, where its input is token embeddings.
    pub(super) fn is_over_an_embedding(self) -> bool {
        matches!(self, Self::Softmax | Self::Softmin | Self::LogSoftmax)
    }

    /// The part that the linear kernel does not apply. `slope` is PReLU's weight.
    ///
    /// # Shapes
    /// - input: `[rows, dim]`
    /// - output: `[rows, dim]`, or half of `dim` for GLU
    pub(super) fn forward<B: Backend>(
        self,
        x: Tensor<B, 2>,
        slope: Option<Tensor<B, 1>>,
        mode: Mode,
    ) -> Tensor<B, 2> {
        match self {
            Self::Fused(_) => x,
            // ELU, and CELU of α = 1, which is the same.
            Self::Elu | Self::Celu => elu(x, 1.0),
            Self::Selu => elu(x, SELU[0]) * SELU[1],
            Self::LeakyRelu => below_zero(x, |below| below * 0.01),
            Self::PRelu => below_zero(x, |below| match slope {
                Some(slope) => below * slope.unsqueeze::<2>(),
                None => below * 0.25,
            }),
            Self::RRelu => below_zero(x, |below| match mode {
                Mode::Inference => below * ((RRELU[0] + RRELU[1]) / 2.0),
                Mode::Training => {
                    let drawn = Distribution::Uniform(RRELU[0], RRELU[1]);
                    let slopes = Tensor::random(below.shape(), drawn, &below.device());
                    below * slopes
                }
            }),
            Self::Relu6 => x.clamp(0.0, 6.0),
            Self::Hardtanh => x.clamp(-1.0, 1.0),
            Self::Hardsigmoid => hardsigmoid(x),
            Self::Hardswish => x.clone() * hardsigmoid(x),
            Self::Hardshrink => {
                let inside = x.clone().abs().lower_equal_elem(0.5);
                x.mask_fill(inside, 0.0)
            }
            Self::Softshrink => x.clone() - x.clamp(-0.5, 0.5),
            Self::Tanhshrink => x.clone() - x.tanh(),
            Self::Softplus => softplus(x),
            Self::Softsign => x.clone() / (x.abs() + 1.0),
            Self::Mish => x.clone() * softplus(x).tanh(),
            Self::LogSigmoid => -softplus(-x),
            Self::Softmax => activation::softmax(x, 1),
            Self::Softmin => activation::softmax(-x, 1),
            Self::LogSoftmax => activation::log_softmax(x, 1),
            Self::Glu => activation::glu(x, 1),
        }
    }
}

/// `x` above 0, and what `change` makes of it below.
fn below_zero<B: Backend>(
    x: Tensor<B, 2>,
    change: impl FnOnce(Tensor<B, 2>) -> Tensor<B, 2>,
) -> Tensor<B, 2> {
    let below = activation::relu(-x.clone()).neg();
    activation::relu(x) + change(below)
}

fn elu<B: Backend>(x: Tensor<B, 2>, alpha: f64) -> Tensor<B, 2> {
    below_zero(x, |below| expm1(below) * alpha)
}

/// `eˣ - 1` for `x` at most 0, without the rounding of the difference near 0:
/// `tanh(x / 2) · (eˣ + 1)`.
fn expm1<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 2> {
    (x.clone() * 0.5).tanh() * (x.exp() + 1.0)
}

/// `ln(1 + eˣ)` as `max(x, 0) + ln(1 + e^-|x|)`, which does not overflow.
fn softplus<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 2> {
    activation::relu(x.clone()) + x.abs().neg().exp().log1p()
}

fn hardsigmoid<B: Backend>(x: Tensor<B, 2>) -> Tensor<B, 2> {
    (x / 6.0 + 0.5).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_those_of_torch_and_lead_back() {
        assert_eq!(ACTIVATIONS.map(|(name, _)| name), ACTIVATION_NAMES);
        for (name, activation) in ACTIVATIONS {
            let path = activation.path();
            assert_eq!(
                DenseActivation::from_path(&path),
                Some(activation),
                "{path}"
            );
            let short = format!("torch.nn.{name}");
            assert_eq!(DenseActivation::from_path(&short), Some(activation));
        }
        for path in [
            "torch.nn.modules.activation.Identity",
            "torch.nn.modules.activation.MultiheadAttention",
            "torch.nn.modules.activation.Threshold",
            "torch.nn.functional.gelu",
            "my.module.Tanh",
            "Tanh",
            "",
        ] {
            assert_eq!(DenseActivation::from_path(path), None, "{path}");
        }
    }
}
