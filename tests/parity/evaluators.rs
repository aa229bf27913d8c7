//! The other evaluators, and the files that all of them write, on given embeddings and with
//! a tiny BERT.

use std::fs;
use std::path::Path;

use burn::tensor::Tensor;
use sentence_burn::evaluation::{
    BinaryClassificationEvaluator, BinaryClassificationOptions, EmbeddingSimilarityEvaluator,
    EmbeddingSimilarityOptions, EvaluatedAt, Evaluator, InformationRetrievalEvaluator,
    InformationRetrievalOptions, LabeledPair, Metrics, MseEvaluator, MseOptions, NanoBeirEvaluator,
    NanoBeirOptions, ParaphraseMiningEvaluator, ParaphraseMiningEvaluatorOptions, Prediction,
    RerankingEvaluator, RerankingOptions, SequentialEvaluator, TranslationEvaluator,
    TripletEvaluator, TripletMargin, TripletOptions,
};
use sentence_burn::{Precision, SentenceTransformer, SimilarityFunction};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::backend_under_test::{TestBackend, device};
use crate::fixture::{Expected, ON_A_GPU, json, load, path, strings};

use SimilarityFunction::{Cosine, Dot, Euclidean, Manhattan};

type Model = SentenceTransformer<TestBackend>;

const TOLERANCE: f64 = if ON_A_GPU { 1e-4 } else { 1e-6 };

fn expected(evaluator: &str) -> Value {
    json("evaluators/expected.json")[evaluator].clone()
}

fn embeddings(key: &str) -> Tensor<TestBackend, 2> {
    let data = Expected::read("evaluators/embeddings.safetensors").data(key);
    Tensor::from_data(data, &device())
}

fn lines<T: DeserializeOwned>(path: impl AsRef<Path>) -> Vec<T> {
    let text = fs::read_to_string(path).unwrap();
    let line = |line| serde_json::from_str(line).unwrap();
    text.lines().map(line).collect()
}

fn is_close(found: f64, expected: f64) -> bool {
    let tolerance = TOLERANCE * expected.abs().max(1.0);
    (found - expected).abs() <= tolerance || found.is_nan() && expected.is_nan()
}

#[track_caller]
fn assert_metrics(found: &Metrics, expected: &Value) {
    let expected = expected.as_object().unwrap();
    let names: Vec<&str> = found.iter().map(|(name, _)| name).collect();
    assert_eq!(names, expected.keys().collect::<Vec<_>>());
    for (name, value) in found.iter() {
        let expected = expected[name].as_f64().unwrap();
        assert!(is_close(value, expected), "{name}: {value}, not {expected}");
    }
}

/// A CSV file as the reference wrote it: the same line ends and headers, the same numbers.
#[track_caller]
fn assert_csv(found: &str, expected: &str) {
    let split = |text: &str| -> Vec<Vec<String>> {
        let lines = text.split_inclusive('\n');
        let line = |line: &str| line.split(',').map(str::to_owned).collect();
        lines.map(line).collect()
    };
    let (found, expected) = (split(found), split(expected));
    assert_eq!(found[0], expected[0]);
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected).skip(1) {
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(expected) {
            let number = |text: &str| text.trim_end().parse::<f64>().unwrap();
            let end = |text: &str| text[text.trim_end().len()..].to_owned();
            assert!(
                is_close(number(found), number(expected)),
                "{found:?}, not {expected:?}"
            );
            assert_eq!(end(found), end(expected));
        }
    }
}

/// Metrics, primary metric and CSV files of an evaluator whose metrics are there already.
#[track_caller]
fn assert_results(
    evaluator: &dyn Evaluator<TestBackend>,
    metrics: &Metrics,
    at: EvaluatedAt,
    expected: &Value,
) {
    let model = load("tiny_bert/v6");
    assert_metrics(metrics, &expected["metrics"]);
    assert_eq!(evaluator.primary_metric(&model), expected["primary_metric"]);
    let folder = tempfile::tempdir().unwrap();
    for report in evaluator.csv_reports(&model) {
        report.append(folder.path(), at, metrics).unwrap();
    }
    let files = expected["files"].as_object().unwrap();
    let csv = files.iter().filter(|(name, _)| name.ends_with(".csv"));
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        csv.clone().count()
    );
    for (name, text) in csv {
        let found = fs::read_to_string(folder.path().join(name)).unwrap();
        assert_csv(&found, text.as_str().unwrap());
    }
}

