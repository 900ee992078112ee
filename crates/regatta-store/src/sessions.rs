//! What deviates from session tokens, and the tombstones of ended sessions (SESSIONS 3 and 8).
//!
//! `warm`, `last_known` and `buried` never wait and are all that an undisturbed request asks. Everything else is one
//! round trip at most, and bounded in time.

use std::sync::Arc;

use bytes::Bytes;

use crate::{BoxFuture, StoreError};

/// A session's random name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid16(pub [u8; 16]);

/// The version of a record: random, never used twice, so that an old owner cannot be taken for a new one
/// (RELIABILITY 0).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Etag(pub [u8; 16]);

/// A record and its version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Versioned {
    /// Its version.
    pub etag: Etag,
    /// Its content, which only the caller understands.
    pub value: Bytes,
}

/// What is known of a record without asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Warm {
    /// There is none.
    None,
    /// There is this one.
    Some(Arc<Versioned>),
    /// It is not known here: `read` it.
    Ask,
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cas {
    /// It is the record now, for every gateway.
    Done,
    /// It is the record here only, because the store is away. It is published when the store is back; if another
    /// gateway was first, both are merged and `Notice::RecordChanged` says so.
    KeptHere,
    /// Somebody else was first; this is the record.
    Lost(Option<Arc<Versioned>>),
}

/// What the store knows of a session that is met for the first time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Met {
    /// Its record.
    pub record: Option<Arc<Versioned>>,
    /// Whether its token is buried.
    pub grave: Grave,
}

/// Whether a token has a tombstone, as the store says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grave {
    /// It has: the session is over.
    Dug,
    /// It has none.
    None,
}

/// What is known of a tombstone without asking.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buried {
    /// The session is over.
    Yes,
    /// It is not buried.
    No,
    /// It is not known here: ask `is_buried`.
    Ask,
}

/// Brings a record that was kept here (first) together with the one the store has (second), both as bytes.
pub type Merge = Arc<dyn Fn(&[u8], &[u8]) -> Bytes + Send + Sync>;

/// Deviation records and tombstones.
pub trait Sessions {
    /// What is known of a session's record without any IO, and is certain: at most as old as the last 3 s without a
    /// sign of life of the store. Never blocks.
    fn warm(&self, session: &Uuid16) -> Warm;

    /// What this process knew last of a session's record, however long ago: for a session that must go on while the
    /// store is away. `Ask` if it never knew. Never blocks.
    fn last_known(&self, session: &Uuid16) -> Warm;

    /// The record of a session, asked of the store itself.
    fn read(&self, session: &Uuid16) -> BoxFuture<'_, Result<Option<Arc<Versioned>>, StoreError>>;

    /// Record and tombstone of a session that this process meets first, in one round trip.
    fn meet(&self, session: &Uuid16, day: u32, digest: [u8; 16]) -> BoxFuture<'_, Result<Met, StoreError>>;

    /// Makes `next` the record if the present one has the etag `expected` (`None`: there is no record).
    ///
    /// Exactly one of several callers with the same expectation gets `Done`. The same write repeated, after an answer
    /// that was lost, is `Done` too: it is known by `next.etag`, so an etag must be random and never used twice.
    /// When it returns `Done`, the record outlives a kill of this process, unless `durability` says otherwise. With
    /// the store away the record as last known here is compared instead, and the answer is `KeptHere` or `Lost`.
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

    /// Whether `bury` would find the store and room there now. Leaves nothing: for what must not be done before an end can
    /// be written down.
    fn may_bury(&self, day: u32, digest: [u8; 16]) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Buries a token: `digest` of it, under the `day` of its issue (days since 1970). It is written when this
    /// returns; a day is dropped whole once no session of it can be alive.
    fn bury(&self, day: u32, digest: [u8; 16]) -> BoxFuture<'_, Result<(), StoreError>>;
}
