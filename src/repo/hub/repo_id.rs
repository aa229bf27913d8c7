use std::fmt;

use crate::error::HubError;

/// The organisation of names without one.
const DEFAULT_ORGANISATION: &str = "sentence-transformers";

/// Models that have no organisation in their name: those of the Transformers library's
/// first years. The list is Sentence Transformers' `ORIGINAL_TRANSFORMER_MODELS`.
const WITHOUT_ORGANISATION: &[&str] = &[
    "albert-base-v1",
    "albert-base-v2",
    "albert-large-v1",
    "albert-large-v2",
    "albert-xlarge-v1",
    "albert-xlarge-v2",
    "albert-xxlarge-v1",
    "albert-xxlarge-v2",
    "bert-base-cased-finetuned-mrpc",
    "bert-base-cased",
    "bert-base-chinese",
    "bert-base-german-cased",
    "bert-base-german-dbmdz-cased",
    "bert-base-german-dbmdz-uncased",
    "bert-base-multilingual-cased",
    "bert-base-multilingual-uncased",
    "bert-base-uncased",
    "bert-large-cased-whole-word-masking-finetuned-squad",
    "bert-large-cased-whole-word-masking",
    "bert-large-cased",
    "bert-large-uncased-whole-word-masking-finetuned-squad",
    "bert-large-uncased-whole-word-masking",
    "bert-large-uncased",
    "camembert-base",
    "ctrl",
    "distilbert-base-cased-distilled-squad",
    "distilbert-base-cased",
    "distilbert-base-german-cased",
    "distilbert-base-multilingual-cased",
    "distilbert-base-uncased-distilled-squad",
    "distilbert-base-uncased-finetuned-sst-2-english",
    "distilbert-base-uncased",
    "distilgpt2",
    "distilroberta-base",
    "gpt2-large",
    "gpt2-medium",
    "gpt2-xl",
    "gpt2",
    "openai-gpt",
    "roberta-base-openai-detector",
    "roberta-base",
    "roberta-large-mnli",
    "roberta-large-openai-detector",
    "roberta-large",
    "t5-11b",
    "t5-3b",
    "t5-base",
    "t5-large",
    "t5-small",
    "transfo-xl-wt103",
    "xlm-clm-ende-1024",
    "xlm-clm-enfr-1024",
    "xlm-mlm-100-1280",
    "xlm-mlm-17-1280",
    "xlm-mlm-en-2048",
    "xlm-mlm-ende-1024",
    "xlm-mlm-enfr-1024",
    "xlm-mlm-enro-1024",
    "xlm-mlm-tlm-xnli15-1024",
    "xlm-mlm-xnli15-1024",
    "xlm-roberta-base",
    "xlm-roberta-large-finetuned-conll02-dutch",
    "xlm-roberta-large-finetuned-conll02-spanish",
    "xlm-roberta-large-finetuned-conll03-english",
    "xlm-roberta-large-finetuned-conll03-german",
    "xlm-roberta-large",
    "xlnet-base-cased",
    "xlnet-large-cased",
];

/// What a repository holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RepoKind {
    /// A model or an adapter.
    Model,
    /// A data set.
    #[cfg(feature = "datasets")]
    Dataset,
}

impl RepoKind {
    /// What the hub's routes and the cache's folders call repositories of the kind.
    #[cfg(feature = "hub")]
    pub(super) fn plural(self) -> &'static str {
        match self {
            Self::Model => "models",
            #[cfg(feature = "datasets")]
            Self::Dataset => "datasets",
        }
    }

    /// What stands before an id in an address, if anything does.
    pub(super) fn prefix(self) -> &'static str {
        match self {
            Self::Model => "",
            #[cfg(feature = "datasets")]
            Self::Dataset => "datasets",
        }
    }
}

/// The id of a repository on the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RepoId {
    pub(super) kind: RepoKind,
    /// Empty for the few models that have none.
    pub(super) owner: String,
    pub(super) name: String,
}

