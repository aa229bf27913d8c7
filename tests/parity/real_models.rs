//! Published models, where an environment variable names their folders: all-mpnet-base-v2,
//! a BERT-tiny with the names of old, and a fine-tuned all-MiniLM-L6-v2.

use sentence_burn::SentenceTransformer;
use serde_json::json;

use crate::backend_under_test::{TestBackend, device};
use crate::fixture::{Expected, assert_close, assert_far, json, max_difference, strings, values};

/// Holds the model in the folder that a variable names to the expected embeddings, of size
/// `dim`, that the generator calls by `name`.
fn embeds_as_python(variable: &str, name: &str, dim: usize) {
    let Ok(folder) = std::env::var(variable) else {
        eprintln!("skipped: {variable} names no folder");
        return;
    };
    let model = SentenceTransformer::<TestBackend>::load(&folder, &device()).unwrap();
    let fixture = json("real_models/texts.json");
    let texts = strings(&fixture["texts"]);
    let encodings = model.tokenizer().encode(&texts, None).unwrap();
    let counts: Vec<usize> = encodings.iter().map(|encoding| encoding.len()).collect();
    assert_eq!(json!(counts), fixture["token_counts"][name]);
    let expected = Expected::read("real_models/expected.safetensors").get(name);
    assert_eq!(expected.len(), texts.len() * dim);
    let found = values(model.encode(&texts).unwrap());
    println!("{name}: off by {:e}", max_difference(&found, &expected));
    assert_close(&found, &expected, name);
    let shifted = [&expected[dim..], &expected[..dim]].concat();
    assert_far(&found, &shifted, "another text's embedding");
}

#[test]
fn all_mpnet_base_v2_embeds_as_python() {
    embeds_as_python("SENTENCE_BURN_MPNET", "mpnet", 768);
}

#[test]
fn a_bert_tiny_with_a_head_embeds_as_python() {
    embeds_as_python("SENTENCE_BURN_BERT_TINY", "bert_tiny", 128);
}

#[test]
fn a_fine_tuned_all_minilm_l6_v2_embeds_as_python() {
    embeds_as_python("SENTENCE_BURN_L6_FINETUNE", "l6_finetune", 384);
}
