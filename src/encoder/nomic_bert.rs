use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::checkpoint::{canonical_key, load_layers};
use super::fields::{
    activation, invalid, read_fields, require_epsilon, require_layers, require_multiple,
    require_probabilities, require_sizes, require_unset,
};
use super::rope::{Rope, require_even};
use super::{
    Architecture, GatedFeedForward, GatedFeedForwardConfig, LayerVisitor, RopeParameters,
    RotaryAttention, RotaryAttentionConfig, TokenEmbeddings, TokenEmbeddingsConfig,
};
use crate::adapter::{AdaptedLayerNorm, Pass};
use crate::error::Result;
use crate::kernel::{Activation, Packing, RotaryAngles};
use crate::state_dict::StateDict;
use crate::text::TokenBatch;

/// What the encoder's names begin with in checkpoints of a NomicBERT with a head: those of
/// `transformers`, and those of the code that came with the first models.
const HEAD_PREFIXES: &[&str] = &["nomic_bert.", "bert."];

/// The fields of a NomicBERT's `config.json` that its forward pass needs
/// (<https://arxiv.org/abs/2402.01613>).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the names are config.json's own")]
pub struct NomicBertConfig {
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    pub hidden_act: String,
    pub hidden_dropout_prob: f64,
    pub attention_probs_dropout_prob: f64,
    pub max_position_embeddings: usize,
    pub type_vocab_size: usize,
    pub initializer_range: f64,
    pub layer_norm_eps: f64,
    pub head_dim: Option<usize>,
    pub rope_parameters: Option<RopeParameters>,
    pub rope_scaling: Option<RopeParameters>,
    pub rope_theta: f64,
}

impl Default for NomicBertConfig {
    /// The defaults of `transformers`: nomic-embed-text-v1.5.
    fn default() -> Self {
        Self {
            vocab_size: 30528,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: "silu".to_owned(),
            hidden_dropout_prob: 0.0,
            attention_probs_dropout_prob: 0.0,
            max_position_embeddings: 2048,
            type_vocab_size: 2,
            initializer_range: 0.02,
            layer_norm_eps: 1e-12,
            head_dim: None,
            rope_parameters: None,
            rope_scaling: None,
            rope_theta: 1000.0,
        }
    }
}

/// What the code that came with the first models calls the fields.
const FIELDS_OF_OLD: [(&str, &str); 9] = [
    ("n_embd", "hidden_size"),
    ("n_layer", "num_hidden_layers"),
    ("n_head", "num_attention_heads"),
    ("n_inner", "intermediate_size"),
    ("n_positions", "max_position_embeddings"),
    ("layer_norm_epsilon", "layer_norm_eps"),
    ("resid_pdrop", "hidden_dropout_prob"),
    ("attn_pdrop", "attention_probs_dropout_prob"),
    ("rotary_emb_base", "rope_theta"),
];

/// What that code computes otherwise on demand, and no published text model asks for.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct FieldsNotServed {
    activation_function: Option<String>,
    rotary_emb_fraction: Option<f64>,
    rotary_emb_interleaved: bool,
    rotary_emb_scale_base: Option<f64>,
    rotary_scaling_factor: Option<f64>,
    prenorm: bool,
    parallel_block: bool,
    causal: bool,
    use_rms_norm: bool,
    qkv_proj_bias: bool,
    mlp_fc1_bias: bool,
    mlp_fc2_bias: bool,
    num_experts: usize,
}

impl FieldsNotServed {
    fn validate(&self) -> Result<()> {
        match self.activation_function.as_deref() {
            None | Some("swiglu") => {}
            Some(other) => return Err(invalid("activation_function", "swiglu", other)),
        }
        if let Some(share) = self.rotary_emb_fraction.filter(|share| *share != 1.0) {
            return Err(invalid("rotary_emb_fraction", "1", share));
        }
        if let Some(base) = self.rotary_emb_scale_base {
            return Err(invalid("rotary_emb_scale_base", "null", base));
        }
        if let Some(factor) = self.rotary_scaling_factor {
            return Err(invalid("rotary_scaling_factor", "null", factor));
        }
        if self.num_experts > 0 {
            return Err(invalid("num_experts", "0", self.num_experts));
        }
        for (field, is_set) in [
            ("rotary_emb_interleaved", self.rotary_emb_interleaved),
            ("prenorm", self.prenorm),
            ("parallel_block", self.parallel_block),
            ("causal", self.causal),
            ("use_rms_norm", self.use_rms_norm),
            ("qkv_proj_bias", self.qkv_proj_bias),
            ("mlp_fc1_bias", self.mlp_fc1_bias),
            ("mlp_fc2_bias", self.mlp_fc2_bias),
        ] {
            require_unset(field, is_set)?;
        }
        Ok(())
    }
}

