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

fn main() -> ExitCode {
    args::Args::parse().command.run()
}
