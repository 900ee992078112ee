//! What `up` shows: how to use the gateway, once, and how each replica is, live.
//!
//! On a terminal the status is a block that is drawn again in place; elsewhere only changes are told, one a line.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write as _};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use owo_colors::{OwoColorize, Style};
use serde_json::json;

use super::flock::Flock;
use crate::logging::{self, Sink};
use crate::wiring::{ReplicaStatus, ReplicaView, Started};

/// How often the live status looks for something new.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Shows a gateway and those beside it.
pub struct Show {
    started: Started,
    flock: Flock,
    gateways: Flock,
    sink: Sink,
}

impl Show {
    /// Shows what `started`, over the demo replicas of `flock`, beside the further `gateways`.
    pub fn new(started: Started, flock: Flock, gateways: Flock, sink: Sink) -> Show {
        Show { started, flock, gateways, sink }
    }

    /// Prints how to use it, then shows the status for as long as the runtime lives.
    pub fn begin(self) {
        // A reader that went away, as in `regatta up | head`, is no reason to stop.
        let _ = writeln!(std::io::stdout(), "{}", self.usage());
        let (terminal, colour) = (std::io::stderr().is_terminal(), logging::colour(&std::io::stderr()));
        tokio::spawn(async move { if terminal { self.live(colour).await } else { self.tell().await } });
    }

    fn usage(&self) -> String {
        let address = self.started.listen.first().copied().map(reachable);
        let url =
            address.map_or_else(String::new, |address| format!("{}://{address}/mcp", self.started.scheme));
        let config = json!({ "mcpServers": { "regatta": { "type": "http", "url": url } } });
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
            "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "curl", "version": "0" } } });
        let mut text = format!("MCP endpoint: {url}\n");
        for other in self.gateways.urls() {
            let _ = writeln!(text, "and at: {other}");
        }
        let _ = write!(text, "\nclient config:\n{config:#}\n\ntry it:\n");
        let _ = write!(
            text,
            "curl -si {url} -H 'content-type: application/json' \\\n  \
             -H 'accept: application/json, text/event-stream' \\\n  -d '{call}'\n"
        );
        if !self.flock.urls().is_empty() {
            text.push_str(
                "\nthe replicas are demos: kill one with kill -9 PID in the middle of a session, and go on\n",
            );
        }
        if !self.gateways.urls().is_empty() {
            text.push_str("the gateways share their sessions: use any, kill one, and go on at another\n");
        }
        if let Some(admin) = self.started.admin {
            let _ = write!(text, "\nadmin: http://{admin} (/health /ready /metrics /status)\n");
        }
        text
    }

    /// A block of one line a replica, drawn again when one changed.
    async fn live(self, colour: bool) {
        let mut shown: Vec<String> = Vec::new();
        loop {
            let gateways = self.gateway_lines();
            let gateways = gateways.iter().map(|line| painted("healthy", line, colour));
            let replicas = self.lines();
            let replicas = replicas.iter().map(|(health, line)| painted(health, line, colour));
            let lines: Vec<String> = gateways.chain(replicas).collect();
            if lines != shown {
                self.sink.block(lines.clone());
                shown = lines;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// A line for each replica whose health or process changed.
    async fn tell(self) {
        let mut told: Vec<String> = Vec::new();
        loop {
            let views = self.started.views.borrow().clone();
            let mut lines = self.gateway_lines();
            lines.extend(views.iter().map(|view| self.line(view, None)));
            for line in lines.iter().filter(|line| !told.contains(line)) {
                self.sink.say(line);
            }
            told = lines;
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The other gateways and their processes.
    fn gateway_lines(&self) -> Vec<String> {
        let line = |url: String| match self.gateways.pid(&url) {
            Some(pid) => format!("{url}  gateway      pid {pid}"),
            None => format!("{url}  gateway      away"),
        };
        self.gateways.urls().into_iter().map(line).collect()
    }

    fn lines(&self) -> Vec<(&'static str, String)> {
        let (views, status) = (self.started.views.borrow().clone(), (self.started.status)());
        let own = |view: &ReplicaView| status.iter().find(|own| own.id.to_string() == view.id);
        views.iter().map(|view| (view.health, self.line(view, own(view)))).collect()
    }

    fn line(&self, view: &ReplicaView, own: Option<&ReplicaStatus>) -> String {
        let mut line = format!("{}  {:<11}", view.url, view.health);
        if view.eras != "unknown" {
            let _ = write!(line, "  {}", if view.eras == "dual" { "both eras" } else { view.eras });
        }
        if let Some(pid) = self.flock.pid(&view.url) {
            let _ = write!(line, "  pid {pid}");
        }
        if let Some(own) = own {
            let _ = write!(line, "  {} in flight", own.in_flight);
            if own.ejected_for.is_some() {
                line.push_str("  ejected");
            }
        }
        if let Some(why) = &view.why {
            let _ = write!(line, "  ({why})");
        }
        line
    }
}

/// The word says it all; the colour only helps to find it.
fn painted(health: &str, line: &str, colour: bool) -> String {
    let style = match health {
        "healthy" => Style::new().green(),
        "unknown" => Style::new().yellow(),
        _ => Style::new().red(),
    };
    let mark = if health == "healthy" { "●" } else { "○" };
    // A line that wraps would break the block, so it is cut at what every terminal has.
    let line: String = line.chars().take(76).collect();
    if colour { format!("{} {line}", mark.style(style)) } else { format!("{mark} {line}") }
}

/// An address that a client on this machine can use.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        return SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port());
    }
    address
}
