use std::fmt;
use std::sync::Arc;

use super::AdapterChoice;
use crate::error::{ModelError, Result};
use crate::text::Prompt;

/// How far an [`encode`](super::SentenceTransformer::encode) call has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EncodeProgress {
    /// The texts encoded so far.
    pub texts: usize,
    /// The texts of the call.
    pub total_texts: usize,
    /// The tokens encoded so far.
    pub tokens: usize,
    /// The tokens of the call.
    pub total_tokens: usize,
}

/// Called after each batch.
pub type ProgressFn = Arc<dyn Fn(EncodeProgress) + Send + Sync>;

/// How texts are encoded.
///
/// ```
/// use sentence_burn::{EncodeOptions, Prompt};
///
/// let options = EncodeOptions {
///     prompt: Some(Prompt::text("query: ")),
///     normalize: true,
///     ..EncodeOptions::default()
/// };
/// assert_eq!(options.batch_size, 32);
/// ```
#[derive(Clone)]
pub struct EncodeOptions {
    /// The prompt in front of each text; `None` means the model's default one.
    pub prompt: Option<Prompt>,
    /// The adapters that texts go through; `None` means the active ones.
    pub adapters: Option<AdapterChoice>,
    /// What the texts are encoded for, by which a Router chooses a route; `None` means
    /// `query` or `document` where the method says so, else no task.
    pub task: Option<String>,
    /// The most texts in a batch.
    pub batch_size: usize,
    /// Whether embeddings are scaled to unit length, after any truncation.
    pub normalize: bool,
    /// The number of dimensions to keep; `None` means the model's own setting. Cutting a
    /// unit vector leaves it shorter, unless `normalize` is set.
    pub truncate_dim: Option<usize>,
    /// Called after each batch.
    pub progress: Option<ProgressFn>,
}

impl Default for EncodeOptions {
    fn default() -> Self {
        Self {
            prompt: None,
            adapters: None,
            task: None,
            batch_size: 32,
            normalize: false,
            truncate_dim: None,
            progress: None,
        }
    }
}

impl fmt::Debug for EncodeOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EncodeOptions")
            .field("prompt", &self.prompt)
            .field("adapters", &self.adapters)
            .field("task", &self.task)
            .field("batch_size", &self.batch_size)
            .field("normalize", &self.normalize)
            .field("truncate_dim", &self.truncate_dim)
            .finish_non_exhaustive()
    }
}

impl EncodeOptions {
    pub(super) fn validate(&self) -> Result<()> {
        let zero = |option, expected| {
            Err(ModelError::InvalidOption {
                option,
                expected,
                found: "0".to_owned(),
            }
            .into())
        };
        match self {
            Self { batch_size: 0, .. } => zero("batch_size", "at least 1"),
            Self {
                truncate_dim: Some(0),
                ..
            } => zero("truncate_dim", "at least 1"),
            _ => Ok(()),
        }
    }
}
