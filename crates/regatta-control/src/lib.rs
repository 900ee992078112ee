//! The control plane: works out the one immutable snapshot that the data plane obeys (DESIGN 7).
//!
//! It reads the config and the registry, probes the replicas and answers the admin listener. It never sees a client's request and
//! imports nothing of the data plane; only metrics and a readiness flag come up to it, as closures.

pub mod admin;
pub mod config;
mod control;
#[cfg(test)]
mod control_tests;
mod definitions;
pub mod files;
mod fleet;
mod identity;
pub mod keys;
mod lists;
#[cfg(test)]
mod node_tests;
pub mod probe;
pub mod registry;
#[cfg(test)]
mod stub;

pub use control::{Control, ControlStats, Source};
pub use fleet::{NodeView, ReplicaView};
