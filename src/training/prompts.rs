use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Result, TrainingError};

/// What is put in front of the texts of a run: the reference's `prompts`, in its four
/// forms.
///
/// A model whose pooling leaves prompts out does so in training too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TrainingPrompts {
    /// One prompt for all texts.
    One(String),
    /// A prompt a column, or a prompt a data set.
    Named(BTreeMap<String, String>),
    /// By data set, then by column.
    ByDataset(BTreeMap<String, BTreeMap<String, String>>),
}

impl TrainingPrompts {
    /// The prompt of a column, given the data set's name if there are several.
    pub(super) fn of(&self, dataset: Option<&str>, column: &str) -> Option<&str> {
        match self {
            Self::One(prompt) => Some(prompt.as_str()),
            Self::Named(prompts) => {
                let of_dataset = dataset.and_then(|dataset| prompts.get(dataset));
                of_dataset
                    .or_else(|| prompts.get(column))
                    .map(String::as_str)
            }
            Self::ByDataset(prompts) => {
                let of_dataset = prompts.get(dataset?)?;
                of_dataset.get(column).map(String::as_str)
            }
        }
    }

    /// Checks that every name is one of the data's.
    ///
    /// # Errors
    /// [`TrainingError::InvalidArgument`] names the first that is not.
    pub(super) fn check(&self, datasets: &[(Option<&str>, &[String])]) -> Result<()> {
        let is_dataset = |name: &str| datasets.iter().any(|(dataset, _)| *dataset == Some(name));
        let is_column = |of: Option<&str>, column: &String| {
            let mut looked_at = datasets.iter().filter(|(dataset, _)| {
                // Every data set, or the one named.
                of.is_none() || *dataset == of
            });
            looked_at.any(|(_, columns)| columns.contains(column))
        };
        let unknown = match self {
            Self::One(_) => None,
            Self::Named(prompts) => prompts
                .keys()
                .find(|name| !is_dataset(name) && !is_column(None, name))
                .cloned(),
            Self::ByDataset(prompts) => prompts.iter().find_map(|(dataset, columns)| {
                if !is_dataset(dataset) {
                    return Some(dataset.clone());
                }
                let column = columns.keys().find(|c| !is_column(Some(dataset), c))?;
                Some(format!("{dataset}.{column}"))
            }),
        };
        match unknown {
            Some(name) => Err(TrainingError::InvalidArgument {
                argument: "prompts",
                expected: "prompts by columns or data sets of the run",
                found: name,
            }
            .into()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prompts(json: &str) -> TrainingPrompts {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn each_form_is_found() {
        let one = prompts(r#""query: ""#);
        assert_eq!(one.of(None, "anchor"), Some("query: "));
        let named = prompts(r#"{"anchor": "query: ", "nli": "nli: "}"#);
        assert_eq!(named.of(None, "anchor"), Some("query: "));
        assert_eq!(named.of(None, "positive"), None);
        assert_eq!(named.of(Some("nli"), "anchor"), Some("nli: "));
        assert_eq!(named.of(Some("qa"), "anchor"), Some("query: "));
        let nested = prompts(r#"{"nli": {"anchor": "a: "}}"#);
        assert_eq!(nested.of(Some("nli"), "anchor"), Some("a: "));
        assert_eq!(nested.of(Some("qa"), "anchor"), None);
        assert_eq!(nested.of(None, "anchor"), None);
    }

    #[test]
    fn names_that_the_data_does_not_have_are_refused() {
        let columns = ["anchor".to_owned(), "positive".to_owned()];
        let single = [(None, &columns[..])];
        let several = [(Some("nli"), &columns[..]), (Some("qa"), &columns[..1])];
        assert!(prompts(r#"{"anchor": "x"}"#).check(&single).is_ok());
        assert!(prompts(r#"{"question": "x"}"#).check(&single).is_err());
        assert!(
            prompts(r#"{"nli": {"anchor": "x"}}"#)
                .check(&single)
                .is_err()
        );
        assert!(
            prompts(r#"{"nli": {"positive": "x"}}"#)
                .check(&several)
                .is_ok()
        );
        assert!(
            prompts(r#"{"qa": {"positive": "x"}}"#)
                .check(&several)
                .is_err()
        );
    }
}