impl NomicBertConfig {
    /// Reads and checks the fields of a `config.json`, by the names of `transformers` or
    /// of the code that came with the first models.
    ///
    /// # Errors
    /// [`EncoderError::Malformed`](crate::error::EncoderError) or
    /// [`EncoderError::InvalidField`](crate::error::EncoderError).
    pub fn from_json(fields: &Map<String, Value>) -> Result<Self> {
        let mut fields = fields.clone();
        for (old, new) in FIELDS_OF_OLD {
            if let Some(value) = fields.remove(old)
                && !fields.contains_key(new)
            {
                fields.insert(new.to_owned(), value);
            }
        }
        read_fields::<FieldsNotServed>(&fields)?.validate()?;
        let config: Self = read_fields(&fields)?;
        config.validate()?;
        Ok(config)
    }

    fn validate(&self) -> Result<()> {
        require_epsilon("layer_norm_eps", self.layer_norm_eps)?;
        require_layers(&[("num_hidden_layers", self.num_hidden_layers)])?;
        require_sizes(&[
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("head_dim", self.head_dim.unwrap_or(1)),
            ("type_vocab_size", self.type_vocab_size.max(1)),
        ])?;
        if self.head_dim.is_none() {
            require_multiple("hidden_size", self.hidden_size, self.num_attention_heads)?;
        }
        require_even("head_dim", self.head_size())?;
        require_probabilities(&[
            ("hidden_dropout_prob", self.hidden_dropout_prob),
            (
                "attention_probs_dropout_prob",
                self.attention_probs_dropout_prob,
            ),
        ])?;
        self.rope()?;
        activation("hidden_act", &self.hidden_act).map(|_| ())
    }

    fn head_size(&self) -> usize {
        self.head_dim
            .unwrap_or(self.hidden_size / self.num_attention_heads)
    }

    fn rope(&self) -> Result<Rope> {
        let sources = [self.rope_scaling.as_ref(), self.rope_parameters.as_ref()];
        Rope::new(&sources, self.rope_theta)
    }

    /// An encoder with fresh weights.
    pub fn init<B: Backend>(&self, device: &B::Device) -> NomicBert<B> {
        let embeddings = TokenEmbeddingsConfig {
            vocab_size: self.vocab_size,
            positions: None,
            token_types: (self.type_vocab_size > 0).then_some(self.type_vocab_size),
            embedding_size: self.hidden_size,
            dropout: self.hidden_dropout_prob,
            layer_norm_eps: self.layer_norm_eps,
            initializer_range: self.initializer_range,
        };
        let attention = RotaryAttentionConfig {
            hidden_size: self.hidden_size,
            heads: self.num_attention_heads,
            key_value_heads: self.num_attention_heads,
            head_dim: self.head_size(),
            bias: false,
            norm: None,
            scale: (self.head_size() as f64).sqrt().recip(),
            window: None,
            causal: false,
            attention_dropout: self.attention_probs_dropout_prob,
            initializer_range: self.initializer_range,
        };
        let mlp = GatedFeedForwardConfig {
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            // What falls back here, `from_json` has checked; it may have been set by hand.
            activation: activation("hidden_act", &self.hidden_act).unwrap_or(Activation::Silu),
            initializer_range: self.initializer_range,
        };
        let norm = || AdaptedLayerNorm::init(self.hidden_size, self.layer_norm_eps, device);
        let rope = self.rope().unwrap_or_else(|_| Rope::plain(self.rope_theta));
        NomicBert {
            embeddings: embeddings.init(device),
            layers: (0..self.num_hidden_layers)
                .map(|_| NomicBertLayer {
                    attention: attention.init(device),
                    attention_norm: norm(),
                    mlp: mlp.init(device),
                    mlp_norm: norm(),
                    hidden_dropout: self.hidden_dropout_prob,
                })
                .collect(),
            frequencies: rope.frequencies(self.head_size()),
        }
    }

    /// An encoder with the weights of a state dict; what it does not use stays there.
    ///
    /// Reads the names of checkpoints, which are those of the code that came with the first
    /// models and has queries, keys and values in one matrix, and those of `transformers`'
    /// own layers.
    ///
    /// # Errors
    /// [`StateDictError`](crate::error::StateDictError) naming what is missing or of
    /// another shape.
    pub fn load<B: Backend>(
        &self,
        tensors: &mut StateDict,
        device: &B::Device,
    ) -> Result<NomicBert<B>> {
        *tensors = std::mem::take(tensors).rename(layer_key);
        let shape = [
            self.num_attention_heads * self.head_size(),
            self.hidden_size,
        ];
        for layer in 0..self.num_hidden_layers {
            let (together, parts) = query_key_value(layer);
            tensors.split_rows(&together, &parts, shape)?;
        }
        let mut nomic_bert = self.init(device);
        load_layers(tensors, device, |visitor| nomic_bert.visit_layers(visitor))?;
        Ok(nomic_bert)
    }
}

