//! Nodes that registered themselves: read from the store, let in or refused, judged, and made replicas (DESIGN 6).
//!
//! The rule who is alive is `regatta_policy::registry`; here are the reading (`poll`), the door (`door`) and the list of
//! those who passed (`roster`). A registry that cannot be read changes nothing.

mod door;
mod poll;
mod roster;
#[cfg(test)]
mod tests;

pub use door::Gate;
pub use poll::{Registered, poll, read};
pub use roster::{Member, RegistryStats, Roster, word};
