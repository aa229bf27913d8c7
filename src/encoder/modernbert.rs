use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::checkpoint::{canonical_key, load_layers};
use super::fields::{
    activation, read_fields, require_epsilon, require_layers, require_multiple,
    require_probabilities, require_sizes,
};
use super::rope::{Rope, require_even};
use super::{Architecture, LayerType, LayerVisitor, RopeParameters};
use crate::adapter::{
    AdaptedEmbedding, AdaptedLayerNorm, AdaptedLinear, AdaptedLinearConfig, Pass,
};
use crate::error::Result;
use crate::kernel::{
    Activation, AttentionOptions, Packing, RotaryAngles, attention, dropout, gated, rotary,
};
use crate::state_dict::StateDict;
use crate::text::TokenBatch;

/// What the encoder's names begin with in checkpoints of a ModernBERT with a head.
const HEAD_PREFIXES: &[&str] = &["model."];

/// The fields of a ModernBERT's `config.json` that its forward pass needs
/// (<https://arxiv.org/abs/2412.13663>).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the names are config.json's own")]
pub struct ModernBertConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub hidden_activation: String,
    pub max_position_embeddings: usize,
    pub initializer_range: f64,
    pub norm_eps: f64,
    pub norm_bias: bool,
    pub attention_bias: bool,
    pub attention_dropout: f64,
    pub layer_types: Option<Vec<LayerType>>,
    pub global_attn_every_n_layers: usize,
    pub rope_parameters: Option<RopeParameters>,
    pub rope_scaling: Option<RopeParameters>,
    pub global_rope_theta: f64,
    pub local_rope_theta: f64,
    pub local_attention: usize,
    pub embedding_dropout: f64,
    pub mlp_bias: bool,
    pub mlp_dropout: f64,
}

impl Default for ModernBertConfig {
    /// The defaults of `transformers`: ModernBERT-base.
    fn default() -> Self {
        Self {
            vocab_size: 50368,
            hidden_size: 768,
            intermediate_size: 1152,
            num_hidden_layers: 22,
            num_attention_heads: 12,
            hidden_activation: "gelu".to_owned(),
            max_position_embeddings: 8192,
            initializer_range: 0.02,
            norm_eps: 1e-5,
            norm_bias: false,
            attention_bias: false,
            attention_dropout: 0.0,
            layer_types: None,
            global_attn_every_n_layers: 3,
            rope_parameters: None,
            rope_scaling: None,
            global_rope_theta: 160_000.0,
            local_rope_theta: 10_000.0,
            local_attention: 128,
            embedding_dropout: 0.0,
            mlp_bias: false,
            mlp_dropout: 0.0,
        }
    }
}

