//! Spilled streams: the events of a detached stream, so that any gateway can resume it (SESSIONS 5).
//!
//! Append only and idempotent by sequence: whatever is written twice is there once. A stream is bounded in count, bytes
//! and age, oldest first out; what is no longer held is said by `first`, never passed over in silence.

use bytes::Bytes;

use crate::{BoxFuture, StoreError, Uuid16};

/// The name of a stream: a session and a number that its gateway chose at random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamName {
    /// The session.
    pub session: Uuid16,
    /// The stream in it.
    pub number: u64,
}

/// One event of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpilledEvent {
    /// Its place in the stream; the next event has the next number. Below 2^53.
    pub sequence: u64,
    /// The event, which only the caller understands.
    pub bytes: Bytes,
}

/// Whether more events will come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Course {
    /// They may.
    Open,
    /// The last event of the stream is among these, or was before.
    Ended,
}

/// What is held of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recalled {
    /// Events from the sequence asked for on, without a gap; `first` may be beyond what was asked for.
    pub events: Vec<SpilledEvent>,
    /// The sequence of the first event still held; equal to `next` if none is.
    pub first: u64,
    /// The sequence that follows the last event held.
    pub next: u64,
    /// Whether the stream is over; its last event is the one before `next`.
    pub course: Course,
}

/// Spilled streams.
pub trait Spills {
    /// Appends events, in rising order. Those with a sequence that is held already, or was, are passed over. A gap
    /// drops all before it: a stream has no holes. The age of the stream begins anew.
    fn spill(
        &self,
        stream: StreamName,
        events: Vec<SpilledEvent>,
        course: Course,
    ) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Up to `events_max` events from the sequence `from` on (fewer if they are large, at least one if there is one);
    /// `None` if nothing is known of the stream.
    fn recall(
        &self,
        stream: StreamName,
        from: u64,
        events_max: usize,
    ) -> BoxFuture<'_, Result<Option<Recalled>, StoreError>>;

    /// Removes a stream that nobody will ask for again.
    fn discard(&self, stream: StreamName) -> BoxFuture<'_, Result<(), StoreError>>;
}
