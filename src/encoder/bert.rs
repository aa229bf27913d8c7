use burn::module::Module;
use burn::tensor::{Int, Tensor, TensorData, backend::Backend};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{
    FeedForward, FeedForwardConfig, FeedForwardNames, LayerVisitor, SelfAttention,
    SelfAttentionConfig, SelfAttentionNames, load_layers,
};
use crate::adapter::{
    AdaptedEmbedding, AdaptedLayerNorm, AdaptedLinear, AdaptedLinearConfig, Pass, sum_lookups,
};
use crate::error::{EncoderError, Result};
use crate::kernel::{Activation, Packing, dropout};
use crate::state_dict::StateDict;
use crate::text::TokenBatch;

/// The layers that peft adapts in a BERT where a configuration names none.
pub(super) const DEFAULT_LORA_TARGETS: &[&str] = &["query", "value"];

/// What the encoder's names begin with in checkpoints of a BERT with a head.
pub(super) const HEAD_PREFIXES: &[&str] = &["bert."];

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
    /// [`EncoderError::Malformed`] or [`EncoderError::InvalidField`].
    pub fn from_json(fields: &Map<String, Value>) -> Result<Self> {
        let config: Self = serde_json::from_value(Value::Object(fields.clone()))
            .map_err(|source| EncoderError::Malformed { source })?;
        config.validate()?;
        Ok(config)
    }

    fn validate(&self) -> Result<()> {
        let invalid = |field: &'static str, expected: &str, found: String| {
            Err(EncoderError::InvalidField {
                field,
                expected: expected.to_owned(),
                found,
            }
            .into())
        };
        for (field, value) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("type_vocab_size", self.type_vocab_size),
        ] {
            if value == 0 {
                return invalid(field, "at least 1", "0".to_owned());
            }
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            let expected = format!("a multiple of {} heads", self.num_attention_heads);
            return invalid("hidden_size", &expected, self.hidden_size.to_string());
        }
        for (field, value) in [
            ("hidden_dropout_prob", self.hidden_dropout_prob),
            (
                "attention_probs_dropout_prob",
                self.attention_probs_dropout_prob,
            ),
        ] {
            if !(0.0..1.0).contains(&value) {
                return invalid(field, "a probability in [0, 1)", value.to_string());
            }
        }
        if let Some(positions) = self.position_embedding_type.as_deref()
            && positions != "absolute"
        {
            return invalid("position_embedding_type", "absolute", positions.to_owned());
        }
        if self.is_decoder {
            return invalid("is_decoder", "false", "true".to_owned());
        }
        self.activation().map(|_| ())
    }

    fn activation(&self) -> Result<Activation> {
        match self.hidden_act.as_str() {
            "gelu" => Ok(Activation::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
            "relu" => Ok(Activation::Relu),
            "silu" | "swish" => Ok(Activation::Silu),
            "tanh" => Ok(Activation::Tanh),
            other => Err(EncoderError::InvalidField {
                field: "hidden_act",
                expected: "gelu, gelu_new, gelu_pytorch_tanh, relu, silu, swish or tanh".to_owned(),
                found: other.to_owned(),
            }
            .into()),
        }
    }

    /// An encoder with fresh weights and a pooler.
    pub fn init<B: Backend>(&self, device: &B::Device) -> Bert<B> {
        let attention = SelfAttentionConfig {
            hidden_size: self.hidden_size,
            heads: self.num_attention_heads,
            attention_dropout: self.attention_probs_dropout_prob,
            hidden_dropout: self.hidden_dropout_prob,
            layer_norm_eps: self.layer_norm_eps,
            initializer_range: self.initializer_range,
        };
        let feed_forward = FeedForwardConfig {
            hidden_size: self.hidden_size,
            intermediate_size: self.intermediate_size,
            // `from_json` has checked the name; one set by hand falls back to BERT's own.
            activation: self.activation().unwrap_or(Activation::Gelu),
            hidden_dropout: self.hidden_dropout_prob,
            layer_norm_eps: self.layer_norm_eps,
            initializer_range: self.initializer_range,
        };
        let table = |entries| {
            AdaptedEmbedding::init(entries, self.hidden_size, self.initializer_range, device)
        };
        Bert {
            word_embeddings: table(self.vocab_size),
            position_embeddings: table(self.max_position_embeddings),
            token_type_embeddings: table(self.type_vocab_size),
            embeddings_norm: AdaptedLayerNorm::init(self.hidden_size, self.layer_norm_eps, device),
            layers: (0..self.num_hidden_layers)
                .map(|_| BertLayer {
                    attention: attention.init(device),
                    feed_forward: feed_forward.init(device),
                })
                .collect(),
            pooler: Some(
                AdaptedLinearConfig {
                    d_input: self.hidden_size,
                    d_output: self.hidden_size,
                    bias: true,
                    initializer_range: self.initializer_range,
                }
                .init(device),
            ),
            hidden_dropout: self.hidden_dropout_prob,
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
        *tensors = std::mem::take(tensors).rename(canonical_key);
        let mut bert = self.init(device);
        if !tensors.contains(&format!("{POOLER}.weight")) {
            bert.pooler = None;
        }
        load_layers(tensors, device, |visitor| bert.visit_layers(visitor))?;
        Ok(bert)
    }
}

/// A checkpoint's key as today's `transformers` would write it; `None` for what holds
/// no weight.
fn canonical_key(key: &str) -> Option<String> {
    let stripped = HEAD_PREFIXES
        .iter()
        .find_map(|prefix| key.strip_prefix(prefix));
    let key = stripped.unwrap_or(key);
    if key == "embeddings.position_ids" || key == "embeddings.token_type_ids" {
        return None;
    }
    Some(match key.rsplit_once('.') {
        Some((layer, "gamma")) => format!("{layer}.weight"),
        Some((layer, "beta")) => format!("{layer}.bias"),
        _ => key.to_owned(),
    })
}

const ATTENTION: SelfAttentionNames = SelfAttentionNames {
    query: "attention.self.query",
    key: "attention.self.key",
    value: "attention.self.value",
    output: "attention.output.dense",
    norm: "attention.output.LayerNorm",
};

const FEED_FORWARD: FeedForwardNames = FeedForwardNames {
    intermediate: "intermediate.dense",
    output: "output.dense",
    norm: "output.LayerNorm",
};

const POOLER: &str = "pooler.dense";

/// BERT's encoder.
#[derive(Module, Debug)]
pub struct Bert<B: Backend> {
    word_embeddings: AdaptedEmbedding<B>,
    position_embeddings: AdaptedEmbedding<B>,
    token_type_embeddings: AdaptedEmbedding<B>,
    embeddings_norm: AdaptedLayerNorm<B>,
    layers: Vec<BertLayer<B>>,
    /// Takes no part in token embeddings; kept because adapters may target it and
    /// because what was loaded is saved again.
    pooler: Option<AdaptedLinear<B>>,
    #[module(skip)]
    hidden_dropout: f64,
}

/// One layer of a BERT.
#[derive(Module, Debug)]
pub struct BertLayer<B: Backend> {
    attention: SelfAttention<B>,
    feed_forward: FeedForward<B>,
}

impl<B: Backend> Bert<B> {
    /// Turns token ids into token embeddings.
    ///
    /// # Shapes
    /// - batch: `[tokens]`
    /// - output: `[tokens, hidden]`
    pub fn forward(
        &self,
        batch: &TokenBatch<B>,
        packing: &Packing<B>,
        pass: Pass<'_>,
    ) -> Tensor<B, 2> {
        self.fold_layers(batch, packing, pass, |_| ())
    }

    /// What [`forward`](Self::forward) makes of token ids on its way: the input of the
    /// first layer, then the output of each layer.
    ///
    /// # Shapes
    /// - batch: `[tokens]`
    /// - output: `[tokens, hidden]` each
    pub fn forward_layers(
        &self,
        batch: &TokenBatch<B>,
        packing: &Packing<B>,
        pass: Pass<'_>,
    ) -> Vec<Tensor<B, 2>> {
        let mut layers = Vec::with_capacity(self.layers.len() + 1);
        self.fold_layers(batch, packing, pass, |hidden| layers.push(hidden.clone()));
        layers
    }

    fn fold_layers(
        &self,
        batch: &TokenBatch<B>,
        packing: &Packing<B>,
        pass: Pass<'_>,
        mut see: impl FnMut(&Tensor<B, 2>),
    ) -> Tensor<B, 2> {
        let positions = positions(packing);
        let embeddings = sum_lookups(vec![
            self.word_embeddings.lookup(batch.ids(), pass),
            self.token_type_embeddings.lookup(batch.type_ids(), pass),
            self.position_embeddings.lookup(positions, pass),
        ]);
        let hidden = self.embeddings_norm.forward(embeddings, pass);
        let hidden = dropout(hidden, self.hidden_dropout, pass.mode);
        see(&hidden);
        self.layers.iter().fold(hidden, |hidden, layer| {
            let attended = layer.attention.forward(hidden, packing, pass);
            let hidden = layer.feed_forward.forward(attended, pass);
            see(&hidden);
            hidden
        })
    }

    /// Sets the dropout of every layer but the adapters'.
    pub fn set_dropout(&mut self, dropout: f64) {
        self.hidden_dropout = dropout;
        for layer in &mut self.layers {
            layer.attention.set_dropout(dropout);
            layer.feed_forward.set_dropout(dropout);
        }
    }

    /// Walks a visitor over the layers under their Hugging Face paths.
    ///
    /// # Errors
    /// The visitor's.
    pub fn visit_layers<V: LayerVisitor<B>>(&mut self, visitor: &mut V) -> Result<()> {
        visitor.embedding("embeddings.word_embeddings", &mut self.word_embeddings)?;
        visitor.embedding(
            "embeddings.position_embeddings",
            &mut self.position_embeddings,
        )?;
        visitor.embedding(
            "embeddings.token_type_embeddings",
            &mut self.token_type_embeddings,
        )?;
        visitor.layer_norm("embeddings.LayerNorm", &mut self.embeddings_norm)?;
        for (index, layer) in self.layers.iter_mut().enumerate() {
            let path = format!("encoder.layer.{index}");
            layer.attention.visit_layers(&path, &ATTENTION, visitor)?;
            layer
                .feed_forward
                .visit_layers(&path, &FEED_FORWARD, visitor)?;
        }
        match &mut self.pooler {
            Some(pooler) => visitor.linear(POOLER, pooler),
            None => Ok(()),
        }
    }
}

/// Each token's place in its text, `[tokens]`.
fn positions<B: Backend>(packing: &Packing<B>) -> Tensor<B, 1, Int> {
    let lengths = packing.lengths().iter();
    let positions: Vec<i32> = lengths.flat_map(|&length| 0..length as i32).collect();
    let tokens = positions.len();
    Tensor::from_data(TensorData::new(positions, [tokens]), packing.device())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;
    use serde_json::json;

    #[test]
    fn old_and_headed_names_are_read_as_today_s() {
        for (found, expected) in [
            (
                "bert.embeddings.LayerNorm.gamma",
                Some("embeddings.LayerNorm.weight"),
            ),
            (
                "embeddings.LayerNorm.beta",
                Some("embeddings.LayerNorm.bias"),
            ),
            ("bert.pooler.dense.weight", Some("pooler.dense.weight")),
            ("cls.predictions.bias", Some("cls.predictions.bias")),
            ("bert.embeddings.position_ids", None),
        ] {
            assert_eq!(canonical_key(found).as_deref(), expected);
        }
    }

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
