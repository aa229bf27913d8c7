/// What can be wrong with an evaluator's data.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvaluationError {
    /// There is nothing to evaluate.
    #[error("{what} is empty: nothing to evaluate")]
    Empty {
        /// What has no entry.
        what: &'static str,
    },
    /// Two entries have the same id.
    #[error("two {what} have the id `{id}`")]
    DuplicateId {
        /// What the entries are.
        what: &'static str,
        /// The id.
        id: String,
    },
    /// A correlation is asked of too little.
    #[error("a correlation needs at least 2 pairs, found {found}")]
    TooFewPairs {
        /// The number of pairs.
        found: usize,
    },
    /// A gold score is not a finite number.
    #[error("the gold score of pair {index} is {found}, expected a finite number")]
    InvalidScore {
        /// The pair's place in the data.
        index: usize,
        /// Its score.
        found: f64,
    },
    /// A label is neither 0 nor 1.
    #[error("the label of pair {index} is {found}, expected 0 or 1")]
    InvalidLabel {
        /// The pair's place in the data.
        index: usize,
        /// Its label.
        found: u8,
    },
    /// A benchmark has no data set of that name.
    #[error("no data set `{found}` in {benchmark}, which has {known:?}")]
    UnknownDataset {
        /// The benchmark.
        benchmark: &'static str,
        /// The name asked for.
        found: String,
        /// The names it has.
        known: Vec<&'static str>,
    },
    /// An option holds a value that cannot be meant.
    #[error("evaluator option `{option}` is {found}, expected {expected}")]
    InvalidOption {
        /// The option's name.
        option: &'static str,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
    /// Embeddings that are not those of the evaluator's texts.
    #[error("{found} embeddings of {what}, the evaluator has {expected}")]
    EmbeddingCount {
        /// What the embeddings are of.
        what: &'static str,
        /// The number of texts.
        expected: usize,
        /// The number of embeddings.
        found: usize,
    },
    /// The model gives no usable score: its weights or embeddings hold NaN.
    #[error("the similarity of {left} and {right} is not a number")]
    NotANumber {
        /// The first text, by its id or place.
        left: String,
        /// The second text, by its id or place.
        right: String,
    },
}
