//! The store in Redis against real `redis-server` processes: the conformance suite on every layout, and what happens
//! when Redis fails (RELIABILITY A.3).
//!
//! Each test starts its own servers on free ports; they are gone when the test is. Times in Redis are set short.

mod away;
mod cluster;
mod conformance;
mod connections;
mod kit;
mod quotas;
mod sentinel;