/// The same for an evaluator on a model: also what it writes beside CSV files.
#[track_caller]
fn assert_written(
    evaluator: &dyn Evaluator<TestBackend>,
    model: &Model,
    at: EvaluatedAt,
    expected: &Value,
) {
    let folder = tempfile::tempdir().unwrap();
    let metrics = evaluator.evaluate_to(model, folder.path(), at).unwrap();
    assert_metrics(&metrics, &expected["metrics"]);
    assert_metrics(&evaluator.evaluate(model).unwrap(), &expected["metrics"]);
    assert_eq!(evaluator.primary_metric(model), expected["primary_metric"]);
    let files = expected["files"].as_object().unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), files.len());
    for (name, text) in files {
        let found = fs::read_to_string(folder.path().join(name)).unwrap();
        assert_csv(&found, text.as_str().unwrap());
    }
}

/// A negative control: the metric would have told.
#[track_caller]
fn assert_off(found: &Metrics, expected: &Value, name: &str) {
    let difference = found.get(name).unwrap() - expected["metrics"][name].as_f64().unwrap();
    assert!(
        difference.abs() > 1e-4,
        "{name}: off by only {difference:e}"
    );
}

#[test]
fn retrieval_with_several_similarities() {
    let expected = expected("information_retrieval");
    let options = InformationRetrievalOptions {
        mrr_at_k: vec![3],
        ndcg_at_k: vec![3, 5],
        accuracy_at_k: vec![1],
        precision_recall_at_k: vec![2, 4],
        map_at_k: vec![6],
        corpus_chunk_size: 50,
        score_functions: vec![Euclidean, Dot, Cosine],
        main_score_function: Some(Dot),
        ..Default::default()
    };
    let evaluator = InformationRetrievalEvaluator::from_folder(path("evaluation/ir"))
        .unwrap()
        .with_name("dev")
        .with_options(options)
        .unwrap();
    let given = Expected::read("evaluation/embeddings.safetensors");
    let given = |key| Tensor::<TestBackend, 2>::from_data(given.data(key), &device());
    let queries: Vec<Value> = lines(path("evaluation/ir/queries.jsonl"));
    let rows: Vec<i32> = (0..)
        .zip(&queries)
        .filter(|(_, query)| {
            evaluator
                .queries()
                .iter()
                .any(|text| query["text"] == *text)
        })
        .map(|(row, _)| row)
        .collect();
    let queries = given("ir.queries").select(0, Tensor::from_ints(&rows[..], &device()));
    let metrics = evaluator
        .evaluate_embeddings(queries, given("ir.corpus"), &[Euclidean, Dot, Cosine])
        .unwrap();
    let at = EvaluatedAt {
        epoch: Some(0.5),
        steps: Some(20),
    };
    assert_results(&evaluator, &metrics, at, &expected);
    let [dot, cosine] =
        ["dev_dot_map@6", "dev_cosine_map@6"].map(|name| metrics.get(name).unwrap());
    assert!((dot - cosine).abs() > 1e-3);
}

