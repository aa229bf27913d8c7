/// What can be wrong with a training run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainingError {
    /// Nothing in the model would be trained.
    #[error("nothing to train: every weight is frozen; add an adapter or make one trainable")]
    NothingTrainable,
}
