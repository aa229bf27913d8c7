//! The evaluators, on given embeddings and with a tiny BERT.

use std::collections::{HashMap, HashSet};

use burn::tensor::{Tensor, TensorData};
use sentence_burn::evaluation::{
    EmbeddingSimilarityEvaluator, EmbeddingSimilarityOptions, Evaluator,
    InformationRetrievalEvaluator, InformationRetrievalOptions, Metrics, RetrievalData, ScoredPair,
};
use sentence_burn::{EncodeOptions, Prompt, SimilarityFunction};
use serde_json::Value;

use crate::backend_under_test::{TestBackend, device};
use crate::fixture::{Expected, ON_A_GPU, json, load, path, strings};

const DIM: usize = 8;

const TOLERANCE: f64 = if ON_A_GPU { 1e-4 } else { 1e-6 };

fn expected(evaluator: &str) -> Value {
    json("evaluation/expected.json")[evaluator].clone()
}

/// The named rows of a fixture's embeddings, or all of them.
fn embeddings(key: &str, rows: Option<&[usize]>) -> Tensor<TestBackend, 2> {
    let values = Expected::read("evaluation/embeddings.safetensors").get(key);
    let all: Vec<usize> = (0..values.len() / DIM).collect();
    let rows = rows.unwrap_or(&all);
    let picked: Vec<f32> = rows
        .iter()
        .flat_map(|row| values[row * DIM..(row + 1) * DIM].to_vec())
        .collect();
    Tensor::from_data(TensorData::new(picked, [rows.len(), DIM]), &device())
}

fn retrieval_data() -> RetrievalData {
    RetrievalData::from_folder(path("evaluation/ir")).unwrap()
}

fn retrieve(
    data: &RetrievalData,
    options: InformationRetrievalOptions,
    similarity: SimilarityFunction,
) -> Metrics {
    let evaluator = InformationRetrievalEvaluator::new(data.clone())
        .and_then(|evaluator| evaluator.with_options(options))
        .unwrap();
    // The rows of the queries that have a relevant document.
    let rows: Vec<usize> = data
        .queries
        .iter()
        .enumerate()
        .filter(|(_, (_, text))| evaluator.queries().contains(text))
        .map(|(row, _)| row)
        .collect();
    evaluator
        .evaluate_embeddings(
            embeddings("ir.queries", Some(&rows)),
            embeddings("ir.corpus", None),
            &[similarity],
        )
        .unwrap()
}

fn scored_pairs() -> Vec<ScoredPair> {
    let lines = std::fs::read_to_string(path("evaluation/sts.jsonl")).unwrap();
    let pair = |line| serde_json::from_str(line).unwrap();
    lines.lines().map(pair).collect()
}

fn correlate(evaluator: &EmbeddingSimilarityEvaluator) -> Metrics {
    evaluator
        .evaluate_embeddings(
            embeddings("sts.sentence1", None),
            embeddings("sts.sentence2", None),
            &SimilarityFunction::ALL,
        )
        .unwrap()
}

/// Asserts that the metrics are exactly the expected ones.
fn assert_metrics(found: &Metrics, expected: &Value) {
    let expected = expected.as_object().unwrap();
    assert_eq!(found.len(), expected.len());
    for (name, value) in found.iter() {
        let difference = (value - expected[name].as_f64().unwrap()).abs();
        assert!(difference <= TOLERANCE, "{name}: off by {difference:e}");
    }
}

#[test]
fn retrieval_measures_as_python() {
    let expected = expected("ir");
    for chunk in [50_000, 17, 1] {
        let mut found = Metrics::new();
        for similarity in [SimilarityFunction::Cosine, SimilarityFunction::Dot] {
            let options = InformationRetrievalOptions {
                corpus_chunk_size: chunk,
                ..Default::default()
            };
            found.extend(retrieve(&retrieval_data(), options, similarity));
        }
        assert_metrics(&found, &expected["metrics"]);
    }
}

#[test]
fn retrieval_ranks_as_python() {
    let expected = &expected("ir")["cosine_ranking"];
    let expected: HashMap<&String, Vec<String>> = expected
        .as_object()
        .unwrap()
        .iter()
        .map(|(query, documents)| (query, strings(documents)))
        .collect();
    assert_eq!(expected.len(), 12);
    for rank in 0..20 {
        // With the document at one rank as the only relevant one, every query's
        // reciprocal rank is that rank's.
        let only = |documents: &Vec<String>| HashSet::from([documents[rank].clone()]);
        let data = RetrievalData {
            relevant: expected
                .iter()
                .map(|(query, documents)| (query.to_string(), only(documents)))
                .collect(),
            ..retrieval_data()
        };
        let options = InformationRetrievalOptions {
            mrr_at_k: vec![20],
            ..Default::default()
        };
        let metrics = retrieve(&data, options, SimilarityFunction::Cosine);
        let found = metrics.get("cosine_mrr@20").unwrap();
        assert!(
            (found - 1.0 / (rank + 1) as f64).abs() < 1e-9,
            "rank {rank}"
        );
    }
}

