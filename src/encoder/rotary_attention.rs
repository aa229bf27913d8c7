use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};

use super::LayerVisitor;
use crate::adapter::{AdaptedLinear, AdaptedLinearConfig, AdaptedRmsNorm, Pass, RmsNormConfig};
use crate::error::Result;
use crate::kernel::{AttentionOptions, Packing, RotaryAngles, attention, rotary};

/// The size of a self-attention with rotary positions.
#[derive(Debug, Clone, Copy)]
pub struct RotaryAttentionConfig {
    /// The size of a token embedding.
    pub hidden_size: usize,
    /// The number of query heads.
    pub heads: usize,
    /// The number of key and value heads.
    pub key_value_heads: usize,
    /// The size of a head.
    pub head_dim: usize,
    /// Whether the projections add a bias.
    pub bias: bool,
    /// The norm of each query and key head, if the architecture has one.
    pub norm: Option<RmsNormConfig>,
    /// The factor on the scores.
    pub scale: f64,
    /// How far to either side of itself a token sees; `None` is the whole text.
    pub window: Option<usize>,
    /// Whether a token sees only itself and those before it.
    pub causal: bool,
    /// The dropout on the attention probabilities.
    pub attention_dropout: f64,
    /// The deviation of fresh weights.
    pub initializer_range: f64,
}

impl RotaryAttentionConfig {
    /// An attention with fresh weights.
    pub fn init<B: Backend>(&self, device: &B::Device) -> RotaryAttention<B> {
        let linear = |d_input, d_output| {
            let config = AdaptedLinearConfig {
                d_input,
                d_output,
                bias: self.bias,
                initializer_range: self.initializer_range,
            };
            config.init(device)
        };
        let norm = || self.norm.map(|norm| norm.init(self.head_dim, device));
        let (wide, narrow) = (
            self.heads * self.head_dim,
            self.key_value_heads * self.head_dim,
        );
        RotaryAttention {
            query: linear(self.hidden_size, wide),
            key: linear(self.hidden_size, narrow),
            value: linear(self.hidden_size, narrow),
            output: linear(wide, self.hidden_size),
            query_norm: norm(),
            key_norm: norm(),
            heads: self.heads,
            key_value_heads: self.key_value_heads,
            head_dim: self.head_dim,
            scale: self.scale,
            window: self.window,
            causal: self.causal,
            attention_dropout: self.attention_dropout,
        }
    }
}

/// Self-attention that knows positions by turning queries and keys, with its output
/// projection, and with neither residual connection nor norm around it: architectures
/// differ in those.
#[derive(Module, Debug)]
pub struct RotaryAttention<B: Backend> {
    query: AdaptedLinear<B>,
    key: AdaptedLinear<B>,
    value: AdaptedLinear<B>,
    output: AdaptedLinear<B>,
    query_norm: Option<AdaptedRmsNorm<B>>,
    key_norm: Option<AdaptedRmsNorm<B>>,
    #[module(skip)]
    heads: usize,
    #[module(skip)]
    key_value_heads: usize,
    #[module(skip)]
    head_dim: usize,
    #[module(skip)]
    scale: f64,
    #[module(skip)]
    window: Option<usize>,
    #[module(skip)]
    causal: bool,
    #[module(skip)]
    attention_dropout: f64,
}

impl<B: Backend> RotaryAttention<B> {
    /// Lets the tokens of each text attend to each other.
    ///
    /// # Shapes
    /// - hidden: `[tokens, hidden]`
    /// - output: `[tokens, hidden]`
    pub fn forward(
        &self,
        hidden: Tensor<B, 2>,
        angles: &RotaryAngles<B>,
        packing: &Packing<B>,
        pass: Pass<'_>,
    ) -> Tensor<B, 2> {
        let query = self.query.forward(hidden.clone(), pass);
        let key = self.key.forward(hidden.clone(), pass);
        let value = self.value.forward(hidden, pass);
        let context = attention(
            rotary(self.normed(query, &self.query_norm, pass), angles),
            rotary(self.normed(key, &self.key_norm, pass), angles),
            value,
            None,
            packing,
            &AttentionOptions {
                heads: self.heads,
                key_value_heads: self.key_value_heads,
                scale: self.scale,
                window: self.window,
                causal: self.causal,
                dropout: self.attention_dropout,
                mode: pass.mode,
            },
        );
        self.output.forward(context, pass)
    }

    /// Norms each head by itself.
    fn normed(
        &self,
        heads: Tensor<B, 2>,
        norm: &Option<AdaptedRmsNorm<B>>,
        pass: Pass<'_>,
    ) -> Tensor<B, 2> {
        let Some(norm) = norm else {
            return heads;
        };
        let [tokens, width] = heads.dims();
        let rows = heads.reshape([tokens * (width / self.head_dim), self.head_dim]);
        norm.forward(rows, pass).reshape([tokens, width])
    }

    /// Sets the dropout on the probabilities.
    pub fn set_dropout(&mut self, dropout: f64) {
        self.attention_dropout = dropout;
    }

    /// Walks a visitor over the layers under the attention's path.
    ///
    /// # Errors
    /// The visitor's.
    pub fn visit_layers<V: LayerVisitor<B>>(&mut self, path: &str, visitor: &mut V) -> Result<()> {
        visitor.linear(&format!("{path}.q_proj"), &mut self.query)?;
        visitor.linear(&format!("{path}.k_proj"), &mut self.key)?;
        visitor.linear(&format!("{path}.v_proj"), &mut self.value)?;
        visitor.linear(&format!("{path}.o_proj"), &mut self.output)?;
        if let Some(norm) = &mut self.query_norm {
            visitor.rms_norm(&format!("{path}.q_norm"), norm)?;
        }
        match &mut self.key_norm {
            Some(norm) => visitor.rms_norm(&format!("{path}.k_norm"), norm),
            None => Ok(()),
        }
    }
}
