//! Sealing keys, shared by all gateways on one store (SESSIONS 2).
//!
//! Published and never replaced; dropped only by who knows that nothing they sealed is needed any more. A store that was
//! wiped gets them back from the memory of whoever calls `put_key` again; `Notice::KeysChanged` says that there are new
//! ones to read.

use std::fmt;

use crate::{BoxFuture, StoreError};

/// A sealing key as it is kept.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredKey {
    /// Its name.
    pub fingerprint: [u8; 4],
    /// The key.
    pub secret: [u8; 32],
    /// When it was published, seconds since 1970: a gateway seals with it only when all had the time to learn it.
    pub published_s: u64,
}

impl fmt::Debug for StoredKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d] = self.fingerprint;
        write!(f, "StoredKey({a:02x}{b:02x}{c:02x}{d:02x}, published_s {})", self.published_s)
    }
}

/// Sealing keys.
pub trait Keys {
    /// All sealing keys, in the order they were published.
    fn keys(&self) -> BoxFuture<'_, Result<Vec<StoredKey>, StoreError>>;

    /// Publishes a sealing key. The first writer of a fingerprint wins: the answer is the key that is kept.
    fn put_key(&self, key: StoredKey) -> BoxFuture<'_, Result<StoredKey, StoreError>>;

    /// Drops a sealing key; none of this name is no error.
    fn drop_key(&self, fingerprint: [u8; 4]) -> BoxFuture<'_, Result<(), StoreError>>;
}
