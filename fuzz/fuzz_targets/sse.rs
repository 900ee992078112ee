//! Fuzz target: any bytes through `checks::sse`, which panics when a promise is broken.
#![no_main]

#[path = "../../crates/regatta-mcp/tests/checks/mod.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::sse(bytes));
