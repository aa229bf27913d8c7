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

/// What the encoder's names begin with in checkpoints of a Qwen3 with a head.
const HEAD_PREFIXES: &[&str] = &["model."];

/// The fields of a Qwen3's `config.json` that its forward pass needs
/// (<https://arxiv.org/abs/2505.09388>).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the names are config.json's own")]
pub struct Qwen3Config {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: Option<usize>,
    pub head_dim: usize,
    pub hidden_act: String,
    pub max_position_embeddings: usize,
    pub initializer_range: f64,
    pub rms_norm_eps: f64,
    pub rope_parameters: Option<RopeParameters>,
    pub rope_scaling: Option<RopeParameters>,
    pub rope_theta: f64,
    pub attention_bias: bool,
    pub attention_dropout: f64,
    pub use_sliding_window: bool,
    pub sliding_window: Option<usize>,
    pub max_window_layers: usize,
    pub layer_types: Option<Vec<LayerType>>,
    pub is_causal: Option<bool>,
}

impl Default for Qwen3Config {
    /// The defaults of `transformers`.
    fn default() -> Self {
        Self {
            vocab_size: 151_936,
            hidden_size: 4096,
            intermediate_size: 22016,
            num_hidden_layers: 32,
            num_attention_heads: 32,
            num_key_value_heads: None,
            head_dim: 128,
            hidden_act: "silu".to_owned(),
            max_position_embeddings: 32768,
            initializer_range: 0.02,
            rms_norm_eps: 1e-6,
            rope_parameters: None,
            rope_scaling: None,
            rope_theta: 10_000.0,
            attention_bias: false,
            attention_dropout: 0.0,
            use_sliding_window: false,
            sliding_window: Some(4096),
            max_window_layers: 28,
            layer_types: None,
            is_causal: None,
        }
    }
}

impl Qwen3Config {
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
            ("num_key_value_heads", self.key_value_heads()),
            ("head_dim", self.head_dim),
            ("max_position_embeddings", self.max_position_embeddings),
        ])?;
        let (heads, groups) = (self.num_attention_heads, self.key_value_heads());
        require_multiple("num_attention_heads", heads, groups)?;
        require_even("head_dim", self.head_dim)?;
        require_probabilities(&[("attention_dropout", self.attention_dropout)])?;
        let slides = self
            .types_of_layers()?
            .contains(&LayerType::SlidingAttention);
        if slides && self.sliding_window.is_none_or(|window| window == 0) {
            let found = self.sliding_window.unwrap_or_default();
            return Err(invalid("sliding_window", "at least 1", found));
        }
        self.rope()?;
        activation("hidden_act", &self.hidden_act).map(|_| ())
    }

    fn key_value_heads(&self) -> usize {
        self.num_key_value_heads.unwrap_or(self.num_attention_heads)
    }

    fn types_of_layers(&self) -> Result<Vec<LayerType>> {
        let has_window = self.use_sliding_window && self.sliding_window.is_some();
        LayerType::of_layers(
            self.layer_types.as_deref(),
            self.num_hidden_layers,
            |layer| has_window && layer >= self.max_window_layers,
        )
    }

    fn rope(&self) -> Result<Rope> {
        let sources = [self.rope_scaling.as_ref(), self.rope_parameters.as_ref()];
        Rope::new(&sources, self.rope_theta)
    }

    fn causal(&self) -> bool {
        self.is_causal.unwrap_or(true)
    }

    /// How far a token of a sliding layer sees: `sliding_window` counts the token itself
    /// where attention is causal, and does not where it is not.
    fn window(&self) -> Option<usize> {
        self.sliding_window.map(|window| match self.causal() {
            true => window.saturating_sub(1),
            false => window,
        })
    }

    /// An encoder with fresh weights.
    pub fn init<B: Backend>(&self, device: &B::Device) -> Qwen3<B> {
        // What falls back here, `from_json` has checked; it may have been set by hand.
        let types = self
            .types_of_layers()
            .unwrap_or_else(|_| vec![LayerType::FullAttention; self.num_hidden_layers]);
        let rope = self.rope().unwrap_or_else(|_| Rope::plain(self.rope_theta));
        let norm = RmsNormConfig {
            epsilon: self.rms_norm_eps,
            offset: 0.0,
        };
        let attention = RotaryAttentionConfig {
            hidden_size: self.hidden_size,
            heads: self.num_attention_heads,
            key_value_heads: self.key_value_heads(),
            head_dim: self.head_dim,
            bias: self.attention_bias,
            norm: Some(norm),
            scale: (self.head_dim as f64).sqrt().recip(),
            window: None,
            causal: self.causal(),
            attention_dropout: self.attention_dropout,
            initializer_range: self.initializer_range,
        };
        let mlp = GatedFeedForwardConfig {
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            activation: activation("hidden_act", &self.hidden_act).unwrap_or(Activation::Silu),
            initializer_range: self.initializer_range,
        };
        let layer = |layer_type: LayerType| {
            let slides = layer_type == LayerType::SlidingAttention;
            let attention = RotaryAttentionConfig {
                window: self.window().filter(|_| slides),
                ..attention
            };
            Qwen3Layer {
                attention_norm: norm.init(self.hidden_size, device),
                attention: attention.init(device),
                mlp_norm: norm.init(self.hidden_size, device),
                mlp: mlp.init(device),
            }
        };
        Qwen3 {
            embed_tokens: AdaptedEmbedding::init(
                self.vocab_size,
                self.hidden_size,
                self.initializer_range,
                device,
            ),
            layers: types.into_iter().map(layer).collect(),
            norm: norm.init(self.hidden_size, device),
            frequencies: rope.frequencies(self.head_dim),
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
    ) -> Result<Qwen3<B>> {
        *tensors = std::mem::take(tensors).rename(|key| canonical_key(key, HEAD_PREFIXES));
        let mut qwen3 = self.init(device);
        load_layers(tensors, device, |visitor| qwen3.visit_layers(visitor))?;
        Ok(qwen3)
    }
}

