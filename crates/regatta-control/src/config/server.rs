//! `[[server]]`: one logical MCP server, its replicas and the bounds of a call to it.
//!
//! Keys that this build does not serve yet are refused with a word about it, never silently ignored.

use std::sync::Arc;
use std::time::Duration;

use regatta_policy::cache::{Hints, Lists};
use regatta_policy::line::Rank;
use regatta_policy::snapshot::{
    Affinity, Balance, Breaker, CallBounds, Concurrency, ConcurrencyMode, Cursors, Duty, Eras, Health,
    Leases, Replica, Server, SessionState, ToolClass, UpstreamResume,
};
use regatta_policy::{Glob, ReplicaId};

use super::endpoint;
use super::header;
use super::raw::{Found, Section};
use super::registry::{self, Door, Joining};

/// Reads one server, and who may join it; `index` counts from 0.
pub fn server(section: &Section<'_>, index: usize) -> (Server, Door) {
    let default_name = if index == 0 { "default".to_owned() } else { format!("server-{}", index + 1) };
    let name = section.get("name", default_name, "1 to 64 letters, digits, - . or _", |found| {
        let name = found.text()?;
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        ((1..=64).contains(&name.len()) && name.bytes().all(fits)).then(|| name.to_owned())
    });
    let door = registry::door(section);
    let replicas = replicas(section, &name, door.nodes);
    unserved(section);
    let server = Server {
        path: section.get("path", endpoint::DEFAULT_PATH.to_owned(), PATH, path),
        balance: section.choice(
            "balance",
            Balance::LeastLoad,
            &[
                ("round-robin", Balance::RoundRobin),
                ("least-connections", Balance::LeastConnections),
                ("least-load", Balance::LeastLoad),
                ("sticky-ip", Balance::StickyIp),
            ],
        ),
        session_state: section.choice(
            "session_state",
            SessionState::Unknown,
            &[
                ("external", SessionState::External),
                ("unknown", SessionState::Unknown),
                ("memory", SessionState::Memory),
            ],
        ),
        affinity: section.get("affinity", Affinity::None, AFFINITY, affinity),
        cursors: section.choice(
            "cursors",
            Cursors::Shared,
            &[("shared", Cursors::Shared), ("replica", Cursors::Replica)],
        ),
        upstream_resume: section.choice(
            "upstream_resume",
            UpstreamResume::Unsupported,
            &[("unsupported", UpstreamResume::Unsupported), ("supported", UpstreamResume::Supported)],
        ),
        repeatable_tools: section.list(
            "repeatable_tools",
            "a tool name; * stands for any letters",
            |found| found.text().filter(|text| !text.is_empty()).map(Glob::new),
        ),
        cache: Vec::new(),
        lists: lists(section),
        call: call(section),
        leases: match door.nodes {
            Joining::Closed => Leases::Unleased,
            Joining::Open => Leases::Leased { lost: Vec::new() },
        },
        catalogue: None,
        definitions: Arc::default(),
        concurrency: concurrency(section),
        connections_max: connections_max(section),
        breaker: section.choice("breaker", Breaker::On, &[("on", Breaker::On), ("off", Breaker::Off)]),
        classes: classes(section),
        credential: None,
        replicas,
        name,
    };
    (server, door)
}

fn lists(section: &Section<'_>) -> Lists {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    Lists {
        hints: section.choice(
            "cache_hints",
            Hints::Private,
            &[("ignore", Hints::Ignored), ("private", Hints::Private), ("trust", Hints::Trusted)],
        ),
        list_ttl: section.time("list_ttl", Duration::ZERO, Duration::ZERO..=DAY),
        read_ttl: section.time("read_ttl", Duration::ZERO, Duration::ZERO..=DAY),
    }
}

const PATH: &str = "a path like \"/mcp\", compared byte for byte: no //, /./, /../, % or ?";
const AFFINITY: &str = "one of \"none\", \"principal\", \"header:<name>\" (but no Mcp-Param-*: take the argument), \"argument:<name>\"";

fn path(found: &Found<'_>) -> Option<String> {
    let path = found.text()?;
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte);
    let mut segments = path.strip_prefix('/')?.split('/').peekable();
    let mut plain = true;
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        plain &= !matches!(segment, "." | "..") && (last || !segment.is_empty());
    }
    (plain && path.len() <= 256 && path.bytes().all(fits)).then(|| path.to_owned())
}

fn affinity(found: &Found<'_>) -> Option<Affinity> {
    match found.text()? {
        "none" => Some(Affinity::None),
        "principal" => Some(Affinity::Principal),
        text => match text.split_once(':')? {
            ("header", name) => header::deciding(name).map(Affinity::Header),
            ("argument", name) => (!name.is_empty()).then(|| Affinity::Argument(name.to_owned())),
            (_, _) => None,
        },
    }
}

fn replicas(section: &Section<'_>, server: &str, nodes: Joining) -> Vec<Replica> {
    let mut seen: Vec<String> = Vec::new();
    let mut written = false;
    let replicas = section.list("replicas", "a URL like \"http://127.0.0.1:3001/mcp\"", |found| {
        written = true;
        Some(replica(section, server, found, &mut seen))
    });
    if !written && nodes == Joining::Closed {
        let hint = "replicas = [\"http://127.0.0.1:3001/mcp\"], or registry = true";
        section.miss(format!("server \"{server}\" has no replicas"), "at least one URL", Some(hint));
    }
    replicas.into_iter().flatten().collect()
}

