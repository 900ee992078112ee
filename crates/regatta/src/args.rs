//! The command line as typed. What it means is resolved by each command; nothing is opened or read here.
//!
//! A new command is one variant here, one arm in [`Command::run`] and one file in `commands/`.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::commands;

/// Makes a fleet of MCP servers behave as one server that does not go down.
#[derive(Debug, Parser)]
#[command(name = "regatta", version, arg_required_else_help = true, disable_help_subcommand = true)]
pub struct Args {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands. Each carries its own arguments as typed, defined in its file in `commands/`.
#[derive(Debug, Subcommand)]
pub enum Command {
    Up(commands::up::UpArgs),
    Serve(commands::serve::ServeArgs),
    Check(commands::check::CheckArgs),
    /// Starts one small MCP server of both eras, to try a gateway or a client against.
    Demo(commands::demo::DemoArgs),
    /// Loads an MCP endpoint and checks every answer.
    Bench(commands::bench::BenchArgs),
    /// Shows what a running gateway's result cache does, or makes what it kept old.
    Cache(commands::cache::CacheArgs),
}

impl Command {
    /// Runs to the end; the exit code is 0 fine, 1 failed, 2 wrong usage or config.
    pub fn run(self) -> ExitCode {
        match self {
            Command::Up(args) => commands::up::run(args),
            Command::Serve(args) => commands::serve::run(args),
            Command::Check(args) => commands::check::run(&args),
            Command::Demo(args) => commands::demo::run(args),
            Command::Bench(args) => commands::bench::run(&args),
            Command::Cache(args) => commands::cache::run(&args),
        }
    }
}
