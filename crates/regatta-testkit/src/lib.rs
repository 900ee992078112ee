//! The test kit: misbehaving servers, an issuer of tokens, a fault proxy, a process harness, a client that shows
//! everything.
//!
//! Dev only. It imports none of the planes and reads HTTP, SSE and JSON-RPC in its own way, so that a test compares two
//! readings of the specification. Helpers panic with a sentence where a test could only panic itself.

pub mod client;
pub mod eventually;
pub mod fault_proxy;
pub mod gateway;
pub mod issuer;
pub mod process;
pub mod redis;
pub mod sse;
pub mod stub;
pub mod tls;

pub use client::Client;
pub use eventually::eventually;
pub use fault_proxy::{FaultProxy, Mode};
pub use gateway::Gateway;
pub use issuer::Issuer;
pub use process::Process;
pub use stub::{Reply, Seen, Stub};

/// Why a connection or an answer did not come about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(pub String);

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

/// What an exchange came to.
pub type Result<T> = std::result::Result<T, Failure>;

/// A `Failure` out of any error, with what was attempted.
pub(crate) fn because<E: std::fmt::Display>(what: &str) -> impl FnOnce(E) -> Failure + '_ {
    move |error| Failure(format!("{what}: {error}"))
}