#[test]
fn predictions_are_written_as_found() {
    let files = expected("information_retrieval")["files"].clone();
    let model = load("tiny_bert/v6");
    let options = InformationRetrievalOptions {
        write_csv: false,
        write_predictions: true,
        score_functions: vec![Cosine, Dot],
        map_at_k: vec![7],
        ..Default::default()
    };
    let evaluator = InformationRetrievalEvaluator::from_folder(path("evaluation/ir"))
        .unwrap()
        .with_name("dev")
        .with_options(options)
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    evaluator
        .evaluate_to(&model, folder.path(), Default::default())
        .unwrap();
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    let document_ids: Vec<Value> = lines(path("evaluation/ir/corpus.jsonl"));
    let queries = model.encode_query(evaluator.queries()).unwrap();
    let corpus = model.encode_document(evaluator.corpus()).unwrap();
    for similarity in [Cosine, Dot] {
        let file = format!(
            "Information-Retrieval_evaluation_dev_predictions_{}.jsonl",
            similarity.name()
        );
        // The reference's file of that name has lines of the same form.
        let reference = files[&file].as_str().unwrap().lines();
        let reference: Vec<Prediction> = reference
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let found: Vec<Prediction> = lines(folder.path().join(&file));
        assert_eq!(found.len(), reference.len());
        let scores = similarity
            .similarity(queries.clone(), corpus.clone())
            .unwrap();
        let scores: Vec<f32> = scores.into_data().iter().collect();
        let scores = scores.chunks(document_ids.len());
        for ((found, reference), scores) in found.iter().zip(&reference).zip(scores) {
            assert_eq!(found.query_id, reference.query_id);
            assert_eq!(found.query, reference.query);
            assert_eq!(found.results.len(), 10);
            assert!(found.results.is_sorted_by(|a, b| a.score >= b.score));
            for hit in &found.results {
                let id = document_ids
                    .iter()
                    .position(|row| row["_id"] == hit.corpus_id);
                assert!((scores[id.unwrap()] - hit.score).abs() < 1e-5);
            }
            let most = scores.iter().copied().fold(f32::MIN, f32::max);
            assert!((found.results[0].score - most).abs() < 1e-5);
        }
    }
}

#[test]
fn similarity_in_every_precision() {
    let expected = expected("embedding_similarity");
    for (name, precision) in [
        ("float32", Precision::Float32),
        ("int8", Precision::Int8),
        ("uint8", Precision::Uint8),
        ("binary", Precision::Binary),
        ("ubinary", Precision::Ubinary),
    ] {
        let similarities = match name.ends_with("binary") {
            true => vec![Dot, Manhattan],
            false => vec![Cosine, Dot, Euclidean],
        };
        let options = EmbeddingSimilarityOptions {
            similarities: similarities.clone(),
            main_similarity: Some(Dot),
            precision: Some(precision),
            ..Default::default()
        };
        let evaluator = EmbeddingSimilarityEvaluator::from_jsonl(path("evaluation/sts.jsonl"))
            .unwrap()
            .with_name("dev");
        let measure = |evaluator: &EmbeddingSimilarityEvaluator| {
            let (first, second) = (embeddings("sts.unit1"), embeddings("sts.unit2"));
            evaluator
                .evaluate_embeddings(first, second, &similarities)
                .unwrap()
        };
        let plain = measure(&evaluator);
        let evaluator = evaluator.with_options(options);
        let found = measure(&evaluator);
        assert_results(&evaluator, &found, Default::default(), &expected[name]);
        if name != "float32" {
            assert_off(&plain, &expected[name], "dev_pearson_dot");
        }
    }
}

#[test]
fn binary_classification_as_python() {
    let expected = expected("binary_classification");
    let pairs: Vec<LabeledPair> = lines(path("evaluators/pairs.jsonl"));
    let evaluator = BinaryClassificationEvaluator::from_jsonl(path("evaluators/pairs.jsonl"));
    let evaluator = evaluator.unwrap();
    let measure = |evaluator: &BinaryClassificationEvaluator, similarities| {
        let (first, second) = (embeddings("pairs.sentence1"), embeddings("pairs.sentence2"));
        evaluator
            .evaluate_embeddings(first, second, similarities)
            .unwrap()
    };
    let all = [Cosine, Dot, Euclidean, Manhattan];
    let options = BinaryClassificationOptions {
        similarities: all.to_vec(),
        ..Default::default()
    };
    let of_all = evaluator.clone().with_options(options);
    let metrics = measure(&of_all, &all);
    assert_results(&of_all, &metrics, Default::default(), &expected["all"]);

    let named = evaluator.clone().with_name("dev");
    let metrics = measure(&named, &[Cosine]);
    assert_results(&named, &metrics, Default::default(), &expected["named"]);

    let negative = pairs.iter().map(|pair| LabeledPair {
        label: 0,
        ..pair.clone()
    });
    let negative = BinaryClassificationEvaluator::new(negative.collect()).unwrap();
    let metrics = measure(&negative, &[Cosine]);
    assert_results(
        &negative,
        &metrics,
        Default::default(),
        &expected["nothing_positive"],
    );

    // Control: without the pairs that tie with one of another label.
    let untied = pairs.iter().enumerate().map(|(place, pair)| LabeledPair {
        label: pair.label ^ u8::from([20, 22, 30].contains(&place)),
        ..pair.clone()
    });
    let untied = BinaryClassificationEvaluator::new(untied.collect()).unwrap();
    assert_off(&measure(&untied, &all), &expected["all"], "cosine_ap");
}

