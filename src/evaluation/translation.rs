use burn::tensor::{Tensor, backend::Backend};

use super::{CsvReport, Evaluator, Metrics, csv_name, expect_embeddings, prefixed};
use crate::error::{Error, EvaluationError, Result, SearchError};
use crate::model::{EncodeOptions, SentenceTransformer};
use crate::search::{SearchHit, SemanticSearchOptions, semantic_search};

/// How a [`TranslationEvaluator`] encodes.
#[derive(Debug, Clone)]
pub struct TranslationOptions {
    /// How the sentences are encoded.
    pub encode: EncodeOptions,
    /// Whether sources that found a wrong target are logged, at the level of information.
    pub print_wrong_matches: bool,
    /// Whether [`evaluate_to`](Evaluator::evaluate_to) writes the CSV file.
    pub write_csv: bool,
}

impl Default for TranslationOptions {
    fn default() -> Self {
        Self {
            encode: EncodeOptions::default(),
            print_wrong_matches: false,
            write_csv: true,
        }
    }
}

/// Finds each sentence's translation among all, in both directions.
///
/// Definitions and names are those of Sentence Transformers' evaluator of that name: the
/// shares whose most similar sentence, by the cosine, has the text of their translation, as
/// `src2trg_accuracy`, `trg2src_accuracy` and their mean, `mean_accuracy`.
#[derive(Debug, Clone)]
pub struct TranslationEvaluator {
    name: String,
    options: TranslationOptions,
    sources: Vec<String>,
    targets: Vec<String>,
}

impl TranslationEvaluator {
    /// An evaluator of sentences and their translations, with the default options and no
    /// name.
    ///
    /// # Errors
    /// [`EvaluationError::Empty`] if there is no pair.
    pub fn new(pairs: Vec<(String, String)>) -> Result<Self> {
        if pairs.is_empty() {
            let what = "the set of translated sentences";
            return Err(EvaluationError::Empty { what }.into());
        }
        let (sources, targets) = pairs.into_iter().unzip();
        Ok(Self {
            name: String::new(),
            options: TranslationOptions::default(),
            sources,
            targets,
        })
    }

    /// The same evaluator with `name` and an underscore before each metric's name.
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The same evaluator with other options.
    pub fn with_options(mut self, options: TranslationOptions) -> Self {
        self.options = options;
        self
    }

    /// The sentences and their translations, in the order that
    /// [`evaluate_embeddings`](Self::evaluate_embeddings) reads their embeddings.
    pub fn sentences(&self) -> [&[String]; 2] {
        [&self.sources, &self.targets]
    }

    /// Measures embeddings that are there already.
    ///
    /// # Shapes
    /// - sources, targets: `[sentences, dim]`
    ///
    /// # Errors
    /// [`EvaluationError::EmbeddingCount`] if there are more or fewer than sentences,
    /// [`EvaluationError::NotANumber`] if a similarity is NaN.
    pub fn evaluate_embeddings<B: Backend>(
        &self,
        sources: Tensor<B, 2>,
        targets: Tensor<B, 2>,
    ) -> Result<Metrics> {
        let count = self.sources.len();
        expect_embeddings("source sentences", count, &sources)?;
        expect_embeddings("target sentences", count, &targets)?;
        let nearest = |from: &Tensor<B, 2>, to: &Tensor<B, 2>| {
            let options = SemanticSearchOptions {
                top_k: 1,
                ..Default::default()
            };
            semantic_search(from.clone(), to.clone(), &options)
        };
        let to_target = nearest(&sources, &targets).map_err(|error| named(error, false))?;
        let to_source = nearest(&targets, &sources).map_err(|error| named(error, true))?;
        if self.options.print_wrong_matches {
            self.log_wrong_matches(&to_target);
        }
        let accuracy = |nearest: &[Vec<SearchHit>], texts: &[String]| {
            let right = (0..).zip(nearest).filter(|(place, hits)| {
                let found = hits.first().map(|hit| &texts[hit.corpus_id]);
                found == Some(&texts[*place])
            });
            right.count() as f64 / count as f64
        };
        let forth = accuracy(&to_target, &self.targets);
        let back = accuracy(&to_source, &self.sources);
        let metrics: Metrics = [
            ("src2trg_accuracy", forth),
            ("trg2src_accuracy", back),
            ("mean_accuracy", (forth + back) / 2.0),
        ]
        .into_iter()
        .collect();
        Ok(metrics.named(&self.name))
    }

