//! The control plane: works out the one immutable snapshot that the data plane obeys (DESIGN 7).
//!
//! It reads the config, probes the replicas and answers the admin listener. It never sees a client's request and
//! imports nothing of the data plane; only metrics and a readiness flag come up to it, as closures.

pub mod admin;
pub mod config;
mod control;
#[cfg(test)]
mod control_tests;
pub mod files;
mod identity;
pub mod keys;
pub mod probe;
#[cfg(test)]
mod stub;

pub use control::{Control, ControlStats, ReplicaView, Source};