#[test]
fn triplets_as_python() {
    let expected = expected("triplet");
    let evaluator = TripletEvaluator::from_jsonl(path("evaluators/triplets.jsonl")).unwrap();
    let measure = |evaluator: &TripletEvaluator, similarities| {
        let [anchors, positives, negatives] =
            ["anchor", "positive", "negative"].map(|name| embeddings(&format!("triplets.{name}")));
        evaluator
            .evaluate_embeddings(anchors, positives, negatives, similarities)
            .unwrap()
    };
    let metrics = measure(&evaluator, &[Cosine]);
    assert_results(&evaluator, &metrics, Default::default(), &expected["plain"]);

    let all = [Cosine, Dot, Euclidean, Manhattan];
    let options = TripletOptions {
        similarities: all.to_vec(),
        margin: TripletMargin::All(0.3),
        ..Default::default()
    };
    let margin = evaluator
        .clone()
        .with_name("dev")
        .with_options(options.clone());
    let metrics = measure(&margin, &all);
    assert_results(&margin, &metrics, Default::default(), &expected["margin"]);

    let options = TripletOptions {
        main_similarity: Some(Manhattan),
        margin: TripletMargin::Each(vec![(Cosine, 0.1), (Manhattan, 2.0)]),
        ..options
    };
    let margins = evaluator.clone().with_options(options);
    let metrics = measure(&margins, &all);
    assert_results(&margins, &metrics, Default::default(), &expected["margins"]);
    assert_off(
        &measure(&evaluator, &all),
        &expected["margins"],
        "cosine_accuracy",
    );
}

#[test]
fn paraphrase_mining_as_python() {
    let fixture = expected("paraphrase_mining");
    let ids = strings(&fixture["ids"]);
    let sentences = ids.iter().map(|id| (id.clone(), format!("sentence {id}")));
    let duplicates: Vec<(String, String)> =
        serde_json::from_value(fixture["duplicates"].clone()).unwrap();
    let evaluator = ParaphraseMiningEvaluator::new(sentences.collect(), &duplicates).unwrap();
    let default = ParaphraseMiningEvaluatorOptions::default;
    for (name, evaluator) in [
        ("plain", evaluator.clone()),
        (
            "closed",
            evaluator
                .clone()
                .with_name("dev")
                .with_options(ParaphraseMiningEvaluatorOptions {
                    add_transitive_closure: true,
                    top_k: 3,
                    ..default()
                }),
        ),
        (
            "few",
            evaluator
                .clone()
                .with_options(ParaphraseMiningEvaluatorOptions {
                    top_k: 5,
                    max_pairs: 12,
                    query_chunk_size: 7,
                    corpus_chunk_size: 9,
                    ..default()
                }),
        ),
    ] {
        let metrics = evaluator
            .evaluate_embeddings(embeddings("paraphrases"))
            .unwrap();
        let expected = &fixture["results"][name];
        assert_results(&evaluator, &metrics, Default::default(), expected);
    }
    let metrics = evaluator
        .evaluate_embeddings(embeddings("paraphrases"))
        .unwrap();
    assert_off(&metrics, &fixture["results"]["few"], "average_precision");
}

