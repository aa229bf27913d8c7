use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::bert::LAYER;
use super::checkpoint::{canonical_key, load_layers};
use super::fields::{
    activation, read_fields, require_absolute_positions, require_epsilon, require_layers,
    require_multiple, require_probabilities, require_sizes, require_unset,
};
use super::{
    Architecture, LayerVisitor, PostNormLayer, PostNormLayerConfig, TokenEmbeddings,
    TokenEmbeddingsConfig,
};
use crate::adapter::{AdaptedLinear, AdaptedLinearConfig, Pass};
use crate::error::Result;
use crate::kernel::{Activation, Packing};
use crate::state_dict::StateDict;
use crate::text::TokenBatch;

/// What the encoder's names begin with in checkpoints of an ELECTRA with a head.
const HEAD_PREFIXES: &[&str] = &["electra."];

/// The fields of an ELECTRA's `config.json` that its forward pass needs
/// (<https://arxiv.org/abs/2003.10555>).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the names are config.json's own")]
pub struct ElectraConfig {
    pub vocab_size: usize,
    pub embedding_size: usize,
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
    pub position_embedding_type: Option<String>,
    pub is_decoder: bool,
}

impl Default for ElectraConfig {
    /// The defaults of `transformers`: electra-small-discriminator.
    fn default() -> Self {
        Self {
            vocab_size: 30522,
            embedding_size: 128,
            hidden_size: 256,
            num_hidden_layers: 12,
            num_attention_heads: 4,
            intermediate_size: 1024,
            hidden_act: "gelu".to_owned(),
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            initializer_range: 0.02,
            layer_norm_eps: 1e-12,
            position_embedding_type: None,
            is_decoder: false,
        }
    }
}

impl ElectraConfig {
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
        require_epsilon("layer_norm_eps", self.layer_norm_eps)?;
        require_layers(&[("num_hidden_layers", self.num_hidden_layers)])?;
        require_sizes(&[
            ("vocab_size", self.vocab_size),
            ("embedding_size", self.embedding_size),
            ("hidden_size", self.hidden_size),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("type_vocab_size", self.type_vocab_size),
        ])?;
        require_multiple("hidden_size", self.hidden_size, self.num_attention_heads)?;
        require_probabilities(&[
            ("hidden_dropout_prob", self.hidden_dropout_prob),
            (
                "attention_probs_dropout_prob",
                self.attention_probs_dropout_prob,
            ),
        ])?;
        require_absolute_positions(self.position_embedding_type.as_deref())?;
        require_unset("is_decoder", self.is_decoder)?;
        activation("hidden_act", &self.hidden_act).map(|_| ())
    }

    /// An encoder with fresh weights.
    pub fn init<B: Backend>(&self, device: &B::Device) -> Electra<B> {
        let embeddings = TokenEmbeddingsConfig {
            vocab_size: self.vocab_size,
            positions: Some(self.max_position_embeddings),
            token_types: Some(self.type_vocab_size),
            embedding_size: self.embedding_size,
            dropout: self.hidden_dropout_prob,
            layer_norm_eps: self.layer_norm_eps,
            initializer_range: self.initializer_range,
        };
        let projection = AdaptedLinearConfig {
            d_input: self.embedding_size,
            d_output: self.hidden_size,
            bias: true,
            initializer_range: self.initializer_range,
        };
        let layer = PostNormLayerConfig {
            hidden_size: self.hidden_size,
            heads: self.num_attention_heads,
            intermediate_size: self.intermediate_size,
            // `from_json` has checked the name; one set by hand falls back to BERT's own.
            activation: activation("hidden_act", &self.hidden_act).unwrap_or(Activation::Gelu),
            attention_dropout: self.attention_probs_dropout_prob,
            attention_output_dropout: Some(self.hidden_dropout_prob),
            feed_forward_dropout: Some(self.hidden_dropout_prob),
            layer_norm_eps: self.layer_norm_eps,
            initializer_range: self.initializer_range,
        };
        let is_projected = self.embedding_size != self.hidden_size;
        Electra {
            embeddings: embeddings.init(device),
            embeddings_project: is_projected.then(|| projection.init(device)),
            layers: (0..self.num_hidden_layers)
                .map(|_| layer.init(device))
                .collect(),
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
    ) -> Result<Electra<B>> {
        *tensors = std::mem::take(tensors).rename(|key| canonical_key(key, HEAD_PREFIXES));
        let mut electra = self.init(device);
        load_layers(tensors, device, |visitor| electra.visit_layers(visitor))?;
        Ok(electra)
    }
}

impl Architecture for ElectraConfig {
    fn model_type(&self) -> &str {
        "electra"
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

    fn type_vocab_size(&self) -> usize {
        self.type_vocab_size
    }

    fn default_lora_targets(&self) -> &'static [&'static str] {
        &["query", "value"]
    }

    fn head_prefixes(&self) -> &'static [&'static str] {
        HEAD_PREFIXES
    }
}

/// ELECTRA's encoder: BERT's, with embeddings that may be smaller than the layers.
#[derive(Module, Debug)]
pub struct Electra<B: Backend> {
    embeddings: TokenEmbeddings<B>,
    /// None where embeddings have the layers' size.
    embeddings_project: Option<AdaptedLinear<B>>,
    layers: Vec<PostNormLayer<B>>,
}

impl<B: Backend> Electra<B> {
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
        let embeddings = self.embeddings.forward(batch, Some(positions), pass);
        let hidden = match &self.embeddings_project {
            Some(projection) => projection.forward(embeddings, pass),
            None => embeddings,
        };
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
        if let Some(projection) = &mut self.embeddings_project {
            visitor.linear("embeddings_project", projection)?;
        }
        for (index, layer) in self.layers.iter_mut().enumerate() {
            layer.visit_layers(&format!("encoder.layer.{index}"), &LAYER, visitor)?;
        }
        Ok(())
    }
}
