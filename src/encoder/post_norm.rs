use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};

use super::{
    FeedForward, FeedForwardConfig, FeedForwardNames, LayerVisitor, SelfAttention,
    SelfAttentionConfig, SelfAttentionNames,
};
use crate::adapter::Pass;
use crate::error::Result;
use crate::kernel::{Activation, Packing};

/// The size of one layer of an encoder that norms behind its residual connections.
#[derive(Debug, Clone, Copy)]
pub struct PostNormLayerConfig {
    /// The size of a token embedding.
    pub hidden_size: usize,
    /// The number of attention heads.
    pub heads: usize,
    /// The size between the two feed-forward layers.
    pub intermediate_size: usize,
    /// The activation between them.
    pub activation: Activation,
    /// The dropout on the attention probabilities.
    pub attention_dropout: f64,
    /// The dropout on the attention's output, if the architecture has one.
    pub attention_output_dropout: Option<f64>,
    /// The dropout on the feed-forward output, if the architecture has one.
    pub feed_forward_dropout: Option<f64>,
    /// The epsilon of both norms.
    pub layer_norm_eps: f64,
    /// The deviation of fresh weights.
    pub initializer_range: f64,
}

/// What an architecture calls the parts of a layer.
#[derive(Debug, Clone, Copy)]
pub struct PostNormLayerNames {
    /// Those of its attention.
    pub attention: SelfAttentionNames,
    /// Those of its feed-forward block.
    pub feed_forward: FeedForwardNames,
}

impl PostNormLayerConfig {
    /// A layer with fresh weights.
    pub fn init<B: Backend>(&self, device: &B::Device) -> PostNormLayer<B> {
        let attention = SelfAttentionConfig {
            hidden_size: self.hidden_size,
            heads: self.heads,
            attention_dropout: self.attention_dropout,
            hidden_dropout: self.attention_output_dropout,
            layer_norm_eps: self.layer_norm_eps,
            initializer_range: self.initializer_range,
        };
        let feed_forward = FeedForwardConfig {
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            activation: self.activation,
            hidden_dropout: self.feed_forward_dropout,
            layer_norm_eps: self.layer_norm_eps,
            initializer_range: self.initializer_range,
        };
        PostNormLayer {
            attention: attention.init(device),
            feed_forward: feed_forward.init(device),
        }
    }
}

/// Self-attention and feed-forward block, each with a norm behind its residual connection:
/// the layer of BERT and all that follow it.
#[derive(Module, Debug)]
pub struct PostNormLayer<B: Backend> {
    attention: SelfAttention<B>,
    feed_forward: FeedForward<B>,
}

impl<B: Backend> PostNormLayer<B> {
    /// Transforms the tokens of each text. `bias` is added to the attention scores.
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
        let attended = self.attention.forward(hidden, bias, packing, pass);
        self.feed_forward.forward(attended, pass)
    }

    /// Sets every dropout that the architecture has.
    pub fn set_dropout(&mut self, dropout: f64) {
        self.attention.set_dropout(dropout);
        self.feed_forward.set_dropout(dropout);
    }

    /// Walks a visitor over the layer's own layers under its path.
    ///
    /// # Errors
    /// The visitor's.
    pub fn visit_layers<V: LayerVisitor<B>>(
        &mut self,
        path: &str,
        names: &PostNormLayerNames,
        visitor: &mut V,
    ) -> Result<()> {
        self.attention
            .visit_layers(path, &names.attention, visitor)?;
        self.feed_forward
            .visit_layers(path, &names.feed_forward, visitor)
    }
}
