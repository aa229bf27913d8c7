//! The encoder, pooling and the modules behind it, on a tiny BERT.

use sentence_burn::modules::{PoolingConfig, PoolingMode, SentenceModule};
use sentence_burn::{EncodeOptions, Prompt, SentenceTransformer};

use crate::backend_under_test::{TestBackend, device};
use crate::fixture::{
    Expected, TOLERANCE, assert_close, assert_far, json, load, max_difference, path, strings,
    values,
};

const HIDDEN: usize = 20;

fn texts() -> Vec<String> {
    strings(&json("tiny_bert/expected.json")["texts"])
}

fn expected() -> Expected {
    Expected::read("tiny_bert/expected.safetensors")
}

/// The tiny BERT with another pooling.
fn with_pooling(modes: &[PoolingMode], include_prompt: bool) -> SentenceTransformer<TestBackend> {
    let config = PoolingConfig {
        embedding_dimension: HIDDEN,
        modes: modes.to_vec(),
        include_prompt,
    };
    load("tiny_bert/v6")
        .with_modules(vec![SentenceModule::Pooling(config.init())])
        .unwrap()
}

fn encode(model: &SentenceTransformer<TestBackend>, options: &EncodeOptions) -> Vec<f32> {
    values(model.encode_with(&texts(), options).unwrap())
}

#[test]
fn both_generations_of_folders_embed_as_python() {
    let expected = expected().get("pooled.mean");
    for folder in ["tiny_bert/legacy", "tiny_bert/v6"] {
        let model = load(folder);
        assert_eq!(model.max_seq_length(), 32, "{folder}");
        assert_close(
            &encode(&model, &EncodeOptions::default()),
            &expected,
            folder,
        );
    }
}

#[test]
fn wrong_formulas_would_be_noticed() {
    let found = encode(&load("tiny_bert/v6"), &EncodeOptions::default());
    for control in [
        "control_gelu_tanh",
        "control_eps_1e-5",
        "control_no_mask",
        "control_no_token_type",
        "control_truncation_16",
        "control_truncation_48",
    ] {
        assert_far(&found, &expected().get(control), control);
    }
}

#[test]
fn token_ids_are_python_s() {
    let expected = json("tiny_bert/expected.json");
    for (folder, key) in [
        ("tiny_bert/v6", "token_ids"),
        ("tiny_bert/legacy", "token_ids"),
        ("tiny_bert/prefixed", "token_ids_prefixed"),
    ] {
        let found: Vec<Vec<u32>> = load(folder)
            .tokenizer()
            .encode(&texts(), None)
            .unwrap()
            .into_iter()
            .map(|encoding| encoding.ids)
            .collect();
        assert_eq!(serde_json::json!(found), expected[key], "{folder}");
    }
}

#[test]
fn token_embeddings_are_python_s() {
    let model = load("tiny_bert/v6");
    let found = model
        .encode_tokens(&texts(), &EncodeOptions::default())
        .unwrap();
    assert_eq!(found.len(), texts().len());
    for (index, tokens) in found.into_iter().enumerate() {
        let key = format!("token_embeddings.{index}");
        assert_close(&values(tokens), &expected().get(&key), &key);
    }
}

