use std::slice;

use super::CsvReport;
use crate::error::{EvaluationError, Result};
use crate::model::{EncodeOptions, SimilarityFunction};

/// What an [`InformationRetrievalEvaluator`](super::InformationRetrievalEvaluator) measures, and how it encodes.
#[derive(Debug, Clone)]
pub struct InformationRetrievalOptions {
    /// The ranks that accuracy is measured at.
    pub accuracy_at_k: Vec<usize>,
    /// The ranks that precision and recall are measured at.
    pub precision_recall_at_k: Vec<usize>,
    /// The ranks that NDCG is measured at. The last one is the primary metric's.
    pub ndcg_at_k: Vec<usize>,
    /// The ranks that the mean reciprocal rank is measured at.
    pub mrr_at_k: Vec<usize>,
    /// The ranks that the mean average precision is measured at.
    pub map_at_k: Vec<usize>,
    /// How many documents are encoded and scored at a time. It bounds the memory that
    /// embeddings take and has no effect on the metrics.
    pub corpus_chunk_size: usize,
    /// The ways to measure similarity; the main one, or the model's own, alone if empty.
    pub score_functions: Vec<SimilarityFunction>,
    /// The similarity of the primary metric; the first one that is measured if `None`.
    pub main_score_function: Option<SimilarityFunction>,
    /// How queries are encoded.
    pub query: EncodeOptions,
    /// How documents are encoded.
    pub document: EncodeOptions,
    /// Whether [`evaluate_to`](super::Evaluator::evaluate_to) writes the CSV file.
    pub write_csv: bool,
    /// Whether it also writes what was found for each query, a line of JSON each, into a
    /// file for each similarity.
    pub write_predictions: bool,
}

impl Default for InformationRetrievalOptions {
    fn default() -> Self {
        Self {
            accuracy_at_k: vec![1, 3, 5, 10],
            precision_recall_at_k: vec![1, 3, 5, 10],
            ndcg_at_k: vec![10],
            mrr_at_k: vec![10],
            map_at_k: vec![100],
            corpus_chunk_size: 50_000,
            score_functions: Vec::new(),
            main_score_function: None,
            query: EncodeOptions::default(),
            document: EncodeOptions::default(),
            write_csv: true,
            write_predictions: false,
        }
    }
}

impl InformationRetrievalOptions {
    pub(super) fn validate(&self) -> Result<()> {
        let invalid = |option, expected, found| {
            Err(EvaluationError::InvalidOption {
                option,
                expected,
                found,
            }
            .into())
        };
        for (option, ranks) in [
            ("accuracy_at_k", &self.accuracy_at_k),
            ("precision_recall_at_k", &self.precision_recall_at_k),
            ("ndcg_at_k", &self.ndcg_at_k),
            ("mrr_at_k", &self.mrr_at_k),
            ("map_at_k", &self.map_at_k),
        ] {
            if ranks.contains(&0) {
                return invalid(option, "ranks from 1", format!("{ranks:?}"));
            }
        }
        if self.ndcg_at_k.is_empty() {
            return invalid("ndcg_at_k", "at least one rank", "empty".to_owned());
        }
        if let Some(main) = self.main_score_function
            && !self.score_functions.is_empty()
            && !self.score_functions.contains(&main)
        {
            let expected = "one of `score_functions`";
            return invalid("main_score_function", expected, main.name().to_owned());
        }
        if self.corpus_chunk_size == 0 {
            return invalid("corpus_chunk_size", "at least 1", "0".to_owned());
        }
        Ok(())
    }

    /// The lowest rank that any measure looks at.
    pub(super) fn depth(&self) -> usize {
        [
            &self.accuracy_at_k,
            &self.precision_recall_at_k,
            &self.ndcg_at_k,
            &self.mrr_at_k,
            &self.map_at_k,
        ]
        .into_iter()
        .flatten()
        .copied()
        .max()
        .unwrap_or(0)
    }

    /// The reference's CSV file, its columns in the order of the similarities' names.
    pub(super) fn csv_report(
        &self,
        file_name: String,
        mut similarities: Vec<SimilarityFunction>,
        evaluator: &str,
    ) -> CsvReport {
        similarities.sort_by_key(|similarity| similarity.name());
        let mut columns: Vec<(SimilarityFunction, &str, &str, usize)> = Vec::new();
        for similarity in similarities {
            let mut add = |header, metric, ranks: &[usize]| {
                columns.extend(ranks.iter().map(|&k| (similarity, header, metric, k)));
            };
            add("Accuracy", "accuracy", &self.accuracy_at_k);
            for k in &self.precision_recall_at_k {
                add("Precision", "precision", slice::from_ref(k));
                add("Recall", "recall", slice::from_ref(k));
            }
            add("MRR", "mrr", &self.mrr_at_k);
            add("NDCG", "ndcg", &self.ndcg_at_k);
            add("MAP", "map", &self.map_at_k);
        }
        let report = CsvReport::new(file_name).with_plain_line_ends();
        columns.into_iter().fold(report, |report, column| {
            let (similarity, header, metric, k) = column;
            let similarity = similarity.name();
            let metric = format!("{similarity}_{metric}@{k}");
            report.column(format!("{similarity}-{header}@{k}"), evaluator, &metric)
        })
    }
}