#[test]
fn another_order_of_ties_or_other_judgements_would_be_noticed() {
    let found = retrieve(
        &retrieval_data(),
        Default::default(),
        SimilarityFunction::Cosine,
    );
    let control = &expected("ir")["control_ties_reversed"];
    let mut strict = retrieval_data();
    for documents in strict.relevant.values_mut() {
        documents.remove("not-in-corpus");
    }
    let strict = retrieve(&strict, Default::default(), SimilarityFunction::Cosine);
    for name in ["cosine_ndcg@10", "cosine_mrr@10", "cosine_map@100"] {
        let value = found.get(name).unwrap();
        let reversed = control[name].as_f64().unwrap();
        assert!((value - reversed).abs() > 1e-3, "{name}: {reversed}");
    }
    for name in ["cosine_ndcg@10", "cosine_map@100", "cosine_recall@10"] {
        let difference = (found.get(name).unwrap() - strict.get(name).unwrap()).abs();
        assert!(difference > 1e-3, "{name}: off by only {difference:e}");
    }
}

#[test]
fn similarity_correlates_as_python() {
    let evaluator = EmbeddingSimilarityEvaluator::from_jsonl(path("evaluation/sts.jsonl")).unwrap();
    assert_metrics(&correlate(&evaluator), &expected("sts")["metrics"]);
}

#[test]
fn untied_ranks_would_be_noticed() {
    let expected = &expected("sts")["metrics"];
    let mut pairs = scored_pairs();
    for (index, pair) in pairs.iter_mut().enumerate() {
        pair.score += 1e-9 * index as f64;
    }
    let control = correlate(&EmbeddingSimilarityEvaluator::new(pairs).unwrap());
    for similarity in SimilarityFunction::ALL {
        let name = format!("spearman_{}", similarity.name());
        let difference = control.get(&name).unwrap() - expected[&name].as_f64().unwrap();
        assert!(
            difference.abs() > 1e-3,
            "{name}: off by only {difference:e}"
        );
    }
}

#[test]
fn a_model_is_measured_by_its_own_embeddings() {
    let model = load("tiny_bert/v6");
    let similarity = model.similarity_fn();
    let retrieval = InformationRetrievalEvaluator::from_folder(path("evaluation/ir"))
        .unwrap()
        .with_name("tiny");
    let pairs = EmbeddingSimilarityEvaluator::from_jsonl(path("evaluation/sts.jsonl")).unwrap();
    let [first, second] = pairs.sentences().map(|texts| model.encode(texts).unwrap());
    let expected = [
        retrieval.evaluate_embeddings(
            model.encode_query(retrieval.queries()).unwrap(),
            model.encode_document(retrieval.corpus()).unwrap(),
            &[similarity],
        ),
        pairs.evaluate_embeddings(first, second, &[similarity]),
    ];
    let names = ["tiny_cosine_ndcg@10", "spearman_cosine"];
    let evaluators: [Box<dyn Evaluator<TestBackend>>; 2] = [Box::new(retrieval), Box::new(pairs)];
    for ((evaluator, expected), name) in evaluators.iter().zip(expected).zip(names) {
        let found = evaluator.evaluate(&model).unwrap();
        assert_eq!(found, expected.unwrap());
        assert_eq!(evaluator.primary_metric(&model), name);
        assert!(found.get(name).is_some());
    }
}

#[test]
fn options_reach_the_model() {
    let model = load("tiny_bert/v6");
    let prompted = EncodeOptions {
        prompt: Some(Prompt::text("a rather long prompt: ")),
        ..Default::default()
    };
    let retrieval = InformationRetrievalEvaluator::from_folder(path("evaluation/ir")).unwrap();
    let plain = retrieval.evaluate(&model).unwrap();
    let change = |change: &dyn Fn(&mut InformationRetrievalOptions)| {
        let mut options = InformationRetrievalOptions::default();
        change(&mut options);
        let evaluator = retrieval.clone().with_options(options).unwrap();
        evaluator.evaluate(&model).unwrap()
    };
    assert_ne!(change(&|o| o.query = prompted.clone()), plain);
    assert_ne!(change(&|o| o.document = prompted.clone()), plain);
    let euclidean = change(&|o| o.score_functions = vec![SimilarityFunction::Euclidean]);
    assert!(euclidean.get("euclidean_map@100").is_some());

    let pairs = EmbeddingSimilarityEvaluator::from_jsonl(path("evaluation/sts.jsonl")).unwrap();
    let plain = pairs.evaluate(&model).unwrap();
    let pairs = pairs.with_options(EmbeddingSimilarityOptions {
        similarities: SimilarityFunction::ALL.to_vec(),
        encode: EncodeOptions {
            truncate_dim: Some(5),
            ..Default::default()
        },
        ..Default::default()
    });
    let found = pairs.evaluate(&model).unwrap();
    assert_eq!(pairs.primary_metric(&model), "spearman_max");
    assert_eq!(found.len(), 10);
    assert_ne!(found.get("pearson_cosine"), plain.get("pearson_cosine"));
}
