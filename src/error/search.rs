/// What can be wrong with a search or a mining call.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SearchError {
    /// An option holds a value that cannot be meant.
    #[error("option `{option}` is {found}, expected {expected}")]
    InvalidOption {
        /// The option's name.
        option: &'static str,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// There is nothing to search or to mine.
    #[error("{what} is empty")]
    Empty {
        /// What has no entry.
        what: &'static str,
    },
    /// Embeddings that are not those of the texts.
    #[error("{found} embeddings of {what}, expected {expected}")]
    EmbeddingCount {
        /// What the embeddings are of.
        what: &'static str,
        /// The number of texts.
        expected: usize,
        /// The number of embeddings.
        found: usize,
    },
    /// A scorer gave more or fewer scores than it was given documents.
    #[error("{found} scores for the {expected} documents of query {query}")]
    ScoreCount {
        /// The query's place.
        query: usize,
        /// The number of documents.
        expected: usize,
        /// The number of scores.
        found: usize,
    },
    /// Embeddings hold NaN, or infinities that cancel out.
    #[error("the similarity of query {query} and document {document} is not a number")]
    NotANumber {
        /// The query's row.
        query: usize,
        /// The document's row.
        document: usize,
    },
    /// Quantized embeddings that cannot be searched in.
    #[error("a corpus in {precision} cannot be searched: {reason}")]
    Quantized {
        /// The corpus's precision.
        precision: &'static str,
        /// What is wrong, and what would help.
        reason: String,
    },
}