#[test]
fn every_pooling_is_python_s_with_and_without_the_prompt() {
    let prompt = json("tiny_bert/expected.json")["prompt"]
        .as_str()
        .unwrap()
        .to_owned();
    let prompted = EncodeOptions {
        prompt: Some(Prompt::Text(prompt)),
        ..EncodeOptions::default()
    };
    let modes = [
        PoolingMode::Cls,
        PoolingMode::Max,
        PoolingMode::Mean,
        PoolingMode::MeanSqrtLenTokens,
        PoolingMode::WeightedMean,
        PoolingMode::LastToken,
    ];
    for mode in modes {
        let name = mode.name();
        let found = encode(&with_pooling(&[mode], true), &EncodeOptions::default());
        assert_close(&found, &expected().get(&format!("pooled.{name}")), name);
        let found = encode(&with_pooling(&[mode], false), &prompted);
        assert_close(
            &found,
            &expected().get(&format!("pooled.{name}.no_prompt")),
            name,
        );
        // Each other mode is the control.
        for other in modes.iter().filter(|other| **other != mode) {
            let other = other.name();
            assert_far(
                &found,
                &expected().get(&format!("pooled.{other}.no_prompt")),
                other,
            );
        }
    }
    let with_prompt = encode(&with_pooling(&[PoolingMode::Mean], true), &prompted);
    assert_close(
        &with_prompt,
        &expected().get("pooled.mean.with_prompt"),
        "with prompt",
    );
    assert_far(
        &with_prompt,
        &expected().get("pooled.mean.no_prompt"),
        "without prompt",
    );
}

#[test]
fn several_poolings_are_concatenated_in_order() {
    let modes = [PoolingMode::Cls, PoolingMode::Max, PoolingMode::Mean];
    let found = encode(&with_pooling(&modes, true), &EncodeOptions::default());
    assert_close(&found, &expected().get("pooled.concat"), "cls, max, mean");
    let modes = [PoolingMode::Mean, PoolingMode::Max, PoolingMode::Cls];
    let found = encode(&with_pooling(&modes, true), &EncodeOptions::default());
    assert_far(&found, &expected().get("pooled.concat"), "mean, max, cls");
}

#[test]
fn a_bare_checkpoint_with_a_head_gets_mean_pooling() {
    let model = load("tiny_bert/prefixed");
    assert_eq!(model.max_seq_length(), 48);
    assert_eq!(model.weights_report().unused, ["cls.predictions.bias"]);
    let found = encode(&model, &EncodeOptions::default());
    assert_close(&found, &expected().get("prefixed.mean"), "prefixed");
}

#[test]
fn dense_normalize_prompts_and_truncation_are_python_s() {
    let model = load("tiny_bert/dense");
    let texts = texts();
    let plain = values(model.encode(&texts).unwrap());
    let query = values(model.encode_query(&texts).unwrap());
    let document = values(model.encode_document(&texts).unwrap());
    let expected = expected();
    assert_close(&plain, &expected.get("dense.encode"), "encode");
    assert_close(&query, &expected.get("dense.encode_query"), "encode_query");
    assert_close(
        &document,
        &expected.get("dense.encode_document"),
        "encode_document",
    );
    assert_far(&plain, &query, "no query prompt");
    assert_far(&plain, &document, "no document prompt");
    let truncated = EncodeOptions {
        truncate_dim: Some(5),
        ..EncodeOptions::default()
    };
    let normalized = EncodeOptions {
        normalize: true,
        ..truncated.clone()
    };
    let (truncated, normalized) = (encode(&model, &truncated), encode(&model, &normalized));
    assert_close(
        &truncated,
        &expected.get("dense.encode.truncated"),
        "truncated",
    );
    assert_close(
        &normalized,
        &expected.get("dense.encode.truncated_normalized"),
        "normalized",
    );
    assert_far(
        &truncated,
        &normalized,
        "truncated vectors are shorter than 1",
    );
    let embeddings = model.encode(&texts).unwrap();
    let similarity = model.similarity(embeddings.clone(), embeddings).unwrap();
    assert_close(
        &values(similarity),
        &expected.get("dense.similarity"),
        "similarity",
    );
}

#[test]
fn batches_of_any_size_equal_one_by_one_in_any_order() {
    let model = load("tiny_bert/v6");
    let texts = texts();
    let one_by_one: Vec<f32> = texts
        .iter()
        .flat_map(|text| values(model.encode_one(text).unwrap()))
        .collect();
    for batch_size in [1, 2, 3, 7, 32] {
        let options = EncodeOptions {
            batch_size,
            ..EncodeOptions::default()
        };
        let difference = max_difference(&encode(&model, &options), &one_by_one);
        assert!(
            difference <= TOLERANCE / 2.0,
            "batches of {batch_size}: {difference:e}"
        );
    }
    let reversed: Vec<&String> = texts.iter().rev().collect();
    let mut rows: Vec<Vec<f32>> = values(model.encode(&reversed).unwrap())
        .chunks(HIDDEN)
        .map(<[f32]>::to_vec)
        .collect();
    rows.reverse();
    assert!(max_difference(&rows.concat(), &one_by_one) <= TOLERANCE / 2.0);
}

