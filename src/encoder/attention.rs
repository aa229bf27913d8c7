use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};

use super::LayerVisitor;
use crate::adapter::{AdaptedLayerNorm, AdaptedLinear, AdaptedLinearConfig, Pass};
use crate::error::Result;
use crate::kernel::{AttentionOptions, Packing, attention};

/// The size of a self-attention block.
#[derive(Debug, Clone, Copy)]
pub struct SelfAttentionConfig {
    /// The size of a token embedding.
    pub hidden_size: usize,
    /// The number of heads.
    pub heads: usize,
    /// The dropout on the attention probabilities.
    pub attention_dropout: f64,
    /// The dropout on the block's output, if the architecture has one.
    pub hidden_dropout: Option<f64>,
    /// The epsilon of the block's norm.
    pub layer_norm_eps: f64,
    /// The deviation of fresh weights.
    pub initializer_range: f64,
}

/// What an architecture calls the layers of its self-attention block.
#[derive(Debug, Clone, Copy)]
pub struct SelfAttentionNames {
    /// The query projection.
    pub query: &'static str,
    /// The key projection.
    pub key: &'static str,
    /// The value projection.
    pub value: &'static str,
    /// The output projection.
    pub output: &'static str,
    /// The norm behind the residual connection.
    pub norm: &'static str,
}

impl SelfAttentionConfig {
    /// A block with fresh weights.
    pub fn init<B: Backend>(&self, device: &B::Device) -> SelfAttention<B> {
        let linear = AdaptedLinearConfig {
            d_input: self.hidden_size,
            d_output: self.hidden_size,
            bias: true,
            initializer_range: self.initializer_range,
        };
        SelfAttention {
            query: linear.init(device),
            key: linear.init(device),
            value: linear.init(device),
            output: linear.init(device),
            norm: AdaptedLayerNorm::init(self.hidden_size, self.layer_norm_eps, device),
            heads: self.heads,
            scale: ((self.hidden_size / self.heads) as f64).sqrt().recip(),
            attention_dropout: self.attention_dropout,
            hidden_dropout: self.hidden_dropout,
        }
    }
}

/// Self-attention with its output projection, residual connection and norm.
#[derive(Module, Debug)]
pub struct SelfAttention<B: Backend> {
    query: AdaptedLinear<B>,
    key: AdaptedLinear<B>,
    value: AdaptedLinear<B>,
    output: AdaptedLinear<B>,
    norm: AdaptedLayerNorm<B>,
    #[module(skip)]
    heads: usize,
    #[module(skip)]
    scale: f64,
    #[module(skip)]
    attention_dropout: f64,
    #[module(skip)]
    hidden_dropout: Option<f64>,
}

impl<B: Backend> SelfAttention<B> {
    /// Lets the tokens of each text attend to each other. `bias` is added to the scores.
    ///
    /// # Shapes
    /// - hidden: `[tokens, hidden]`
    /// - bias: `[heads, width, width]`
    /// - output: `[tokens, hidden]`
    pub fn forward(
        &self,
        hidden: Tensor<B, 2>,
        bias: Option<Tensor<B, 3>>,
        packing: &Packing<B>,
        pass: Pass<'_>,
    ) -> Tensor<B, 2> {
        let context = attention(
            self.query.forward(hidden.clone(), pass),
            self.key.forward(hidden.clone(), pass),
            self.value.forward(hidden.clone(), pass),
            bias,
            packing,
            &AttentionOptions {
                heads: self.heads,
                key_value_heads: self.heads,
                scale: self.scale,
                window: None,
                causal: false,
                dropout: self.attention_dropout,
                mode: pass.mode,
            },
        );
        let output = self.output.forward(context, pass);
        let dropout = self.hidden_dropout.unwrap_or(0.0);
        self.norm.forward_residual(output, hidden, dropout, pass)
    }

    /// Sets the dropout on the probabilities, and on the output if there is one.
    pub fn set_dropout(&mut self, dropout: f64) {
        self.attention_dropout = dropout;
        self.hidden_dropout = self.hidden_dropout.map(|_| dropout);
    }

    /// Walks a visitor over the layers under the block's path.
    ///
    /// # Errors
    /// The visitor's.
    pub fn visit_layers<V: LayerVisitor<B>>(
        &mut self,
        path: &str,
        names: &SelfAttentionNames,
        visitor: &mut V,
    ) -> Result<()> {
        visitor.linear(&format!("{path}.{}", names.query), &mut self.query)?;
        visitor.linear(&format!("{path}.{}", names.key), &mut self.key)?;
        visitor.linear(&format!("{path}.{}", names.value), &mut self.value)?;
        visitor.linear(&format!("{path}.{}", names.output), &mut self.output)?;
        visitor.layer_norm(&format!("{path}.{}", names.norm), &mut self.norm)
    }
}
