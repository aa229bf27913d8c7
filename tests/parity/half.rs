//! Half precision: nearly the embeddings of single precision, where the device computes in it.

use burn::tensor::{DType, FloatDType, backend::Backend};
use sentence_burn::SentenceTransformer;
use sentence_burn::error::{Error, ModelError};

use crate::backend_under_test::{TestBackend, device};
use crate::fixture::{json, load, path, strings, values};

type Model = SentenceTransformer<TestBackend>;

const TYPES: [FloatDType; 2] = [FloatDType::F16, FloatDType::BF16];

/// The least cosine with the embedding in single precision.
const LEAST: f32 = 0.9995;

fn is_computed_in(float_type: FloatDType) -> bool {
    TestBackend::supports_dtype(&device(), DType::from(float_type))
}

/// The least cosine between rows.
fn least_cosine(a: &[f32], b: &[f32], dim: usize) -> f32 {
    assert_eq!(a.len(), b.len());
    let cosine = |(a, b): (&[f32], &[f32])| {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    };
    let cosines = a.chunks(dim).zip(b.chunks(dim)).map(cosine);
    cosines.fold(1.0, f32::min)
}

/// Compares a model with itself in half precision.
fn check(model: &Model, texts: &[String], what: &str) {
    let dim = model.embedding_dim();
    if !TYPES.into_iter().any(is_computed_in) {
        return;
    }
    let expected = values(model.encode(texts).unwrap());
    for float_type in TYPES.into_iter().filter(|&t| is_computed_in(t)) {
        let half = model.clone().with_float_type(float_type).unwrap();
        let embeddings = half.encode(texts).unwrap();
        assert_eq!(embeddings.dtype(), DType::from(float_type));
        let found = values(embeddings);
        assert_ne!(found, expected, "{what} in {float_type:?}");
        let cosine = least_cosine(&found, &expected, dim);
        println!("{what} in {float_type:?}: {cosine}");
        assert!(cosine > LEAST, "{what} in {float_type:?}: {cosine}");
        // Negative control: another text's embedding is not so near.
        let mut shifted = found.clone();
        shifted.rotate_left(dim);
        assert!(least_cosine(&shifted, &expected, dim) < 0.99);
    }
}

#[test]
fn every_kind_of_encoder_embeds_nearly_the_same_in_half_precision() {
    let texts = strings(&json("tiny_bert/expected.json")["texts"]);
    for folder in ["tiny_bert/dense", "tiny_bert/v6", "modules/pipeline"] {
        check(&load(folder), &texts, folder);
    }
}

#[test]
fn an_adapter_is_loaded_into_a_model_in_half_precision() {
    let texts = strings(&json("tiny_bert/expected.json")["texts"]);
    let mut single = load("tiny_bert/v6");
    let plain = values(single.encode(&texts).unwrap());
    single.load_adapter(path("tiny_lora/default")).unwrap();
    let expected = values(single.encode(&texts).unwrap());
    let dim = single.embedding_dim();
    assert!(least_cosine(&plain, &expected, dim) < LEAST);
    for float_type in TYPES.into_iter().filter(|&t| is_computed_in(t)) {
        let mut half = load("tiny_bert/v6").with_float_type(float_type).unwrap();
        half.load_adapter(path("tiny_lora/default")).unwrap();
        let found = values(half.encode(&texts).unwrap());
        let cosine = least_cosine(&found, &expected, dim);
        println!("with an adapter in {float_type:?}: {cosine}");
        assert!(cosine > LEAST, "{float_type:?}: {cosine}");
    }
}

#[test]
fn all_minilm_l6_v2_embeds_nearly_the_same_in_half_precision() {
    let Ok(folder) = std::env::var("SENTENCE_BURN_MINILM") else {
        eprintln!("skipped: SENTENCE_BURN_MINILM names no folder");
        return;
    };
    let model = Model::load(&folder, &device()).unwrap();
    // Short ones, as the device may be one in software.
    let mut texts = strings(&json("minilm/texts.json")["texts"]);
    texts.retain(|text| text.split_whitespace().count() > 1);
    texts.sort_by_key(String::len);
    texts.truncate(12);
    check(&model, &texts, "all-MiniLM-L6-v2");
}

#[test]
fn a_type_that_the_device_does_not_compute_in_is_an_error() {
    for float_type in TYPES.into_iter().filter(|&t| !is_computed_in(t)) {
        let error = load("tiny_bert/v6")
            .with_float_type(float_type)
            .unwrap_err();
        assert!(matches!(
            error,
            Error::Model(ModelError::InvalidOption {
                option: "float_type",
                ..
            })
        ));
    }
    let single = load("tiny_bert/v6").with_float_type(FloatDType::F32);
    assert!(single.is_ok());
}
