use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::bert::LAYER;
use super::checkpoint::{canonical_key, load_layers};
use super::embeddings::positions_behind_padding;
use super::fields::{
    activation, invalid, read_fields, require_absolute_positions, require_epsilon, require_layers,
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

/// What the encoder's names begin with in checkpoints of a RoBERTa with a head, an
/// XLM-RoBERTa or CamemBERT among them.
const HEAD_PREFIXES: &[&str] = &["roberta."];

/// The fields of a RoBERTa's `config.json` that its forward pass needs
/// (<https://arxiv.org/abs/1907.11692>). XLM-RoBERTa and CamemBERT are the same with other
/// vocabularies.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the names are config.json's own")]
pub struct RobertaConfig {
    pub model_type: String,
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
    pub pad_token_id: usize,
    pub position_embedding_type: Option<String>,
    pub is_decoder: bool,
}

impl Default for RobertaConfig {
    /// The defaults of `transformers`.
    fn default() -> Self {
        Self {
            model_type: "roberta".to_owned(),
            vocab_size: 50265,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: "gelu".to_owned(),
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            initializer_range: 0.02,
            layer_norm_eps: 1e-12,
            pad_token_id: 1,
            position_embedding_type: None,
            is_decoder: false,
        }
    }
}

impl RobertaConfig {
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
        if self.max_tokens() == 0 {
            let expected = format!("more than {} + 1", self.pad_token_id);
            let found = self.max_position_embeddings;
            return Err(invalid("max_position_embeddings", expected, found));
        }
        require_absolute_positions(self.position_embedding_type.as_deref())?;
        require_unset("is_decoder", self.is_decoder)?;
        activation("hidden_act", &self.hidden_act).map(|_| ())
    }

    /// An encoder with fresh weights and a pooler.
    pub fn init<B: Backend>(&self, device: &B::Device) -> Roberta<B> {
        let embeddings = TokenEmbeddingsConfig {
            vocab_size: self.vocab_size,
            positions: Some(self.max_position_embeddings),
            token_types: Some(self.type_vocab_size),
            embedding_size: self.hidden_size,
            dropout: self.hidden_dropout_prob,
            layer_norm_eps: self.layer_norm_eps,
            initializer_range: self.initializer_range,
        };
        let layer = PostNormLayerConfig {
            hidden_size: self.hidden_size,
            heads: self.num_attention_heads,
            intermediate_size: self.intermediate_size,
            // `from_json` has checked the name; one set by hand falls back to RoBERTa's own.
            activation: activation("hidden_act", &self.hidden_act).unwrap_or(Activation::Gelu),
            attention_dropout: self.attention_probs_dropout_prob,
            attention_output_dropout: Some(self.hidden_dropout_prob),
            feed_forward_dropout: Some(self.hidden_dropout_prob),
            layer_norm_eps: self.layer_norm_eps,
            initializer_range: self.initializer_range,
        };
        let pooler = AdaptedLinearConfig {
            d_input: self.hidden_size,
            d_output: self.hidden_size,
            bias: true,
            initializer_range: self.initializer_range,
        };
        Roberta {
            embeddings: embeddings.init(device),
            layers: (0..self.num_hidden_layers)
                .map(|_| layer.init(device))
                .collect(),
            pooler: Some(pooler.init(device)),
            pad_id: self.pad_token_id,
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
    ) -> Result<Roberta<B>> {
        *tensors = std::mem::take(tensors).rename(|key| canonical_key(key, HEAD_PREFIXES));
        let mut roberta = self.init(device);
        if !tensors.contains(&format!("{POOLER}.weight")) {
            roberta.pooler = None;
        }
        load_layers(tensors, device, |visitor| roberta.visit_layers(visitor))?;
        Ok(roberta)
    }
}

impl Architecture for RobertaConfig {
    fn model_type(&self) -> &str {
        &self.model_type
    }

    fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    fn hidden_size(&self) -> usize {
        self.hidden_size
    }

    /// The positions up to the padding token's are nobody's.
    fn max_tokens(&self) -> usize {
        let behind = self.pad_token_id.saturating_add(1);
        self.max_position_embeddings.saturating_sub(behind)
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

const POOLER: &str = "pooler.dense";

/// RoBERTa's encoder: BERT's, with positions that begin behind the padding token's id.
#[derive(Module, Debug)]
pub struct Roberta<B: Backend> {
    embeddings: TokenEmbeddings<B>,
    layers: Vec<PostNormLayer<B>>,
    /// Takes no part in token embeddings, as BERT's.
    pooler: Option<AdaptedLinear<B>>,
    #[module(skip)]
    pad_id: usize,
}

impl<B: Backend> Roberta<B> {
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
        let positions = positions_behind_padding(batch, self.pad_id);
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
            layer.visit_layers(&format!("encoder.layer.{index}"), &LAYER, visitor)?;
        }
        match &mut self.pooler {
            Some(pooler) => visitor.linear(POOLER, pooler),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{EncoderError, Error};
    use serde_json::json;

    #[test]
    fn the_positions_up_to_the_padding_s_are_left_out_of_the_longest_text() {
        let fields = |positions: usize| {
            Map::from_iter([
                ("max_position_embeddings".to_owned(), json!(positions)),
                ("pad_token_id".to_owned(), json!(1)),
            ])
        };
        assert_eq!(
            RobertaConfig::from_json(&fields(514)).unwrap().max_tokens(),
            512
        );
        let error = RobertaConfig::from_json(&fields(2)).unwrap_err();
        assert!(
            matches!(&error, Error::Encoder(EncoderError::InvalidField { field, .. })
                if *field == "max_position_embeddings"),
            "{error}"
        );
    }
}
