//! End-to-end tests: real processes of this binary, spoken to over loopback. One module a behaviour.
//!
//! One test binary for all, because only this crate's tests know where the binary is.

mod auth_example;
mod auth_keys;
mod auth_metadata;
mod auth_sessions;
mod auth_tokens;
mod auth_upstream;
mod bad_http;
mod bad_json;
mod bad_legacy;
mod bad_luck;
mod bad_modern;
mod bad_servers;
mod bad_upstream;
mod balance;
mod bodies;
mod cancel;
mod demo_eras;
mod documents;
mod drain;
mod ends;
mod example_config;
mod fairness;
mod fleet;
mod handles;
mod harness;
mod isolation;
mod kill_gateway;
mod kill_replica;
mod kill_replica_in_call;
mod leaks;
mod limits;
mod listen;
mod looping_agent;
mod network;
mod no_replica;
mod odd_fleets;
mod overload;
mod proxies;
mod questions;
mod rehome;
mod reload;
mod resume;
mod shared_legs;
mod starting;
mod stopped_replica;
mod storm;
mod streams;
mod table;
mod two_gateways;
mod up;
mod versions;

/// The binary under test.
const REGATTA: &str = env!("CARGO_BIN_EXE_regatta");
