use std::io;
use std::path::PathBuf;

/// What can be wrong with a file or a folder.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RepoError {
    /// No folder, and no hub id either.
    #[error("`{source_name}`: {reason}")]
    NotFound {
        /// The folder or id asked for.
        source_name: String,
        /// Where was looked, and what would help.
        reason: String,
    },
    /// A file that the folder must have is not there.
    #[error("{}: missing; {needed_for}", path.display())]
    MissingFile {
        /// The file.
        path: PathBuf,
        /// What it is needed for.
        needed_for: &'static str,
    },
    /// A file cannot be read or written.
    #[error("{}: cannot {action}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// The cause.
        source: io::Error,
    },
    /// A text file is not UTF-8.
    #[error("{}: not UTF-8 at byte {offset}", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// The first byte that is not.
        offset: usize,
    },
    /// A JSON file does not say what it must.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and what.
        source: serde_json::Error,
    },
    /// A line of a file that is read line by line does not say what it must.
    #[error("{}:{line}: {reason}", path.display())]
    InvalidLine {
        /// The file.
        path: PathBuf,
        /// The line's number, from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A file holds a value that it cannot have.
    #[error("{}: field `{field}` is {found}, expected {expected}", path.display())]
    InvalidField {
        /// The file.
        path: PathBuf,
        /// The field.
        field: String,
        /// What it must be.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A path in a file leads out of its folder.
    #[error("{}: path `{found}` leads out of the model's folder", path.display())]
    UnsafePath {
        /// The file that names the path.
        path: PathBuf,
        /// The path it names.
        found: String,
    },
    /// A safetensors file is cut short or malformed.
    #[error("{}: not a whole safetensors file: {reason}", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// What the safetensors library says.
        reason: String,
    },
    /// What `torch.save` wrote is cut short, malformed, or more than tensors.
    #[error(
        "{}: not a file of tensors alone, as PyTorch saves them: {reason}; Python's \
         `model.save_pretrained(path)` saves safetensors, which is read whatever it holds",
        path.display()
    )]
    Pytorch {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A tensor of weights in several files lies elsewhere than the index says.
    #[error("{}: tensor `{key}` must lie in {expected}, and lies in {found:?}", path.display())]
    MisplacedTensor {
        /// The index.
        path: PathBuf,
        /// The tensor's key.
        key: String,
        /// The file where it must lie.
        expected: String,
        /// The files where it lies.
        found: Vec<String>,
    },
    /// A tensor has an element type this crate does not read.
    #[error("{}: tensor `{key}` has element type {found}, expected F32, F16 or BF16", path.display())]
    UnsupportedDtype {
        /// The file.
        path: PathBuf,
        /// The tensor's key.
        key: String,
        /// Its element type.
        found: String,
    },
    /// The weights are in a format that is not read.
    #[error(
        "{}: this format is not read: save the weights as safetensors with Python's \
         `model.save_pretrained(path)`", path.display()
    )]
    UnreadableWeights {
        /// The file.
        path: PathBuf,
    },
    /// A tokenizer's vocabulary is of a kind that is not read.
    #[error(
        "{}: a vocabulary of this kind is read from tokenizer.json alone: write one with Python's \
         `AutoTokenizer.from_pretrained(folder).save_pretrained(folder)`", path.display()
    )]
    UnreadableTokenizer {
        /// The file.
        path: PathBuf,
    },
    /// Something else is saved there, and both together would be read wrongly.
    #[error("{}: holds {holds} already: save into another folder", folder.display())]
    Occupied {
        /// The folder.
        folder: PathBuf,
        /// What it holds.
        holds: &'static str,
    },
    /// An adapter's base is itself an adapter.
    #[error("{}: the base `{base}` is itself an adapter folder: merge it into its own base first", path.display())]
    NestedAdapters {
        /// The adapter's configuration.
        path: PathBuf,
        /// The base it names.
        base: String,
    },
}
