use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::checkpoint::{canonical_key, load_layers};
use super::fields::{
    activation, invalid, read_fields, require_epsilon, require_layers, require_multiple,
    require_probabilities, require_sizes,
};
use super::rope::{Rope, require_even};
use super::{
    Architecture, GatedFeedForward, GatedFeedForwardConfig, LayerType, LayerVisitor,
    RopeParameters, RotaryAttention, RotaryAttentionConfig,
};
use crate::adapter::{AdaptedEmbedding, AdaptedRmsNorm, Pass, RmsNormConfig};
use crate::error::Result;
use crate::kernel::{Activation, Packing, RotaryAngles};
use crate::state_dict::StateDict;
use crate::text::TokenBatch;

/// What the encoder's names begin with in checkpoints of a Gemma 3 with a head.
const HEAD_PREFIXES: &[&str] = &["model."];

/// The fields of a text Gemma 3's `config.json` that its forward pass needs
/// (<https://arxiv.org/abs/2503.19786>; as an embedding model,
/// <https://arxiv.org/abs/2509.20354>).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the names are config.json's own")]
pub struct Gemma3Config {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    pub head_dim: usize,
    pub hidden_activation: String,
    pub max_position_embeddings: usize,
    pub initializer_range: f64,
    pub rms_norm_eps: f64,
    pub rope_parameters: Option<RopeParameters>,
    pub rope_scaling: Option<RopeParameters>,
    pub rope_theta: f64,
    pub rope_local_base_freq: f64,
    pub attention_bias: bool,
    pub attention_dropout: f64,
    pub query_pre_attn_scalar: f64,
    pub sliding_window: Option<usize>,
    pub sliding_window_pattern: usize,
    pub layer_types: Option<Vec<LayerType>>,
    pub use_bidirectional_attention: Option<bool>,
    pub is_causal: Option<bool>,
}

impl Default for Gemma3Config {
    /// The defaults of `transformers`.
    fn default() -> Self {
        Self {
            vocab_size: 262_208,
            hidden_size: 2304,
            intermediate_size: 9216,
            num_hidden_layers: 26,
            num_attention_heads: 8,
            num_key_value_heads: 4,
            head_dim: 256,
            hidden_activation: "gelu_pytorch_tanh".to_owned(),
            max_position_embeddings: 131_072,
            initializer_range: 0.02,
            rms_norm_eps: 1e-6,
            rope_parameters: None,
            rope_scaling: None,
            rope_theta: 1_000_000.0,
            rope_local_base_freq: 10_000.0,
            attention_bias: false,
            attention_dropout: 0.0,
            query_pre_attn_scalar: 256.0,
            sliding_window: Some(4096),
            sliding_window_pattern: 6,
            layer_types: None,
            use_bidirectional_attention: None,
            is_causal: None,
        }
    }
}

impl Gemma3Config {
    /// Reads and checks the fields of a `config.json`.
    ///
    /// # Errors
    /// [`EncoderError::Malformed`](crate::error::EncoderError) or
    /// [`EncoderError::InvalidField`](crate::error::EncoderError).
    pub fn from_json(fields: &Map<String, Value>) -> Result<Self> {
        let config: Self = read_fields(fields)?;
        config.validate()?;
        Ok(config)
    }

