use std::collections::{BTreeSet, HashMap};

use burn::tensor::{Tensor, backend::Backend};

use super::{CsvReport, Evaluator, Metrics, check_unique, csv_name, expect_embeddings, prefixed};
use crate::error::{Error, EvaluationError, Result, SearchError};
use crate::model::{EncodeOptions, SentenceTransformer, SimilarityFunction};
use crate::search::{self, ParaphrasePair, paraphrase_mining_embeddings};

/// What a [`ParaphraseMiningEvaluator`] mines, and how it encodes.
#[derive(Debug, Clone)]
pub struct ParaphraseMiningEvaluatorOptions {
    /// Whether duplicates of duplicates are duplicates too.
    pub add_transitive_closure: bool,
    /// How many sentences are compared with all others at a time. It bounds the memory that
    /// scores take.
    pub query_chunk_size: usize,
    /// How many sentences they are compared with at a time, likewise.
    pub corpus_chunk_size: usize,
    /// The most pairs to mine.
    pub max_pairs: usize,
    /// The most others that one sentence is paired with.
    pub top_k: usize,
    /// How the sentences are encoded.
    pub encode: EncodeOptions,
    /// Whether [`evaluate_to`](Evaluator::evaluate_to) writes the CSV file.
    pub write_csv: bool,
}

impl Default for ParaphraseMiningEvaluatorOptions {
    fn default() -> Self {
        Self {
            add_transitive_closure: false,
            query_chunk_size: 5000,
            corpus_chunk_size: 100_000,
            max_pairs: 500_000,
            top_k: 100,
            encode: EncodeOptions::default(),
            write_csv: true,
        }
    }
}

/// Mines the most similar pairs of a set of sentences and compares them with the pairs that
/// are known to be duplicates.
///
/// Definitions and names are those of Sentence Transformers' evaluator of that name:
/// `average_precision`, the best `f1` with its `precision` and `recall`, and the
/// `threshold` of the cosine where it is.
#[derive(Debug, Clone)]
pub struct ParaphraseMiningEvaluator {
    name: String,
    options: ParaphraseMiningEvaluatorOptions,
    sentences: Vec<String>,
    /// By the sentences' places, the lower one first.
    duplicates: BTreeSet<(usize, usize)>,
}

impl ParaphraseMiningEvaluator {
    /// An evaluator with the default options and no name, of sentences with an id each, and
    /// of pairs of ids that are duplicates. Pairs with an id that no sentence has do not
    /// count.
    ///
    /// # Errors
    /// [`EvaluationError::DuplicateId`] if two sentences have one id,
    /// [`EvaluationError::Empty`] if there is no sentence.
    pub fn new(sentences: Vec<(String, String)>, duplicates: &[(String, String)]) -> Result<Self> {
        check_unique("sentences", &sentences)?;
        if sentences.is_empty() {
            let what = "the set of sentences";
            return Err(EvaluationError::Empty { what }.into());
        }
        let places: HashMap<&str, usize> = sentences
            .iter()
            .enumerate()
            .map(|(place, (id, _))| (id.as_str(), place))
            .collect();
        let known: BTreeSet<(usize, usize)> = duplicates
            .iter()
            .filter_map(|(a, b)| {
                let (a, b) = (*places.get(a.as_str())?, *places.get(b.as_str())?);
                Some((a.min(b), a.max(b)))
            })
            .collect();
        Ok(Self {
            name: String::new(),
            options: ParaphraseMiningEvaluatorOptions::default(),
            duplicates: known,
            sentences: sentences
                .into_iter()
                .map(|(_, sentence)| sentence)
                .collect(),
        })
    }

    /// The same evaluator with `name` and an underscore before each metric's name.
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The same evaluator with other options.
    pub fn with_options(mut self, options: ParaphraseMiningEvaluatorOptions) -> Self {
        self.options = options;
        self
    }

    /// The sentences, in the order that [`evaluate_embeddings`](Self::evaluate_embeddings)
    /// reads their embeddings.
    pub fn sentences(&self) -> &[String] {
        &self.sentences
    }

