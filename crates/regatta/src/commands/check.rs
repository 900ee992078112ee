//! `regatta check`: says what is wrong with a config, all of it, or what it means.
//!
//! It reads and checks with the same code as `serve`, certificates too; it opens no socket and probes no replica.

mod explain;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::wiring::tls::Certs;
use clap::Args;
use regatta_control::config::{self, Config, Env};
use regatta_policy::snapshot::{Balance, Server, SessionState};

/// Checks a config file without starting anything.
///
/// Prints everything that is wrong with it, each with its line, and ends with code 2; or a summary of what it
/// means. Variables like REGATTA_GATEWAY_LISTEN override keys of [gateway], here as in `serve`.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The config file.
    #[arg(long, short, value_name = "FILE", default_value = "regatta.toml")]
    config: PathBuf,

    /// Says instead which rules ([[limit]]) count this request, in order: 'tools/call TOOL sub=alice ip=192.0.2.7'.
    #[arg(long, value_name = "REQUEST")]
    explain: Option<String>,
}

/// Prints the summary to stdout, or the complaints to stderr.
pub fn run(args: &CheckArgs) -> ExitCode {
    match config::load(&args.config, &Env::of_process()) {
        Ok(config) => {
            match args.explain.as_deref().map(|text| explain::explain(&config, text)) {
                None => println!("{}", summary(&config)),
                Some(Ok(lines)) => println!("{lines}"),
                Some(Err(wrong)) => {
                    eprintln!("error: --explain: {wrong}");
                    return ExitCode::from(2);
                }
            }
            for note in &config.notes {
                eprintln!("note: {note}");
            }
            // Not an error: a config may be checked on another machine than the one that has the key.
            if let Some(Err(why)) = config.process.tls.as_ref().map(Certs::load) {
                eprintln!("note: `serve` would not start here: {why}");
            }
            ExitCode::SUCCESS
        }
        Err(complaints) => {
            eprintln!("{complaints}");
            ExitCode::from(2)
        }
    }
}

fn summary(config: &Config) -> String {
    let process = &config.process;
    let scheme = if process.tls.is_some() { "https" } else { "http" };
    let mut lines = Vec::new();
    for listen in &process.listen {
        lines.extend(
            config
                .servers
                .iter()
                .map(|server| format!("{scheme}://{listen}{}  {}", server.path, served(server))),
        );
    }
    for server in &config.servers {
        lines.extend(
            server.replicas.iter().map(|replica| format!("  {}: {}", server.name, replica.endpoint.url)),
        );
    }
    let store = config.store.shown().unwrap_or_else(|| "embedded, for this gateway alone".to_owned());
    lines.push(format!("store: {store}"));
    lines.push(process.admin.map_or("admin: off".to_owned(), |admin| format!("admin: http://{admin}")));
    lines.join("\n")
}

fn served(server: &Server) -> String {
    let balance = match server.balance {
        Balance::RoundRobin => "round-robin",
        Balance::LeastConnections => "least-connections",
        Balance::LeastLoad => "least-load",
        Balance::StickyIp => "sticky-ip",
    };
    let state = match server.session_state {
        SessionState::External => "external",
        SessionState::Unknown => "unknown",
        SessionState::Memory => "memory",
    };
    let replicas = match server.replicas.len() {
        1 => "1 replica".to_owned(),
        count => format!("{count} replicas"),
    };
    format!("server {}: {replicas}, balance {balance}, session_state {state}", server.name)
}