    fn validate(&self) -> Result<()> {
        require_epsilon("rms_norm_eps", self.rms_norm_eps)?;
        require_layers(&[("num_hidden_layers", self.num_hidden_layers)])?;
        require_sizes(&[
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("intermediate_size", self.intermediate_size),
            ("num_attention_heads", self.num_attention_heads),
            ("num_key_value_heads", self.num_key_value_heads),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.max_position_embeddings),
            ("sliding_window_pattern", self.sliding_window_pattern),
        ])?;
        let (heads, groups) = (self.num_attention_heads, self.num_key_value_heads);
        require_multiple("num_attention_heads", heads, groups)?;
        require_even("head_dim", self.head_dim)?;
        require_probabilities(&[("attention_dropout", self.attention_dropout)])?;
        if self.query_pre_attn_scalar <= 0.0 {
            let found = self.query_pre_attn_scalar;
            return Err(invalid("query_pre_attn_scalar", "above 0", found));
        }
        let slides = self
            .types_of_layers()?
            .contains(&LayerType::SlidingAttention);
        if slides && self.sliding_window.is_none_or(|window| window == 0) {
            let found = self.sliding_window.unwrap_or_default();
            return Err(invalid("sliding_window", "at least 1", found));
        }
        self.rope(LayerType::FullAttention)?;
        self.rope(LayerType::SlidingAttention)?;
        activation("hidden_activation", &self.hidden_activation).map(|_| ())
    }

    fn types_of_layers(&self) -> Result<Vec<LayerType>> {
        let pattern = self.sliding_window_pattern;
        LayerType::of_layers(
            self.layer_types.as_deref(),
            self.num_hidden_layers,
            |layer| (layer + 1) % pattern != 0,
        )
    }

    fn theta(&self, layer_type: LayerType) -> f64 {
        match layer_type {
            LayerType::FullAttention => self.rope_theta,
            LayerType::SlidingAttention => self.rope_local_base_freq,
        }
    }

    fn rope(&self, layer_type: LayerType) -> Result<Rope> {
        let nested = self.rope_parameters.as_ref();
        let nested = nested.and_then(|parameters| parameters.of(layer_type));
        // What layers that slide turn by is never scaled.
        let scaling = match layer_type {
            LayerType::FullAttention => self.rope_scaling.as_ref(),
            LayerType::SlidingAttention => None,
        };
        Rope::new(&[scaling, nested], self.theta(layer_type))
    }

    fn causal(&self) -> bool {
        let is_bidirectional = self.use_bidirectional_attention == Some(true);
        self.is_causal.unwrap_or(true) && !is_bidirectional
    }

    /// How far a token of a sliding layer sees. `sliding_window` counts both sides of a
    /// token that sees both, else its own side and itself. With `is_causal` false instead,
    /// `transformers` does not count the token.
    fn window(&self) -> Option<usize> {
        let reach = match self.use_bidirectional_attention {
            Some(true) => self.sliding_window? / 2 + 1,
            _ => self.sliding_window?,
        };
        Some(match self.is_causal {
            Some(false) => reach,
            _ => reach.saturating_sub(1),
        })
    }

    /// An encoder with fresh weights.
    pub fn init<B: Backend>(&self, device: &B::Device) -> Gemma3<B> {
        // What falls back here, `from_json` has checked; it may have been set by hand.
        let types = self
            .types_of_layers()
            .unwrap_or_else(|_| vec![LayerType::FullAttention; self.num_hidden_layers]);
        let frequencies = |layer_type: LayerType| {
            let rope = self.rope(layer_type);
            let rope = rope.unwrap_or_else(|_| Rope::plain(self.theta(layer_type)));
            rope.frequencies(self.head_dim)
        };
        let norm = RmsNormConfig {
            epsilon: self.rms_norm_eps,
            offset: 1.0,
        };
        let attention = RotaryAttentionConfig {
            hidden_size: self.hidden_size,
            heads: self.num_attention_heads,
            key_value_heads: self.num_key_value_heads,
            head_dim: self.head_dim,
            bias: self.attention_bias,
            norm: Some(norm),
            scale: self.query_pre_attn_scalar.sqrt().recip(),
            window: None,
            causal: self.causal(),
            attention_dropout: self.attention_dropout,
            initializer_range: self.initializer_range,
        };
        let mlp = GatedFeedForwardConfig {
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            activation: activation("hidden_activation", &self.hidden_activation)
                .unwrap_or(Activation::GeluTanh),
            initializer_range: self.initializer_range,
        };
        let layer = |layer_type: LayerType| {
            let slides = layer_type == LayerType::SlidingAttention;
            let attention = RotaryAttentionConfig {
                window: self.window().filter(|_| slides),
                ..attention
            };
            Gemma3Layer {
                input_norm: norm.init(self.hidden_size, device),
                attention: attention.init(device),
                post_attention_norm: norm.init(self.hidden_size, device),
                pre_mlp_norm: norm.init(self.hidden_size, device),
                mlp: mlp.init(device),
                post_mlp_norm: norm.init(self.hidden_size, device),
                slides,
            }
        };
        Gemma3 {
            embed_tokens: AdaptedEmbedding::init(
                self.vocab_size,
                self.hidden_size,
                self.initializer_range,
                device,
            ),
            layers: types.into_iter().map(layer).collect(),
            norm: norm.init(self.hidden_size, device),
            embedding_scale: (self.hidden_size as f64).sqrt(),
            global_frequencies: frequencies(LayerType::FullAttention),
            local_frequencies: frequencies(LayerType::SlidingAttention),
        }
    }

    /// An encoder with the weights of a state dict; what it does not use stays there.
    ///
    /// # Errors
    /// [`StateDictError`](crate::error::StateDictError) naming what is missing or of
    /// another shape.
    pub fn load<B: Backend>(
        &self,
        tensors: &mut StateDict,
        device: &B::Device,
    ) -> Result<Gemma3<B>> {
        *tensors = std::mem::take(tensors).rename(|key| canonical_key(key, HEAD_PREFIXES));
        let mut gemma3 = self.init(device);
        load_layers(tensors, device, |visitor| gemma3.visit_layers(visitor))?;
        Ok(gemma3)
    }
}

