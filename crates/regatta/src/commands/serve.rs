//! `regatta serve`: one gateway in this process, for machines.
//!
//! Resolves the settings and hands over to the wiring; nothing goes to stdout.

use std::path::PathBuf;
use std::process::ExitCode;

use crate::logging;
use crate::settings::{self, Settings};
use crate::wiring::{self, Failed, Started};

/// Runs a gateway with a config file.
///
/// SIGTERM and SIGINT drain it: /ready says 503 at once, what is in flight finishes, and it ends within
/// gateway.drain_deadline; a second signal ends it at once. SIGHUP, or a change of the file, reloads the config; a
/// file with mistakes never replaces one without. Variables like REGATTA_GATEWAY_LISTEN override keys of [gateway].
#[derive(Debug, clap::Args)]
pub struct ServeArgs {
    /// The config file; `regatta check` explains what is wrong with it.
    #[arg(long, short, value_name = "FILE", default_value = "regatta.toml")]
    config: PathBuf,
}

/// Runs until a signal ends it.
pub fn run(args: ServeArgs) -> ExitCode {
    match settings::of_file(args.config) {
        Ok(settings) => launch(settings, |_, _| {}),
        Err(complaints) => {
            eprintln!("{complaints}");
            ExitCode::from(2)
        }
    }
}

/// Sets up the log and runs the gateway; `started` is called once it serves.
pub fn launch(settings: Settings, started: impl FnOnce(Started, &logging::Sink)) -> ExitCode {
    let process = &settings.config.process;
    let filter = process.log_filter.clone().unwrap_or_else(|| settings.log_filter.to_owned());
    let sink = match logging::sink() {
        Ok(sink) => sink,
        Err(why) => {
            eprintln!("error: cannot start the log: {why}");
            return ExitCode::FAILURE;
        }
    };
    if let Err(why) = logging::install(&sink, process.log_format, &filter) {
        eprintln!("error: {why}");
        return ExitCode::from(2);
    }
    for note in &settings.config.notes {
        tracing::info!("{note}");
    }
    let outcome = wiring::run(settings, &sink, |shown| started(shown, &sink));
    if let Err(Failed(why)) = &outcome {
        sink.say(&format!("error: {why}"));
    }
    sink.flush();
    if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