impl Architecture for Qwen3Config {
    fn model_type(&self) -> &str {
        "qwen3"
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

/// Qwen3 without its head: a decoder, whose tokens see only those before them, so that a
/// text's last token stands for it.
#[derive(Module, Debug)]
pub struct Qwen3<B: Backend> {
    embed_tokens: AdaptedEmbedding<B>,
    layers: Vec<Qwen3Layer<B>>,
    norm: AdaptedRmsNorm<B>,
    #[module(skip)]
    frequencies: Vec<f32>,
}

/// One layer of a Qwen3.
#[derive(Module, Debug)]
pub struct Qwen3Layer<B: Backend> {
    attention_norm: AdaptedRmsNorm<B>,
    attention: RotaryAttention<B>,
    mlp_norm: AdaptedRmsNorm<B>,
    mlp: GatedFeedForward<B>,
}

impl<B: Backend> Qwen3<B> {
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
        let angles = RotaryAngles::new(&self.frequencies, packing);
        let hidden = self.embed_tokens.forward(batch.ids(), pass);
        see(&hidden);
        let hidden = self.layers.iter().fold(hidden, |hidden, layer| {
            let hidden = layer.forward(hidden, &angles, packing, pass);
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

impl<B: Backend> Qwen3Layer<B> {
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
        let normed = self.attention_norm.forward(hidden.clone(), pass);
        let hidden = hidden + self.attention.forward(normed, angles, packing, pass);
        let normed = self.mlp_norm.forward(hidden.clone(), pass);
        hidden + self.mlp.forward(normed, pass)
    }

    fn visit_layers<V: LayerVisitor<B>>(&mut self, path: &str, visitor: &mut V) -> Result<()> {
        visitor.rms_norm(&format!("{path}.input_layernorm"), &mut self.attention_norm)?;
        self.attention
            .visit_layers(&format!("{path}.self_attn"), visitor)?;
        visitor.rms_norm(
            &format!("{path}.post_attention_layernorm"),
            &mut self.mlp_norm,
        )?;
        self.mlp.visit_layers(&format!("{path}.mlp"), visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{EncoderError, Error};
    use serde_json::json;

    fn config(fields: Value) -> Result<Qwen3Config> {
        Qwen3Config::from_json(fields.as_object().unwrap())
    }

    #[test]
    fn layers_slide_from_max_window_layers_on_where_sliding_is_used() {
        let sliding = |fields: Value| -> Vec<bool> {
            let types = config(fields).unwrap().types_of_layers().unwrap();
            let slides = types.iter().map(|t| *t == LayerType::SlidingAttention);
            slides.collect()
        };
        let fields = json!({ "num_hidden_layers": 3, "max_window_layers": 1 });
        assert_eq!(sliding(fields), [false; 3]);
        let fields = json!({
            "num_hidden_layers": 3, "max_window_layers": 1, "use_sliding_window": true,
        });
        assert_eq!(sliding(fields), [false, true, true]);
        let window = |causal: bool| {
            let fields = json!({ "sliding_window": 5, "is_causal": causal });
            config(fields).unwrap().window()
        };
        assert_eq!((window(true), window(false)), (Some(4), Some(5)));
    }

    #[test]
    fn what_a_qwen3_cannot_have_is_named() {
        for (fields, named) in [
            (json!({ "head_dim": 5 }), "head_dim"),
            (json!({ "num_key_value_heads": 3 }), "num_attention_heads"),
            (json!({ "num_key_value_heads": 0 }), "num_key_value_heads"),
            (
                json!({
                    "num_hidden_layers": 1, "layer_types": ["sliding_attention"],
                    "sliding_window": null,
                }),
                "sliding_window",
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
