//! Connections to replicas, and what is seen of them: in-flight requests, latency, ejection.
//!
//! A request drives its own connection: no task stands between it and the socket. It never chooses a replica, never
//! sends a request that may have been written a second time, and never waits for a head longer than its caller does.

mod answer;
mod budget;
pub mod codec;
mod connect;
mod error;
mod flock;
mod link;
mod pool;
mod replica;
mod scratch;
mod send;
mod table;
#[cfg(test)]
pub(crate) mod tests;
mod vitals;

pub use answer::{UpstreamAnswer, UpstreamBody};
pub use budget::{Budget, Use};
pub use codec::AnswerHead;
pub use error::{Lost, NotWritten, SendError, Written};
pub use flock::Knock;
pub use replica::{Lease, ReplicaStatus, Upstream};
pub use table::Upstreams;
