use std::collections::BTreeMap;

use burn::tensor::{Tensor, backend::Backend};

use super::TokenFeatures;
use crate::error::{ModuleError, Result};
use crate::kernel::Packing;

/// The name of the token embeddings among the features.
pub const TOKEN_EMBEDDINGS: &str = "token_embeddings";

/// The name of the sentence embeddings among the features.
pub const SENTENCE_EMBEDDING: &str = "sentence_embedding";

/// What flows through a model's modules: values by name, as in Python's dictionary of
/// features. Each module reads some and writes some.
#[derive(Debug, Clone)]
pub struct Features<B: Backend> {
    values: BTreeMap<String, Tensor<B, 2>>,
    layers: Vec<Tensor<B, 2>>,
    packing: Packing<B>,
    prompt_tokens: usize,
}

impl<B: Backend> Features<B> {
    /// What a Transformer gives: token embeddings.
    pub fn of_tokens(tokens: TokenFeatures<B>) -> Self {
        Self {
            values: BTreeMap::from([(TOKEN_EMBEDDINGS.to_owned(), tokens.embeddings)]),
            layers: Vec::new(),
            packing: tokens.packing,
            prompt_tokens: tokens.prompt_tokens,
        }
    }

    /// What a StaticEmbedding gives: sentence embeddings, of texts that lie so.
    ///
    /// # Shapes
    /// - sentences: `[texts, dim]`
    pub fn of_sentences(sentences: Tensor<B, 2>, packing: Packing<B>) -> Self {
        Self {
            values: BTreeMap::from([(SENTENCE_EMBEDDING.to_owned(), sentences)]),
            layers: Vec::new(),
            packing,
            prompt_tokens: 0,
        }
    }

    /// The same with the outputs of all layers of the encoder, its input first.
    ///
    /// # Shapes
    /// - layers: `[tokens, hidden]` each
    #[must_use]
    pub fn with_layers(self, layers: Vec<Tensor<B, 2>>) -> Self {
        Self { layers, ..self }
    }

    /// The value of that name: a row for each token or for each text.
    pub fn get(&self, name: &str) -> Option<&Tensor<B, 2>> {
        self.values.get(name)
    }

    /// Writes a value.
    pub fn insert(&mut self, name: &str, value: Tensor<B, 2>) {
        match self.values.get_mut(name) {
            Some(old) => *old = value,
            None => {
                self.values.insert(name.to_owned(), value);
            }
        }
    }

    /// Takes the value of that name out.
    pub fn take(&mut self, name: &str) -> Option<Tensor<B, 2>> {
        self.values.remove(name)
    }

    /// The outputs of the encoder's layers, its input first, where something reads them.
    pub fn layers(&self) -> &[Tensor<B, 2>] {
        &self.layers
    }

    /// The token embeddings with what belongs to them.
    pub fn tokens(&self) -> Option<TokenFeatures<B>> {
        Some(TokenFeatures {
            embeddings: self.get(TOKEN_EMBEDDINGS)?.clone(),
            packing: self.packing.clone(),
            prompt_tokens: self.prompt_tokens,
        })
    }
}

/// What each row of a feature stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RowsOf {
    /// A token.
    Tokens,
    /// A text.
    Texts,
}

/// The features that a module is given, by name: what their rows stand for, and their size.
///
/// A pipeline is followed with this when a model is put together, so that no forward pass can
/// miss anything.
#[derive(Debug, Clone)]
pub struct FeatureShapes {
    values: BTreeMap<String, (RowsOf, usize)>,
    /// The number of the encoder's outputs, and their size, where they are given.
    layers: Option<(usize, usize)>,
}

impl FeatureShapes {
    /// What a Transformer gives, and the number of its layers' outputs if it gives them too.
    pub fn of_tokens(hidden: usize, layers: Option<usize>) -> Self {
        Self {
            values: BTreeMap::from([(TOKEN_EMBEDDINGS.to_owned(), (RowsOf::Tokens, hidden))]),
            layers: layers.map(|layers| (layers, hidden)),
        }
    }

    /// What a StaticEmbedding gives.
    pub fn of_sentences(dim: usize) -> Self {
        Self {
            values: BTreeMap::from([(SENTENCE_EMBEDDING.to_owned(), (RowsOf::Texts, dim))]),
            layers: None,
        }
    }

    /// The feature of that name.
    pub fn get(&self, name: &str) -> Option<(RowsOf, usize)> {
        self.values.get(name).copied()
    }

    /// The feature of that name, which `module` reads.
    ///
    /// # Errors
    /// [`ModuleError::InvalidPipeline`] naming the module and the feature.
    pub fn require(&self, module: &str, name: &str) -> Result<(RowsOf, usize)> {
        let found = self.get(name).ok_or_else(|| {
            let known: Vec<&String> = self.values.keys().collect();
            ModuleError::InvalidPipeline {
                reason: format!(
                    "module `{module}` reads `{name}`, and the modules before it give {known:?}"
                ),
            }
        });
        Ok(found?)
    }

    /// The feature of that name, whose size must be `expected`.
    ///
    /// # Errors
    /// As [`require`](Self::require), or [`ModuleError::DimensionMismatch`].
    pub fn require_dim(&self, module: &str, name: &str, expected: usize) -> Result<RowsOf> {
        let (rows, found) = self.require(module, name)?;
        if found == expected {
            return Ok(rows);
        }
        Err(ModuleError::DimensionMismatch {
            module: module.to_owned(),
            expected,
            found,
        }
        .into())
    }

    /// The number of the encoder's outputs, and their size, where they are given.
    pub fn layers(&self) -> Option<(usize, usize)> {
        self.layers
    }

    /// Notes what a module writes.
    pub fn insert(&mut self, name: &str, rows: RowsOf, dim: usize) {
        self.values.insert(name.to_owned(), (rows, dim));
    }
}
