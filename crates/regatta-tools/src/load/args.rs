//! `regatta bench` as typed. What is not typed has the value that the project's own figures use.

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::target::{NoTarget, Target};
use super::{Era, Expected, Kind, Plan};

/// Loads an MCP endpoint and checks every answer.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The endpoint, such as http://127.0.0.1:8080/mcp
    pub url: String,
    /// What to do with it
    #[arg(long, value_enum, default_value_t = Kind::Closed)]
    pub kind: Kind,
    /// The protocol era to speak
    #[arg(long, value_enum, default_value_t = Era::Legacy)]
    pub era: Era,
    /// The kind of answer that counts as right
    #[arg(long, value_enum, default_value_t = Expected::Any)]
    pub expect: Expected,
    /// The tool to call; it must echo its argument `text`
    #[arg(long, default_value = "echo")]
    pub tool: String,
    /// Call as somebody: the token of an Authorization header
    #[arg(long, value_name = "TOKEN")]
    pub bearer: Option<String>,
    /// Connections, streams or sessions at once
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    pub connections: u32,
    /// Stop after this many calls (or sessions, for open-sessions)
    #[arg(long)]
    pub count: Option<u64>,
    /// How long to send calls, or to hold streams, after the warm-up
    #[arg(long, default_value_t = 10.0)]
    pub seconds: f64,
    /// Seconds whose latencies are dropped
    #[arg(long, default_value_t = 0.0)]
    pub warm_up: f64,
    /// Arrivals a second (open)
    #[arg(long, default_value_t = 2000.0)]
    pub rate: f64,
    /// Seed of the arrivals (open)
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Bytes of text to be echoed, or in each event
    #[arg(long, default_value_t = 200)]
    pub text_bytes: usize,
    /// Different texts, so that a result cache can answer; without it each call has a text of its own
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    pub texts: Option<u64>,
    /// Events in each stream (sse-events)
    #[arg(long, default_value_t = 1000)]
    pub events: u64,
    /// Milliseconds between two events of a stream (sse-events); 0: as fast as possible
    #[arg(long, default_value_t = 0)]
    pub event_every_ms: u64,
    /// Milliseconds between two calls of a session (sessions)
    #[arg(long, default_value_t = 50)]
    pub pause_ms: u64,
    /// Write each call as a JSON line to this file (sessions)
    #[arg(long)]
    pub record: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,
}

impl Args {
    /// The endpoint, and who calls it.
    pub fn target(&self) -> Result<Target, NoTarget> {
        Ok(Target { bearer: self.bearer.clone(), ..Target::parse(&self.url)? })
    }

    /// What was typed as a plan; `Err` is a text for a person.
    pub fn plan(&self) -> Result<Plan, String> {
        let positive = |name: &str, value: f64| {
            let fits = value.is_finite() && (0.0..=1e7).contains(&value);
            fits.then_some(value)
                .ok_or_else(|| format!("--{name} {value}: expected a number from 0 to 10000000"))
        };
        if positive("rate", self.rate)? < 0.001 {
            return Err(format!("--rate {}: expected at least 0.001", self.rate));
        }
        Ok(Plan {
            kind: self.kind,
            era: self.era,
            expected: self.expect,
            tool: self.tool.clone(),
            tag: tag(),
            connections: self.connections as usize,
            count: self.count,
            seconds: Duration::from_secs_f64(positive("seconds", self.seconds)?),
            warm_up: Duration::from_secs_f64(positive("warm-up", self.warm_up)?),
            rate: self.rate,
            seed: self.seed,
            text_bytes: self.text_bytes,
            texts: self.texts,
            events: self.events,
            event_every: Duration::from_millis(self.event_every_ms),
            pause: Duration::from_millis(self.pause_ms),
            record: self.record.clone(),
        })
    }
}

/// Eight letters that no other run has: operation ids must not repeat over runs.
fn tag() -> String {
    let now_us = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros());
    let mixed = (now_us as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(std::process::id());
    format!("{:08x}", (mixed >> 32) as u32)
}