impl RepoId {
    /// Reads `owner/name`, or a name alone.
    ///
    /// # Errors
    /// [`HubError::InvalidId`] if the hub can have no such repository. The rules are those
    /// of Python's `huggingface_hub`.
    pub(super) fn parse(id: &str) -> Result<Self, HubError> {
        let without = WITHOUT_ORGANISATION.contains(&id.to_lowercase().as_str());
        Self::parse_with(id, if without { "" } else { DEFAULT_ORGANISATION })
    }

    /// Reads the id of a data set, where a name alone has no owner.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    #[cfg(feature = "datasets")]
    pub(super) fn parse_dataset(id: &str) -> Result<Self, HubError> {
        Ok(Self {
            kind: RepoKind::Dataset,
            ..Self::parse_with(id, "")?
        })
    }

    /// The id as it stands in an address, behind `datasets/` for a data set.
    pub(super) fn address(&self) -> String {
        match self.kind.prefix() {
            "" => self.to_string(),
            prefix => format!("{prefix}/{self}"),
        }
    }

    fn parse_with(id: &str, default_owner: &str) -> Result<Self, HubError> {
        let invalid = |reason| HubError::InvalidId {
            id: id.to_owned(),
            reason,
        };
        let (owner, name) = id.split_once('/').unwrap_or((default_owner, id));
        if name.contains('/') {
            return Err(invalid("an id has at most one slash"));
        }
        let parts = match id.contains('/') {
            true => vec![owner, name],
            false => vec![name],
        };
        for part in parts {
            if part.is_empty() {
                return Err(invalid("a part of it is empty"));
            }
            if part.len() > 96 {
                return Err(invalid("a part of it is longer than 96 characters"));
            }
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
            if !part.chars().all(allowed) {
                return Err(invalid("an id has only letters, digits, `-`, `_` and `.`"));
            }
            if part.starts_with(['-', '.']) || part.ends_with(['-', '.']) {
                return Err(invalid("no part of an id begins or ends with `-` or `.`"));
            }
        }
        if id.contains("--") || id.contains("..") {
            return Err(invalid("an id has no `--` and no `..`"));
        }
        if id.ends_with(".git") {
            return Err(invalid("an id does not end with `.git`"));
        }
        Ok(Self {
            kind: RepoKind::Model,
            owner: owner.to_owned(),
            name: name.to_owned(),
        })
    }

    /// Reads the id of a repository to write to, where a name alone is one of the account's.
    ///
    /// # Errors
    /// As [`parse`](Self::parse).
    #[cfg(feature = "hub")]
    pub(super) fn parse_own(id: &str) -> Result<Self, HubError> {
        let repo = Self::parse(id)?;
        match id.contains('/') {
            true => Ok(repo),
            false => Ok(Self {
                owner: String::new(),
                ..repo
            }),
        }
    }
}

impl fmt::Display for RepoId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.owner.is_empty() {
            write!(f, "{}/", self.owner)?;
        }
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_alone_is_one_of_sentence_transformers() {
        let resolved = |id: &str| RepoId::parse(id).unwrap().to_string();
        assert_eq!(
            resolved("all-MiniLM-L6-v2"),
            "sentence-transformers/all-MiniLM-L6-v2"
        );
        assert_eq!(
            resolved("Qwen/Qwen3-Embedding-0.6B"),
            "Qwen/Qwen3-Embedding-0.6B"
        );
        assert_eq!(resolved("bert-base-uncased"), "bert-base-uncased");
        assert_eq!(resolved("BERT-base-uncased"), "BERT-base-uncased");
    }

    #[test]
    fn what_no_repository_can_be_named_is_refused() {
        let long = "x".repeat(97);
        let bad = [
            "",
            "/",
            "a/",
            "/a",
            "a/b/c",
            "..",
            "../a",
            "./a",
            "a/..",
            "a\\b",
            "C:\\models",
            "a/b c",
            "a--b/c",
            "a/b..c",
            "a/-b",
            "a/b.",
            "a/b.git",
            "é/a",
            "a/b\n",
            &long,
        ];
        for id in bad {
            let error = RepoId::parse(id).unwrap_err();
            assert!(
                matches!(&error, HubError::InvalidId { id: named, .. } if named == id),
                "{id:?}"
            );
        }
    }
}