    /// Measures embeddings that are there already.
    ///
    /// # Shapes
    /// - embeddings: `[sentences, dim]`
    ///
    /// # Errors
    /// [`EvaluationError::EmbeddingCount`] if there are more or fewer than sentences,
    /// [`EvaluationError::NotANumber`] if a similarity is NaN, [`SearchError`] for a chunk
    /// size of 0.
    pub fn evaluate_embeddings<B: Backend>(&self, embeddings: Tensor<B, 2>) -> Result<Metrics> {
        expect_embeddings("sentences", self.sentences.len(), &embeddings)?;
        let options = search::ParaphraseMiningOptions {
            query_chunk_size: self.options.query_chunk_size,
            corpus_chunk_size: self.options.corpus_chunk_size,
            max_pairs: self.options.max_pairs,
            top_k: self.options.top_k,
            score_function: SimilarityFunction::Cosine,
            encode: self.options.encode.clone(),
        };
        let pairs = paraphrase_mining_embeddings(embeddings, &options).map_err(in_sentences)?;
        let closed;
        let duplicates = match self.options.add_transitive_closure {
            true => {
                closed = transitive_closure(&self.duplicates);
                &closed
            }
            false => &self.duplicates,
        };
        Ok(measure(&pairs, duplicates).named(&self.name))
    }
}

/// Compares mined pairs, the best first, with the known ones.
fn measure(pairs: &[ParaphrasePair], duplicates: &BTreeSet<(usize, usize)>) -> Metrics {
    let total = duplicates.len() as f64;
    let (mut extracted, mut correct, mut before) = (0, 0, 0);
    let (mut best, mut threshold, mut average_precision) = ([0.0; 3], 0.0, 0.0);
    for equal in pairs.chunk_by(|a, b| a.score == b.score) {
        extracted += equal.len();
        let known = |pair: &&ParaphrasePair| duplicates.contains(&(pair.id1, pair.id2));
        correct += equal.iter().filter(known).count();
        if correct > before {
            let precision = correct as f64 / extracted as f64;
            let recall = correct as f64 / total;
            let f1 = 2.0 * precision * recall / (precision + recall);
            average_precision += precision * (correct - before) as f64;
            if f1 > best[0] {
                best = [f1, precision, recall];
                let next = pairs.get(extracted).unwrap_or(&equal[0]);
                threshold = (f64::from(equal[0].score) + f64::from(next.score)) / 2.0;
            }
        }
        before = correct;
    }
    if total > 0.0 {
        average_precision /= total;
    }
    let [f1, precision, recall] = best;
    [
        ("average_precision", average_precision),
        ("f1", f1),
        ("precision", precision),
        ("recall", recall),
        ("threshold", threshold),
    ]
    .into_iter()
    .collect()
}

/// All pairs of sentences that are connected by pairs.
fn transitive_closure(pairs: &BTreeSet<(usize, usize)>) -> BTreeSet<(usize, usize)> {
    let mut neighbours: HashMap<usize, Vec<usize>> = HashMap::new();
    for &(a, b) in pairs {
        neighbours.entry(a).or_default().push(b);
        neighbours.entry(b).or_default().push(a);
    }
    let mut closed = pairs.clone();
    let mut visited = BTreeSet::new();
    for &(start, _) in pairs {
        let mut connected = BTreeSet::new();
        let mut open = vec![start];
        while let Some(place) = open.pop() {
            if visited.insert(place) {
                connected.insert(place);
                open.extend(&neighbours[&place]);
            }
        }
        for &a in &connected {
            closed.extend(connected.range(a + 1..).map(|&b| (a, b)));
        }
    }
    closed
}

/// The same error in an evaluator's words.
fn in_sentences(error: Error) -> Error {
    match error {
        Error::Search(SearchError::NotANumber { query, document }) => EvaluationError::NotANumber {
            left: format!("sentence {query}"),
            right: format!("sentence {document}"),
        }
        .into(),
        other => other,
    }
}

impl<B: Backend> Evaluator<B> for ParaphraseMiningEvaluator {
    fn name(&self) -> &str {
        &self.name
    }

    /// Average precision.
    fn primary_metric(&self, _model: &SentenceTransformer<B>) -> String {
        prefixed(&self.name, "average_precision")
    }

    fn evaluate(&self, model: &SentenceTransformer<B>) -> Result<Metrics> {
        log::info!("paraphrase mining: {} sentences", self.sentences.len());
        self.evaluate_embeddings(model.encode_with(&self.sentences, &self.options.encode)?)
    }

