use serde::{Deserialize, Serialize};

/// How a fresh LoRA adapter's weights are drawn: `true`, `false` or the name of a scheme.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum InitLoraWeights {
    /// `true`: A uniform in ±1/√d_input, B zero. `false`: both as PyTorch initialises a
    /// linear layer, so that the fresh adapter already changes the output.
    Flag(bool),
    /// A scheme by name.
    Scheme(InitScheme),
}

impl Default for InitLoraWeights {
    fn default() -> Self {
        Self::Flag(true)
    }
}

impl InitLoraWeights {
    /// Whether the weights begin as a part of the layer's own weight, which they replace.
    pub fn replaces_a_part(&self) -> bool {
        use InitScheme::{Olora, Pissa, PissaNiter};
        matches!(self, Self::Scheme(Pissa | PissaNiter(_) | Olora))
    }
}

/// A scheme by which a fresh LoRA adapter's weights are drawn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum InitScheme {
    /// A normal with deviation 1/r, B zero.
    Gaussian,
    /// A and B random and orthogonal to each other, so that their product is zero.
    Orthogonal,
    /// The layer's own principal part (PiSSA, <https://arxiv.org/abs/2404.02948>).
    Pissa,
    /// The same, by a randomised decomposition of this many iterations.
    PissaNiter(usize),
    /// The first columns of the layer's QR decomposition (OLoRA,
    /// <https://arxiv.org/abs/2406.01775>).
    Olora,
    /// From the layers' inputs in a pass over data (EVA,
    /// <https://arxiv.org/abs/2410.07170>).
    Eva,
    /// One that this version does not have.
    Other(String),
}

/// The number of iterations in a scheme's name; more than a thousand change nothing and take
/// for ever.
fn iterations_of(count: &str) -> Option<usize> {
    count.parse().ok().filter(|&count| count <= 1000)
}

impl From<String> for InitScheme {
    fn from(name: String) -> Self {
        let lower = name.to_lowercase();
        let iterations = lower.strip_prefix("pissa_niter_");
        match lower.as_str() {
            "gaussian" => Self::Gaussian,
            "orthogonal" => Self::Orthogonal,
            "pissa" => Self::Pissa,
            "olora" => Self::Olora,
            "eva" => Self::Eva,
            _ => match iterations.and_then(iterations_of) {
                Some(iterations) => Self::PissaNiter(iterations),
                None => Self::Other(name),
            },
        }
    }
}

impl From<InitScheme> for String {
    fn from(scheme: InitScheme) -> Self {
        match scheme {
            InitScheme::Gaussian => "gaussian".to_owned(),
            InitScheme::Orthogonal => "orthogonal".to_owned(),
            InitScheme::Pissa => "pissa".to_owned(),
            InitScheme::PissaNiter(iterations) => format!("pissa_niter_{iterations}"),
            InitScheme::Olora => "olora".to_owned(),
            InitScheme::Eva => "eva".to_owned(),
            InitScheme::Other(name) => name,
        }
    }
}
