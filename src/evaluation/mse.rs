use burn::tensor::{Tensor, backend::Backend};

use super::{CsvReport, Evaluator, Metrics, expect_embeddings, prefixed};
use crate::error::{EvaluationError, ModelError, Result};
use crate::model::{EncodeOptions, SentenceTransformer};

/// How an [`MseEvaluator`] encodes.
#[derive(Debug, Clone)]
pub struct MseOptions {
    /// How the teacher's and the student's sentences are encoded.
    pub encode: EncodeOptions,
    /// Whether [`evaluate_to`](Evaluator::evaluate_to) writes the CSV file.
    pub write_csv: bool,
}

impl Default for MseOptions {
    fn default() -> Self {
        Self {
            encode: EncodeOptions::default(),
            write_csv: true,
        }
    }
}

/// How far a student's embeddings are from a teacher's, of the same sentences or of their
/// translations.
///
/// Definition and name are those of Sentence Transformers' `MSEEvaluator`: the mean squared
/// error times -100 as `negative_mse`.
#[derive(Debug, Clone)]
pub struct MseEvaluator {
    name: String,
    options: MseOptions,
    targets: Vec<String>,
    /// The teacher's embeddings, row after row.
    teacher: Vec<f32>,
    dim: usize,
}

impl MseEvaluator {
    /// An evaluator with no name. `pairs` are sentences for the teacher, which encodes them
    /// now, and for the student.
    ///
    /// # Errors
    /// [`EvaluationError::Empty`] if there is no pair, and those of encoding.
    pub fn new<B: Backend>(
        teacher: &SentenceTransformer<B>,
        pairs: Vec<(String, String)>,
        options: MseOptions,
    ) -> Result<Self> {
        let (sources, targets): (Vec<String>, Vec<String>) = pairs.into_iter().unzip();
        let embeddings = teacher.encode_with(&sources, &options.encode)?;
        Self::from_embeddings(embeddings, targets, options)
    }

    /// An evaluator with no name, for a teacher's embeddings that are there already and the
    /// student's sentences.
    ///
    /// # Shapes
    /// - teacher: `[sentences, dim]`
    ///
    /// # Errors
    /// [`EvaluationError::Empty`] if there is no sentence,
    /// [`EvaluationError::EmbeddingCount`] if there are more or fewer embeddings than
    /// sentences.
    pub fn from_embeddings<B: Backend>(
        teacher: Tensor<B, 2>,
        targets: Vec<String>,
        options: MseOptions,
    ) -> Result<Self> {
        if targets.is_empty() {
            let what = "the set of sentences";
            return Err(EvaluationError::Empty { what }.into());
        }
        expect_embeddings("the teacher's sentences", targets.len(), &teacher)?;
        let [_, dim] = teacher.dims();
        Ok(Self {
            name: String::new(),
            options,
            targets,
            teacher: teacher.into_data().iter().collect(),
            dim,
        })
    }

    /// The same evaluator with `name` and an underscore before each metric's name.
    pub fn with_name(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The student's sentences, in the order that
    /// [`evaluate_embeddings`](Self::evaluate_embeddings) reads their embeddings.
    pub fn sentences(&self) -> &[String] {
        &self.targets
    }

    /// Measures embeddings that are there already.
    ///
    /// # Shapes
    /// - student: `[sentences, dim]`
    ///
    /// # Errors
    /// [`EvaluationError::EmbeddingCount`] if there are more or fewer than sentences,
    /// [`ModelError::IncompatibleEmbeddings`] if they have another dimension than the
    /// teacher's, [`EvaluationError::NotANumber`] if the error is NaN.
    pub fn evaluate_embeddings<B: Backend>(&self, student: Tensor<B, 2>) -> Result<Metrics> {
        expect_embeddings("the student's sentences", self.targets.len(), &student)?;
        let left = [self.targets.len(), self.dim];
        if student.dims() != left {
            return Err(ModelError::IncompatibleEmbeddings {
                left,
                right: student.dims(),
                how: "row by row",
            }
            .into());
        }
        let student = student.into_data();
        let differences = self.teacher.iter().zip(student.iter::<f32>());
        let squares = differences.map(|(teacher, student)| f64::from(teacher - student).powi(2));
        let error = squares.sum::<f64>() / self.teacher.len() as f64;
        if error.is_nan() {
            return Err(EvaluationError::NotANumber {
                left: "the teacher's embeddings".to_owned(),
                right: "the student's".to_owned(),
            }
            .into());
        }
        let metrics: Metrics = [("negative_mse", -100.0 * error)].into_iter().collect();
        Ok(metrics.named(&self.name))
    }
}

impl<B: Backend> Evaluator<B> for MseEvaluator {
    fn name(&self) -> &str {
        &self.name
    }

    /// The mean squared error, negative.
    fn primary_metric(&self, _model: &SentenceTransformer<B>) -> String {
        prefixed(&self.name, "negative_mse")
    }

    fn evaluate(&self, model: &SentenceTransformer<B>) -> Result<Metrics> {
        log::info!("mean squared error: {} sentences", self.targets.len());
        self.evaluate_embeddings(model.encode_with(&self.targets, &self.options.encode)?)
    }

    fn csv_reports(&self, _model: &SentenceTransformer<B>) -> Vec<CsvReport> {
        if !self.options.write_csv {
            return Vec::new();
        }
        // Without a name, the reference's file has two underscores.
        let report = CsvReport::new(format!("mse_evaluation_{}_results.csv", self.name))
            .signed_column("MSE", &self.name, "negative_mse", -1.0);
        vec![report]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend_under_test::{TestBackend, device};

    fn tensor<const N: usize, const D: usize>(rows: [[f32; D]; N]) -> Tensor<TestBackend, 2> {
        Tensor::from_floats(rows, &device())
    }

    fn evaluator() -> MseEvaluator {
        let targets = vec!["one".to_owned(), "two".to_owned()];
        let teacher = tensor([[1.0, 2.0], [3.0, 4.0]]);
        MseEvaluator::from_embeddings(teacher, targets, Default::default()).unwrap()
    }

    #[test]
    fn the_error_is_a_hundredfold_and_negative() {
        let student = tensor([[1.0, 2.5], [3.0, 3.0]]);
        let metrics = evaluator().with_name("dev").evaluate_embeddings(student);
        let found = metrics.unwrap().get("dev_negative_mse").unwrap();
        assert!((found + 100.0 * 1.25 / 4.0).abs() < 1e-9, "{found}");
    }

    #[test]
    fn bad_data_is_a_named_error() {
        let nothing = Tensor::<TestBackend, 2>::empty([0, 2], &device());
        assert!(MseEvaluator::from_embeddings(nothing, vec![], Default::default()).is_err());
        let error = |student| {
            evaluator()
                .evaluate_embeddings(student)
                .unwrap_err()
                .to_string()
        };
        let expected = "1 embeddings of the student's sentences, the evaluator has 2";
        assert_eq!(error(tensor([[1.0, 2.0]])), expected);
        let expected = "embeddings of shape [2, 2] and [2, 1] cannot be compared row by row";
        assert_eq!(error(tensor([[1.0], [2.0]])), expected);
        let nan = tensor([[1.0, f32::NAN], [2.0, 3.0]]);
        assert!(error(nan).ends_with("is not a number"));
    }
}
