//! `regatta demo`: one demo replica in this process.
//!
//! Only turns the command line into `demo::Settings`, starts a runtime and waits for the end.
//! The first line on stdout is `listening http://HOST:PORT/mcp`.

use crate::demo::{self, Eras, Settings};
use std::net::IpAddr;
use std::process::ExitCode;

/// What `regatta demo` takes.
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// Port to listen on; 0 lets the system choose one.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// Address to listen on.
    #[arg(long, default_value = "127.0.0.1")]
    host: IpAddr,
    /// Which eras of the protocol to speak.
    #[arg(long, value_enum, default_value_t = Eras::Dual)]
    eras: Eras,
    /// Worker threads.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    workers: u16,
    /// End when stdin ends, so that no replica outlives the process that started it.
    #[arg(long)]
    exit_with_stdin: bool,
}

/// Runs until SIGTERM, SIGINT or (if asked for) the end of stdin.
pub fn run(args: DemoArgs) -> ExitCode {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(args.workers.into()).enable_all().build();
    let settings = Settings {
        address: (args.host, args.port).into(),
        eras: args.eras,
        exit_with_stdin: args.exit_with_stdin,
    };
    let outcome = runtime.map_err(|error| format!("cannot start the runtime: {error}")).and_then(|runtime| {
        let outcome = runtime.block_on(demo::run(settings));
        runtime.shutdown_background();
        outcome.map_err(|error| format!("cannot listen on {}:{}: {error}", args.host, args.port))
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}
