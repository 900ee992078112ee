//! `regatta up`: gateways to try, with replicas of their own or over URLs, and what a person needs to use them.
//!
//! Starts demo replicas if there are no URLs, and the gateway as `serve` does; further gateways are child processes. The
//! addresses, a client config and a curl line go to stdout; the live status goes to stderr.

mod flock;
mod show;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::commands::serve;
use crate::settings;
use flock::{Flock, Kind};
use show::Show;

/// Starts a gateway to try: over the servers at URLs, or over demo servers of its own.
///
/// Without URLs it starts demo replicas as child processes and starts each again that dies, so you can kill -9 one in
/// the middle of a session and watch. With --gateways 2 --store redis://127.0.0.1:6379 there is a second gateway to go on
/// at, and to kill. Ctrl-C ends everything.
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
    /// How many gateways to start, on consecutive ports; more than one share the store.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=16))]
    gateways: u16,
    /// Where the gateways share their state, like redis://127.0.0.1:6379.
    #[arg(long, value_name = "URL")]
    store: Option<String>,
    /// End when stdin ends: for the gateways that another `up` starts.
    #[arg(long, hide = true)]
    exit_with_stdin: bool,
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
    if args.gateways > 1 && args.store.is_none() {
        eprintln!("error: --gateways {} without --store", args.gateways);
        eprintln!("hint: gateways share their sessions in Redis: --store redis://127.0.0.1:6379");
        return ExitCode::from(2);
    }
    if args.exit_with_stdin {
        std::thread::spawn(end_with_stdin);
    }
    let demos = if args.urls.is_empty() { args.replicas } else { 0 };
    let replicas = match Flock::start(&Kind::Demo, (0..demos).map(|_| 0)) {
        Ok(flock) => flock,
        Err(why) => return failed(&why),
    };
    let urls = if args.urls.is_empty() { replicas.urls() } else { args.urls };
    let checked = settings::of_urls(args.listen, args.admin, &urls, args.state_dir, args.store.as_deref());
    let settings = match checked {
        Ok(settings) => settings,
        Err(complaints) => {
            eprintln!("{complaints}");
            return ExitCode::from(2);
        }
    };
    let kind = Kind::Gateway { urls, store: args.store.unwrap_or_default() };
    let port = args.listen.port();
    let ports = (1..args.gateways).map(|number| if port == 0 { 0 } else { port.saturating_add(number) });
    match Flock::start(&kind, ports) {
        Ok(gateways) => serve::launch(settings, |started, sink| {
            Show::new(started, replicas, gateways, sink.clone()).begin();
        }),
        Err(why) => failed(&why),
    }
}

fn failed(why: &str) -> ExitCode {
    eprintln!("error: {why}");
    ExitCode::FAILURE
}

/// Whoever started us holds our stdin for as long as it lives.
fn end_with_stdin() {
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
    std::process::exit(0);
}
