//! A small BERT that learns to embed texts as a teacher does.

use std::error::Error;
use std::sync::Arc;

use burn::module::AutodiffModule;
use burn::optim::{AdamWConfig, GradientsParams, Optimizer};
use burn::tensor::backend::AutodiffBackend;
use burn::tensor::{ElementConversion, Int, Tensor, TensorData};
use rand::{SeedableRng, rngs::StdRng, seq::SliceRandom};
use sentence_burn::encoder::{BertConfig, EncoderConfig};
use sentence_burn::model::{Mode, ModelCardData, ModelConfig, ModelParts, WeightsReport};
use sentence_burn::modules::{DenseConfig, Normalize, PoolingConfig, PoolingMode, SentenceModule};
use sentence_burn::text::TextTokenizer;
use sentence_burn::{Prompts, SentenceTransformer, SimilarityFunction};
use serde_json::json;
use tokenizers::Tokenizer;

use crate::vocabulary;

const HIDDEN: usize = 128;
const MAX_TOKENS: usize = 64;
const BATCH: usize = 64;
const LEARNING_RATE: f64 = 1e-3;

/// A student with fresh weights, for embeddings of the teacher's size.
pub(crate) fn new<B: AutodiffBackend>(
    tokenizer: &Tokenizer,
    dim: usize,
    device: &B::Device,
) -> Result<SentenceTransformer<B>, Box<dyn Error>> {
    let fields = json!({
        "architectures": ["BertModel"],
        "model_type": "bert",
        "vocab_size": tokenizer.get_vocab_size(true).min(vocabulary::SIZE),
        "hidden_size": HIDDEN,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 4 * HIDDEN,
        "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1,
        "attention_probs_dropout_prob": 0.1,
        "max_position_embeddings": MAX_TOKENS,
        "type_vocab_size": 2,
        "initializer_range": 0.02,
        "layer_norm_eps": 1e-12,
        "pad_token_id": 0,
    });
    let fields = fields.as_object().cloned().unwrap_or_default();
    let config = EncoderConfig::Bert(BertConfig::from_json(&fields)?);
    let encoder = config.init(device);
    let tokenizer_config = json!({
        "tokenizer_class": "BertTokenizer",
        "do_lower_case": true,
        "model_max_length": MAX_TOKENS,
        "pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]",
        "sep_token": "[SEP]", "mask_token": "[MASK]",
    });
    let file = |name: &str, content: String| (name.to_owned(), Arc::from(content.into_bytes()));
    let parts = ModelParts {
        tokenizer: TextTokenizer::new(tokenizer.clone(), MAX_TOKENS)?,
        encoder,
        modules: vec![
            SentenceModule::Pooling(PoolingConfig::new(HIDDEN, [PoolingMode::Mean]).init()),
            SentenceModule::Dense(
                DenseConfig::new(HIDDEN, dim)
                    .with_activation(sentence_burn::kernel::Activation::Identity)
                    .init(device),
            ),
            SentenceModule::Normalize(Normalize::default()),
        ],
        config: ModelConfig {
            encoder: config,
            encoder_fields: fields,
            prompts: Prompts::default(),
            adapters: Default::default(),
            similarity_fn: SimilarityFunction::Cosine,
            truncate_dim: None,
            do_lower_case: false,
            tokenizer_files: vec![
                file(
                    "tokenizer.json",
                    tokenizer.to_string(false).map_err(|e| e.to_string())?,
                ),
                file("tokenizer_config.json", format!("{tokenizer_config:#}")),
            ],
            name_or_path: None,
            revision: None,
            card: ModelCardData {
                language: Some("en".to_owned()),
                license: Some("apache-2.0".to_owned()),
                model_name: Some("A small encoder of WordNet's glosses".to_owned()),
                ..ModelCardData::default()
            },
            weights: WeightsReport::default(),
        },
    };
    Ok(SentenceTransformer::from_parts(parts)?)
}

/// Trains every weight to bring each text's embedding to the teacher's direction.
pub(crate) fn learn<B: AutodiffBackend>(
    mut student: SentenceTransformer<B>,
    texts: &[String],
    targets: Tensor<B::InnerBackend, 2>,
    epochs: usize,
    device: &B::Device,
) -> Result<SentenceTransformer<B::InnerBackend>, Box<dyn Error>> {
    let mut optimizer = AdamWConfig::new()
        .with_epsilon(1e-8)
        .with_weight_decay(0.01)
        .init();
    let targets = Tensor::<B, 2>::from_inner(targets);
    let steps = epochs * texts.len().div_ceil(BATCH);
    let mut step = 0;
    let mut order: Vec<usize> = (0..texts.len()).collect();
    let mut rng = StdRng::seed_from_u64(44);
    for epoch in 1..=epochs {
        order.shuffle(&mut rng);
        let mut sum = 0.0;
        for members in order.chunks(BATCH) {
            let batch: Vec<&String> = members.iter().map(|&text| &texts[text]).collect();
            let batch = student.tokenize(&batch, None, device)?;
            let rows: Vec<i32> = members.iter().map(|&text| text as i32).collect();
            let rows =
                Tensor::<B, 1, Int>::from_data(TensorData::new(rows, [members.len()]), device);
            let embeddings = student.forward(&batch, Mode::Inference);
            let cosine = (embeddings * targets.clone().select(0, rows))
                .sum_dim(1)
                .mean();
            sum += cosine.clone().into_scalar().elem::<f64>() * members.len() as f64;
            let gradients = GradientsParams::from_grads(cosine.neg().backward(), &student);
            let warm = (step as f64 / (0.05 * steps as f64)).min(1.0);
            let rate = LEARNING_RATE * warm * (1.0 - step as f64 / steps as f64);
            student = optimizer.step(rate, student, gradients);
            step += 1;
        }
        eprintln!(
            "epoch {epoch}: mean cosine to the teacher {:.4}",
            sum / texts.len() as f64
        );
    }
    Ok(student.valid())
}
