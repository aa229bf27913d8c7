use std::collections::HashMap;
use std::path::Path;

use burn::tensor::backend::Backend;

use super::{
    CsvReport, EvaluatedAt, Evaluator, InformationRetrievalEvaluator, InformationRetrievalOptions,
    Metrics, RetrievalData, functions_or, prefixed, suffixed,
};
use crate::error::{EvaluationError, Result};
use crate::model::{SentenceTransformer, SimilarityFunction};
use crate::text::Prompt;

/// NanoBEIR's data sets.
pub const NANO_BEIR_DATASETS: [&str; 13] = [
    "ClimateFEVER",
    "DBPedia",
    "FEVER",
    "FiQA2018",
    "HotpotQA",
    "MSMARCO",
    "NFCorpus",
    "NQ",
    "QuoraRetrieval",
    "SCIDOCS",
    "ArguAna",
    "SciFact",
    "Touche2020",
];

/// What a [`NanoBeirEvaluator`] measures, and how it encodes.
#[derive(Debug, Clone)]
pub struct NanoBeirOptions {
    /// The data sets, whatever the case of their letters; all thirteen if empty.
    pub dataset_names: Vec<String>,
    /// What is measured on each of them, and how it is encoded.
    pub retrieval: InformationRetrievalOptions,
    /// The dimensions to keep of each embedding. Metrics carry the number in their names.
    pub truncate_dim: Option<usize>,
    /// Prompts in front of queries, by the data set's name; for the others
    /// `retrieval.query` says.
    pub query_prompts: HashMap<String, String>,
    /// Prompts in front of documents, likewise.
    pub corpus_prompts: HashMap<String, String>,
    /// What becomes of a metric's values on the data sets.
    pub aggregate_fn: fn(&[f64]) -> f64,
    /// What that is called.
    pub aggregate_key: String,
}

impl Default for NanoBeirOptions {
    fn default() -> Self {
        Self {
            dataset_names: Vec::new(),
            retrieval: InformationRetrievalOptions::default(),
            truncate_dim: None,
            query_prompts: HashMap::new(),
            corpus_prompts: HashMap::new(),
            aggregate_fn: mean,
            aggregate_key: "mean".to_owned(),
        }
    }
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Retrieval on small versions of BEIR's data sets.
///
/// Definitions and names are those of Sentence Transformers' evaluator of that name: each
/// data set's metrics as [`InformationRetrievalEvaluator`] has them, such as
/// `NanoMSMARCO_cosine_ndcg@10`, and their means, such as `NanoBEIR_mean_cosine_ndcg@10`.
#[derive(Debug, Clone)]
pub struct NanoBeirEvaluator {
    name: String,
    options: NanoBeirOptions,
    evaluators: Vec<InformationRetrievalEvaluator>,
}

impl NanoBeirEvaluator {
    /// Reads data sets from a folder, each from the folder `NanoMSMARCO`, `NanoNQ`, … in it
    /// as [`RetrievalData::from_folder`] does. Texts without a letter are left out.
    ///
    /// # Errors
    /// [`EvaluationError::UnknownDataset`] for a name that NanoBEIR does not have, those of
    /// reading, and those of the data sets' evaluators.
    pub fn from_folder(folder: impl AsRef<Path>, options: NanoBeirOptions) -> Result<Self> {
        let names = options.datasets()?;
        let read = |name: &'static str| {
            let data = RetrievalData::from_folder(folder.as_ref().join(format!("Nano{name}")))?;
            Ok((name, data))
        };
        let sets: Result<Vec<_>> = names.into_iter().map(read).collect();
        Self::new(sets?, options)
    }