impl Architecture for Gemma3Config {
    fn model_type(&self) -> &str {
        "gemma3_text"
    }

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    fn max_tokens(&self) -> usize {
        self.max_position_embeddings
    }

    fn embeds_positions(&self) -> bool {
        false
    }

    fn default_lora_targets(&self) -> &'static [&'static str] {
        &["q_proj", "v_proj"]
    }

    fn head_prefixes(&self) -> &'static [&'static str] {
        HEAD_PREFIXES
    }
}

/// Gemma 3 for text without its head. As an embedding model its tokens see each other in
/// both directions (`use_bidirectional_attention`), in most layers only so far.
#[derive(Module, Debug)]
pub struct Gemma3<B: Backend> {
    embed_tokens: AdaptedEmbedding<B>,
    layers: Vec<Gemma3Layer<B>>,
    norm: AdaptedRmsNorm<B>,
    #[module(skip)]
    embedding_scale: f64,
    #[module(skip)]
    global_frequencies: Vec<f32>,
    #[module(skip)]
    local_frequencies: Vec<f32>,
}

/// One layer of a Gemma 3: each block has a norm before it and one behind it.
#[derive(Module, Debug)]
pub struct Gemma3Layer<B: Backend> {
    input_norm: AdaptedRmsNorm<B>,
    attention: RotaryAttention<B>,
    post_attention_norm: AdaptedRmsNorm<B>,
    pre_mlp_norm: AdaptedRmsNorm<B>,
    mlp: GatedFeedForward<B>,
    post_mlp_norm: AdaptedRmsNorm<B>,
    #[module(skip)]
    slides: bool,
}

impl<B: Backend> Gemma3<B> {
    /// Turns token ids into token embeddings.
    ///
    /// # Shapes
    /// - batch: `[tokens]`
    /// - output: `[tokens, hidden]`
    pub(super) fn fold_layers(
        &self,
        batch: &TokenBatch<B>,
        packing: &Packing<B>,
        pass: Pass<'_>,
        see: &mut dyn FnMut(&Tensor<B, 2>),
    ) -> Tensor<B, 2> {
        let [global, local] = [&self.global_frequencies, &self.local_frequencies]
            .map(|frequencies| RotaryAngles::new(frequencies, packing));
        let hidden = self.embed_tokens.forward(batch.ids(), pass) * self.embedding_scale;
        see(&hidden);
        let hidden = self.layers.iter().fold(hidden, |hidden, layer| {
            let angles = if layer.slides { &local } else { &global };
            let hidden = layer.forward(hidden, angles, packing, pass);
            see(&hidden);
            hidden
        });
        self.norm.forward(hidden, pass)
    }

    /// Sets the dropout of every layer but the adapters'.
    pub fn set_dropout(&mut self, dropout: f64) {
        for layer in &mut self.layers {
            layer.attention.set_dropout(dropout);
        }
    }

