use std::time::Duration;

use serde_json::{Map, Value};

/// What a model card says that no file of the model does.
///
/// Whoever loads a model says what it is called and may be used for; training adds its data,
/// arguments, log and evaluations.
///
/// ```
/// use sentence_burn::ModelCardData;
///
/// let card = ModelCardData {
///     language: Some("en".into()),
///     license: Some("apache-2.0".into()),
///     model_name: Some("all-MiniLM-L6-v2 adapter finetuned on GooAQ pairs".into()),
///     ..ModelCardData::default()
/// };
/// # assert!(card.tags.is_empty());
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelCardData {
    /// The language of the texts, as an ISO code, or several around commas.
    pub language: Option<String>,
    /// The licence, as the hub names it.
    pub license: Option<String>,
    /// The model's name, the card's heading.
    pub model_name: Option<String>,
    /// The hub id that the model will have.
    pub model_id: Option<String>,
    /// What the model can be used for.
    pub task_name: Option<String>,
    /// Further tags.
    pub tags: Vec<String>,
    /// The data sets that the model was trained on.
    pub train_datasets: Vec<CardDataset>,
    /// The data sets that its loss was watched on.
    pub eval_datasets: Vec<CardDataset>,
    /// Texts to show the model with: a query, and documents or other texts.
    pub examples: Vec<String>,
    /// Texts for the hub's own display of the model: each with others to compare it with.
    pub widget: Vec<(String, Vec<String>)>,
    /// Whether the model is for finding documents by queries: unless this says so, it is if
    /// it has prompts for either, or was evaluated at it.
    pub retrieval: Option<bool>,
    /// How good the model is.
    pub evaluations: Vec<CardEvaluation>,
    /// How it was trained.
    pub training: Option<CardTraining>,
}

impl ModelCardData {
    /// Adds an evaluation, in the place of an earlier one by the same evaluator.
    pub fn set_evaluation(&mut self, evaluation: CardEvaluation) {
        let same = |old: &&mut CardEvaluation| {
            old.evaluator == evaluation.evaluator && old.dataset == evaluation.dataset
        };
        match self.evaluations.iter_mut().find(same) {
            Some(old) => *old = evaluation,
            None => self.evaluations.push(evaluation),
        }
    }
}

/// A data set on a model card.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CardDataset {
    /// What it is called.
    pub name: Option<String>,
    /// Its id on the hub.
    pub id: Option<String>,
    /// The commit that it was taken at.
    pub revision: Option<String>,
    /// How many samples it has; 0 where it is not known: the card then leaves it out.
    pub size: usize,
    /// Its columns.
    pub columns: Vec<CardColumn>,
    /// Its first samples, a value a column.
    pub samples: Vec<Vec<String>>,
    /// The loss that it is for.
    pub loss: Option<CardLoss>,
}

/// A column of a data set on a model card.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CardColumn {
    /// The column's name.
    pub name: String,
    /// What it holds, as Python names it: `string`, `int`, `float` or `list`.
    pub kind: &'static str,
    /// What its first samples are like, such as `min: 4 tokens`.
    pub details: Vec<(String, String)>,
}

/// A loss on a model card.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CardLoss {
    /// Its name.
    pub name: String,
    /// Its parameters, by the names that Python gives them.
    pub parameters: Map<String, Value>,
    /// The losses that it is made of, if it is.
    pub parts: Vec<String>,
}

/// What an evaluator found, on a model card.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CardEvaluation {
    /// The evaluator's type, such as `InformationRetrievalEvaluator`.
    pub evaluator: String,
    /// What it tries a model at, such as `Information Retrieval`.
    pub task: String,
    /// The evaluator's name, which stands for its data.
    pub dataset: String,
    /// The metric to judge by.
    pub primary_metric: String,
    /// The metrics, without the evaluator's name.
    pub metrics: Vec<(String, f64)>,
}

/// A training run on a model card.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CardTraining {
    /// The arguments with their values, and whether these are the default ones.
    pub arguments: Vec<CardArgument>,
    /// What was written down in the course of the run.
    pub log: Vec<CardLogLine>,
    /// The step of the weights that were kept, where the best ones were.
    pub best_step: Option<usize>,
    /// The time that the steps took.
    pub training_time: Duration,
    /// The time that the evaluations took.
    pub evaluation_time: Duration,
}

/// An argument of a training run on a model card.
#[derive(Debug, Clone, PartialEq)]
pub struct CardArgument {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: Value,
    /// Whether that is the default one.
    pub is_default: bool,
}

/// A line of a training run's log on a model card.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CardLogLine {
    /// The epochs behind.
    pub epoch: f64,
    /// The optimiser steps behind.
    pub step: usize,
    /// What was measured, by name.
    pub values: Vec<(String, f64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_evaluator_s_later_result_replaces_the_earlier() {
        let result = |dataset: &str, value| CardEvaluation {
            evaluator: "TripletEvaluator".to_owned(),
            dataset: dataset.to_owned(),
            metrics: vec![("cosine_accuracy".to_owned(), value)],
            ..CardEvaluation::default()
        };
        let mut card = ModelCardData::default();
        for (dataset, value) in [("a", 0.5), ("b", 0.25), ("a", 0.75)] {
            card.set_evaluation(result(dataset, value));
        }
        assert_eq!(card.evaluations, [result("a", 0.75), result("b", 0.25)]);
    }
}
