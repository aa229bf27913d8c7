use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::checkpoint::{canonical_key, load_layers};
use super::fields::{
    activation, read_fields, require_absolute_positions, require_epsilon, require_layers,
    require_multiple, require_probabilities, require_sizes, require_unset,
};
use super::{
    Architecture, FeedForwardNames, LayerVisitor, PostNormLayer, PostNormLayerConfig,
    PostNormLayerNames, SelfAttentionNames, TokenEmbeddings, TokenEmbeddingsConfig,
};
use crate::adapter::{AdaptedLinear, AdaptedLinearConfig, Pass};
use crate::error::Result;
use crate::kernel::{Activation, Packing};
use crate::state_dict::StateDict;
use crate::text::TokenBatch;

/// What the encoder's names begin with in checkpoints of a BERT with a head.
const HEAD_PREFIXES: &[&str] = &["bert."];

/// The fields of a BERT's `config.json` that its forward pass needs
/// (<https://arxiv.org/abs/1810.04805>).
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs, reason = "the names are config.json's own")]
pub struct BertConfig {
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
    pub position_embedding_type: Option<String>,
    pub is_decoder: bool,
}

impl Default for BertConfig {
    /// The defaults of `transformers`: bert-base-uncased.
    fn default() -> Self {
        Self {
            vocab_size: 30522,
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
            position_embedding_type: None,
            is_decoder: false,
        }
    }
}

impl BertConfig {
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
        require_absolute_positions(self.position_embedding_type.as_deref())?;
        require_unset("is_decoder", self.is_decoder)?;
        activation("hidden_act", &self.hidden_act).map(|_| ())
    }

    /// An encoder with fresh weights and a pooler.
    pub fn init<B: Backend>(&self, device: &B::Device) -> Bert<B> {
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
            // `from_json` has checked the name; one set by hand falls back to BERT's own.
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
        Bert {
            embeddings: embeddings.init(device),
            layers: (0..self.num_hidden_layers)
                .map(|_| layer.init(device))
                .collect(),
            pooler: Some(pooler.init(device)),
        }
    }

    /// An encoder with the weights of a state dict; what it does not use stays there.
    ///
    /// Reads what BERTs of every age are called: with a `bert.` prefix where the
    /// checkpoint has a head, norms as `gamma` and `beta`, and with or without a pooler.
    ///
    /// # Errors
    /// [`StateDictError`](crate::error::StateDictError) naming what is missing or of
    /// another shape.
    pub fn load<B: Backend>(&self, tensors: &mut StateDict, device: &B::Device) -> Result<Bert<B>> {
        *tensors = std::mem::take(tensors).rename(|key| canonical_key(key, HEAD_PREFIXES));
        let mut bert = self.init(device);
        if !tensors.contains(&format!("{POOLER}.weight")) {
            bert.pooler = None;
        }
        load_layers(tensors, device, |visitor| bert.visit_layers(visitor))?;
        Ok(bert)
    }
}

impl Architecture for BertConfig {
    fn model_type(&self) -> &str {
        "bert"
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

/// What BERT, and those that took over its code, call the parts of a layer.
pub(super) const LAYER: PostNormLayerNames = PostNormLayerNames {
    attention: SelfAttentionNames {
        query: "attention.self.query",
        key: "attention.self.key",
        value: "attention.self.value",
        output: "attention.output.dense",
        norm: "attention.output.LayerNorm",
    },
    feed_forward: FeedForwardNames {
        intermediate: "intermediate.dense",
        output: "output.dense",
        norm: "output.LayerNorm",
    },
};

const POOLER: &str = "pooler.dense";

/// BERT's encoder.
#[derive(Module, Debug)]
pub struct Bert<B: Backend> {
    embeddings: TokenEmbeddings<B>,
    layers: Vec<PostNormLayer<B>>,
    /// Takes no part in token embeddings; kept because adapters may target it and
    /// because what was loaded is saved again.
    pooler: Option<AdaptedLinear<B>>,
}

impl<B: Backend> Bert<B> {
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
    fn what_a_bert_cannot_have_is_named() {
        for (field, value) in [
            ("hidden_size", json!(10)),
            ("num_attention_heads", json!(0)),
            ("hidden_act", json!("mish")),
            ("hidden_dropout_prob", json!(1.5)),
            ("position_embedding_type", json!("relative_key")),
            ("is_decoder", json!(true)),
        ] {
            let fields = Map::from_iter([(field.to_owned(), value)]);
            let error = BertConfig::from_json(&fields).unwrap_err();
            assert!(
                matches!(&error, Error::Encoder(EncoderError::InvalidField { field: f, .. }) if *f == field),
                "{field}: {error}"
            );
        }
        let fields = Map::from_iter([("hidden_size".to_owned(), json!("wide"))]);
        let error = BertConfig::from_json(&fields).unwrap_err();
        assert!(matches!(
            error,
            Error::Encoder(EncoderError::Malformed { .. })
        ));
    }
}