/// What the layers are called in checkpoints, and in `transformers`.
const NAMES: [(&str, &str); 9] = [
    ("encoder.layers.", "layers."),
    ("emb_ln.", "embeddings.LayerNorm."),
    (".attn.Wqkv.", ".self_attn.qkv_proj."),
    (".attn.out_proj.", ".self_attn.o_proj."),
    (".norm1.", ".post_attention_layernorm."),
    (".mlp.fc11.", ".mlp.up_proj."),
    (".mlp.fc12.", ".mlp.gate_proj."),
    (".mlp.fc2.", ".mlp.down_proj."),
    (".norm2.", ".post_mlp_layernorm."),
];

/// A checkpoint's key as `transformers` calls the layer; `None` for what holds no weight.
fn layer_key(key: &str) -> Option<String> {
    let key = canonical_key(key, HEAD_PREFIXES)?;
    let rename = |key: String, (old, new): &(&str, &str)| key.replacen(old, new, 1);
    Some(NAMES.iter().fold(key, rename))
}

/// A layer's key as in a checkpoint.
fn checkpoint_key(key: &str) -> String {
    let rename = |key: String, (old, new): &(&str, &str)| key.replacen(new, old, 1);
    NAMES.iter().fold(key.to_owned(), rename)
}

/// What a layer's query, key and value weights are called together and apart.
fn query_key_value(layer: usize) -> (String, [String; 3]) {
    let path = format!("layers.{layer}.self_attn");
    let parts = ["q_proj", "k_proj", "v_proj"].map(|part| format!("{path}.{part}.weight"));
    (format!("{path}.qkv_proj.weight"), parts)
}

impl Architecture for NomicBertConfig {
    fn model_type(&self) -> &str {
        "nomic_bert"
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

    fn type_vocab_size(&self) -> usize {
        self.type_vocab_size
    }

    fn default_lora_targets(&self) -> &'static [&'static str] {
        &["q_proj", "v_proj"]
    }

    fn head_prefixes(&self) -> &'static [&'static str] {
        HEAD_PREFIXES
    }

    /// By the names of the first models' code, which `transformers` keeps to as well.
    fn checkpoint(&self, mut tensors: StateDict) -> StateDict {
        for layer in 0..self.num_hidden_layers {
            let (together, parts) = query_key_value(layer);
            tensors.join_rows(&parts, &together);
        }
        tensors.rename(|key| Some(checkpoint_key(key)))
    }
}

/// NomicBERT's encoder: BERT's, with rotary positions and gated feed-forward blocks.
#[derive(Module, Debug)]
pub struct NomicBert<B: Backend> {
    embeddings: TokenEmbeddings<B>,
    layers: Vec<NomicBertLayer<B>>,
    #[module(skip)]
    frequencies: Vec<f32>,
}

/// One layer of a NomicBERT.
#[derive(Module, Debug)]
pub struct NomicBertLayer<B: Backend> {
    attention: RotaryAttention<B>,
    attention_norm: AdaptedLayerNorm<B>,
    mlp: GatedFeedForward<B>,
    mlp_norm: AdaptedLayerNorm<B>,
    #[module(skip)]
    hidden_dropout: f64,
}

impl<B: Backend> NomicBert<B> {
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
        let hidden = self.embeddings.forward(batch, None, pass);
        see(&hidden);
        self.layers.iter().fold(hidden, |hidden, layer| {
            let hidden = layer.forward(hidden, &angles, packing, pass);
            see(&hidden);
            hidden
        })
    }

    /// Sets the dropout of every layer but the adapters'.
    pub fn set_dropout(&mut self, dropout: f64) {
        self.embeddings.set_dropout(dropout);
        for layer in &mut self.layers {
            layer.attention.set_dropout(dropout);
            layer.hidden_dropout = dropout;
        }
    }

    /// Walks a visitor over the layers under their Hugging Face paths.
    ///
    /// # Errors
    /// The visitor's.
    pub fn visit_layers<V: LayerVisitor<B>>(&mut self, visitor: &mut V) -> Result<()> {
        self.embeddings.visit_layers(visitor)?;
        for (index, layer) in self.layers.iter_mut().enumerate() {
            layer.visit_layers(&format!("layers.{index}"), visitor)?;
        }
        Ok(())
    }
}

