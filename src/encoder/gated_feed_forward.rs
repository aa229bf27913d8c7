use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};

use super::LayerVisitor;
use crate::adapter::{AdaptedLinear, AdaptedLinearConfig, Pass};
use crate::error::Result;
use crate::kernel::Activation;

/// The size of a gated feed-forward block.
#[derive(Debug, Clone, Copy)]
pub struct GatedFeedForwardConfig {
    /// The size of a token embedding.
    pub hidden_size: usize,
    /// The size between the linear layers.
    pub intermediate_size: usize,
    /// The activation of the gate.
    pub activation: Activation,
    /// The deviation of fresh weights.
    pub initializer_range: f64,
}

impl GatedFeedForwardConfig {
    /// A block with fresh weights.
    pub fn init<B: Backend>(&self, device: &B::Device) -> GatedFeedForward<B> {
        let linear = |d_input, d_output| {
            let config = AdaptedLinearConfig {
                d_input,
                d_output,
                bias: false,
                initializer_range: self.initializer_range,
            };
            config.init(device)
        };
        GatedFeedForward {
            gate: linear(self.hidden_size, self.intermediate_size),
            up: linear(self.hidden_size, self.intermediate_size),
            down: linear(self.intermediate_size, self.hidden_size),
            activation: self.activation,
        }
    }
}

/// Two linear layers side by side, the one's activation a gate on the other, and a third
/// behind them (<https://arxiv.org/abs/2002.05202>); with neither residual connection nor
/// norm around it.
#[derive(Module, Debug)]
pub struct GatedFeedForward<B: Backend> {
    gate: AdaptedLinear<B>,
    up: AdaptedLinear<B>,
    down: AdaptedLinear<B>,
    #[module(skip)]
    activation: Activation,
}

impl<B: Backend> GatedFeedForward<B> {
    /// Transforms each token by itself.
    ///
    /// # Shapes
    /// - hidden: `[tokens, hidden]`
    /// - output: `[tokens, hidden]`
    pub fn forward(&self, hidden: Tensor<B, 2>, pass: Pass<'_>) -> Tensor<B, 2> {
        let gate = self
            .gate
            .forward_activated(hidden.clone(), self.activation, pass);
        let wide = gate * self.up.forward(hidden, pass);
        self.down.forward(wide, pass)
    }

    /// Walks a visitor over the layers under the block's path.
    ///
    /// # Errors
    /// The visitor's.
    pub fn visit_layers<V: LayerVisitor<B>>(&mut self, path: &str, visitor: &mut V) -> Result<()> {
        visitor.linear(&format!("{path}.gate_proj"), &mut self.gate)?;
        visitor.linear(&format!("{path}.up_proj"), &mut self.up)?;
        visitor.linear(&format!("{path}.down_proj"), &mut self.down)
    }
}
