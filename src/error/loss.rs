/// What can be wrong with the columns a loss is given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LossError {
    /// The data set has too few or too many text columns.
    #[error("{loss} needs {expected}, the data has {found} text columns")]
    Columns {
        /// The loss.
        loss: &'static str,
        /// The columns it reads.
        expected: &'static str,
        /// The number found.
        found: usize,
    },
}