impl<B: Backend> NomicBertLayer<B> {
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
        let attended = self
            .attention
            .forward(hidden.clone(), angles, packing, pass);
        let hidden =
            self.attention_norm
                .forward_residual(attended, hidden, self.hidden_dropout, pass);
        let output = self.mlp.forward(hidden.clone(), pass);
        self.mlp_norm
            .forward_residual(output, hidden, self.hidden_dropout, pass)
    }

    fn visit_layers<V: LayerVisitor<B>>(&mut self, path: &str, visitor: &mut V) -> Result<()> {
        self.attention
            .visit_layers(&format!("{path}.self_attn"), visitor)?;
        visitor.layer_norm(
            &format!("{path}.post_attention_layernorm"),
            &mut self.attention_norm,
        )?;
        self.mlp.visit_layers(&format!("{path}.mlp"), visitor)?;
        visitor.layer_norm(&format!("{path}.post_mlp_layernorm"), &mut self.mlp_norm)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};
    use crate::encoder::{EncoderConfig, Params};
    use crate::error::{EncoderError, Error};
    use crate::state_dict::CollectTensors;
    use serde_json::json;

    #[test]
    fn the_first_models_fields_are_read_and_what_is_not_served_is_named() {
        let config = |fields: Value| NomicBertConfig::from_json(fields.as_object().unwrap());
        let found = config(json!({
            "n_embd": 24, "n_layer": 3, "n_head": 2, "n_inner": 7, "n_positions": 99,
            "layer_norm_epsilon": 1e-5, "rotary_emb_base": 500, "rotary_emb_fraction": 1.0,
            "activation_function": "swiglu", "hidden_size": 12, "rotary_scaling_factor": null,
        }))
        .unwrap();
        assert_eq!((found.hidden_size, found.num_hidden_layers), (12, 3));
        assert_eq!((found.intermediate_size, found.max_tokens()), (7, 99));
        assert_eq!((found.layer_norm_eps, found.rope_theta), (1e-5, 500.0));
        for (fields, named) in [
            (json!({ "prenorm": true }), "prenorm"),
            (json!({ "rotary_emb_fraction": 0.0 }), "rotary_emb_fraction"),
            (
                json!({ "activation_function": "gelu" }),
                "activation_function",
            ),
            (json!({ "num_experts": 8 }), "num_experts"),
            (json!({ "n_head": 7 }), "hidden_size"),
            (json!({ "head_dim": 3 }), "head_dim"),
        ] {
            let error = config(fields).unwrap_err();
            assert!(
                matches!(&error, Error::Encoder(EncoderError::InvalidField { field, .. })
                    if *field == named),
                "{error}"
            );
        }
    }

    #[test]
    fn checkpoints_names_are_read_and_written() {
        for (checkpoint, layer) in [
            ("emb_ln.bias", "embeddings.LayerNorm.bias"),
            (
                "embeddings.word_embeddings.weight",
                "embeddings.word_embeddings.weight",
            ),
            (
                "encoder.layers.3.attn.out_proj.weight",
                "layers.3.self_attn.o_proj.weight",
            ),
            (
                "encoder.layers.3.mlp.fc12.weight",
                "layers.3.mlp.gate_proj.weight",
            ),
            (
                "encoder.layers.3.norm2.bias",
                "layers.3.post_mlp_layernorm.bias",
            ),
        ] {
            assert_eq!(layer_key(checkpoint).as_deref(), Some(layer));
            assert_eq!(layer_key(layer).as_deref(), Some(layer));
            let headed = format!("bert.{checkpoint}");
            assert_eq!(layer_key(&headed).as_deref(), Some(layer));
            assert_eq!(checkpoint_key(layer), checkpoint);
        }
    }

    #[test]
    fn layers_own_names_load_as_a_checkpoint_s() {
        let fields = json!({
            "vocab_size": 5, "hidden_size": 4, "num_attention_heads": 2, "num_hidden_layers": 2,
            "intermediate_size": 3,
        });
        let config = EncoderConfig::NomicBert(
            NomicBertConfig::from_json(fields.as_object().unwrap()).unwrap(),
        );
        let fresh = config.init::<TestBackend>(&device());
        let checkpoint = config.state_dict(&fresh).unwrap();
        assert!(checkpoint.contains("encoder.layers.1.attn.Wqkv.weight"));
        let mut encoder = config
            .load::<TestBackend>(&mut checkpoint.clone(), &device())
            .unwrap();
        let mut layers = StateDict::new("layers");
        encoder
            .visit_layers(&mut Params(CollectTensors(&mut layers)))
            .unwrap();
        assert!(layers.contains("layers.1.self_attn.k_proj.weight"));
        for mut tensors in [checkpoint.clone(), layers] {
            let loaded = config.load::<TestBackend>(&mut tensors, &device()).unwrap();
            assert!(tensors.is_empty());
            let again = config.state_dict(&loaded).unwrap();
            assert!(again.iter().eq(checkpoint.iter()));
        }
    }
}