    fn log_wrong_matches(&self, nearest: &[Vec<SearchHit>]) {
        for (place, hits) in nearest.iter().enumerate() {
            let (source, target) = (&self.sources[place], &self.targets[place]);
            if let Some(hit) = hits.first()
                && self.targets[hit.corpus_id] != *target
            {
                let found = &self.targets[hit.corpus_id];
                log::info!(
                    "`{source}` found `{found}` (cosine {:.4}) and not `{target}`",
                    hit.score
                );
            }
        }
    }
}

/// The same error in an evaluator's words.
fn named(error: Error, backwards: bool) -> Error {
    match error {
        Error::Search(SearchError::NotANumber { query, document }) => {
            let (source, target) = if backwards {
                (document, query)
            } else {
                (query, document)
            };
            EvaluationError::NotANumber {
                left: format!("source sentence {source}"),
                right: format!("target sentence {target}"),
            }
            .into()
        }
        other => other,
    }
}

impl<B: Backend> Evaluator<B> for TranslationEvaluator {
    fn name(&self) -> &str {
        &self.name
    }

    /// The mean of both directions.
    fn primary_metric(&self, _model: &SentenceTransformer<B>) -> String {
        prefixed(&self.name, "mean_accuracy")
    }

    fn evaluate(&self, model: &SentenceTransformer<B>) -> Result<Metrics> {
        log::info!("translation: {} sentences", self.sources.len());
        let sources = model.encode_with(&self.sources, &self.options.encode)?;
        let targets = model.encode_with(&self.targets, &self.options.encode)?;
        self.evaluate_embeddings(sources, targets)
    }

    fn csv_reports(&self, _model: &SentenceTransformer<B>) -> Vec<CsvReport> {
        if !self.options.write_csv {
            return Vec::new();
        }
        let report = CsvReport::new(csv_name("translation_evaluation", &self.name))
            .column("src2trg", &self.name, "src2trg_accuracy")
            .column("trg2src", &self.name, "trg2src_accuracy");
        vec![report]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};

    fn evaluator(pairs: &[(&str, &str)]) -> TranslationEvaluator {
        let pairs = pairs.iter().map(|(a, b)| (a.to_string(), b.to_string()));
        TranslationEvaluator::new(pairs.collect()).unwrap()
    }

    fn tensor<const N: usize>(rows: [[f32; 2]; N]) -> Tensor<TestBackend, 2> {
        Tensor::from_floats(rows, &device())
    }

    #[test]
    fn the_text_counts_and_not_its_place() {
        let evaluator = evaluator(&[("one", "eins"), ("two", "zwei"), ("a", "eins")]);
        let options = TranslationOptions {
            print_wrong_matches: true,
            ..Default::default()
        };
        let metrics = evaluator
            .with_name("de")
            .with_options(options)
            .evaluate_embeddings(
                tensor([[1.0, 0.0], [0.0, 1.0], [3.0, 1.0]]),
                tensor([[5.0, 1.0], [0.2, 1.0], [5.0, 1.0]]),
            )
            .unwrap();
        let found: Vec<(&str, f64)> = metrics.iter().collect();
        // To the targets all are right; from them `eins` finds `a` both times.
        let back = 2.0 / 3.0;
        assert_eq!(
            found,
            [
                ("de_src2trg_accuracy", 1.0),
                ("de_trg2src_accuracy", back),
                ("de_mean_accuracy", (1.0 + back) / 2.0),
            ]
        );
    }

    #[test]
    fn bad_data_is_a_named_error() {
        assert!(TranslationEvaluator::new(vec![]).is_err());
        let evaluator = evaluator(&[("one", "eins"), ("two", "zwei")]);
        let good = || tensor([[1.0, 0.0], [0.0, 1.0]]);
        let error = evaluator.evaluate_embeddings(good(), tensor([[1.0, 0.0]]));
        let expected = "1 embeddings of target sentences, the evaluator has 2";
        assert_eq!(error.unwrap_err().to_string(), expected);
        let nan = tensor([[1.0, 0.0], [0.0, f32::NAN]]);
        let error = evaluator.evaluate_embeddings(good(), nan).unwrap_err();
        let expected = "the similarity of source sentence 0 and target sentence 1 is not a number";
        assert_eq!(error.to_string(), expected);
    }
}
