/// What can be wrong with a module behind the encoder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModuleError {
    /// The module type is not one this crate has.
    #[error("modules.json: unknown module type `{found}`: this version knows {known:?}")]
    UnknownType {
        /// The `type` of modules.json.
        found: String,
        /// The module types this crate has.
        known: &'static [&'static str],
    },
    /// A pooling mode is not one of the six.
    #[error("unknown pooling mode `{found}`: expected one of {known:?}")]
    UnknownPoolingMode {
        /// The mode found.
        found: String,
        /// The modes there are.
        known: &'static [&'static str],
    },
    /// A Dense module names an activation this crate does not have.
    #[error("unknown activation function `{found}`: this version knows {known:?}")]
    UnknownActivation {
        /// The activation's path name.
        found: String,
        /// The activations this crate has.
        known: &'static [&'static str],
    },
    /// A module expects another dimension than the one before it gives.
    #[error("module `{module}` expects dimension {expected}, the one before it gives {found}")]
    DimensionMismatch {
        /// The module's folder or type.
        module: String,
        /// The dimension it expects.
        expected: usize,
        /// The dimension it is given.
        found: usize,
    },
    /// The order of modules.json makes no pipeline.
    #[error("modules.json: {reason}")]
    InvalidPipeline {
        /// What is wrong with the order.
        reason: String,
    },
    /// Weights a module needs are not there.
    #[error("module `{module}` is missing tensor `{key}`")]
    MissingTensor {
        /// The module's folder or type.
        module: String,
        /// The missing key.
        key: String,
    },
    /// A tensor has another shape than the module's config calls for.
    #[error("module `{module}`: tensor `{key}` has shape {found:?}, expected {expected:?}")]
    ShapeMismatch {
        /// The module's folder or type.
        module: String,
        /// The tensor's key.
        key: String,
        /// The shape called for.
        expected: Vec<usize>,
        /// The shape found.
        found: Vec<usize>,
    },
}