impl ModernBertConfig {
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
        require_epsilon("norm_eps", self.norm_eps)?;
        require_layers(&[("num_hidden_layers", self.num_hidden_layers)])?;
        require_sizes(&[
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
            (
                "global_attn_every_n_layers",
                self.global_attn_every_n_layers,
            ),
        ])?;
        require_multiple("hidden_size", self.hidden_size, self.num_attention_heads)?;
        require_even("hidden_size", self.head_dim())?;
        require_probabilities(&[
            ("attention_dropout", self.attention_dropout),
            ("embedding_dropout", self.embedding_dropout),
            ("mlp_dropout", self.mlp_dropout),
        ])?;
        self.types_of_layers()?;
        self.rope(LayerType::FullAttention)?;
        self.rope(LayerType::SlidingAttention)?;
        activation("hidden_activation", &self.hidden_activation).map(|_| ())
    }

    fn head_dim(&self) -> usize {
        self.hidden_size / self.num_attention_heads
    }

    fn types_of_layers(&self) -> Result<Vec<LayerType>> {
        let every = self.global_attn_every_n_layers;
        LayerType::of_layers(
            self.layer_types.as_deref(),
            self.num_hidden_layers,
            |layer| layer % every != 0,
        )
    }

    fn theta(&self, layer_type: LayerType) -> f64 {
        match layer_type {
            LayerType::FullAttention => self.global_rope_theta,
            LayerType::SlidingAttention => self.local_rope_theta,
        }
    }

    fn rope(&self, layer_type: LayerType) -> Result<Rope> {
        let nested = self.rope_parameters.as_ref();
        let nested = nested.and_then(|parameters| parameters.of(layer_type));
        Rope::new(
            &[self.rope_scaling.as_ref(), nested],
            self.theta(layer_type),
        )
    }

    /// An encoder with fresh weights.
    pub fn init<B: Backend>(&self, device: &B::Device) -> ModernBert<B> {
        // What falls back here, `from_json` has checked; it may have been set by hand.
        let types = self
            .types_of_layers()
            .unwrap_or_else(|_| vec![LayerType::FullAttention; self.num_hidden_layers]);
        let frequencies = |layer_type: LayerType| {
            let rope = self.rope(layer_type);
            let rope = rope.unwrap_or_else(|_| Rope::plain(self.theta(layer_type)));
            rope.frequencies(self.head_dim())
        };
        ModernBert {
            tok_embeddings: AdaptedEmbedding::init(
                self.vocab_size,
                self.hidden_size,
                self.initializer_range,
                device,
            ),
            embeddings_norm: self.norm(device),
            layers: types
                .into_iter()
                .enumerate()
                .map(|(index, layer_type)| self.layer(index, layer_type, device))
                .collect(),
            final_norm: self.norm(device),
            embedding_dropout: self.embedding_dropout,
            global_frequencies: frequencies(LayerType::FullAttention),
            local_frequencies: frequencies(LayerType::SlidingAttention),
        }
    }

    fn norm<B: Backend>(&self, device: &B::Device) -> AdaptedLayerNorm<B> {
        match self.norm_bias {
            true => AdaptedLayerNorm::init(self.hidden_size, self.norm_eps, device),
            false => AdaptedLayerNorm::init_without_bias(self.hidden_size, self.norm_eps, device),
        }
    }

    fn layer<B: Backend>(
        &self,
        index: usize,
        layer_type: LayerType,
        device: &B::Device,
    ) -> ModernBertLayer<B> {
        let linear = |d_input, d_output, bias| {
            let config = AdaptedLinearConfig {
                d_input,
                d_output,
                bias,
                initializer_range: self.initializer_range,
            };
            config.init(device)
        };
        let (hidden, wide) = (self.hidden_size, self.intermediate_size);
        ModernBertLayer {
            // The embeddings' norm stands right before the first layer.
            attention_norm: (index > 0).then(|| self.norm(device)),
            query_key_value: linear(hidden, 3 * hidden, self.attention_bias),
            attention_output: linear(hidden, hidden, self.attention_bias),
            mlp_norm: self.norm(device),
            mlp_input: linear(hidden, 2 * wide, self.mlp_bias),
            mlp_output: linear(wide, hidden, self.mlp_bias),
            heads: self.num_attention_heads,
            // `local_attention` counts both sides.
            window: (layer_type == LayerType::SlidingAttention).then_some(self.local_attention / 2),
            activation: activation("hidden_activation", &self.hidden_activation)
                .unwrap_or(Activation::Gelu),
            attention_dropout: self.attention_dropout,
            mlp_dropout: self.mlp_dropout,
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
    ) -> Result<ModernBert<B>> {
        *tensors = std::mem::take(tensors).rename(|key| canonical_key(key, HEAD_PREFIXES));
        let mut modernbert = self.init(device);
        load_layers(tensors, device, |visitor| modernbert.visit_layers(visitor))?;
        Ok(modernbert)
    }
}

impl Architecture for ModernBertConfig {
    fn model_type(&self) -> &str {
        "modernbert"
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
        &["Wqkv"]
    }

    fn head_prefixes(&self) -> &'static [&'static str] {
        HEAD_PREFIXES
    }
}

/// ModernBERT's encoder: rotary positions, norms before each block, gated feed-forward
/// blocks, and in most layers attention that reaches only so far.
#[derive(Module, Debug)]
pub struct ModernBert<B: Backend> {
    tok_embeddings: AdaptedEmbedding<B>,
    embeddings_norm: AdaptedLayerNorm<B>,
    layers: Vec<ModernBertLayer<B>>,
    final_norm: AdaptedLayerNorm<B>,
    #[module(skip)]
    embedding_dropout: f64,
    #[module(skip)]
    global_frequencies: Vec<f32>,
    #[module(skip)]
    local_frequencies: Vec<f32>,
}

/// One layer of a ModernBERT.
#[derive(Module, Debug)]
pub struct ModernBertLayer<B: Backend> {
    attention_norm: Option<AdaptedLayerNorm<B>>,
    query_key_value: AdaptedLinear<B>,
    attention_output: AdaptedLinear<B>,
    mlp_norm: AdaptedLayerNorm<B>,
    mlp_input: AdaptedLinear<B>,
    mlp_output: AdaptedLinear<B>,
    #[module(skip)]
    heads: usize,
    #[module(skip)]
    window: Option<usize>,
    #[module(skip)]
    activation: Activation,
    #[module(skip)]
    attention_dropout: f64,
    #[module(skip)]
    mlp_dropout: f64,
}