#[test]
fn reranking_as_python() {
    let expected = expected("reranking");
    let evaluator = RerankingEvaluator::from_jsonl(path("evaluators/reranking.jsonl")).unwrap();
    let with = |options| evaluator.clone().with_options(options).unwrap();
    let at_3 = RerankingOptions {
        at_k: 3,
        ..Default::default()
    };
    let dot = RerankingOptions {
        similarity: Dot,
        ..Default::default()
    };
    let measure = |evaluator: &RerankingEvaluator| {
        let queries = embeddings("reranking.queries");
        evaluator
            .evaluate_embeddings(queries, embeddings("reranking.documents"))
            .unwrap()
    };
    for (name, evaluator) in [
        ("plain", evaluator.clone()),
        ("at_3", with(at_3).with_name("dev")),
        ("dot", with(dot)),
    ] {
        let metrics = measure(&evaluator);
        assert_results(&evaluator, &metrics, Default::default(), &expected[name]);
    }
    assert_off(&measure(&evaluator), &expected["dot"], "map");
}

#[test]
fn translation_as_python() {
    let fixture = expected("translation");
    let [sources, targets] = ["sources", "targets"].map(|side| strings(&fixture[side]));
    let pairs = sources.into_iter().zip(targets).collect();
    let evaluator = TranslationEvaluator::new(pairs).unwrap().with_name("de");
    let (sources, targets) = (
        embeddings("translation.sources"),
        embeddings("translation.targets"),
    );
    let metrics = evaluator
        .evaluate_embeddings(sources.clone(), targets.clone())
        .unwrap();
    assert_results(&evaluator, &metrics, Default::default(), &fixture["result"]);
    // Control: the directions exchanged.
    let swapped = evaluator.evaluate_embeddings(targets, sources).unwrap();
    assert_off(&swapped, &fixture["result"], "de_src2trg_accuracy");
}

#[test]
fn mean_squared_error_as_python() {
    let fixture = expected("mse");
    let texts = vec![String::new(); 25];
    let (teacher, student) = (embeddings("mse.teacher"), embeddings("mse.student"));
    let evaluator = MseEvaluator::from_embeddings(teacher.clone(), texts, MseOptions::default());
    let evaluator = evaluator.unwrap();
    let at = EvaluatedAt {
        epoch: Some(1.0),
        steps: Some(100),
    };
    for (name, evaluator) in [
        ("plain", evaluator.clone()),
        ("dev", evaluator.clone().with_name("dev")),
    ] {
        let metrics = evaluator.evaluate_embeddings(student.clone()).unwrap();
        assert_results(&evaluator, &metrics, at, &fixture[name]);
    }
    // Control: no error at all.
    let metrics = evaluator.evaluate_embeddings(teacher).unwrap();
    assert_off(&metrics, &fixture["plain"], "negative_mse");
}

#[test]
fn several_evaluators_as_python() {
    let fixture = expected("sequential");
    let model = load("tiny_bert/v6");
    let evaluators = || -> Vec<Box<dyn Evaluator<TestBackend> + Send>> {
        let triplets = TripletEvaluator::from_jsonl(path("evaluators/triplets.jsonl")).unwrap();
        let pairs: Vec<LabeledPair> = lines(path("evaluators/pairs.jsonl"));
        let pairs = pairs
            .into_iter()
            .map(|pair| (pair.sentence1, pair.sentence2));
        let error = MseEvaluator::new(&model, pairs.collect(), MseOptions::default()).unwrap();
        vec![
            Box::new(triplets.with_name("three")),
            Box::new(error.with_name("two")),
        ]
    };
    let at = EvaluatedAt {
        epoch: Some(2.0),
        steps: Some(7),
    };
    let last = SequentialEvaluator::new(evaluators());
    assert_written(&last, &model, at, &fixture["last"]);
    let mean = SequentialEvaluator::new(evaluators())
        .with_main_score(|scores| scores.iter().sum::<f64>() / scores.len() as f64);
    let found = mean.evaluate(&model).unwrap();
    let score = found.get("sequential_score").unwrap();
    assert!(is_close(score, fixture["mean"].as_f64().unwrap()));
    assert_off(&found, &fixture["last"], "sequential_score");
    let none = SequentialEvaluator::<TestBackend>::new(vec![]);
    assert_eq!(
        none.evaluate(&model).unwrap().get("sequential_score"),
        Some(0.0)
    );
}