    /// An evaluator of data sets that are there already, under their names.
    ///
    /// # Errors
    /// [`EvaluationError::Empty`] if there is none, and those of the data sets' evaluators.
    pub fn new(
        sets: Vec<(impl Into<String>, RetrievalData)>,
        options: NanoBeirOptions,
    ) -> Result<Self> {
        if sets.is_empty() {
            let what = "the list of data sets";
            return Err(EvaluationError::Empty { what }.into());
        }
        let suffix = options.truncate_dim.map(|dim| dim.to_string());
        let suffix = suffix.unwrap_or_default();
        let evaluators: Result<Vec<_>> = sets
            .into_iter()
            .map(|(name, mut data)| {
                let name = name.into();
                data.queries.retain(|(_, text)| !text.is_empty());
                data.corpus.retain(|(_, text)| !text.is_empty());
                let evaluator = InformationRetrievalEvaluator::new(data)?;
                let evaluator = evaluator.with_options(options.for_dataset(&name))?;
                Ok(evaluator.with_name(suffixed(&format!("Nano{name}"), &suffix)))
            })
            .collect();
        Ok(Self {
            name: suffixed(&format!("NanoBEIR_{}", options.aggregate_key), &suffix),
            options,
            evaluators: evaluators?,
        })
    }

    /// The data sets' evaluators.
    pub fn evaluators(&self) -> &[InformationRetrievalEvaluator] {
        &self.evaluators
    }

    /// The metrics of all data sets, and what becomes of them together.
    fn gather<B: Backend>(
        &self,
        evaluate: impl Fn(&dyn Evaluator<B>) -> Result<Metrics>,
    ) -> Result<Metrics> {
        let mut metrics = Metrics::new();
        let mut by_name: Vec<(String, Vec<f64>)> = Vec::new();
        for evaluator in &self.evaluators {
            let evaluator: &dyn Evaluator<B> = evaluator;
            log::info!("{}", evaluator.name());
            let found = evaluate(evaluator)?;
            let own = found.iter().map(|(name, value)| {
                let name = name.strip_prefix(evaluator.name()).unwrap_or(name);
                (name.trim_start_matches('_').to_owned(), value)
            });
            for (name, value) in own {
                match by_name.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, values)) => values.push(value),
                    None => by_name.push((name, vec![value])),
                }
            }
            metrics.extend(found);
        }
        let together: Metrics = by_name
            .into_iter()
            .map(|(name, values)| (name, (self.options.aggregate_fn)(&values)))
            .collect();
        metrics.extend(together.named(&self.name));
        Ok(metrics)
    }

    fn similarities<B: Backend>(&self, model: &SentenceTransformer<B>) -> Vec<SimilarityFunction> {
        let options = &self.options.retrieval;
        functions_or(&options.score_functions, options.main_score_function, model)
    }

    /// The file of what the data sets come to together.
    fn own_report<B: Backend>(&self, model: &SentenceTransformer<B>) -> Option<CsvReport> {
        let key = &self.options.aggregate_key;
        let retrieval = &self.options.retrieval;
        let file = format!("NanoBEIR_evaluation_{key}_results.csv");
        let similarities = self.similarities(model);
        let report = || retrieval.csv_report(file, similarities, &self.name);
        retrieval.write_csv.then(report)
    }
}

impl NanoBeirOptions {
    /// The data sets that are asked for, by their names in NanoBEIR.
    pub(super) fn datasets(&self) -> Result<Vec<&'static str>> {
        match self.dataset_names.is_empty() {
            true => Ok(NANO_BEIR_DATASETS.to_vec()),
            false => self.dataset_names.iter().map(|name| known(name)).collect(),
        }
    }

    /// What a data set's evaluator measures, and how it encodes.
    fn for_dataset(&self, name: &str) -> InformationRetrievalOptions {
        let mut options = self.retrieval.clone();
        for (encode, prompts) in [
            (&mut options.query, &self.query_prompts),
            (&mut options.document, &self.corpus_prompts),
        ] {
            let own = |(known, _): &(&String, _)| known.eq_ignore_ascii_case(name);
            if let Some((_, prompt)) = prompts.iter().find(own) {
                encode.prompt = Some(Prompt::text(prompt));
            }
            encode.truncate_dim = self.truncate_dim.or(encode.truncate_dim);
        }
        options
    }
}

/// A data set's name as NanoBEIR has it.
fn known(name: &str) -> Result<&'static str> {
    let found = NANO_BEIR_DATASETS
        .into_iter()
        .find(|known| known.eq_ignore_ascii_case(name));
    Ok(found.ok_or_else(|| EvaluationError::UnknownDataset {
        benchmark: "NanoBEIR",
        found: name.to_owned(),
        known: NANO_BEIR_DATASETS.to_vec(),
    })?)
}

