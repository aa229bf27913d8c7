//! The tools on embeddings against those of Sentence Transformers.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use sentence_burn::model::{QuantizationRanges, quantize_embeddings_with_ranges};
use sentence_burn::search::{
    CommunityDetectionOptions, HardNegativeMiner, HardNegativeOptions, HardNegatives,
    NegativeFormat, ParaphraseMiningOptions, QuantizedSearchOptions, SamplingStrategy, SearchHit,
    SemanticSearchOptions, community_detection, mine_hard_negatives, paraphrase_mining,
    paraphrase_mining_embeddings, semantic_search, semantic_search_quantized,
};
use sentence_burn::{EncodeOptions, Precision, SimilarityFunction};
use serde_json::{Value, json};

use crate::backend_under_test::{TestBackend, device};
use crate::fixture::{Expected, ON_A_GPU, json, load, strings};

const TOLERANCE: f64 = if ON_A_GPU { 1e-4 } else { 1e-6 };

fn expected(tool: &str) -> Value {
    json("search/expected.json")[tool].clone()
}

fn embeddings(key: &str) -> Tensor<TestBackend, 2> {
    let data = Expected::read("search/embeddings.safetensors").data(key);
    Tensor::from_data(data, &device())
}

fn number(value: &Value) -> f64 {
    value
        .as_f64()
        .unwrap_or_else(|| panic!("{value} is no number"))
}

fn whole(value: &Value) -> usize {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("{value} is no index")) as usize
}

fn items(value: &Value) -> &Vec<Value> {
    value
        .as_array()
        .unwrap_or_else(|| panic!("{value} is no list"))
}

fn is_close(found: f64, expected: &Value) -> bool {
    let expected = number(expected);
    (found - expected).abs() <= TOLERANCE * expected.abs().max(1.0)
}

/// Whether the hits of every query are these, with these scores.
fn same_hits(found: &[Vec<SearchHit>], expected: &Value) -> bool {
    let expected = items(expected);
    let same = |(hit, expected): (&SearchHit, &Value)| {
        hit.corpus_id == whole(&expected["corpus_id"])
            && is_close(f64::from(hit.score), &expected["score"])
    };
    found.len() == expected.len()
        && found.iter().zip(expected).all(|(hits, expected)| {
            let expected = items(expected);
            hits.len() == expected.len() && hits.iter().zip(expected).all(same)
        })
}

#[test]
fn semantic_search_finds_as_python() {
    let expected = &expected("semantic_search")["hits"];
    for score_function in SimilarityFunction::ALL {
        for (query_chunk_size, corpus_chunk_size) in [(100, 500_000), (3, 17), (1, 1)] {
            let options = SemanticSearchOptions {
                query_chunk_size,
                corpus_chunk_size,
                top_k: 5,
                score_function,
            };
            let (queries, corpus) = (embeddings("search.queries"), embeddings("search.corpus"));
            let found = semantic_search(queries, corpus, &options).unwrap();
            for other in SimilarityFunction::ALL {
                let same = same_hits(&found, &expected[other.name()]);
                let name = score_function.name();
                assert_eq!(same, other == score_function, "{name}, {}", other.name());
            }
        }
    }
}

