//! The small values that go into a store and come out of it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;

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
    /// It is the record now.
    Done,
    /// Somebody else was first; this is the record.
    Lost(Option<Arc<Versioned>>),
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

/// Whether the state outlives the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Durability {
    /// It does: a killed process finds it again.
    Durable,
    /// Sessions, or what deviates from their tokens, end with this process.
    ProcessOnly {
        /// The reason, for a person.
        why: String,
    },
}

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

/// Why the store did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached or written now.
    #[error("the store is away: {0}")]
    Away(String),
    /// A bound is reached.
    #[error("the store is full: {0}")]
    Full(&'static str),
    /// The record is longer than `value_max`.
    #[error("the record is too large")]
    TooLarge,
}

/// Sizes now, and counters since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records now; bounded by `records_max`.
    pub records: u64,
    /// Tombstones now; bounded by `tombstones_max`.
    pub tombstones: u64,
    /// Bytes that records and tombstones take in a fresh log; bounded by half of `log_bytes_max`.
    pub live_bytes: u64,
    /// Bytes of the log now; compacted beyond `log_bytes_max`.
    pub log_bytes: u64,
    /// Writes refused because of `records_max` or of the bytes of all.
    pub refused_records: u64,
    /// Tombstones refused because of `tombstones_max` or of the bytes of all.
    pub refused_tombstones: u64,
    /// Records refused because of `value_max`.
    pub refused_values: u64,
    /// Keys refused because of `keys_max`.
    pub refused_keys: u64,
    /// Records dropped after their time.
    pub expired_records: u64,
    /// Tombstones dropped with their day.
    pub expired_tombstones: u64,
    /// Torn or corrupt ends of logs that were cut off when it was opened.
    pub cut_tails: u64,
    /// Bytes in them.
    pub cut_bytes: u64,
    /// Writes to the log that failed.
    pub write_failures: u64,
    /// Logs written anew.
    pub compactions: u64,
    /// Logs that could not be written anew.
    pub compaction_failures: u64,
}
