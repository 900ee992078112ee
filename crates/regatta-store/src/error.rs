//! Why the store did not do it. Small and local: what a client is told of it is the caller's to say.

/// Why the store did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached or written now. Whether a write that ended so took place is unknown.
    #[error("the store is away: {0}")]
    Away(String),
    /// A bound is reached; nothing was written.
    #[error("the store is full: {0}")]
    Full(&'static str),
    /// What was to be written is longer than its bound; nothing was written.
    #[error("too large for the store: {0}")]
    TooLarge(&'static str),
}
