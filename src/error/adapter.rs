/// What can be wrong with an adapter.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdapterError {
    /// No adapter was ever added or loaded.
    #[error("the model has no adapter: add one with `add_adapter` or `load_adapter` first")]
    NoAdapter,
    /// An adapter of that name is there already.
    #[error("an adapter named `{name}` already exists: choose another name or delete it first")]
    NameTaken {
        /// The name asked for.
        name: String,
    },
    /// There is no adapter of that name.
    #[error("no adapter named `{name}`: the model has {known:?}")]
    UnknownName {
        /// The name asked for.
        name: String,
        /// The names the model has.
        known: Vec<String>,
    },
    /// The method needs exactly one active adapter.
    #[error("{method} needs exactly one active adapter, {active:?} are active: name one")]
    NotOneActive {
        /// The method called.
        method: &'static str,
        /// The active adapters.
        active: Vec<String>,
    },
    /// A field holds a value that no adapter can have.
    #[error("adapter config field `{field}` is {found}, expected {expected}")]
    InvalidField {
        /// The field's name.
        field: String,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A field that changes the result is set to something this version does not compute.
    #[error(
        "adapter config field `{field}` is {found}: this version does not support it, and \
         ignoring it would change the embeddings"
    )]
    Unsupported {
        /// The field's name.
        field: String,
        /// Its value.
        found: String,
    },
    /// A `target_modules` or `exclude_modules` pattern is no regular expression.
    #[error("adapter config field `{field}`: `{pattern}` is not a regular expression: {reason}")]
    InvalidPattern {
        /// The field's name.
        field: &'static str,
        /// The pattern.
        pattern: String,
        /// What the regular-expression parser says.
        reason: String,
    },
    /// The architecture has no default target modules.
    #[error("no default `target_modules` for model type `{model_type}`: name them in the config")]
    NoDefaultTargets {
        /// The encoder's `model_type`.
        model_type: String,
    },
    /// No layer of the encoder matches.
    #[error("`target_modules` {targets} match no layer; this encoder has {available:?}")]
    NoMatchingTarget {
        /// The targets asked for.
        targets: String,
        /// The distinct last name parts of the layers that can be adapted.
        available: Vec<String>,
    },
}