fn replica(
    section: &Section<'_>,
    server: &str,
    found: &Found<'_>,
    seen: &mut Vec<String>,
) -> Option<Replica> {
    let endpoint = match found.text().ok_or("a URL in quotes").and_then(endpoint::parse) {
        Ok(endpoint) => endpoint,
        Err(expected) => {
            section.refuse(found, expected, None);
            return None;
        }
    };
    if seen.contains(&endpoint.url) {
        section.refuse(found, "each replica once", None);
        return None;
    }
    if found.text().is_some_and(endpoint::lacks_path) {
        section.note(format!("{} = {}: no path, so {} is used", found.path, found.shown(), endpoint.path));
    }
    seen.push(endpoint.url.clone());
    let id = ReplicaId::of(server, &endpoint.url);
    Some(Replica {
        id,
        endpoint,
        health: Health::Unknown,
        eras: Eras::Unknown,
        duty: Duty::Serving,
        load: None,
        journal: [].into(),
    })
}

fn call(section: &Section<'_>) -> CallBounds {
    const MS: Duration = Duration::from_millis(1);
    const HOUR: Duration = Duration::from_secs(3600);
    let d = CallBounds::default();
    let call = CallBounds {
        request_timeout: section.time("request_timeout", d.request_timeout, 10 * MS..=24 * HOUR),
        request_max: section.time("request_max", d.request_max, 10 * MS..=24 * HOUR),
        connect_timeout: section.time("connect_timeout", d.connect_timeout, 10 * MS..=HOUR),
        gone_after: section.time("gone_after", d.gone_after, 200 * MS..=HOUR),
        prime_after: section.time("prime_after", d.prime_after, MS..=HOUR),
        connections_per_replica_max: section.count(
            "connections_per_replica_max",
            d.connections_per_replica_max,
            1..=100_000,
        ),
    };
    if call.request_max < call.request_timeout {
        section.miss(
            "request_max is shorter than request_timeout".to_owned(),
            "request_max (the end of any call) to be at least request_timeout (how long a server may be silent)",
            None,
        );
    }
    call
}

fn concurrency(section: &Section<'_>) -> Concurrency {
    let d = Concurrency::default();
    let modes = [
        ("off", ConcurrencyMode::Off),
        ("static", ConcurrencyMode::Static),
        ("adaptive", ConcurrencyMode::Adaptive),
    ];
    let minute = Duration::from_secs(60);
    let concurrency = Concurrency {
        mode: section.choice("concurrency", d.mode, &modes),
        inflight_max: section.count("inflight_max", d.inflight_max, 1..=1_000_000),
        queue_max: section.count("queue_max", d.queue_max, 0..=1_000_000),
        queue_wait_max: section.time("queue_wait_max", d.queue_wait_max, Duration::from_millis(1)..=minute),
    };
    if let (ConcurrencyMode::Off, Some(found)) = (concurrency.mode, section.find("inflight_max")) {
        let hint = "concurrency = \"static\" makes it a bound, \"adaptive\" the highest bound";
        section.refuse(&found, "nothing here while concurrency is \"off\"", Some(hint));
    }
    concurrency
}

fn classes(section: &Section<'_>) -> Vec<ToolClass> {
    let mut classes: Vec<ToolClass> = Vec::new();
    for (index, inner) in section.inner("class").into_iter().enumerate() {
        let name =
            inner.get("name", format!("class-{}", index + 1), "1 to 64 letters, digits, - . or _", |found| {
                let name = found.text()?;
                let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
                ((1..=64).contains(&name.len()) && name.bytes().all(fits)).then(|| name.to_owned())
            });
        let tools = inner.list("tool", "a tool name; * stands for any letters", |found| {
            found.text().filter(|text| !text.is_empty()).map(Glob::new)
        });
        if tools.is_empty() {
            inner.miss(format!("class \"{name}\" has no tool"), "at least one: tool = [\"report_*\"]", None);
        }
        if classes.iter().any(|class| class.name == name) {
            inner.miss(format!("two classes are named \"{name}\""), "a name of its own for each class", None);
        }
        let ranks = [("interactive", Rank::Interactive), ("background", Rank::Background)];
        let rank = inner.choice("priority", Rank::Interactive, &ranks);
        let inflight_max = match inner.count("inflight_max", 0, 1..=1_000_000) {
            0 => None,
            count => Some(count),
        };
        inner.finish();
        classes.push(ToolClass { name, tools, rank, inflight_max });
    }
    classes
}

fn connections_max(section: &Section<'_>) -> Option<u32> {
    match section.count("connections_max", 0, 1..=1_000_000) {
        0 => None,
        count => u32::try_from(count).ok(),
    }
}

/// Keys of the design that come with later issues.
fn unserved(section: &Section<'_>) {
    if let Some(found) = section.find("trust_annotations").filter(|found| found.flag() != Some(false)) {
        let hint = "list the tools that may be sent again under repeatable_tools = […]";
        section.refuse(&found, "false: this build does not read annotations", Some(hint));
    }
}
