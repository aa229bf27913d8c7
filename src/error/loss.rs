/// What can be wrong with a loss's options or the data it is given.
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
    /// The data set has a label of a width that does not go with its columns.
    #[error("{loss} needs a label of {expected}, the data has one of {found} numbers")]
    LabelWidth {
        /// The loss.
        loss: &'static str,
        /// What a label may hold.
        expected: String,
        /// The numbers found.
        found: usize,
    },
    /// A label holds a number that cannot be meant.
    #[error("{loss}: the label of sample {sample} is {found}, expected {expected}")]
    LabelValue {
        /// The loss.
        loss: &'static str,
        /// The sample's place in the data, from 0.
        sample: usize,
        /// What it must be.
        expected: String,
        /// What it is.
        found: f32,
    },
    /// The model's embeddings are of another size than the loss was built for.
    #[error("{loss} needs embeddings of {expected}, the model's have {found} dimensions")]
    Dimension {
        /// The loss.
        loss: &'static str,
        /// The size it reads.
        expected: String,
        /// The size found.
        found: usize,
    },
    /// A loss that reads a guide's embeddings is used without a guide.
    #[error("{loss} needs a guide model: give the trainer one")]
    NoGuide {
        /// The loss.
        loss: &'static str,
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

impl LossError {
    pub(crate) fn option(
        loss: &'static str,
        option: &'static str,
        expected: &'static str,
        found: impl ToString,
    ) -> Self {
        Self::InvalidOption {
            loss,
            option,
            expected,
            found: found.to_string(),
        }
    }
}
