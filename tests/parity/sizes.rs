//! The seed document's figure: an adapter is 2.14 % of its base.

use std::fs;

use sentence_burn::encoder::{BertConfig, EncoderConfig};
use sentence_burn::model::{ModelConfig, ModelParts, WeightsReport};
use sentence_burn::modules::{PoolingConfig, PoolingMode, SentenceModule};
use sentence_burn::text::TextTokenizer;
use sentence_burn::{LoraConfig, ModelCardData, Prompts, SentenceTransformer, SimilarityFunction};

use crate::backend_under_test::{TestBackend, device};
use crate::fixture::{json, path};

/// A model of bert-base-uncased's size with random weights and a borrowed tokenizer.
fn bert_base() -> SentenceTransformer<TestBackend> {
    let config = EncoderConfig::Bert(BertConfig::default());
    let tokenizer = path("tiny_bert/v6/tokenizer.json");
    let content = fs::read(&tokenizer).unwrap();
    let fields = serde_json::to_value(BertConfig::default()).unwrap();
    SentenceTransformer::from_parts(ModelParts {
        tokenizer: TextTokenizer::from_json(&content, &tokenizer, 512).unwrap(),
        encoder: config.init(&device()),
        modules: vec![SentenceModule::Pooling(
            PoolingConfig::new(768, [PoolingMode::Mean]).init(),
        )],
        config: ModelConfig {
            encoder: config,
            encoder_fields: fields.as_object().cloned().unwrap(),
            prompts: Prompts::default(),
            adapters: Default::default(),
            similarity_fn: SimilarityFunction::Cosine,
            truncate_dim: None,
            do_lower_case: false,
            tokenizer_files: vec![("tokenizer.json".to_owned(), content.into())],
            name_or_path: Some("bert-base-uncased".to_owned()),
            revision: None,
            card: ModelCardData::default(),
            weights: WeightsReport::default(),
        },
    })
    .unwrap()
}

#[test]
fn an_adapter_of_bert_base_has_the_size_of_the_seed_document_s() {
    let expected = json("adapter_size/expected.json");
    let size = |path: std::path::PathBuf| fs::metadata(path).unwrap().len() as f64;
    let folder = tempfile::tempdir().unwrap();
    let mut model = bert_base();
    model.save(folder.path().join("base")).unwrap();
    model
        .add_adapter(LoraConfig {
            r: 64,
            lora_alpha: 128.0,
            ..LoraConfig::default()
        })
        .unwrap();
    model.save(folder.path().join("adapter")).unwrap();
    let adapter = size(folder.path().join("adapter/adapter_model.safetensors"));
    let base = size(folder.path().join("base/model.safetensors"));
    assert_eq!(expected["adapter"]["file_bytes"], 9_443_744);
    assert!((adapter - 9_443_744.0).abs() <= 200.0, "{adapter}");
    let expected_base = expected["base"]["file_bytes"].as_f64().unwrap();
    assert!((base - expected_base).abs() <= 2_000.0, "{base}");
    let percent = 100.0 * adapter / base;
    assert!((2.14..=2.16).contains(&percent), "{percent}");
}
