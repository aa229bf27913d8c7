use std::collections::BTreeMap;
use std::sync::Arc;

use burn::module::Module;
use burn::tensor::backend::Backend;
use serde_json::{Map, Value};

use super::{ModelCardData, SimilarityFunction};
use crate::encoder::{Encoder, EncoderConfig};
use crate::modules::{SentenceModule, Step};
use crate::text::{Prompts, TextTokenizer};

/// What a model is beside its weights.
#[derive(Debug, Clone)]
pub struct ModelConfig {
    /// The encoder's configuration.
    pub encoder: EncoderConfig,
    /// The fields of the encoder's `config.json`, as they were found.
    pub encoder_fields: Map<String, Value>,
    /// The named prompts.
    pub prompts: Prompts,
    /// What is used together with its adapters.
    pub adapters: AdapterSettings,
    /// How embeddings are compared.
    pub similarity_fn: SimilarityFunction,
    /// The number of dimensions embeddings are cut to, if they are.
    pub truncate_dim: Option<usize>,
    /// Whether texts are lowercased before anything else.
    pub do_lower_case: bool,
    /// The tokenizer's files by name, as they were found; written back as they are.
    pub tokenizer_files: Vec<(String, Arc<[u8]>)>,
    /// Where the encoder's weights came from: an absolute folder, or a hub id.
    pub name_or_path: Option<String>,
    /// The hub revision that was asked for.
    pub revision: Option<String>,
    /// What the model card says beside what the model itself knows.
    pub card: ModelCardData,
    /// What became of the encoder's tensors.
    pub weights: WeightsReport,
}

/// What is used together with a model's adapters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AdapterSettings {
    /// The prompts that came with adapters, by the adapters' names: before the model's own of
    /// the same names where that adapter is used.
    pub prompts: BTreeMap<String, Prompts>,
    /// The adapters that queries go through, where they are not the active ones.
    pub query: Option<Vec<String>>,
    /// The adapters that documents go through, where they are not the active ones.
    pub document: Option<Vec<String>>,
}

/// What became of the tensors of a weights file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WeightsReport {
    /// Tensors that no layer has a place for; they are not used.
    pub unused: Vec<String>,
}

/// The parts a model is made of.
#[derive(Debug)]
pub struct ModelParts<B: Backend> {
    /// The tokenizer.
    pub tokenizer: TextTokenizer,
    /// The encoder.
    pub encoder: Encoder<B>,
    /// The modules behind it.
    pub modules: Vec<SentenceModule<B>>,
    /// Everything else.
    pub config: ModelConfig,
}

/// What makes several routes of a model's parts.
#[derive(Debug)]
pub struct Routing<B: Backend> {
    /// What reads texts beside the model's own encoder.
    pub inputs: Vec<RouteInput<B>>,
    /// The model's steps: input 0 is its own encoder, input 1 the first of `inputs`.
    pub steps: Vec<Step>,
}

/// What reads the texts of a route: an encoder, with a tokenizer of its own.
#[derive(Module, Debug)]
pub struct RouteInput<B: Backend> {
    /// The encoder.
    pub encoder: Encoder<B>,
    /// The tokenizer.
    #[module(skip)]
    pub tokenizer: TextTokenizer,
    /// Everything else.
    #[module(skip)]
    pub config: Arc<InputConfig>,
}

/// What an encoder beside the model's own is beside its weights.
#[derive(Debug, Clone)]
pub struct InputConfig {
    /// The encoder's configuration.
    pub encoder: EncoderConfig,
    /// The fields of the encoder's `config.json`, as they were found.
    pub encoder_fields: Map<String, Value>,
    /// Whether texts are lowercased before anything else.
    pub do_lower_case: bool,
    /// The tokenizer's files by name, as they were found; written back as they are.
    pub tokenizer_files: Vec<(String, Arc<[u8]>)>,
}
