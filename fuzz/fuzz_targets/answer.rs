//! Fuzz target: any bytes of a replica's through `checks::answer`, which panics when a promise is broken.
#![no_main]

#[path = "../../crates/regatta-proxy/tests/checks/mod.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| checks::answer(bytes));
