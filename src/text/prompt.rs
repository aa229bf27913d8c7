use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{ModelError, Result};

/// The prompt to put in front of each text of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Prompt {
    /// This text, as it is.
    Text(String),
    /// The model's prompt of this name.
    Named(String),
}

impl Prompt {
    /// A prompt given by its text.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A prompt given by its name in the model's configuration.
    pub fn named(name: impl Into<String>) -> Self {
        Self::Named(name.into())
    }
}

/// A model's prompts by name, and the one used where a call names none.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prompts {
    /// The prompts by name.
    #[serde(default)]
    pub prompts: BTreeMap<String, String>,
    /// The prompt of a call that names none.
    #[serde(default)]
    pub default_prompt_name: Option<String>,
}

impl Prompts {
    /// The text that a call's prompt stands for: the call's own, else the default
    /// one, else none.
    ///
    /// # Errors
    /// [`ModelError::UnknownPrompt`] if the model has no prompt of that name.
    pub fn resolve<'a>(&'a self, prompt: Option<&'a Prompt>) -> Result<Option<&'a str>> {
        let name = match prompt {
            Some(Prompt::Text(text)) => return Ok(Some(text)),
            Some(Prompt::Named(name)) => name,
            None => match &self.default_prompt_name {
                Some(name) => name,
                None => return Ok(None),
            },
        };
        match self.prompts.get(name) {
            Some(text) => Ok(Some(text)),
            None => Err(ModelError::UnknownPrompt {
                name: name.clone(),
                known: self.prompts.keys().cloned().collect(),
            }
            .into()),
        }
    }

    /// The prompt of a query: `query` if the model has it, even an empty one.
    pub fn query(&self) -> Option<Prompt> {
        self.first_of(&["query"])
    }

    /// The prompt of a document: the first of `document`, `passage`, `corpus` that
    /// says something.
    ///
    /// Python's library adds an empty `document` prompt to every model, which hides a
    /// model's own `passage` prompt; an empty one counts here only where no other is.
    pub fn document(&self) -> Option<Prompt> {
        let names = ["document", "passage", "corpus"];
        let says_something = |name: &&str| self.prompts.get(*name).is_some_and(|p| !p.is_empty());
        match names.iter().find(|name| says_something(name)) {
            Some(name) => Some(Prompt::named(*name)),
            None => self.first_of(&names),
        }
    }

    fn first_of(&self, names: &[&str]) -> Option<Prompt> {
        names
            .iter()
            .find(|name| self.prompts.contains_key(**name))
            .map(|name| Prompt::named(*name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn prompts(pairs: &[(&str, &str)], default: Option<&str>) -> Prompts {
        Prompts {
            prompts: pairs
                .iter()
                .map(|(k, v)| (k.to_string(), v.to_string()))
                .collect(),
            default_prompt_name: default.map(str::to_owned),
        }
    }

    #[test]
    fn a_call_s_prompt_wins_over_the_default() {
        let p = prompts(&[("query", "q: "), ("sts", "s: ")], Some("sts"));
        assert_eq!(p.resolve(None).unwrap(), Some("s: "));
        assert_eq!(
            p.resolve(Some(&Prompt::named("query"))).unwrap(),
            Some("q: ")
        );
        assert_eq!(p.resolve(Some(&Prompt::text("x"))).unwrap(), Some("x"));
        assert_eq!(Prompts::default().resolve(None).unwrap(), None);
    }

    #[test]
    fn an_unknown_name_is_an_error_that_lists_the_known() {
        let p = prompts(&[("query", "q: ")], None);
        let error = p.resolve(Some(&Prompt::named("sts"))).unwrap_err();
        assert!(
            matches!(&error, Error::Model(ModelError::UnknownPrompt { name, known })
            if name == "sts" && known == &["query"])
        );
    }

    #[test]
    fn an_empty_query_prompt_blocks_the_default_one() {
        let p = prompts(&[("query", ""), ("sts", "s: ")], Some("sts"));
        assert_eq!(p.resolve(p.query().as_ref()).unwrap(), Some(""));
    }

    #[test]
    fn a_passage_prompt_is_not_hidden_by_an_empty_document_prompt() {
        let p = prompts(&[("document", ""), ("passage", "p: ")], None);
        assert_eq!(p.document(), Some(Prompt::named("passage")));
        let p = prompts(&[("document", "")], None);
        assert_eq!(p.document(), Some(Prompt::named("document")));
        assert_eq!(prompts(&[], None).document(), None);
    }
}
