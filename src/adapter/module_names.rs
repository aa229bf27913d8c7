use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

/// Module names: a list of name endings, or one regular expression for whole names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum ModuleNames {
    /// Names that a module's path equals, or ends with after a dot.
    List(Vec<String>),
    /// A regular expression that a module's whole path matches; `all-linear` stands
    /// for every linear layer.
    Pattern(String),
}

impl ModuleNames {
    /// Name endings, from anything that holds strings.
    pub fn list<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        Self::List(names.into_iter().map(Into::into).collect())
    }

    /// Every linear layer of the encoder.
    pub fn all_linear() -> Self {
        Self::Pattern("all-linear".to_owned())
    }
}

/// One layer index or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum LayerIndices {
    /// This layer alone.
    One(usize),
    /// These layers.
    Many(Vec<usize>),
}

impl LayerIndices {
    /// Whether the index is among them.
    pub fn contains(&self, index: usize) -> bool {
        match self {
            Self::One(one) => *one == index,
            Self::Many(many) => many.contains(&index),
        }
    }
}

/// The tokens whose embeddings are trained by themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TokenIndices {
    /// Entries of the word embeddings.
    Words(Vec<usize>),
    /// Entries of embedding tables by the endings of the tables' names.
    Tables(IndexMap<String, Vec<usize>>),
}
