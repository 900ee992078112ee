//! `regatta up`: a gateway to try, with replicas of its own or over URLs, and what a person needs to use it.
//!
//! Starts demo replicas if there are no URLs, and the gateway as `serve` does. The address, a client config and a curl
//! line go to stdout; the live status goes to stderr.

mod flock;
mod show;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::commands::serve;
use crate::settings;
use flock::Flock;
use show::Show;

/// Starts a gateway to try: over the servers at URLs, or over demo servers of its own.
///
/// Without URLs it starts demo replicas as child processes and starts each again that dies, so you can kill -9 one in
/// the middle of a session and watch. Ctrl-C ends everything.
#[derive(Debug, clap::Args)]
pub struct UpArgs {
    /// MCP servers to stand before, all replicas of one server: http://HOST:PORT/mcp.
    #[arg(value_name = "URL")]
    urls: Vec<String>,
    /// The address for clients; port 0 takes any free one.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8080", value_parser = listen)]
    listen: SocketAddr,
    /// The address for /health, /ready, /metrics and /status [default: 127.0.0.1:9901, or any free port].
    #[arg(long, value_name = "ADDRESS", value_parser = listen)]
    admin: Option<SocketAddr>,
    /// How many demo replicas to start.
    #[arg(long, value_name = "N", default_value_t = 3, conflicts_with = "urls", value_parser = clap::value_parser!(u16).range(1..=32))]
    replicas: u16,
    /// Where sealing keys and sessions are kept, so that a restart loses none [default: a place of its own for each
    /// port below ~/.local/state/regatta].
    #[arg(long, value_name = "DIRECTORY")]
    state_dir: Option<PathBuf>,
}

/// `HOST:PORT`, or a port alone on the loopback address.
fn listen(text: &str) -> Result<SocketAddr, String> {
    if let Ok(port) = text.trim_start_matches(':').parse::<u16>() {
        return Ok(SocketAddr::from(([127, 0, 0, 1], port)));
    }
    let text = text.replace("localhost:", "127.0.0.1:");
    text.parse().map_err(|_| "expected an address and a port, like 127.0.0.1:8080".to_owned())
}

/// Runs until a signal ends it.
pub fn run(args: UpArgs) -> ExitCode {
    let flock = match args.urls.is_empty() {
        true => match Flock::start(args.replicas.into()) {
            Ok(flock) => flock,
            Err(why) => {
                eprintln!("error: {why}");
                return ExitCode::FAILURE;
            }
        },
        false => Flock::default(),
    };
    let urls = if args.urls.is_empty() { flock.urls() } else { args.urls };
    match settings::of_urls(args.listen, args.admin, &urls, args.state_dir) {
        Ok(settings) => {
            serve::launch(settings, |started, sink| Show::new(started, flock, sink.clone()).begin())
        }
        Err(complaints) => {
            eprintln!("{complaints}");
            ExitCode::from(2)
        }
    }
}
