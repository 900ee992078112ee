//! What can go wrong with one request upstream, told apart by what the replica may have seen of it.
//!
//! *Not written* means that no byte of it can have reached a server, so it may go elsewhere; everything later is
//! *written*: a reset before the first byte of the answer does not prove that nothing was executed (RELIABILITY E.3).

use std::error::Error;
use std::io;

use bytes::Bytes;
use http::Request;
use http_body_util::Full;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The request never left; here it is again.
    #[error("not sent: {why}")]
    NotWritten {
        /// Why.
        why: NotWritten,
        /// As it was given to `send`.
        request: Box<Request<Full<Bytes>>>,
    },
    /// The request may have been executed.
    #[error("sent, but not answered: {why}")]
    Written {
        /// What broke.
        why: Written,
    },
}

/// Why a request was not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotWritten {
    /// Nobody listens at any of its addresses (`ECONNREFUSED`).
    #[error("the connection was refused")]
    Refused,
    /// No address, no route, or a connect that failed otherwise.
    #[error("the replica cannot be reached")]
    Unreachable,
    /// No connection within `connect_timeout`.
    #[error("the connection took too long")]
    ConnectTimedOut,
    /// All `connections_per_replica_max` connections stayed busy for `connect_timeout`. Says nothing against the replica.
    #[error("all connections to the replica are in use")]
    ConnectionsMax,
    /// The TLS handshake failed, or this machine cannot verify certificates.
    #[error("no TLS connection")]
    Tls,
    /// A kept connection closed just then, and so did a fresh one, both before the first byte was written.
    #[error("the replica closes connections before they are used")]
    StaleConnection,
}

/// What broke after a request was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Written {
    /// The connection was reset.
    #[error("the connection was reset")]
    Reset,
    /// The connection was closed before the answer was whole.
    #[error("the connection was closed")]
    Closed,
    /// What came is not HTTP/1.1.
    #[error("the answer is malformed")]
    Malformed,
    /// The head of the answer is over its bound.
    #[error("the head of the answer is too large")]
    HeadTooLarge,
}

/// The answer broke off in its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the answer broke off: {why}")]
pub struct Lost {
    /// What broke.
    pub why: Written,
}

impl From<&hyper::Error> for Written {
    fn from(error: &hyper::Error) -> Written {
        if error.is_parse_too_large() {
            return Written::HeadTooLarge;
        }
        if error.is_parse() {
            return Written::Malformed;
        }
        if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
            return Written::Closed;
        }
        match error.source().and_then(|source| source.downcast_ref::<io::Error>()).map(io::Error::kind) {
            Some(io::ErrorKind::UnexpectedEof) => Written::Closed,
            // hyper's words for broken chunk framing.
            Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData) => Written::Malformed,
            Some(_) => Written::Reset,
            // "connection error" in a body, which has no kind of its own, and bytes that nobody asked for.
            None if error.is_body_write_aborted() => Written::Closed,
            None => Written::Malformed,
        }
    }
}
