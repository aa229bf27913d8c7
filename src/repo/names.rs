//! The names of a folder's files.

pub(super) const MODULES: &str = "modules.json";
pub(super) const CONFIG: &str = "config.json";
pub(super) const WEIGHTS: &str = "model.safetensors";
pub(super) const WEIGHTS_INDEX: &str = "model.safetensors.index.json";
pub(super) const PYTORCH_WEIGHTS: &str = "pytorch_model.bin";
pub(super) const PYTORCH_INDEX: &str = "pytorch_model.bin.index.json";
pub(super) const SENTENCE_TRANSFORMERS: &str = "config_sentence_transformers.json";
pub(super) const SENTENCE_BERT: &str = "sentence_bert_config.json";
pub(super) const ROUTER: &str = "router_config.json";
pub(super) const TOKENIZER: &str = "tokenizer.json";
pub(super) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
pub(super) const ADAPTER_CONFIG: &str = "adapter_config.json";
pub(super) const ADAPTER_WEIGHTS: &str = "adapter_model.safetensors";
pub(super) const PYTORCH_ADAPTER: &str = "adapter_model.bin";
pub(super) const MODEL_CARD: &str = "README.md";

/// What `sentence_bert_config.json` was called in folders of the first releases.
pub(super) const SENTENCE_BERT_OF_OLD: [&str; 6] = [
    "sentence_roberta_config.json",
    "sentence_distilbert_config.json",
    "sentence_camembert_config.json",
    "sentence_albert_config.json",
    "sentence_xlm-roberta_config.json",
    "sentence_xlnet_config.json",
];

/// A tokenizer's files: kept and written back as they are.
pub(super) const TOKENIZER_FILES: [&str; 5] = [
    TOKENIZER,
    TOKENIZER_CONFIG,
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.txt",
];
