/// What can be wrong with the named tensors of a file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateDictError {
    /// Tensors that are needed are not there.
    #[error("{owner}: {} tensors are missing, the first is `{}`", keys.len(), keys.first().map_or("", String::as_str))]
    Missing {
        /// Whose tensors they are: a file, a module or an adapter.
        owner: String,
        /// The missing keys.
        keys: Vec<String>,
    },
    /// A tensor has another shape than the configuration calls for.
    #[error("{owner}: tensor `{key}` has shape {found:?}, expected {expected:?}")]
    ShapeMismatch {
        /// Whose tensor it is: a file, a module or an adapter.
        owner: String,
        /// The tensor's key.
        key: String,
        /// The shape called for.
        expected: Vec<usize>,
        /// The shape found.
        found: Vec<usize>,
    },
    /// Tensors that belong to no layer, where that is an error.
    #[error("{owner}: {} tensors belong to no layer, the first is `{}`", keys.len(), keys.first().map_or("", String::as_str))]
    Unexpected {
        /// Whose tensors they are: a file, a module or an adapter.
        owner: String,
        /// The unexpected keys.
        keys: Vec<String>,
    },
    /// A tensor holds NaN or infinity.
    #[error(
        "{owner}: tensor `{key}` holds {found} at element {place}, expected finite numbers: the \
         weights are broken (the option `allow_non_finite` loads them all the same)"
    )]
    NotFinite {
        /// Whose tensor it is: a file, a module or an adapter.
        owner: String,
        /// The tensor's key.
        key: String,
        /// The first element that is not finite, row-major.
        place: usize,
        /// Its value.
        found: f64,
    },
    /// A tensor of row numbers names a row that is not there.
    #[error("{owner}: tensor `{key}` names row {row}, and there are {rows}")]
    NoSuchRow {
        /// Whose tensor it is: a file, a module or an adapter.
        owner: String,
        /// The tensor's key.
        key: String,
        /// The row's number.
        row: i64,
        /// The number of rows.
        rows: usize,
    },
}