    fn csv_reports(&self, _model: &SentenceTransformer<B>) -> Vec<CsvReport> {
        if !self.options.write_csv {
            return Vec::new();
        }
        let mut report = CsvReport::new(csv_name("paraphrase_mining_evaluation", &self.name));
        for metric in [
            "precision",
            "recall",
            "f1",
            "threshold",
            "average_precision",
        ] {
            report = report.column(metric, &self.name, metric);
        }
        vec![report]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};

    fn evaluator(ids: &[&str], duplicates: &[(&str, &str)]) -> Result<ParaphraseMiningEvaluator> {
        let sentences = ids.iter().map(|id| (id.to_string(), format!("text {id}")));
        let duplicates: Vec<(String, String)> = duplicates
            .iter()
            .map(|(a, b)| (a.to_string(), b.to_string()))
            .collect();
        ParaphraseMiningEvaluator::new(sentences.collect(), &duplicates)
    }

    fn at_angles(angles: &[f32]) -> Tensor<TestBackend, 2> {
        let rows: Vec<f32> = angles
            .iter()
            .flat_map(|angle| [angle.to_radians().cos(), angle.to_radians().sin()])
            .collect();
        Tensor::<TestBackend, 1>::from_floats(&rows[..], &device()).reshape([angles.len(), 2])
    }

    #[test]
    fn mined_pairs_are_compared_with_the_known_ones() {
        // By falling cosine: ab (5°), bc (10°), ac (15°), cd (30°), …
        let embeddings = at_angles(&[0.0, 5.0, 15.0, 45.0]);
        let known = [("b", "a"), ("a", "c"), ("a", "lost")];
        let metrics = evaluator(&["a", "b", "c", "d"], &known)
            .unwrap()
            .with_name("dev")
            .evaluate_embeddings(embeddings.clone())
            .unwrap();
        let expect = |metrics: &Metrics, name: &str, expected: f64| {
            let found = metrics.get(name).unwrap();
            assert!((found - expected).abs() < 1e-6, "{name}: {found}");
        };
        expect(&metrics, "dev_average_precision", (1.0 + 2.0 / 3.0) / 2.0);
        expect(&metrics, "dev_f1", 0.8);
        expect(&metrics, "dev_precision", 2.0 / 3.0);
        expect(&metrics, "dev_recall", 1.0);
        let cosine = |angle: f64| angle.to_radians().cos();
        expect(
            &metrics,
            "dev_threshold",
            (cosine(15.0) + cosine(30.0)) / 2.0,
        );

        let options = ParaphraseMiningEvaluatorOptions {
            add_transitive_closure: true,
            ..Default::default()
        };
        let closed = evaluator(&["a", "b", "c", "d"], &known).unwrap();
        let closed = closed.with_options(options).evaluate_embeddings(embeddings);
        expect(&closed.unwrap(), "average_precision", 1.0);
    }

    #[test]
    fn the_closure_connects_what_pairs_connect() {
        let pairs = BTreeSet::from([(0, 4), (1, 2), (2, 4), (5, 5), (6, 7)]);
        let expected = [
            (0, 1),
            (0, 2),
            (0, 4),
            (1, 2),
            (1, 4),
            (2, 4),
            (5, 5),
            (6, 7),
        ];
        assert_eq!(transitive_closure(&pairs), BTreeSet::from(expected));
    }

    #[test]
    fn nothing_known_scores_nothing() {
        let evaluator = evaluator(&["a", "b"], &[("a", "lost")]).unwrap();
        let metrics = evaluator
            .evaluate_embeddings(at_angles(&[0.0, 5.0]))
            .unwrap();
        assert!(metrics.iter().all(|(_, value)| value == 0.0));
        assert_eq!(metrics.len(), 5);
    }

    #[test]
    fn bad_data_is_a_named_error() {
        let error = evaluator(&["a", "a"], &[]).unwrap_err().to_string();
        assert_eq!(error, "two sentences have the id `a`");
        let error = evaluator(&[], &[]).unwrap_err().to_string();
        assert!(error.starts_with("the set of sentences is empty"));
        let evaluator = evaluator(&["a", "b"], &[("a", "b")]).unwrap();
        let error = |angles: &[f32]| {
            let evaluated = evaluator.evaluate_embeddings(at_angles(angles));
            evaluated.unwrap_err().to_string()
        };
        assert_eq!(
            error(&[0.0]),
            "1 embeddings of sentences, the evaluator has 2"
        );
        let expected = "the similarity of sentence 0 and sentence 1 is not a number";
        assert_eq!(error(&[0.0, f32::NAN]), expected);
    }
}
