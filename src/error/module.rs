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
    /// A module's config.json does not have the module's fields.
    #[error("{module} config: {source}")]
    Malformed {
        /// The module's type.
        module: &'static str,
        /// Which field, and what was expected.
        source: serde_json::Error,
    },
    /// A module's field is set to something this version does not compute.
    #[error(
        "{module} config field `{field}` is {found}: this version does not support it, and \
         ignoring it would change the embeddings"
    )]
    UnsupportedField {
        /// The module's type.
        module: &'static str,
        /// The field.
        field: &'static str,
        /// Its value.
        found: String,
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
    /// A Router's configuration makes no router.
    #[error("router_config.json: {reason}")]
    InvalidRouter {
        /// What is wrong with it.
        reason: String,
    },
    /// A Router has no route for what texts are encoded for.
    #[error(
        "no route for {}: the model has {routes:?}",
        task.as_ref().map_or_else(|| "texts of no task".to_owned(), |task| format!("task `{task}`"))
    )]
    NoRoute {
        /// The task; `None` where the call names none and the router has no default.
        task: Option<String>,
        /// The routes there are.
        routes: Vec<String>,
    },
    /// The order of modules.json makes no pipeline.
    #[error("modules.json: {reason}")]
    InvalidPipeline {
        /// What is wrong with the order.
        reason: String,
    },
}