#[test]
fn paraphrase_mining_pairs_as_python() {
    let expected = expected("paraphrase_mining");
    let mine = |options: &Value, top_k: usize| {
        let default = ParaphraseMiningOptions::default();
        let or = |name: &str, default| options.get(name).map_or(default, whole);
        let options = ParaphraseMiningOptions {
            query_chunk_size: or("query_chunk_size", default.query_chunk_size),
            corpus_chunk_size: or("corpus_chunk_size", default.corpus_chunk_size),
            max_pairs: or("max_pairs", default.max_pairs),
            top_k,
            ..default
        };
        let pairs = paraphrase_mining_embeddings(embeddings("paraphrases"), &options).unwrap();
        assert!(pairs.is_sorted_by(|a, b| a.score >= b.score));
        let by_ids = pairs.iter().map(|pair| ((pair.id1, pair.id2), pair.score));
        by_ids.collect::<BTreeMap<(usize, usize), f32>>()
    };
    for case in items(&expected["cases"]) {
        let top_k = whole(&case["options"]["top_k"]);
        let found = mine(&case["options"], top_k);
        let pairs = items(&case["pairs"]);
        assert_eq!(found.len(), pairs.len());
        for pair in pairs {
            let ids = (whole(&pair[1]), whole(&pair[2]));
            let score = found
                .get(&ids)
                .unwrap_or_else(|| panic!("{ids:?} is lacking"));
            assert!(is_close(f64::from(*score), &pair[0]), "{ids:?}: {score}");
        }
    }
    // Control: a text that took its own place among its neighbours.
    let case = &expected["cases"][0];
    let fewer = mine(&case["options"], whole(&case["options"]["top_k"]) - 1);
    assert_ne!(fewer.len(), items(&case["pairs"]).len());
}

#[test]
fn community_detection_groups_as_python() {
    let expected = expected("community_detection");
    let detect = |case: &Value, threshold: f64, batch_size| {
        let options = CommunityDetectionOptions {
            threshold: threshold as f32,
            min_community_size: whole(&case["min_community_size"]),
            batch_size,
        };
        json!(community_detection(embeddings("communities"), &options).unwrap())
    };
    for case in items(&expected["cases"]) {
        let threshold = number(&case["threshold"]);
        for batch_size in [1024, 7] {
            assert_eq!(detect(case, threshold, batch_size), case["communities"]);
        }
        assert_ne!(detect(case, threshold - 0.15, 1024), case["communities"]);
    }
}

fn format(name: &Value) -> NegativeFormat {
    match name.as_str() {
        Some("triplet") => NegativeFormat::Triplet,
        Some("n-tuple") => NegativeFormat::NTuple,
        Some("labeled-pair") => NegativeFormat::LabeledPair,
        Some("labeled-list") => NegativeFormat::LabeledList,
        other => panic!("{other:?} is no format"),
    }
}

pub(crate) fn negative_options(options: &Value) -> HardNegativeOptions {
    let default = HardNegativeOptions::default();
    let float = |name: &str| options.get(name).map(|value| number(value) as f32);
    let or = |name: &str, default| options.get(name).map_or(default, whole);
    HardNegativeOptions {
        range_min: or("range_min", default.range_min),
        range_max: options.get("range_max").map(whole),
        max_score: float("max_score"),
        min_score: float("min_score"),
        absolute_margin: float("absolute_margin"),
        relative_margin: float("relative_margin"),
        num_negatives: or("num_negatives", default.num_negatives),
        sampling_strategy: match options.get("sampling_strategy") {
            Some(name) if name == "random" => SamplingStrategy::Random,
            _ => SamplingStrategy::Top,
        },
        include_positives: options.get("include_positives") == Some(&json!(true)),
        output_format: format(&options["output_format"]),
        query_chunk_size: 5,
        ..default
    }
}

fn mine(miner: &HardNegativeMiner, fixture: &Value, options: HardNegativeOptions) -> HardNegatives {
    let texts = strings(&fixture["texts"]);
    assert_eq!(miner.queries(), strings(&fixture["queries"]));
    // A miner without a corpus of its own has the positives alone.
    let places: Vec<i32> = miner
        .corpus()
        .iter()
        .map(|text| texts.iter().position(|known| known == text).unwrap() as i32)
        .collect();
    let places = Tensor::from_ints(&places[..], &device());
    let corpus = embeddings("negatives.corpus").select(0, places);
    let queries = embeddings("negatives.queries");
    miner
        .mine_embeddings(queries, corpus, SimilarityFunction::Cosine, &options)
        .unwrap()
}