#[test]
fn nano_beir_as_python() {
    let fixture = expected("nano_beir");
    let model = load("tiny_bert/v6");
    let retrieval = InformationRetrievalOptions {
        accuracy_at_k: vec![1, 5],
        precision_recall_at_k: vec![3],
        ..Default::default()
    };
    let plain = NanoBeirOptions {
        dataset_names: ["msmarco", "NQ", "SciFact"].map(str::to_owned).to_vec(),
        retrieval,
        ..Default::default()
    };
    let truncated = NanoBeirOptions {
        truncate_dim: Some(6),
        aggregate_fn: |values| values.iter().copied().fold(f64::MIN, f64::max),
        aggregate_key: "max".to_owned(),
        ..plain.clone()
    };
    for (name, options) in [("plain", plain.clone()), ("truncated", truncated)] {
        let folder = path("evaluators/nano_beir");
        let evaluator = NanoBeirEvaluator::from_folder(folder, options).unwrap();
        assert_written(&evaluator, &model, Default::default(), &fixture[name]);
    }
    // Control: the full embeddings in place of the first dimensions.
    let full = NanoBeirOptions {
        aggregate_key: "max".to_owned(),
        ..plain
    };
    let full = NanoBeirEvaluator::from_folder(path("evaluators/nano_beir"), full).unwrap();
    let metrics = full.evaluate(&model).unwrap();
    let found = metrics.get("NanoBEIR_max_cosine_ndcg@10").unwrap();
    let expected = &fixture["truncated"]["metrics"]["NanoBEIR_max_6_cosine_ndcg@10"];
    assert!((found - expected.as_f64().unwrap()).abs() > 1e-4);
}

#[test]
fn models_are_measured_by_their_own_embeddings() {
    let model = load("tiny_bert/v6");
    let pairs = BinaryClassificationEvaluator::from_jsonl(path("evaluators/pairs.jsonl"));
    let pairs = pairs.unwrap();
    let [first, second] = pairs.sentences().map(|texts| model.encode(texts).unwrap());
    let expected = pairs.evaluate_embeddings(first, second, &[Cosine]).unwrap();
    assert_close(&pairs.evaluate(&model).unwrap(), &expected);

    let samples = RerankingEvaluator::from_jsonl(path("evaluators/reranking.jsonl")).unwrap();
    let queries = model.encode_query(samples.queries()).unwrap();
    let documents = model.encode_document(samples.documents()).unwrap();
    let expected = samples.evaluate_embeddings(queries, documents).unwrap();
    assert_close(&samples.evaluate(&model).unwrap(), &expected);

    let texts = ["where is the dog", "the quick fox", "a train"].map(str::to_owned);
    let sentences = texts.iter().map(|text| (text.clone(), text.clone()));
    let known = [(texts[0].clone(), texts[1].clone())];
    let mining = ParaphraseMiningEvaluator::new(sentences.clone().collect(), &known).unwrap();
    let expected = mining
        .evaluate_embeddings(model.encode(&texts).unwrap())
        .unwrap();
    assert_close(&mining.evaluate(&model).unwrap(), &expected);

    let translation = TranslationEvaluator::new(sentences.collect()).unwrap();
    let found = translation.evaluate(&model).unwrap();
    assert_eq!(found.get("mean_accuracy"), Some(1.0));
}

/// A text's embedding depends, in its last digits, on the batch it is encoded in.
#[track_caller]
fn assert_close(found: &Metrics, expected: &Metrics) {
    assert_eq!(found.len(), expected.len());
    for (name, value) in found.iter() {
        let expected = expected.get(name).unwrap();
        assert!(
            (value - expected).abs() < 1e-5,
            "{name}: {value}, not {expected}"
        );
    }
}
