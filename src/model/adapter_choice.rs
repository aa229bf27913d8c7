use std::borrow::Cow;
use std::sync::Arc;

use burn::tensor::backend::Backend;

use super::SentenceTransformer;
use super::encode::Task;
use super::encode_options::EncodeOptions;
use crate::adapter::AdapterRoute;
use crate::error::{ModelError, Result};
use crate::kernel::Layout;
use crate::text::Prompts;

/// The name that stands for the base model where adapters are chosen by text, as in PEFT.
pub const BASE_MODEL: &str = "__base__";

/// The adapters that the texts of one call go through, whatever is active.
///
/// ```
/// use sentence_burn::{AdapterChoice, EncodeOptions};
///
/// // A text of each field through its own adapter, in one call.
/// let options = EncodeOptions {
///     adapters: Some(AdapterChoice::by_text(["legal", "medical", "__base__"])),
///     ..EncodeOptions::default()
/// };
/// # let _ = options;
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdapterChoice {
    /// These for every text, which add up; none is the base model.
    All(Vec<String>),
    /// For each text its own.
    ByText(Vec<Vec<String>>),
}

impl AdapterChoice {
    /// The same adapters for every text; none is the base model.
    pub fn all<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        Self::All(names.into_iter().map(Into::into).collect())
    }

    /// One adapter for each text; `__base__` is the base model.
    pub fn by_text<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        let one = |name: S| {
            let name = name.into();
            match name == BASE_MODEL {
                true => Vec::new(),
                false => vec![name],
            }
        };
        Self::ByText(names.into_iter().map(one).collect())
    }
}

/// Which adapters each text goes through, once it is known that the model has them.
#[derive(Debug, Clone)]
pub(super) struct TextAdapters {
    /// The different ones.
    lists: Vec<Arc<[String]>>,
    /// For each text its own among them; none where all texts have the first.
    of_texts: Option<Vec<usize>>,
}

impl TextAdapters {
    /// The place of a text's adapters among the different ones.
    pub(super) fn list_of(&self, text: usize) -> usize {
        self.of_texts.as_ref().map_or(0, |of_texts| of_texts[text])
    }

    /// The different ones.
    pub(super) fn lists(&self) -> &[Arc<[String]>] {
        &self.lists
    }

    /// The routes of a batch: of the texts in it, which follow each other by their adapters,
    /// and lie so.
    pub(super) fn routes(&self, members: &[usize], layout: &Layout) -> Vec<AdapterRoute> {
        let mut routes: Vec<AdapterRoute> = Vec::new();
        let mut last = None;
        let places = layout.starts().zip(&**layout.lengths());
        for (&text, (start, &length)) in members.iter().zip(places) {
            let list = self.list_of(text);
            match routes.last_mut() {
                Some(route) if last == Some(list) => route.tokens.end = start + length,
                _ => routes.push(AdapterRoute {
                    tokens: start..start + length,
                    adapters: Arc::clone(&self.lists[list]),
                }),
            }
            last = Some(list);
        }
        routes
    }
}

impl<B: Backend> SentenceTransformer<B> {
    /// Sets the adapters that [`encode_query`](Self::encode_query) goes through, whatever is
    /// active; `None` means the active ones again.
    ///
    /// # Errors
    /// [`AdapterError::NoAdapter`](crate::error::AdapterError) or
    /// [`AdapterError::UnknownName`](crate::error::AdapterError); nothing is changed.
    pub fn set_query_adapter<S: AsRef<str>>(&mut self, names: Option<&[S]>) -> Result<()> {
        self.config_mut().adapters.query = self.known_names(names)?;
        Ok(())
    }

    /// Sets the adapters that [`encode_document`](Self::encode_document) goes through,
    /// whatever is active; `None` means the active ones again.
    ///
    /// # Errors
    /// As [`set_query_adapter`](Self::set_query_adapter).
    pub fn set_document_adapter<S: AsRef<str>>(&mut self, names: Option<&[S]>) -> Result<()> {
        self.config_mut().adapters.document = self.known_names(names)?;
        Ok(())
    }

