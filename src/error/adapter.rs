/// What can be wrong with an adapter.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdapterError {
    /// No adapter was ever added or loaded.
    #[error("the model has no adapter: add one with `add_adapter` or `load_adapter` first")]
    NoAdapter,
    /// The model has nothing that adapters go on.
    #[error("adapters go on a Transformer's layers, and this model has no Transformer")]
    NoTransformer,
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
    /// The adapter is of a type that this crate does not have.
    #[error("adapter config field `peft_type` is {found}: this version has {known:?}")]
    UnknownType {
        /// The type found, as JSON.
        found: String,
        /// The types that are known.
        known: &'static [&'static str],
    },
    /// A field of a configuration is of another JSON type than it must be.
    #[error("adapter config: {source}")]
    Malformed {
        /// What the JSON reader says.
        source: serde_json::Error,
    },
    /// The adapter's type cannot adapt a layer of that kind.
    #[error("`{path}` is {kind}, which {peft_type} adapters do not adapt: exclude it")]
    NotAdaptable {
        /// The layer's path.
        path: String,
        /// What kind of layer it is.
        kind: &'static str,
        /// The adapter's type.
        peft_type: &'static str,
    },
    /// A token whose embedding is to be trained is not in the table.
    #[error(
        "adapter config field `trainable_token_indices`: {path} has no entry {id}, only {entries}"
    )]
    NoSuchToken {
        /// The table's path.
        path: String,
        /// The token id.
        id: usize,
        /// The number of entries.
        entries: usize,
    },
    /// A merged weight holds what is no number, or is infinite.
    #[error(
        "`{key}` would hold NaN or infinity with adapters {adapters:?} merged: one of them is broken"
    )]
    NotFinite {
        /// The key of the weight.
        key: String,
        /// The adapters that were to be merged.
        adapters: Vec<String>,
    },
    /// Adapters are merged into the weights, where the method needs them apart.
    #[error(
        "{method} needs adapters apart from the weights, {merged:?} are merged: call `unmerge_adapter` first"
    )]
    Merged {
        /// The method called.
        method: &'static str,
        /// The merged adapters.
        merged: Vec<String>,
    },
    /// A matrix or a layer's inputs have another shape.
    #[error("{what}: found {found}, expected {expected}")]
    ShapeMismatch {
        /// What has that shape.
        what: String,
        /// The shape it must have.
        expected: String,
        /// The shape it has.
        found: String,
    },
    /// A weight, a layer's inputs or an update cannot be decomposed.
    #[error("a {shape:?} matrix cannot be decomposed: {reason}")]
    NoDecomposition {
        /// The matrix's rows and columns.
        shape: [usize; 2],
        /// What is wrong with it.
        reason: &'static str,
    },
    /// An option of a call holds a value that it cannot have.
    #[error("option `{option}` is {found}, expected {expected}")]
    InvalidOption {
        /// The option's name.
        option: &'static str,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// Adapters whose ranks do not suit the way they are combined.
    #[error(
        "adapters of ranks {ranks:?}{} cannot be combined by `{combination}`",
        layer.as_ref().map(|layer| format!(" in layer `{layer}`")).unwrap_or_default()
    )]
    RankMismatch {
        /// The `combination_type`.
        combination: &'static str,
        /// The layer where they do not suit, unless the configurations do not already.
        layer: Option<String>,
        /// The adapters' ranks.
        ranks: Vec<usize>,
    },
    /// None of the adapters to combine has a part in a layer of the new one.
    #[error("none of the adapters to combine adapts layer `{layer}`")]
    NoFactors {
        /// The layer's path.
        layer: String,
    },
    /// EVA was ended before a layer's singular vectors were found.
    #[error("EVA has not found the {r} singular vectors of layer `{layer}`: give it more batches")]
    NotConverged {
        /// The layer's path.
        layer: String,
        /// Its new rank.
        r: usize,
    },
    /// An adapter that holds what cannot be combined with others.
    #[error("adapter `{name}` cannot be combined with others: it holds {holds}")]
    NotCombinable {
        /// The adapter's name.
        name: String,
        /// What it holds.
        holds: String,
    },
}
