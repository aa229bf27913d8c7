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
    /// Weights the architecture needs are not there.
    #[error("encoder weights are missing {} tensors, the first is `{}`", keys.len(), keys[0])]
    MissingTensors {
        /// The missing keys; never empty.
        keys: Vec<String>,
    },
    /// A tensor has another shape than config.json calls for.
    #[error("encoder tensor `{key}` has shape {found:?}, expected {expected:?}")]
    ShapeMismatch {
        /// The tensor's key.
        key: String,
        /// The shape called for.
        expected: Vec<usize>,
        /// The shape found.
        found: Vec<usize>,
    },
}
