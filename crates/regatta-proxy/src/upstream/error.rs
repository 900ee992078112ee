//! What can go wrong with one request upstream, told apart by what the replica may have seen of it.
//!
//! *Not written* means that no byte of it can have reached a server, so it may go elsewhere; everything later is
//! *written*: a reset before the first byte of the answer does not prove that nothing was executed (RELIABILITY E.3).

use std::io;

use super::codec::Broken;

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The request never left.
    #[error("not sent: {why}")]
    NotWritten {
        /// Why.
        why: NotWritten,
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

impl From<&io::Error> for Written {
    fn from(error: &io::Error) -> Written {
        match error.kind() {
            // TLS that ended without saying so: the answer may have been cut by anybody.
            io::ErrorKind::UnexpectedEof => Written::Closed,
            // TLS in words, for what is none.
            io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput => Written::Malformed,
            _ => Written::Reset,
        }
    }
}

impl From<Broken> for Written {
    fn from(broken: Broken) -> Written {
        match broken {
            Broken::Malformed => Written::Malformed,
            Broken::TooLarge => Written::HeadTooLarge,
        }
    }
}