    /// Walks a visitor over the layers under their Hugging Face paths.
    ///
    /// # Errors
    /// The visitor's.
    pub fn visit_layers<V: LayerVisitor<B>>(&mut self, visitor: &mut V) -> Result<()> {
        visitor.embedding("embed_tokens", &mut self.embed_tokens)?;
        for (index, layer) in self.layers.iter_mut().enumerate() {
            layer.visit_layers(&format!("layers.{index}"), visitor)?;
        }
        visitor.rms_norm("norm", &mut self.norm)
    }
}

impl<B: Backend> Gemma3Layer<B> {
    /// Transforms the tokens of each text.
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
        let normed = self.input_norm.forward(hidden.clone(), pass);
        let attended = self.attention.forward(normed, angles, packing, pass);
        let hidden = hidden + self.post_attention_norm.forward(attended, pass);
        let normed = self.pre_mlp_norm.forward(hidden.clone(), pass);
        let output = self.mlp.forward(normed, pass);
        hidden + self.post_mlp_norm.forward(output, pass)
    }

    fn visit_layers<V: LayerVisitor<B>>(&mut self, path: &str, visitor: &mut V) -> Result<()> {
        visitor.rms_norm(&format!("{path}.input_layernorm"), &mut self.input_norm)?;
        self.attention
            .visit_layers(&format!("{path}.self_attn"), visitor)?;
        visitor.rms_norm(
            &format!("{path}.post_attention_layernorm"),
            &mut self.post_attention_norm,
        )?;
        visitor.rms_norm(
            &format!("{path}.pre_feedforward_layernorm"),
            &mut self.pre_mlp_norm,
        )?;
        self.mlp.visit_layers(&format!("{path}.mlp"), visitor)?;
        visitor.rms_norm(
            &format!("{path}.post_feedforward_layernorm"),
            &mut self.post_mlp_norm,
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{EncoderError, Error};
    use serde_json::json;

    fn config(fields: Value) -> Result<Gemma3Config> {
        Gemma3Config::from_json(fields.as_object().unwrap())
    }

    #[test]
    fn a_window_counts_as_the_reference_counts_it() {
        for (bidirectional, is_causal, window, causal) in [
            (None, None, 511, true),
            (Some(false), Some(true), 511, true),
            (Some(true), None, 256, false),
            (None, Some(false), 512, false),
            (Some(true), Some(false), 257, false),
        ] {
            let found = config(json!({
                "sliding_window": 512, "use_bidirectional_attention": bidirectional,
                "is_causal": is_causal,
            }))
            .unwrap();
            assert_eq!((found.window(), found.causal()), (Some(window), causal));
        }
    }

    #[test]
    fn every_sixth_layer_sees_all_and_scaling_is_theirs_alone() {
        let found = config(json!({
            "num_hidden_layers": 12, "rope_scaling": { "rope_type": "linear", "factor": 8.0 },
        }))
        .unwrap();
        let types = found.types_of_layers().unwrap();
        let all: Vec<usize> = (0..12)
            .filter(|&layer| types[layer] == LayerType::FullAttention)
            .collect();
        assert_eq!(all, [5, 11]);
        let first = |layer_type| found.rope(layer_type).unwrap().frequencies(2)[0];
        assert_eq!(first(LayerType::FullAttention), 0.125);
        assert_eq!(first(LayerType::SlidingAttention), 1.0);
    }

    #[test]
    fn what_a_gemma3_cannot_have_is_named() {
        for (fields, named) in [
            (json!({ "head_dim": 5 }), "head_dim"),
            (json!({ "num_key_value_heads": 3 }), "num_attention_heads"),
            (json!({ "sliding_window": null }), "sliding_window"),
            (
                json!({ "query_pre_attn_scalar": 0 }),
                "query_pre_attn_scalar",
            ),
        ] {
            let error = config(fields).unwrap_err();
            assert!(
                matches!(&error, Error::Encoder(EncoderError::InvalidField { field, .. })
                    if *field == named),
                "{error}"
            );
        }
    }
}
