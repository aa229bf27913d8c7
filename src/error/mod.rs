//! The crate's error: one enum by domain, each variant naming what was wrong.
//!
//! A domain's errors name the file, the key, what was expected and what was
//! found. Match on [`Error`] to tell the domains apart, and on the inner enum to
//! tell the causes apart.

mod adapter;
mod data;
mod device;
mod encoder;
mod evaluation;
mod hub;
mod loss;
mod model;
mod module;
mod repo;
mod search;
mod state_dict;
mod text;
mod training;

pub use adapter::AdapterError;
pub use data::DataError;
pub use device::DeviceError;
pub use encoder::EncoderError;
pub use evaluation::EvaluationError;
pub use hub::HubError;
pub use loss::LossError;
pub use model::ModelError;
pub use module::ModuleError;
pub use repo::RepoError;
pub use search::SearchError;
pub use state_dict::StateDictError;
pub use text::TextError;
pub use training::TrainingError;

/// Everything that can go wrong in this crate, by domain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tokenizer or a text.
    #[error(transparent)]
    Text(#[from] TextError),
    /// An adapter's configuration, weights or name.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// An encoder's configuration or weights.
    #[error(transparent)]
    Encoder(#[from] EncoderError),
    /// A module behind the encoder: pooling, dense, normalize.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// A call on the model: options, prompts, dimensions.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A file or a folder.
    #[error(transparent)]
    Repo(#[from] RepoError),
    /// The Hugging Face Hub.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// A device while it computes.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// Named tensors: missing, unexpected or of another shape.
    #[error(transparent)]
    StateDict(#[from] StateDictError),
    /// Data files and data set repositories.
    #[error(transparent)]
    Data(#[from] DataError),
    /// A loss and the columns it was given.
    #[error(transparent)]
    Loss(#[from] LossError),
    /// A search among embeddings, or mining them.
    #[error(transparent)]
    Search(#[from] SearchError),
    /// A training run: arguments, data, checkpoints.
    #[error(transparent)]
    Training(#[from] TrainingError),
    /// An evaluator and the data it was given.
    #[error(transparent)]
    Evaluation(#[from] EvaluationError),
}

/// The crate's result type.
pub type Result<T, E = Error> = std::result::Result<T, E>;
