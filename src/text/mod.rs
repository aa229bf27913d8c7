//! From text to token ids: the first room of the pipeline.
//!
//! - [`TextTokenizer`] wraps a `tokenizer.json`, with the padding and truncation
//!   that the file bakes in removed.
//! - [`Prompts`] holds a model's named prompts.
//! - [`plan`] groups texts into batches by token count; a pure function.
//! - [`TokenBatch`] is what an encoder reads: texts packed back to back on the
//!   device, no padding.

mod batch;
mod plan;
mod prompt;
mod special_tokens;
mod tokenizer;
mod tokenizer_file;
mod vocabulary_files;

pub use batch::TokenBatch;
pub use plan::{BatchLimits, plan};
pub use prompt::{Prompt, Prompts};
pub use tokenizer::{Encoding, TextTokenizer};
pub use vocabulary_files::{TokenizerFields, Vocabulary, tokenizer_json};