/// The values of each row in the order of its columns, texts by their place.
fn rows(mined: &HardNegatives, fixture: &Value) -> Vec<Value> {
    let (queries, texts) = (strings(&fixture["queries"]), strings(&fixture["texts"]));
    fn short(value: &Value, texts: &[String]) -> Value {
        match value {
            Value::String(text) => json!(texts.iter().position(|known| known == text)),
            Value::Array(items) => items.iter().map(|item| short(item, texts)).collect(),
            other => other.clone(),
        }
    }
    let row = |record: Value| {
        let record = record.as_object().unwrap();
        let values = record.iter().map(|(column, value)| match column.as_str() {
            "anchor" => short(value, &queries),
            _ => short(value, &texts),
        });
        values.collect()
    };
    mined.to_json(true).map(row).collect()
}

/// Whether two values are the same, numbers within the tolerance.
pub(crate) fn same(found: &Value, expected: &Value) -> bool {
    match (found, expected) {
        (Value::Array(found), Value::Array(expected)) => {
            found.len() == expected.len() && found.iter().zip(expected).all(|(f, e)| same(f, e))
        }
        (Value::Object(found), Value::Object(expected)) => {
            let keys = || found.keys().eq(expected.keys());
            keys() && found.iter().all(|(key, value)| same(value, &expected[key]))
        }
        (Value::Number(found), expected) if expected.is_number() => found
            .as_f64()
            .is_some_and(|found| is_close(found, expected)),
        _ => found == expected,
    }
}

#[test]
fn hard_negatives_are_python_s() {
    let fixture = expected("hard_negatives");
    let pairs: Vec<(String, String)> = serde_json::from_value(fixture["pairs"].clone()).unwrap();
    let corpus = strings(&fixture["corpus"]);
    let miners =
        [vec![], corpus].map(|corpus| HardNegativeMiner::new(pairs.clone(), corpus).unwrap());
    for case in items(&fixture["cases"]) {
        let miner = &miners[usize::from(case["corpus"] == json!(true))];
        let mined = mine(miner, &fixture, negative_options(&case["options"]));
        let (found, expected) = (rows(&mined, &fixture), items(&case["rows"]));
        assert_eq!(found.len(), expected.len(), "{}", case["options"]);
        for (found, expected) in found.iter().zip(expected) {
            assert!(
                same(found, expected),
                "{}: {found}, not {expected}",
                case["options"]
            );
        }
        for (with_scores, expected) in [(true, &case["columns"][0]), (false, &case["columns"][1])] {
            let first = mined.to_json(with_scores).next();
            let names = first.as_ref().and_then(Value::as_object);
            let names: Vec<&String> = names.into_iter().flat_map(|row| row.keys()).collect();
            assert!(names.is_empty() || json!(names) == *expected, "{names:?}");
        }
        let plain: Vec<Value> = mined.to_json(false).take(2).collect();
        assert_eq!(json!(plain), case["first_plain"]);
    }
}

#[test]
fn other_margins_and_ranks_would_be_noticed() {
    let fixture = expected("hard_negatives");
    let pairs: Vec<(String, String)> = serde_json::from_value(fixture["pairs"].clone()).unwrap();
    let miner = HardNegativeMiner::new(pairs, strings(&fixture["corpus"])).unwrap();
    // A margin on the wrong side, none at all, and ranks that are off by one.
    type Change = fn(&mut HardNegativeOptions);
    let changes: [(&str, Change); 3] = [
        ("relative_margin", |o| {
            o.relative_margin = o.relative_margin.map(|margin| -margin);
        }),
        ("absolute_margin", |o| o.absolute_margin = None),
        ("range_min", |o| o.range_min += 1),
    ];
    for (name, change) in changes {
        let case = items(&fixture["cases"])
            .iter()
            .find(|case| case["options"].get(name).is_some() && case["corpus"] == json!(true))
            .unwrap();
        let mut options = negative_options(&case["options"]);
        change(&mut options);
        let found = rows(&mine(&miner, &fixture, options), &fixture);
        let expected = items(&case["rows"]);
        let equal = found.len() == expected.len()
            && found
                .iter()
                .zip(expected)
                .all(|(found, expected)| same(found, expected));
        assert!(!equal, "{name}");
    }
}