impl<B: Backend> Evaluator<B> for NanoBeirEvaluator {
    fn name(&self) -> &str {
        &self.name
    }

    /// NDCG at the largest rank, all data sets together.
    fn primary_metric(&self, model: &SentenceTransformer<B>) -> String {
        let options = &self.options.retrieval;
        let main = options.main_score_function;
        let main = main.unwrap_or_else(|| self.similarities(model)[0]);
        let k = options.ndcg_at_k.iter().max().unwrap_or(&0);
        prefixed(&self.name, &format!("{}_ndcg@{k}", main.name()))
    }

    fn evaluate(&self, model: &SentenceTransformer<B>) -> Result<Metrics> {
        self.gather::<B>(|evaluator| evaluator.evaluate(model))
    }

    /// The file of each data set, and that of all together.
    fn csv_reports(&self, model: &SentenceTransformer<B>) -> Vec<CsvReport> {
        let reports = self.evaluators.iter();
        let reports = reports.flat_map(|evaluator| evaluator.csv_reports(model));
        reports.chain(self.own_report(model)).collect()
    }

    fn evaluate_to(
        &self,
        model: &SentenceTransformer<B>,
        folder: &Path,
        at: EvaluatedAt,
    ) -> Result<Metrics> {
        let metrics = self.gather::<B>(|evaluator| evaluator.evaluate_to(model, folder, at))?;
        if let Some(report) = self.own_report(model) {
            report.append(folder, at, &metrics)?;
        }
        Ok(metrics)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn data() -> RetrievalData {
        let texts = |texts: &[(&str, &str)]| {
            let texts = texts
                .iter()
                .map(|(id, text)| (id.to_string(), text.to_string()));
            texts.collect()
        };
        RetrievalData {
            queries: texts(&[("p", "a query"), ("q", "")]),
            corpus: texts(&[("a", "a text"), ("b", ""), ("c", "another")]),
            relevant: ["p", "q"]
                .map(|query| (query.to_owned(), HashSet::from(["a".to_owned()])))
                .into(),
        }
    }

    #[test]
    fn texts_without_a_letter_are_left_out() {
        let evaluator = NanoBeirEvaluator::new(vec![("NQ", data())], Default::default()).unwrap();
        let [set] = evaluator.evaluators() else {
            panic!("one data set")
        };
        assert_eq!(set.queries(), ["a query"]);
        assert_eq!(set.corpus(), ["a text", "another"]);
    }

    #[test]
    fn each_data_set_has_its_prompts_and_all_the_dimension() {
        let options = NanoBeirOptions {
            truncate_dim: Some(8),
            query_prompts: [("msmarco".to_owned(), "query: ".to_owned())].into(),
            ..Default::default()
        };
        let of_msmarco = options.for_dataset("MSMARCO");
        assert_eq!(of_msmarco.query.prompt, Some(Prompt::text("query: ")));
        assert_eq!(of_msmarco.document.prompt, None);
        assert_eq!(of_msmarco.document.truncate_dim, Some(8));
        assert_eq!(options.for_dataset("NQ").query.prompt, None);
        let evaluator = NanoBeirEvaluator::new(vec![("NQ", data())], options).unwrap();
        assert_eq!(evaluator.name, "NanoBEIR_mean_8");
    }

    #[test]
    fn names_and_folders_that_are_not_there_are_named_errors() {
        let folder = tempfile::tempdir().unwrap();
        let error = |names: &[&str]| {
            let options = NanoBeirOptions {
                dataset_names: names.iter().map(|name| name.to_string()).collect(),
                ..Default::default()
            };
            let read = NanoBeirEvaluator::from_folder(folder.path(), options);
            read.unwrap_err().to_string()
        };
        let found = error(&["msmarco", "trec"]);
        assert!(found.starts_with("no data set `trec` in NanoBEIR, which has [\"ClimateFEVER\""));
        assert!(error(&["msMarco"]).contains("NanoMSMARCO"));
        assert!(error(&[]).contains("NanoClimateFEVER"));
        let none: Vec<(&str, RetrievalData)> = Vec::new();
        assert!(NanoBeirEvaluator::new(none, Default::default()).is_err());
    }
}
