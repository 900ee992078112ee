//! The decisions of the gateway: pure rules over facts and a given `now`.
//!
//! No IO, no clock, no dice of its own; a rule takes facts and returns a decision, so that it can be simulated
//! over seeds. It imports neither tokio nor hyper, nor any other crate of ours.

pub mod access;
pub mod admission;
pub mod backoff;
pub mod balance;
pub mod budget;
pub mod cache;
pub mod catalogue;
pub mod concurrency;
pub mod deviation;
pub mod dice;
pub mod drain;
pub mod eject;
pub mod ewma;
pub mod glob;
pub mod gone;
pub mod ids;
pub mod keys;
mod layout;
pub mod lifetime;
pub mod line;
pub mod peers;
pub mod quota;
pub mod registry;
pub mod rendezvous;
pub mod retry;
pub mod snapshot;
pub mod token;

pub use glob::Glob;
pub use ids::{Micros, ReplicaId};