#[test]
fn no_texts_give_no_rows() {
    let model = load("tiny_bert/dense");
    let none: [&str; 0] = [];
    assert_eq!(model.encode(&none).unwrap().dims(), [0, 7]);
    assert!(
        model
            .encode_tokens(&none, &EncodeOptions::default())
            .unwrap()
            .is_empty()
    );
}

#[test]
fn progress_ends_at_the_total() {
    use std::sync::{Arc, Mutex};
    let seen = Arc::new(Mutex::new(Vec::new()));
    let record = Arc::clone(&seen);
    let options = EncodeOptions {
        batch_size: 4,
        progress: Some(Arc::new(move |progress| {
            record.lock().unwrap().push(progress)
        })),
        ..EncodeOptions::default()
    };
    load("tiny_bert/v6")
        .encode_with(&texts(), &options)
        .unwrap();
    let seen = seen.lock().unwrap();
    assert_eq!(seen.iter().map(|p| p.texts).collect::<Vec<_>>(), [4, 8, 10]);
    assert!(
        seen.last()
            .is_some_and(|p| p.tokens == p.total_tokens && p.tokens > 10)
    );
}

#[test]
fn a_model_is_shared_between_threads() {
    let model = load("tiny_bert/v6");
    let expected = values(model.encode(&texts()).unwrap());
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(values(model.encode(&texts()).unwrap()), expected));
        }
    });
}

#[test]
fn loading_again_from_what_was_saved_embeds_the_same() {
    for folder in ["tiny_bert/v6", "tiny_bert/prefixed", "tiny_bert/dense"] {
        let saved = tempfile::tempdir().unwrap();
        let model = load(folder);
        model.save(saved.path()).unwrap();
        let again = SentenceTransformer::<TestBackend>::load(saved.path(), &device()).unwrap();
        let options = EncodeOptions::default();
        assert_eq!(
            encode(&model, &options),
            encode(&again, &options),
            "{folder}"
        );
        assert_eq!(model.similarity_fn(), again.similarity_fn());
        assert_eq!(model.prompts(), again.prompts());
        assert_eq!(model.max_seq_length(), again.max_seq_length());
        assert!(again.weights_report().unused.is_empty());
    }
    assert!(path("tiny_bert/v6").is_dir());
}

#[test]
fn a_model_is_saved_over_the_folder_it_was_loaded_from() {
    let saved = tempfile::tempdir().unwrap();
    load("tiny_bert/dense").save(saved.path()).unwrap();
    let model = SentenceTransformer::<TestBackend>::load(saved.path(), &device()).unwrap();
    let expected = encode(&model, &EncodeOptions::default());
    let other = load("tiny_bert/v6");
    let other_expected = encode(&other, &EncodeOptions::default());
    assert_ne!(expected, other_expected);

    // Over itself, twice: its weights still lie in the file that is replaced.
    for _ in 0..2 {
        model.save(saved.path()).unwrap();
        let again = SentenceTransformer::<TestBackend>::load(saved.path(), &device()).unwrap();
        assert_eq!(encode(&again, &EncodeOptions::default()), expected);
        assert_eq!(encode(&model, &EncodeOptions::default()), expected);
    }
    // And another model over it.
    other.save(saved.path()).unwrap();
    assert_eq!(encode(&model, &EncodeOptions::default()), expected);
    let again = SentenceTransformer::<TestBackend>::load(saved.path(), &device()).unwrap();
    assert_eq!(encode(&again, &EncodeOptions::default()), other_expected);
}
