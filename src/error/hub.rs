/// What can go wrong between here and the Hugging Face Hub.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HubError {
    /// The crate was built without the `hub` feature.
    #[error("`{id}` is no local folder, and this build cannot download it: enable the `hub` feature")]
    Disabled {
        /// The id asked for.
        id: String,
    },
}
