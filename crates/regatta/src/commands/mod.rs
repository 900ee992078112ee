//! One file a command: its arguments as typed (`…Args`), and `run(args) -> ExitCode`.
//!
//! A command prints data to stdout and the rest to stderr; it builds its own runtime if it needs one.

pub mod bench;
pub mod cache;
pub mod check;
pub mod demo;
pub mod serve;
pub mod up;