    fn known_names<S: AsRef<str>>(&self, names: Option<&[S]>) -> Result<Option<Vec<String>>> {
        let Some(names) = names else { return Ok(None) };
        for name in names {
            self.adapters.get(name.as_ref())?;
        }
        Ok(Some(names.iter().map(|n| n.as_ref().to_owned()).collect()))
    }

    /// The prompts where these adapters are used: those that came with the first of them that
    /// brought some, before the model's own.
    pub fn prompts_with<S: AsRef<str>>(&self, adapters: &[S]) -> Cow<'_, Prompts> {
        let own = &self.config.prompts;
        let brought = adapters
            .iter()
            .find_map(|name| self.config.adapters.prompts.get(name.as_ref()));
        let Some(brought) = brought else {
            return Cow::Borrowed(own);
        };
        let mut prompts = own.clone();
        let of_adapter = brought.prompts.clone();
        prompts.prompts.extend(of_adapter);
        if brought.default_prompt_name.is_some() {
            prompts.default_prompt_name = brought.default_prompt_name.clone();
        }
        Cow::Owned(prompts)
    }

    /// The adapters of each text of a call; `None` where they are the active ones.
    pub(super) fn text_adapters(
        &self,
        texts: usize,
        options: &EncodeOptions,
        task: Option<Task>,
    ) -> Result<Option<TextAdapters>> {
        let of_task = match task {
            Some(Task::Query) => &self.config.adapters.query,
            Some(Task::Document) => &self.config.adapters.document,
            None => &None,
        };
        let of_task = || of_task.clone().map(AdapterChoice::All);
        let Some(choice) = options.adapters.clone().or_else(of_task) else {
            return Ok(None);
        };
        let chosen = match &choice {
            AdapterChoice::All(names) => std::slice::from_ref(names),
            AdapterChoice::ByText(lists) if lists.len() == texts => lists,
            AdapterChoice::ByText(lists) => {
                return Err(ModelError::InvalidOption {
                    option: "adapters",
                    expected: "the adapters of each text",
                    found: format!("{} for {texts} texts", lists.len()),
                }
                .into());
            }
        };
        for name in chosen.iter().flatten() {
            self.adapters.get(name)?;
        }
        self.adapters
            .require_unmerged("choosing adapters by call")?;
        let mut lists: Vec<Arc<[String]>> = Vec::new();
        let places = chosen.iter().map(|names| {
            let known = lists.iter().position(|list| list[..] == names[..]);
            known.unwrap_or_else(|| {
                lists.push(names.clone().into());
                lists.len() - 1
            })
        });
        let places: Vec<usize> = places.collect();
        Ok(Some(TextAdapters {
            lists,
            of_texts: matches!(choice, AdapterChoice::ByText(_)).then_some(places),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_of_the_same_adapters_share_a_route() {
        let adapters = TextAdapters {
            lists: vec![["a".to_owned()].into(), [].into()],
            of_texts: Some(vec![0, 1, 0]),
        };
        let tokens_of = |routes: &[AdapterRoute]| -> Vec<_> {
            routes.iter().map(|route| route.tokens.clone()).collect()
        };
        let routes = adapters.routes(&[0, 2, 1], &Layout::exact([3, 2, 4].into()));
        assert_eq!(tokens_of(&routes), [0..5, 5..9]);
        // Texts that do not lie back to back.
        let spread = adapters.routes(&[0, 2, 1], &Layout::rounded([16, 15, 16].into()));
        assert_eq!(tokens_of(&spread), [0..31, 32..48]);
        assert_eq!(
            (&routes[0].adapters[..], routes[1].adapters.len()),
            (&["a".to_owned()][..], 0)
        );
    }

    #[test]
    fn the_base_model_has_a_name() {
        let choice = AdapterChoice::by_text(["a", BASE_MODEL]);
        let expected = AdapterChoice::ByText(vec![vec!["a".to_owned()], Vec::new()]);
        assert_eq!(choice, expected);
    }
}
