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
}
