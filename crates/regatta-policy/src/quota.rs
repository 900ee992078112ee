//! Quotas: how much a caller may ask for in a time, as rules of the operator's (`[[limit]]`).
//!
//! Pure: a request's facts say which rules apply to it ([`rule`]), each rule counts under a key of its own
//! ([`counter`]), and one decision over all of them grants or refuses ([`decide`]). Never reads a clock, never builds a
//! key: the data plane does, in *limit*.

pub mod counter;
pub mod decide;
pub mod gcra;
pub mod lease;
pub mod rule;
pub mod window;

pub use counter::{Counter, Quota, Standing};
pub use decide::{Asked, Book, Decision, decide};
pub use rule::{Applies, Facts, Rule};
