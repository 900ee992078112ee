//! Data of tools: small values by name, in spaces that pass away as a whole; one a session, one a handle.
//!
//! Every read and write asks the store itself, so that whoever wrote reads it wherever it goes on. A space that was ended
//! takes no more writes: whoever slept through its end is refused. Bounded, because tools write here.

use std::time::Duration;

use bytes::Bytes;

use crate::{BoxFuture, Etag, StoreError};

/// Names one space: random, or known to one owner only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SpaceName(pub [u8; 16]);

/// A value and its version, which is random and never used twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datum {
    /// Its version.
    pub version: Etag,
    /// Its content, which only the caller understands.
    pub bytes: Bytes,
}

/// What became of a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is the value now, for everybody.
    Done,
    /// Somebody else was first; this is the value.
    Lost(Option<Datum>),
    /// The space was ended: nothing is written there any more.
    Ended,
}

/// Values of one space.
pub const SPACE_VALUES_MAX: usize = 64;
/// Bytes of all names and values of one space, the versions included.
pub const SPACE_BYTES_MAX: usize = 256 << 10;

/// Data of tools.
pub trait Data {
    /// A value; the life of its space begins anew.
    fn datum(
        &self,
        space: &SpaceName,
        name: &str,
        life: Duration,
    ) -> BoxFuture<'_, Result<Option<Datum>, StoreError>>;

    /// Makes `next` the value if the present one has the version `expected` (`None`: there is none); `next` is `None` to
    /// remove it. Exactly one of several callers with the same expectation gets `Done`. The same write repeated, after an
    /// answer that was lost, is `Done` too.
    ///
    /// # Errors
    /// `Full` beyond [`SPACE_VALUES_MAX`] or [`SPACE_BYTES_MAX`].
    fn write_datum(
        &self,
        space: &SpaceName,
        name: &str,
        expected: Option<Etag>,
        next: Option<Datum>,
        life: Duration,
    ) -> BoxFuture<'_, Result<Written, StoreError>>;

    /// Drops a space, and refuses writes to it for `life`.
    fn end_space(&self, space: &SpaceName, life: Duration) -> BoxFuture<'_, Result<(), StoreError>>;
}