#[test]
fn a_model_s_own_embeddings_are_mined() {
    let model = load("tiny_bert/v6");
    let texts = [
        "where is the dog",
        "the quick fox",
        "a train there",
        "the lazy dog jumps",
        "run over the station",
    ];
    let unit = EncodeOptions {
        normalize: true,
        ..Default::default()
    };
    let encode = |texts: &[&str]| model.encode_with(texts, &unit).unwrap();

    let options = ParaphraseMiningOptions::default();
    let found = paraphrase_mining(&model, &texts, &options).unwrap();
    assert_eq!(found.len(), 10);
    let expected = paraphrase_mining_embeddings(encode(&texts), &options).unwrap();
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!((found.id1, found.id2), (expected.id1, expected.id2));
        assert!((found.score - expected.score).abs() < 1e-5);
    }

    let pairs: Vec<(String, String)> = [(0, 3), (1, 2)]
        .map(|(anchor, positive)| (texts[anchor].to_owned(), texts[positive].to_owned()))
        .to_vec();
    let corpus: Vec<String> = texts.map(str::to_owned).to_vec();
    let options = HardNegativeOptions::default();
    let found = mine_hard_negatives(&model, pairs.clone(), corpus.clone(), &options).unwrap();
    let miner = HardNegativeMiner::new(pairs, corpus).unwrap();
    let (queries, corpus) = (encode(&miner.queries()), encode(&miner.corpus()));
    let expected = miner
        .mine_embeddings(queries, corpus, model.similarity_fn(), &options)
        .unwrap();
    assert_eq!((found.rows.len(), expected.rows.len()), (6, 6));
    for (found, expected) in found.rows.iter().zip(&expected.rows) {
        assert_eq!(found.anchor, expected.anchor);
        assert_eq!(found.documents, expected.documents);
        assert!((found.scores[1] - expected.scores[1]).abs() < 1e-5);
    }
}

#[test]
fn quantized_embeddings_are_searched_as_by_faiss_and_usearch() {
    let fixture = expected("quantized_search");
    let corpus = embeddings("quantized.corpus");
    let ranges = QuantizationRanges::of(corpus.clone()).unwrap();
    for case in items(&fixture["cases"]) {
        let precision = match case["precision"].as_str() {
            Some("int8") => Precision::Int8,
            Some("uint8") => Precision::Uint8,
            Some("binary") => Precision::Binary,
            Some("ubinary") => Precision::Ubinary,
            other => panic!("{other:?} is no precision"),
        };
        let given = &case["options"];
        let codes = quantize_embeddings_with_ranges(corpus.clone(), precision, &ranges).unwrap();
        let own_ranges = given.get("own_ranges").is_some();
        let options = QuantizedSearchOptions {
            top_k: whole(&fixture["top_k"]),
            rescore: given.get("rescore") != Some(&json!(false)),
            rescore_multiplier: given.get("rescore_multiplier").map_or(2, whole),
            ranges: (!own_ranges).then(|| ranges.clone()),
        };
        let queries = embeddings("quantized.queries");
        let found = semantic_search_quantized(queries, &codes, precision, &options).unwrap();
        let mut expected = case["hits"].clone();
        if !options.rescore && given.get("rescore").is_some() {
            // An index leaves the order of equal distances open.
            for hits in expected.as_array_mut().unwrap() {
                let hits = hits.as_array_mut().unwrap();
                let sign = if precision.name().ends_with("int8") {
                    -1.0
                } else {
                    1.0
                };
                hits.sort_by(|a, b| {
                    let [left, right] = [a, b].map(|hit| sign * number(&hit["score"]));
                    let by_id = whole(&a["corpus_id"]).cmp(&whole(&b["corpus_id"]));
                    left.total_cmp(&right).then(by_id)
                });
            }
        }
        let what = format!("{} {} {given}", case["library"], precision.name());
        assert!(
            same_hits(&found, &expected),
            "{what}: {found:?}, not {expected}"
        );
        let ids: Vec<Vec<usize>> = found
            .iter()
            .map(|hits| hits.iter().map(|hit| hit.corpus_id).collect())
            .collect();
        assert_ne!(json!(ids), fixture["control_cosine"], "{what}");
    }
}
