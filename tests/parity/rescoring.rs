//! Hard negatives whose candidates a scorer of pairs judges, against those of Sentence
//! Transformers with a cross-encoder.

use burn::tensor::{Tensor, TensorData};
use sentence_burn::SimilarityFunction;
use sentence_burn::error::{Error, SearchError};
use sentence_burn::search::{HardNegativeMiner, HardNegativeOptions, HardNegatives};
use serde_json::Value;

use crate::backend_under_test::{TestBackend, device};
use crate::fixture::{json, strings};
use crate::search::{negative_options, same};

struct Fixture {
    json: Value,
    miner: HardNegativeMiner,
    documents: Vec<String>,
    queries: Vec<String>,
    scores: Vec<Vec<f32>>,
}

impl Fixture {
    fn read() -> Self {
        let json = json("rescoring/expected.json");
        let pairs: Vec<(String, String)> = serde_json::from_value(json["pairs"].clone()).unwrap();
        let documents = strings(&json["documents"]);
        Self {
            miner: HardNegativeMiner::new(pairs, documents.clone()).unwrap(),
            documents,
            queries: strings(&json["queries"]),
            scores: serde_json::from_value(json["scores"].clone()).unwrap(),
            json,
        }
    }

    fn embeddings(&self, name: &str) -> Tensor<TestBackend, 2> {
        let rows: Vec<Vec<f32>> = serde_json::from_value(self.json[name].clone()).unwrap();
        let shape = [rows.len(), rows[0].len()];
        Tensor::from_data(TensorData::new(rows.concat(), shape), &device())
    }

    fn place(texts: &[String], text: &str) -> usize {
        texts.iter().position(|known| known == text).unwrap()
    }

    fn mine(
        &self,
        options: &HardNegativeOptions,
        change: impl Fn(f32) -> f32,
    ) -> sentence_burn::Result<HardNegatives> {
        let scorer = |query: &str, documents: &[&str]| {
            let scores = &self.scores[Self::place(&self.queries, query)];
            let score = |document: &&str| change(scores[Self::place(&self.documents, document)]);
            Ok(documents.iter().map(score).collect())
        };
        self.miner.mine_embeddings_rescored(
            self.embeddings("query_embeddings"),
            self.embeddings("document_embeddings"),
            SimilarityFunction::Cosine,
            scorer,
            options,
        )
    }
}

fn rows(mined: &HardNegatives) -> Value {
    mined.to_json(true).collect()
}

#[test]
fn rescored_negatives_are_python_s() {
    let fixture = Fixture::read();
    assert_eq!(fixture.miner.queries(), fixture.queries);
    assert_eq!(fixture.miner.corpus(), fixture.documents);
    for case in fixture.json["cases"].as_array().unwrap() {
        let options = negative_options(&case["options"]);
        let found = rows(&fixture.mine(&options, |score| score).unwrap());
        assert!(same(&found, &case["rows"]), "{}: {found}", case["options"]);
        let by_model = fixture.miner.mine_embeddings(
            fixture.embeddings("query_embeddings"),
            fixture.embeddings("document_embeddings"),
            SimilarityFunction::Cosine,
            &options,
        );
        // Without a bound the scorer is not asked; with one, its scores are other scores.
        let bounded = case["options"].as_object().unwrap().keys();
        let bounded = bounded
            .into_iter()
            .any(|key| key.contains("score") || key.contains("margin"));
        assert_eq!(!same(&rows(&by_model.unwrap()), &case["rows"]), bounded);
        // The order of the scores, turned round, is another result.
        let turned = rows(&fixture.mine(&options, |score| 1.0 - score).unwrap());
        assert_eq!(!same(&turned, &case["rows"]), bounded);
    }
}

#[test]
fn scores_that_cannot_be_used_are_named_errors() {
    let fixture = Fixture::read();
    let options = HardNegativeOptions {
        max_score: Some(0.5),
        ..HardNegativeOptions::default()
    };
    assert!(matches!(
        fixture.mine(&options, |_| f32::NAN),
        Err(Error::Search(SearchError::NotANumber { query: 0, .. }))
    ));
    let few = fixture.miner.mine_embeddings_rescored(
        fixture.embeddings("query_embeddings"),
        fixture.embeddings("document_embeddings"),
        SimilarityFunction::Cosine,
        |_: &str, _: &[&str]| Ok(vec![0.0]),
        &options,
    );
    assert!(matches!(
        few,
        Err(Error::Search(SearchError::ScoreCount {
            query: 0,
            found: 1,
            ..
        }))
    ));
    let failing = |_: &str, _: &[&str]| Err(SearchError::Empty { what: "the judge" }.into());
    let failed = fixture.miner.mine_embeddings_rescored(
        fixture.embeddings("query_embeddings"),
        fixture.embeddings("document_embeddings"),
        SimilarityFunction::Cosine,
        failing,
        &options,
    );
    assert!(matches!(
        failed,
        Err(Error::Search(SearchError::Empty { what: "the judge" }))
    ));
}
