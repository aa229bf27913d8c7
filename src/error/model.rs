/// What can be wrong with a call on the model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModelError {
    /// There is no prompt of that name.
    #[error("no prompt named `{name}`: the model has {known:?}")]
    UnknownPrompt {
        /// The name asked for.
        name: String,
        /// The names the model has.
        known: Vec<String>,
    },
    /// The similarity function is not one of the four.
    #[error("unknown similarity function `{found}`: expected cosine, dot, euclidean or manhattan")]
    UnknownSimilarity {
        /// The name found.
        found: String,
    },
    /// An option holds a value that cannot be meant.
    #[error("option `{option}` is {found}, expected {expected}")]
    InvalidOption {
        /// The option's name.
        option: &'static str,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// Two sets of embeddings do not go together.
    #[error("embeddings of shape {left:?} and {right:?} cannot be compared {how}")]
    IncompatibleEmbeddings {
        /// The first shape.
        left: [usize; 2],
        /// The second shape.
        right: [usize; 2],
        /// The comparison asked for.
        how: &'static str,
    },
    /// Token embeddings of a model that has none.
    #[error("a StaticEmbedding gives sentence embeddings alone, and no token embeddings")]
    NoTokenEmbeddings,
}
