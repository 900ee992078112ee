//! The binary `regatta`: parses the command line and hands over to one command.
//!
//! Exit codes: 0 fine, 1 failed, 2 wrong usage or config. It never does work of its own; each command
//! lives in `commands/`, and only `wiring.rs` knows both planes.

use std::process::ExitCode;

use clap::Parser;

mod args;
mod commands;
mod demo;
mod logging;
mod settings;
mod wiring;

/// glibc's allocator gives memory back and asks for it again within one call once it runs in a worker thread: 14,000
/// instructions of page faults a call answered in events (bench/run calls).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    args::Args::parse().command.run()
}
