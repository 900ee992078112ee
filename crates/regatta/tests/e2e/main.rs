//! End-to-end tests: real processes of this binary, spoken to over loopback. One module a behaviour.
//!
//! One test binary for all, because only this crate's tests know where the binary is.

mod bad_http;
mod bad_json;
mod bad_modern;
mod demo_eras;
mod documents;
mod example_config;
mod harness;
mod starting;
mod table;
mod up;

/// The binary under test.
const REGATTA: &str = env!("CARGO_BIN_EXE_regatta");
