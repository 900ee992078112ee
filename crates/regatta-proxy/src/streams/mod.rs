//! Streams of the legacy era: rings, readers, and the table in which a resume finds them.
//!
//! Shared by the stages that open, feed and resume streams. Modern streams are not here: they end with their
//! connection (2026-07-28 basic/transports/streamable-http, *Cancellation*).

pub(crate) mod body;
pub(crate) mod pace;
pub(crate) mod ring;
pub(crate) mod stream;
pub(crate) mod table;
