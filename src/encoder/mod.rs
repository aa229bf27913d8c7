//! From token ids to token embeddings.
//!
//! Each architecture is one file on shared blocks: [`TokenEmbeddings`] and
//! [`PostNormLayer`] (of [`SelfAttention`] and [`FeedForward`]) for BERT and its kind,
//! [`RotaryAttention`] and [`GatedFeedForward`] for those that came later. It owns its
//! Hugging Face names, which serve for reading and for writing. [`Encoder`] is the one
//! chosen by `model_type`.

#![allow(
    clippy::large_enum_variant,
    reason = "a program has one encoder or two, and a box is no Burn module"
)]

mod albert;
mod attention;
mod bert;
mod checkpoint;
mod distilbert;
mod electra;
mod embeddings;
mod feed_forward;
mod fields;
mod gated_feed_forward;
mod gemma3;
mod layer_type;
mod layers;
mod modernbert;
mod mpnet;
mod nomic_bert;
mod post_norm;
mod qwen3;
mod roberta;
mod rope;
mod rotary_attention;
mod static_embedding;

use burn::module::Module;
use burn::tensor::{Tensor, backend::Backend};
use serde_json::{Map, Value};

pub use albert::{Albert, AlbertConfig, AlbertLayerGroup};
pub use attention::{SelfAttention, SelfAttentionConfig, SelfAttentionNames};
pub use bert::{Bert, BertConfig};
pub use distilbert::{DistilBert, DistilBertConfig};
pub use electra::{Electra, ElectraConfig};
pub use embeddings::{TokenEmbeddings, TokenEmbeddingsConfig};
pub use feed_forward::{FeedForward, FeedForwardConfig, FeedForwardNames};
pub use gated_feed_forward::{GatedFeedForward, GatedFeedForwardConfig};
pub use gemma3::{Gemma3, Gemma3Config, Gemma3Layer};
pub use layer_type::LayerType;
pub use layers::{AdapterParams, LayerVisitor, Layers, Linears, Params};
pub use modernbert::{ModernBert, ModernBertConfig, ModernBertLayer};
pub use mpnet::{MPNet, MPNetConfig};
pub use nomic_bert::{NomicBert, NomicBertConfig, NomicBertLayer};
pub use post_norm::{PostNormLayer, PostNormLayerConfig, PostNormLayerNames};
pub use qwen3::{Qwen3, Qwen3Config, Qwen3Layer};
pub use roberta::{Roberta, RobertaConfig};
pub use rope::RopeParameters;
pub use rotary_attention::{RotaryAttention, RotaryAttentionConfig};
pub use static_embedding::{StaticEmbedding, StaticEmbeddingConfig};

use crate::adapter::Pass;
use crate::error::{EncoderError, Result};
use crate::kernel::Packing;
use crate::state_dict::{CollectTensors, StateDict};
use crate::text::TokenBatch;

/// What the rest of the crate asks of an architecture's configuration.
trait Architecture {
    /// `model_type`, as `config.json` names the architecture.
    fn model_type(&self) -> &str;

    /// The number of token ids that have an embedding.
    fn vocab_size(&self) -> usize;

    /// The size of a token embedding.
    fn hidden_size(&self) -> usize;

    /// The most tokens a text has where the model's own files say nothing else.
    fn max_tokens(&self) -> usize;

    /// Whether each position has an embedding, so that there is none beyond the last.
    fn embeds_positions(&self) -> bool {
        true
    }

    /// The number of segments that have an embedding; 0 where there are none.
    fn type_vocab_size(&self) -> usize {
        0
    }

    /// Whether all tokens of a batch share what one table gives, as a bias on attention.
    fn shares_a_table(&self) -> bool {
        false
    }

    /// The name endings of the layers that an adapter adapts where its configuration
    /// names none: peft's, or, where it has none, the query's and the value's.
    fn default_lora_targets(&self) -> &'static [&'static str];

    /// What the names of a checkpoint with a head on top begin with.
    fn head_prefixes(&self) -> &'static [&'static str];

    /// The encoder's tensors as `transformers` writes them into a checkpoint, where that is
    /// not by its own layers' names.
    fn checkpoint(&self, tensors: StateDict) -> StateDict {
        tensors
    }
}

