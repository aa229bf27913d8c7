use std::path::PathBuf;

/// What can be wrong with a tokenizer or a text.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TextError {
    /// tokenizer.json cannot be read as a tokenizer.
    #[error("{}: not a tokenizer: {reason}", path.display())]
    InvalidTokenizer {
        /// The file.
        path: PathBuf,
        /// What the tokenizers library says.
        reason: String,
    },
    /// The tokenizer failed on a text.
    #[error("text {index} cannot be tokenized: {reason}")]
    Tokenize {
        /// The text's place in the input.
        index: usize,
        /// What the tokenizers library says.
        reason: String,
    },
    /// The tokenizer knows a token that the encoder has no embedding for.
    #[error("token id {id} of text {index} is outside the encoder's vocabulary of {vocab_size}")]
    TokenOutOfRange {
        /// The token id.
        id: u32,
        /// The text's place in the input.
        index: usize,
        /// The encoder's vocabulary size.
        vocab_size: usize,
    },
    /// The maximum sequence length leaves no room for a text.
    #[error("max_seq_length is {found}, but the tokenizer alone adds {special} special tokens")]
    MaxLengthTooSmall {
        /// The length asked for.
        found: usize,
        /// The number of special tokens around a text.
        special: usize,
    },
}
