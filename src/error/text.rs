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
    /// The tokenizer gives no token at all, not even a special one.
    #[error("text {index} has no tokens: it is empty, and the tokenizer adds no special ones")]
    NoTokens {
        /// The text's place in its batch.
        index: usize,
    },
    /// The tokenizer knows a token that the encoder has no embedding for.
    #[error("{what} {id} of text {index} has no embedding: the encoder's table has {entries}")]
    TokenOutOfRange {
        /// Token id or segment id.
        what: &'static str,
        /// The id.
        id: u32,
        /// The text's place in its batch.
        index: usize,
        /// The number of entries of the encoder's table.
        entries: usize,
    },
    /// The maximum sequence length leaves no room for a text.
    #[error("max_seq_length is {found}, but the tokenizer alone adds {special} special tokens")]
    MaxLengthTooSmall {
        /// The length asked for.
        found: usize,
        /// The number of special tokens around a text.
        special: usize,
    },
    /// The maximum sequence length is more than the encoder has positions.
    #[error("max_seq_length is {found}, but the encoder has only {most} positions")]
    MaxLengthTooLarge {
        /// The length asked for.
        found: usize,
        /// The number of positions.
        most: usize,
    },
}
