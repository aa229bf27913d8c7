use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};

use super::LayerVisitor;
use crate::adapter::{AdaptedLayerNorm, AdaptedLinear, AdaptedLinearConfig, Pass};
use crate::error::Result;
use crate::kernel::Activation;

/// The size of a feed-forward block.
#[derive(Debug, Clone, Copy)]
pub struct FeedForwardConfig {
    /// The size of a token embedding.
    pub hidden_size: usize,
    /// The size between the two linear layers.
    pub intermediate_size: usize,
    /// The activation between them.
    pub activation: Activation,
    /// The dropout on the block's output, if the architecture has one.
    pub hidden_dropout: Option<f64>,
    /// The epsilon of the block's norm.
    pub layer_norm_eps: f64,
    /// The deviation of fresh weights.
    pub initializer_range: f64,
}

/// What an architecture calls the layers of its feed-forward block.
#[derive(Debug, Clone, Copy)]
pub struct FeedForwardNames {
    /// The layer that widens.
    pub intermediate: &'static str,
    /// The layer that narrows again.
    pub output: &'static str,
    /// The norm behind the residual connection.
    pub norm: &'static str,
}

impl FeedForwardConfig {
    /// A block with fresh weights.
    pub fn init<B: Backend>(&self, device: &B::Device) -> FeedForward<B> {
        let linear = |d_input, d_output| {
            let config = AdaptedLinearConfig {
                d_input,
                d_output,
                bias: true,
                initializer_range: self.initializer_range,
            };
            config.init(device)
        };
        FeedForward {
            intermediate: linear(self.hidden_size, self.intermediate_size),
            output: linear(self.intermediate_size, self.hidden_size),
            norm: AdaptedLayerNorm::init(self.hidden_size, self.layer_norm_eps, device),
            activation: self.activation,
            hidden_dropout: self.hidden_dropout,
        }
    }
}

/// Two linear layers around an activation, with residual connection and norm.
#[derive(Module, Debug)]
pub struct FeedForward<B: Backend> {
    intermediate: AdaptedLinear<B>,
    output: AdaptedLinear<B>,
    norm: AdaptedLayerNorm<B>,
    #[module(skip)]
    activation: Activation,
    #[module(skip)]
    hidden_dropout: Option<f64>,
}

impl<B: Backend> FeedForward<B> {
    /// Transforms each token by itself.
    ///
    /// # Shapes
    /// - hidden: `[tokens, hidden]`
    /// - output: `[tokens, hidden]`
    pub fn forward(&self, hidden: Tensor<B, 2>, pass: Pass<'_>) -> Tensor<B, 2> {
        let wide = self
            .intermediate
            .forward_activated(hidden.clone(), self.activation, pass);
        let output = self.output.forward(wide, pass);
        let dropout = self.hidden_dropout.unwrap_or(0.0);
        self.norm.forward_residual(output, hidden, dropout, pass)
    }

    /// Sets the dropout on the output, if there is one.
    pub fn set_dropout(&mut self, dropout: f64) {
        self.hidden_dropout = self.hidden_dropout.map(|_| dropout);
    }

    /// Walks a visitor over the layers under the block's path.
    ///
    /// # Errors
    /// The visitor's.
    pub fn visit_layers<V: LayerVisitor<B>>(
        &mut self,
        path: &str,
        names: &FeedForwardNames,
        visitor: &mut V,
    ) -> Result<()> {
        visitor.linear(
            &format!("{path}.{}", names.intermediate),
            &mut self.intermediate,
        )?;
        visitor.linear(&format!("{path}.{}", names.output), &mut self.output)?;
        visitor.layer_norm(&format!("{path}.{}", names.norm), &mut self.norm)
    }
}
