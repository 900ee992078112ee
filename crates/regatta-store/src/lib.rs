//! The shared state behind one small trait: what deviates from session tokens, tombstones, sealing keys.
//!
//! Bytes in, bytes out: it knows no MCP. Nothing here is on the way of an undisturbed request but `warm` and
//! `buried`, which never wait. `embedded` keeps the state of one process, with a log in the state directory; every
//! backend passes the conformance suite of `suite`.

pub mod embedded;
#[cfg(any(test, feature = "suite"))]
pub mod suite;
mod types;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

pub use embedded::{Bounds, Embedded, OpenError};
pub use types::{Buried, Cas, Durability, Etag, Stats, StoreError, StoredKey, Uuid16, Versioned, Warm};

/// A boxed future, so that a store can be chosen when the process starts.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The shared state. Every method may be called from many tasks at once.
pub trait Store: Send + Sync + 'static {
    /// What is known of a session's record without any IO. Never blocks.
    fn warm(&self, session: &Uuid16) -> Warm;

    /// The record of a session, asked of the store itself.
    fn read(&self, session: &Uuid16) -> BoxFuture<'_, Result<Option<Arc<Versioned>>, StoreError>>;

    /// Makes `next` the record if the present one has the etag `expected` (`None`: there is no record).
    ///
    /// Exactly one of several callers with the same expectation gets `Done`. The same write repeated, after an answer
    /// that was lost, is `Done` too: it is known by `next.etag`, so an etag must be random and never used twice.
    /// When it returns, the record outlives a kill of this process, unless `durability` says otherwise.
    fn compare_and_set(
        &self,
        session: &Uuid16,
        expected: Option<Etag>,
        next: Versioned,
    ) -> BoxFuture<'_, Result<Cas, StoreError>>;

    /// Notes that a session's record was used; it goes 24 h after its last use. Cheap and without an answer: call it
    /// with every use, and now and then for a session that only holds a stream open.
    fn touch(&self, session: &Uuid16);

    /// Removes a session's record, whatever it is: for a session that is over and buried.
    fn forget(&self, session: &Uuid16) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Whether a token is buried, as far as known without IO. Never blocks.
    fn buried(&self, day: u32, digest: &[u8; 16]) -> Buried;

    /// Whether a token is buried, asked of the store itself.
    fn is_buried(&self, day: u32, digest: [u8; 16]) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Buries a token: `digest` of it, under the `day` of its issue (days since 1970). It is written when this
    /// returns; a day is dropped whole once no session of it can be alive.
    fn bury(&self, day: u32, digest: [u8; 16]) -> BoxFuture<'_, Result<(), StoreError>>;

    /// All sealing keys, in the order they were published.
    fn keys(&self) -> BoxFuture<'_, Result<Vec<StoredKey>, StoreError>>;

    /// Publishes a sealing key. The first writer of a fingerprint wins: the answer is the key that is kept.
    fn put_key(&self, key: StoredKey) -> BoxFuture<'_, Result<StoredKey, StoreError>>;

    /// Whether the state outlives this process; as of now, it may change.
    fn durability(&self) -> Durability;

    /// Housekeeping: drops what is over. Call it about once a minute; may block for some milliseconds.
    fn tend(&self);

    /// Sizes and counters, one for each bound.
    fn stats(&self) -> Stats;
}
