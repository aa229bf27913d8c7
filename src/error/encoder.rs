/// What can be wrong with an encoder's configuration or weights.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncoderError {
    /// The architecture is not one this crate has.
    #[error("unknown model_type `{found}`: this version knows {known:?}")]
    UnknownModelType {
        /// The `model_type` of config.json.
        found: String,
        /// The model types this crate has.
        known: &'static [&'static str],
    },
    /// config.json does not have the fields of its architecture.
    #[error("encoder config: {source}")]
    Malformed {
        /// Which field, and what was expected.
        source: serde_json::Error,
    },
    /// A field of config.json holds a value the architecture cannot have.
    #[error("encoder config field `{field}` is {found}, expected {expected}")]
    InvalidField {
        /// The field's name.
        field: &'static str,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
}
