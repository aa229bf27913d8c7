//! From token ids to token embeddings.
//!
//! Each architecture is one file on the shared blocks [`SelfAttention`] and
//! [`FeedForward`]; it owns its Hugging Face names, which serve for reading and for
//! writing. [`Encoder`] is the one chosen by `model_type`.

mod attention;
mod bert;
mod feed_forward;
mod layers;

use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};
use serde_json::{Map, Value};

pub use attention::{SelfAttention, SelfAttentionConfig, SelfAttentionNames};
pub use bert::{Bert, BertConfig};
pub use feed_forward::{FeedForward, FeedForwardConfig, FeedForwardNames};
pub use layers::{AdapterParams, LayerVisitor, Layers, Linears, Params};

use crate::adapter::Pass;
use crate::error::{EncoderError, Result};
use crate::kernel::Packing;
use crate::state_dict::{LoadTensors, StateDict};
use crate::text::TokenBatch;

/// The architectures this crate has, as `config.json` names them.
const MODEL_TYPES: &[&str] = &["bert"];

/// An encoder's `config.json`, read as its architecture's.
#[derive(Debug, Clone)]
pub enum EncoderConfig {
    /// BERT, and MiniLM, BGE, GTE… which are BERTs.
    Bert(BertConfig),
}

impl EncoderConfig {
    /// Reads the fields of a `config.json`.
    ///
    /// # Errors
    /// [`EncoderError::UnknownModelType`], or [`EncoderError::InvalidField`] and
    /// [`EncoderError::Malformed`] naming what the architecture cannot have.
    pub fn from_json(fields: &Map<String, Value>) -> Result<Self> {
        let model_type = fields.get("model_type").and_then(Value::as_str);
        match model_type {
            Some("bert") => Ok(Self::Bert(BertConfig::from_json(fields)?)),
            other => Err(EncoderError::UnknownModelType {
                found: other.unwrap_or("none").to_owned(),
                known: MODEL_TYPES,
            }
            .into()),
        }
    }

    /// An encoder with fresh weights.
    pub fn init<B: Backend>(&self, device: &B::Device) -> Encoder<B> {
        match self {
            Self::Bert(config) => Encoder::Bert(config.init(device)),
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
    ) -> Result<Encoder<B>> {
        match self {
            Self::Bert(config) => config.load(tensors, device).map(Encoder::Bert),
        }
    }

    /// The number of token ids that have an embedding.
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Bert(config) => config.vocab_size,
        }
    }

    /// The size of a token embedding.
    pub fn hidden_size(&self) -> usize {
        match self {
            Self::Bert(config) => config.hidden_size,
        }
    }

    /// The most tokens a text may have.
    pub fn max_tokens(&self) -> usize {
        match self {
            Self::Bert(config) => config.max_position_embeddings,
        }
    }

    /// The number of segments that have an embedding; 0 where there are none.
    pub fn type_vocab_size(&self) -> usize {
        match self {
            Self::Bert(config) => config.type_vocab_size,
        }
    }

    /// `model_type`, as `config.json` names the architecture.
    pub fn model_type(&self) -> &'static str {
        match self {
            Self::Bert(_) => "bert",
        }
    }

    /// The name endings of the layers that an adapter adapts where its configuration
    /// names none.
    pub fn default_lora_targets(&self) -> Option<&'static [&'static str]> {
        match self {
            Self::Bert(_) => Some(bert::DEFAULT_LORA_TARGETS),
        }
    }

    /// What the names of a checkpoint of this encoder with a head on top begin with.
    pub fn head_prefixes(&self) -> &'static [&'static str] {
        match self {
            Self::Bert(_) => bert::HEAD_PREFIXES,
        }
    }
}

/// An encoder: one of the architectures.
#[derive(Module, Debug)]
pub enum Encoder<B: Backend> {
    /// BERT.
    Bert(Bert<B>),
}

impl<B: Backend> Encoder<B> {
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
        match self {
            Self::Bert(bert) => bert.forward(batch, packing, pass),
        }
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
        match self {
            Self::Bert(bert) => bert.forward_layers(batch, packing, pass),
        }
    }

    /// Walks a visitor over the layers under their Hugging Face paths.
    ///
    /// # Errors
    /// The visitor's.
    pub fn visit_layers<V: LayerVisitor<B>>(&mut self, visitor: &mut V) -> Result<()> {
        match self {
            Self::Bert(bert) => bert.visit_layers(visitor),
        }
    }

    /// Sets the dropout of every layer but the adapters'.
    pub fn set_dropout(&mut self, dropout: f64) {
        match self {
            Self::Bert(bert) => bert.set_dropout(dropout),
        }
    }
}

/// Fills a freshly made encoder from a state dict.
fn load_layers<B: Backend>(
    tensors: &mut StateDict,
    device: &B::Device,
    visit_layers: impl FnOnce(&mut Params<LoadTensors<'_, B>>) -> Result<()>,
) -> Result<()> {
    let mut visitor = Params(LoadTensors::new(tensors, device));
    visit_layers(&mut visitor)?;
    visitor.0.finish().map(|_| ())
}
