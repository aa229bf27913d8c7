use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Result, TrainingError};

/// The route that each column's texts take through a Router: the reference's
/// `router_mapping`, in its two forms. Texts of a column that is not named are for no task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum RouterMapping {
    /// By column, in every data set.
    ByColumn(BTreeMap<String, String>),
    /// By data set, then by column.
    ByDataset(BTreeMap<String, BTreeMap<String, String>>),
}

impl RouterMapping {
    /// A route for each column, the same in every data set.
    pub fn by_column<C: Into<String>, R: Into<String>>(
        routes: impl IntoIterator<Item = (C, R)>,
    ) -> Self {
        let routes = routes.into_iter();
        Self::ByColumn(routes.map(|(c, r)| (c.into(), r.into())).collect())
    }

    /// The route of a column, given the data set's name if there are several.
    pub(super) fn of(&self, dataset: Option<&str>, column: &str) -> Option<&str> {
        let routes = match self {
            Self::ByColumn(routes) => routes,
            Self::ByDataset(routes) => routes.get(dataset?)?,
        };
        routes.get(column).map(String::as_str)
    }

    /// Checks that every name is one of the data's.
    ///
    /// # Errors
    /// [`TrainingError::InvalidArgument`] names the first that is not.
    pub(super) fn check(&self, datasets: &[(Option<&str>, &[String])]) -> Result<()> {
        let has = |of: Option<&str>, column: &String| {
            let mut looked_at = datasets
                .iter()
                .filter(|(dataset, _)| of.is_none() || *dataset == of);
            looked_at.any(|(_, columns)| columns.contains(column))
        };
        let unknown = match self {
            Self::ByColumn(routes) => routes.keys().find(|column| !has(None, column)).cloned(),
            Self::ByDataset(routes) => routes.iter().find_map(|(dataset, routes)| {
                if !datasets.iter().any(|(name, _)| *name == Some(dataset)) {
                    return Some(dataset.clone());
                }
                let column = routes.keys().find(|column| !has(Some(dataset), column))?;
                Some(format!("{dataset}.{column}"))
            }),
        };
        match unknown {
            Some(found) => Err(TrainingError::InvalidArgument {
                argument: "router_mapping",
                expected: "routes by columns of the data sets of the run",
                found,
            }
            .into()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mapping(json: &str) -> RouterMapping {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn both_forms_are_read() {
        let columns = mapping(r#"{"anchor": "query"}"#);
        assert_eq!(columns, RouterMapping::by_column([("anchor", "query")]));
        assert_eq!(columns.of(Some("nli"), "anchor"), Some("query"));
        assert_eq!(columns.of(None, "positive"), None);
        let nested = mapping(r#"{"nli": {"anchor": "query"}}"#);
        assert_eq!(nested.of(Some("nli"), "anchor"), Some("query"));
        assert_eq!(nested.of(Some("qa"), "anchor"), None);
        assert_eq!(nested.of(None, "anchor"), None);
    }

    #[test]
    fn names_that_the_data_does_not_have_are_refused() {
        let columns = ["anchor".to_owned(), "positive".to_owned()];
        let several = [(Some("nli"), &columns[..]), (Some("qa"), &columns[..1])];
        for (json, unknown) in [
            (r#"{"anchor": "query"}"#, None),
            (r#"{"question": "query"}"#, Some("question")),
            (r#"{"nli": {"positive": "document"}}"#, None),
            (r#"{"qa": {"positive": "document"}}"#, Some("qa.positive")),
            (r#"{"sts": {"anchor": "query"}}"#, Some("sts")),
        ] {
            let error = mapping(json).check(&several).err();
            let told = error.map(|error| error.to_string());
            assert_eq!(told.is_some(), unknown.is_some(), "{json}: {told:?}");
            if let (Some(told), Some(unknown)) = (told, unknown) {
                assert!(told.contains(unknown), "{told}");
            }
        }
    }
}
