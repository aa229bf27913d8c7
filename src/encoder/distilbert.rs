use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::checkpoint::{canonical_key, load_layers};
use super::fields::{
    activation, read_fields, require_layers, require_multiple, require_probabilities, require_sizes,
};
use super::{
    Architecture, FeedForwardNames, LayerVisitor, PostNormLayer, PostNormLayerConfig,
    PostNormLayerNames, SelfAttentionNames, TokenEmbeddings, TokenEmbeddingsConfig,
};
use crate::adapter::Pass;
use crate::error::Result;
use crate::kernel::{Activation, Packing};
use crate::state_dict::StateDict;
use crate::text::TokenBatch;

/// What the encoder's names begin with in checkpoints of a DistilBERT with a head.
const HEAD_PREFIXES: &[&str] = &["distilbert."];

/// The epsilon of DistilBERT's norms, which no field says.
const LAYER_NORM_EPS: f64 = 1e-12;

/// The fields of a DistilBERT's `config.json` that its forward pass needs
/// (<https://arxiv.org/abs/1910.01108>).
///
/// `sinusoidal_pos_embds` is not among them: it says what positions' embeddings began as,
/// and they are always in the weights.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the names are config.json's own")]
pub struct DistilBertConfig {
    pub vocab_size: usize,
    pub dim: usize,
    pub n_layers: usize,
    pub n_heads: usize,
    pub hidden_dim: usize,
    pub activation: String,
    pub dropout: f64,
    pub attention_dropout: f64,
    pub max_position_embeddings: usize,
    pub initializer_range: f64,
}

impl Default for DistilBertConfig {
    /// The defaults of `transformers`: distilbert-base-uncased.
    fn default() -> Self {
        Self {
            vocab_size: 30522,
            dim: 768,
            n_layers: 6,
            n_heads: 12,
            hidden_dim: 3072,
            activation: "gelu".to_owned(),
            dropout: 0.1,
            attention_dropout: 0.1,
            max_position_embeddings: 512,
            initializer_range: 0.02,
        }
    }
}

impl DistilBertConfig {
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
        require_layers(&[("n_layers", self.n_layers)])?;
        require_sizes(&[
            ("vocab_size", self.vocab_size),
            ("dim", self.dim),
            ("n_heads", self.n_heads),
            ("hidden_dim", self.hidden_dim),
            ("max_position_embeddings", self.max_position_embeddings),
        ])?;
        require_multiple("dim", self.dim, self.n_heads)?;
        require_probabilities(&[
            ("dropout", self.dropout),
            ("attention_dropout", self.attention_dropout),
        ])?;
        activation("activation", &self.activation).map(|_| ())
    }

    /// An encoder with fresh weights.
    pub fn init<B: Backend>(&self, device: &B::Device) -> DistilBert<B> {
        let embeddings = TokenEmbeddingsConfig {
            vocab_size: self.vocab_size,
            positions: Some(self.max_position_embeddings),
            token_types: None,
            embedding_size: self.dim,
            dropout: self.dropout,
            layer_norm_eps: LAYER_NORM_EPS,
            initializer_range: self.initializer_range,
        };
        let layer = PostNormLayerConfig {
            hidden_size: self.dim,
            heads: self.n_heads,
            intermediate_size: self.hidden_dim,
            // `from_json` has checked the name; one set by hand falls back to BERT's own.
            activation: activation("activation", &self.activation).unwrap_or(Activation::Gelu),
            attention_dropout: self.attention_dropout,
            attention_output_dropout: None,
            feed_forward_dropout: Some(self.dropout),
            layer_norm_eps: LAYER_NORM_EPS,
            initializer_range: self.initializer_range,
        };
        DistilBert {
            embeddings: embeddings.init(device),
            layers: (0..self.n_layers).map(|_| layer.init(device)).collect(),
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
    ) -> Result<DistilBert<B>> {
        *tensors = std::mem::take(tensors).rename(|key| canonical_key(key, HEAD_PREFIXES));
        let mut distilbert = self.init(device);
        load_layers(tensors, device, |visitor| distilbert.visit_layers(visitor))?;
        Ok(distilbert)
    }
}

impl Architecture for DistilBertConfig {
    fn model_type(&self) -> &str {
        "distilbert"
    }

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn hidden_size(&self) -> usize {
        self.dim
    }

    fn max_tokens(&self) -> usize {
        self.max_position_embeddings
    }

    fn default_lora_targets(&self) -> &'static [&'static str] {
        &["q_lin", "v_lin"]
    }

    fn head_prefixes(&self) -> &'static [&'static str] {
        HEAD_PREFIXES
    }
}

const LAYER: PostNormLayerNames = PostNormLayerNames {
    attention: SelfAttentionNames {
        query: "attention.q_lin",
        key: "attention.k_lin",
        value: "attention.v_lin",
        output: "attention.out_lin",
        norm: "sa_layer_norm",
    },
    feed_forward: FeedForwardNames {
        intermediate: "ffn.lin1",
        output: "ffn.lin2",
        norm: "output_layer_norm",
    },
};

/// DistilBERT's encoder: BERT's, without segments.
#[derive(Module, Debug)]
pub struct DistilBert<B: Backend> {
    embeddings: TokenEmbeddings<B>,
    layers: Vec<PostNormLayer<B>>,
}

impl<B: Backend> DistilBert<B> {
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
        let positions = packing.positions();
        let hidden = self.embeddings.forward(batch, Some(positions), pass);
        see(&hidden);
        self.layers.iter().fold(hidden, |hidden, layer| {
            let hidden = layer.forward(hidden, None, packing, pass);
            see(&hidden);
            hidden
        })
    }

    /// Sets the dropout of every layer but the adapters'.
    pub fn set_dropout(&mut self, dropout: f64) {
        self.embeddings.set_dropout(dropout);
        for layer in &mut self.layers {
            layer.set_dropout(dropout);
        }
    }

    /// Walks a visitor over the layers under their Hugging Face paths.
    ///
    /// # Errors
    /// The visitor's.
    pub fn visit_layers<V: LayerVisitor<B>>(&mut self, visitor: &mut V) -> Result<()> {
        self.embeddings.visit_layers(visitor)?;
        for (index, layer) in self.layers.iter_mut().enumerate() {
            layer.visit_layers(&format!("transformer.layer.{index}"), &LAYER, visitor)?;
        }
        Ok(())
    }
}