/// Makes the enums of the architectures out of a table of them: the module, its
/// configuration, and the `model_type`s that mean it.
macro_rules! architectures {
    ($($(#[$doc:meta])+ $name:ident($config:ident): $($model_type:literal)|+;)+) => {
        /// The architectures this crate has, as `config.json` names them.
        const MODEL_TYPES: &[&str] = &[$($($model_type),+),+];

        /// An encoder's `config.json`, read as its architecture's.
        #[derive(Debug, Clone)]
        pub enum EncoderConfig {
            $($(#[$doc])+ $name($config),)+
        }

        impl EncoderConfig {
            /// Reads the fields of a `config.json`.
            ///
            /// # Errors
            /// [`EncoderError::UnknownModelType`], or [`EncoderError::InvalidField`] and
            /// [`EncoderError::Malformed`] naming what the architecture cannot have.
            pub fn from_json(fields: &Map<String, Value>) -> Result<Self> {
                match fields.get("model_type").and_then(Value::as_str) {
                    $(Some($($model_type)|+) => Ok(Self::$name($config::from_json(fields)?)),)+
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
                    $(Self::$name(config) => Encoder::$name(config.init(device)),)+
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
                    $(Self::$name(config) => config.load(tensors, device).map(Encoder::$name),)+
                }
            }

            fn architecture(&self) -> &dyn Architecture {
                match self {
                    $(Self::$name(config) => config,)+
                }
            }
        }

        /// An encoder: one of the architectures.
        #[derive(Module, Debug)]
        pub enum Encoder<B: Backend> {
            $($(#[$doc])+ $name($name<B>),)+
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
                    $(Self::$name(encoder) => {
                        encoder.fold_layers(batch, packing, pass, &mut |_| ())
                    })+
                }
            }

            /// What [`forward`](Self::forward) makes of token ids on its way: the input of
            /// the first layer, then the output of each layer, that of the last behind any
            /// norm.
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
                let mut layers = Vec::new();
                let mut see = |hidden: &Tensor<B, 2>| layers.push(hidden.clone());
                let last = match self {
                    $(Self::$name(encoder) => {
                        encoder.fold_layers(batch, packing, pass, &mut see)
                    })+
                };
                layers.pop();
                layers.push(last);
                layers
            }

            /// Walks a visitor over the layers under their Hugging Face paths.
            ///
            /// # Errors
            /// The visitor's.
            pub fn visit_layers<V: LayerVisitor<B>>(&mut self, visitor: &mut V) -> Result<()> {
                match self {
                    $(Self::$name(encoder) => encoder.visit_layers(visitor),)+
                }
            }

            /// Sets the dropout of every layer but the adapters'.
            pub fn set_dropout(&mut self, dropout: f64) {
                match self {
                    $(Self::$name(encoder) => encoder.set_dropout(dropout),)+
                }
            }
        }
    };
}

architectures! {
    /// BERT, and MiniLM, BGE, GTE… which are BERTs.
    Bert(BertConfig): "bert";
    /// RoBERTa, and XLM-RoBERTa and CamemBERT, which are RoBERTas.
    Roberta(RobertaConfig): "roberta" | "xlm-roberta" | "camembert";
    /// DistilBERT.
    DistilBert(DistilBertConfig): "distilbert";
    /// MPNet.
    MPNet(MPNetConfig): "mpnet";
    /// ELECTRA.
    Electra(ElectraConfig): "electra";
    /// ALBERT.
    Albert(AlbertConfig): "albert";
    /// ModernBERT.
    ModernBert(ModernBertConfig): "modernbert";
    /// NomicBERT: nomic-embed-text.
    NomicBert(NomicBertConfig): "nomic_bert";
    /// Qwen3, as in Qwen3-Embedding.
    Qwen3(Qwen3Config): "qwen3";
    /// Gemma 3 for text, as in EmbeddingGemma.
    Gemma3(Gemma3Config): "gemma3_text";
    /// A table of token embeddings alone: StaticEmbedding, model2vec.
    StaticEmbedding(StaticEmbeddingConfig): "static_embedding";
}

impl EncoderConfig {
    /// The number of token ids that have an embedding.
    pub fn vocab_size(&self) -> usize {
        self.architecture().vocab_size()
    }

    /// The size of a token embedding.
    pub fn hidden_size(&self) -> usize {
        self.architecture().hidden_size()
    }

    /// The most tokens a text has where the model's own files say nothing else.
    pub fn max_tokens(&self) -> usize {
        self.architecture().max_tokens()
    }

    /// The most tokens a text may have at all: [`max_tokens`](Self::max_tokens) where each
    /// position has an embedding, and any number where positions are angles.
    pub fn token_limit(&self) -> usize {
        match self.architecture().embeds_positions() {
            true => self.max_tokens(),
            false => usize::MAX,
        }
    }

    /// The number of segments that have an embedding; 0 where there are none.
    pub fn type_vocab_size(&self) -> usize {
        self.architecture().type_vocab_size()
    }

    /// Whether all tokens of a batch share what one table gives, so that they all go through
    /// the same adapters there.
    pub fn shares_a_table(&self) -> bool {
        self.architecture().shares_a_table()
    }

    /// `model_type`, as `config.json` names the architecture.
    pub fn model_type(&self) -> &str {
        self.architecture().model_type()
    }

    /// Whether there is a table alone, which Sentence Transformers calls a StaticEmbedding and
    /// no Transformer: texts can then be empty, and adapters have no place.
    pub fn is_static(&self) -> bool {
        matches!(self, Self::StaticEmbedding(_))
    }

    /// The name endings of the layers that an adapter adapts where its configuration
    /// names none.
    pub fn default_lora_targets(&self) -> Option<&'static [&'static str]> {
        Some(self.architecture().default_lora_targets())
    }

    /// What the names of a checkpoint of this encoder with a head on top begin with.
    pub fn head_prefixes(&self) -> &'static [&'static str] {
        self.architecture().head_prefixes()
    }

    /// The weights of an encoder of this configuration by the names of a checkpoint, which
    /// [`load`](Self::load) reads.
    ///
    /// # Errors
    /// None of its own; those of the walk over the layers.
    pub fn state_dict<B: Backend>(&self, encoder: &Encoder<B>) -> Result<StateDict> {
        let mut tensors = StateDict::new("encoder");
        let mut encoder = encoder.clone();
        encoder.visit_layers(&mut Params(CollectTensors(&mut tensors)))?;
        Ok(self.architecture().checkpoint(tensors))
    }
}
