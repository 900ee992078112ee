//! From a bound socket to a request in a handler's hands, and back: everything that is HTTP/1.1 and not MCP.
//!
//! One accept loop, one task a connection. It knows limits, time-outs and draining; it never looks at a path, a header
//! or a body, and makes no answer of its own: what is over a bound is closed and counted.

mod arrival;
mod aside;
mod body;
mod connection;
mod drain;
mod pour;
mod preface;
mod serve;
mod socket;
mod stall;
mod stats;
#[cfg(test)]
mod tests;
mod tls;

pub use arrival::{Arrival, RequestBody};
pub use body::{Begun, BodyError, begin_body, finish_body, read_body};
pub use connection::Peer;
pub use drain::{DrainSignal, Drainer, drain_signal};
pub use serve::{Ended, ListenerBounds, serve};
pub use socket::Listener;
pub use stats::ListenerStats;
pub use tls::{TlsError, server_config};