impl<B: Backend> ModernBert<B> {
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
        let embeddings = self.tok_embeddings.forward(batch.ids(), pass);
        let hidden = self.embeddings_norm.forward(embeddings, pass);
        let hidden = dropout(hidden, self.embedding_dropout, pass.mode);
        see(&hidden);
        let hidden = self.layers.iter().fold(hidden, |hidden, layer| {
            let angles = match layer.window {
                Some(_) => &local,
                None => &global,
            };
            let hidden = layer.forward(hidden, angles, packing, pass);
            see(&hidden);
            hidden
        });
        self.final_norm.forward(hidden, pass)
    }

    /// Sets the dropout of every layer but the adapters'.
    pub fn set_dropout(&mut self, dropout: f64) {
        self.embedding_dropout = dropout;
        for layer in &mut self.layers {
            layer.attention_dropout = dropout;
            layer.mlp_dropout = dropout;
        }
    }

    /// Walks a visitor over the layers under their Hugging Face paths.
    ///
    /// # Errors
    /// The visitor's.
    pub fn visit_layers<V: LayerVisitor<B>>(&mut self, visitor: &mut V) -> Result<()> {
        visitor.embedding("embeddings.tok_embeddings", &mut self.tok_embeddings)?;
        visitor.layer_norm("embeddings.norm", &mut self.embeddings_norm)?;
        for (index, layer) in self.layers.iter_mut().enumerate() {
            layer.visit_layers(&format!("layers.{index}"), visitor)?;
        }
        visitor.layer_norm("final_norm", &mut self.final_norm)
    }
}

impl<B: Backend> ModernBertLayer<B> {
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
        let normed = match &self.attention_norm {
            Some(norm) => norm.forward(hidden.clone(), pass),
            None => hidden.clone(),
        };
        let hidden = hidden + self.attend(normed, angles, packing, pass);
        let normed = self.mlp_norm.forward(hidden.clone(), pass);
        let wide = gated(self.mlp_input.forward(normed, pass), self.activation);
        let wide = dropout(wide, self.mlp_dropout, pass.mode);
        hidden + self.mlp_output.forward(wide, pass)
    }

    fn attend(
        &self,
        normed: Tensor<B, 2>,
        angles: &RotaryAngles<B>,
        packing: &Packing<B>,
        pass: Pass<'_>,
    ) -> Tensor<B, 2> {
        let [_, hidden] = normed.dims();
        let together = self.query_key_value.forward(normed, pass);
        let [query, key, value] =
            [0, 1, 2].map(|third| together.clone().narrow(1, third * hidden, hidden));
        let context = attention(
            rotary(query, angles),
            rotary(key, angles),
            value,
            None,
            packing,
            &AttentionOptions {
                heads: self.heads,
                key_value_heads: self.heads,
                scale: ((hidden / self.heads) as f64).sqrt().recip(),
                window: self.window,
                causal: false,
                dropout: self.attention_dropout,
                mode: pass.mode,
            },
        );
        let output = self.attention_output.forward(context, pass);
        dropout(output, self.attention_dropout, pass.mode)
    }

    fn visit_layers<V: LayerVisitor<B>>(&mut self, path: &str, visitor: &mut V) -> Result<()> {
        if let Some(norm) = &mut self.attention_norm {
            visitor.layer_norm(&format!("{path}.attn_norm"), norm)?;
        }
        visitor.linear(&format!("{path}.attn.Wqkv"), &mut self.query_key_value)?;
        visitor.linear(&format!("{path}.attn.Wo"), &mut self.attention_output)?;
        visitor.layer_norm(&format!("{path}.mlp_norm"), &mut self.mlp_norm)?;
        visitor.linear(&format!("{path}.mlp.Wi"), &mut self.mlp_input)?;
        visitor.linear(&format!("{path}.mlp.Wo"), &mut self.mlp_output)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{EncoderError, Error};
    use serde_json::json;

    #[test]
    fn every_third_layer_is_global_unless_the_layers_are_listed() {
        use LayerType::{FullAttention as Full, SlidingAttention as Sliding};
        let types = |fields: Value| {
            let config = ModernBertConfig::from_json(fields.as_object().unwrap())?;
            config.types_of_layers()
        };
        let found = types(json!({ "num_hidden_layers": 5 })).unwrap();
        assert_eq!(found, [Full, Sliding, Sliding, Full, Sliding]);
        let found = types(json!({ "num_hidden_layers": 2, "global_attn_every_n_layers": 1 }));
        assert_eq!(found.unwrap(), [Full, Full]);
        let listed = ["sliding_attention", "full_attention"];
        let found = types(json!({ "num_hidden_layers": 2, "layer_types": listed }));
        assert_eq!(found.unwrap(), [Sliding, Full]);
        let error = types(json!({ "num_hidden_layers": 3, "layer_types": listed })).unwrap_err();
        assert!(
            matches!(&error, Error::Encoder(EncoderError::InvalidField { field, .. })
                if *field == "layer_types"),
            "{error}"
        );
    }
}
