//! The real all-MiniLM-L6-v2, where `SENTENCE_BURN_MINILM` names its folder; `.ci/run`
//! fetches it and sets that.

use sentence_burn::SentenceTransformer;

use crate::backend_under_test::{TestBackend, device};
use crate::fixture::{Expected, assert_close, assert_far, json, max_difference, strings, values};

#[test]
fn all_minilm_l6_v2_embeds_as_python() {
    let Ok(folder) = std::env::var("SENTENCE_BURN_MINILM") else {
        eprintln!("skipped: SENTENCE_BURN_MINILM names no folder");
        return;
    };
    let model = SentenceTransformer::<TestBackend>::load(&folder, &device()).unwrap();
    let fixture = json("minilm/texts.json");
    let texts = strings(&fixture["texts"]);
    assert_eq!(texts.len(), 48);
    let counts: Vec<usize> = model
        .tokenizer()
        .encode(&texts, None)
        .unwrap()
        .iter()
        .map(|encoding| encoding.len())
        .collect();
    assert_eq!(serde_json::json!(counts), fixture["token_counts"]);
    let expected = Expected::read("minilm/expected.safetensors").get("embeddings");
    let embeddings = model.encode(&texts).unwrap();
    let found = values(embeddings.clone());
    println!("48 texts: off by {:e}", max_difference(&found, &expected));
    assert_close(&found, &expected, "48 texts");
    let shifted = [&expected[384..], &expected[..384]].concat();
    assert_far(&found, &shifted, "another text's embedding");

    let seed = embeddings.slice([45..48, 0..384]);
    let similarity = model
        .similarity(
            seed.clone().slice([0..1, 0..384]),
            seed.slice([1..3, 0..384]),
        )
        .unwrap();
    let similarity = values(similarity);
    assert!(
        max_difference(&similarity, &[0.7811, 0.5311]) < 5e-5,
        "{similarity:?}"
    );
}
