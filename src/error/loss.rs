/// What can be wrong with a loss's options or the columns it is given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LossError {
    /// The data set has too few or too many text columns.
    #[error("{loss} needs {expected} text columns, the data has {found}")]
    Columns {
        /// The loss.
        loss: &'static str,
        /// How many columns it reads.
        expected: String,
        /// The number found.
        found: usize,
    },
    /// The data set has no label, or one of another width.
    #[error("{loss} needs a label of {expected} numbers, the data has {}", match found {
        Some(width) => format!("one of {width}"),
        None => "none".to_owned(),
    })]
    Label {
        /// The loss.
        loss: &'static str,
        /// The numbers of a label.
        expected: usize,
        /// The numbers found, if there is a label.
        found: Option<usize>,
    },
    /// An option holds a value that cannot be meant.
    #[error("{loss}: option `{option}` is {found}, expected {expected}")]
    InvalidOption {
        /// The loss.
        loss: &'static str,
        /// The option's name.
        option: &'static str,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        found: String,
    },
}
