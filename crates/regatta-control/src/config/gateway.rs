//! `[gateway]`: the process's own settings, its bounds, and whom it lets in.
//!
//! Every key has a default. Ranges are generous; they only keep out what cannot work.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use regatta_policy::peers::{Network, Preface, Proxies, ToldBy};
use regatta_policy::snapshot::{Limits, Origins};

use regatta_seal::MasterKey;

use super::raw::{Found, Section};

/// What concerns the process and takes effect at its start only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Where clients connect; never empty.
    pub listen: Vec<SocketAddr>,
    /// Where health, readiness and metrics are served; none with `admin = "off"`.
    pub admin: Option<SocketAddr>,
    /// Where sealing keys and deviations are kept; none: the default place of the user.
    pub state_dir: Option<PathBuf>,
    /// Threads of the data plane; none: one a core, at most 4.
    pub worker_threads: Option<usize>,
    /// How long a data thread looks for more work before it sleeps; zero: not at all.
    pub busy_poll_max: Duration,
    /// How long in-flight work may take after a SIGTERM.
    pub drain_deadline: Duration,
    /// Certificate and key of the client listener; none: plain HTTP.
    pub tls: Option<TlsFiles>,
    /// How log lines look.
    pub log_format: LogFormat,
    /// Which log lines are written, in the syntax of `RUST_LOG`.
    pub log_filter: Option<String>,
}

/// PEM files; read again when their content changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate chain, leaf first.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

const SOCKET: &str = "an address and a port, like \"127.0.0.1:8080\"";
const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Reads the process's settings.
pub fn process(section: &Section<'_>) -> Process {
    let listen = section.list("listen", SOCKET, socket);
    let listen = if listen.is_empty() { vec![SocketAddr::from(([127, 0, 0, 1], 8080))] } else { listen };
    let default_admin = Some(SocketAddr::from(([127, 0, 0, 1], 9901)));
    let admin = section.get("admin", default_admin, &format!("{SOCKET}, or \"off\""), |found| {
        if found.text() == Some("off") { Some(None) } else { socket(found).map(Some) }
    });
    if let Some(admin) = admin.filter(|admin| admin.port() != 0 && listen.contains(admin)) {
        let hint = "admin answers must never be reachable where clients are";
        section.miss(
            format!("gateway.admin and gateway.listen are both {admin}"),
            "two addresses",
            Some(hint),
        );
    }
    Process {
        listen,
        admin,
        state_dir: path(section, "state_dir"),
        worker_threads: match section.count("worker_threads", 0, 1..=1024) {
            0 => None,
            threads => Some(threads),
        },
        busy_poll_max: section.time("busy_poll_max", Duration::ZERO, Duration::ZERO..=SECOND),
        drain_deadline: section.time("drain_deadline", 20 * SECOND, Duration::ZERO..=24 * HOUR),
        tls: tls(section),
        log_format: section.choice(
            "log_format",
            LogFormat::Text,
            &[("text", LogFormat::Text), ("json", LogFormat::Json)],
        ),
        log_filter: section.get("log_filter", None, "a filter like \"info,regatta_proxy=debug\"", |found| {
            found.text().map(|text| Some(text.to_owned()))
        }),
    }
}

fn socket(found: &Found<'_>) -> Option<SocketAddr> {
    let text = found.text()?;
    let text = text.strip_prefix("localhost:").map_or(text.to_owned(), |port| format!("127.0.0.1:{port}"));
    text.parse().ok()
}

fn path(section: &Section<'_>, key: &'static str) -> Option<PathBuf> {
    section.get(key, None, "a path", |found| {
        found.text().filter(|text| !text.is_empty()).map(|p| Some(p.into()))
    })
}

fn tls(section: &Section<'_>) -> Option<TlsFiles> {
    match (path(section, "tls_cert"), path(section, "tls_key")) {
        (Some(cert), Some(key)) => Some(TlsFiles { cert, key }),
        (None, None) => None,
        (Some(_), None) => {
            section.miss(
                "gateway.tls_cert stands without gateway.tls_key".to_owned(),
                "both, or neither",
                None,
            );
            None
        }
        (None, Some(_)) => {
            section.miss(
                "gateway.tls_key stands without gateway.tls_cert".to_owned(),
                "both, or neither",
                None,
            );
            None
        }
    }
}

/// Reads whom the gateway lets in.
pub fn origins(section: &Section<'_>) -> Origins {
    let mut hosts = section.list("allowed_hosts", "a host name without a port, or \"*\"", |found| {
        let host = found.text()?.to_ascii_lowercase();
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-._[]:".contains(&byte);
        let name = !host.is_empty() && host.bytes().all(fits) && !has_port(&host);
        (host == "*" || name).then_some(host)
    });
    let origins = section.list("allowed_origins", "an origin like \"https://app.example\"", |found| {
        let origin = found.text()?.to_ascii_lowercase();
        let (scheme, host) = origin.split_once("://")?;
        let whole = !scheme.is_empty() && !host.is_empty() && !host.contains(['/', '?', '#', '@']);
        (whole && origin.is_ascii()).then_some(origin)
    });
    let any_host = hosts.iter().any(|host| host == "*");
    hosts.retain(|host| host != "*");
    Origins { hosts, origins, any_host }
}

/// Reads the proxies in front of the gateway.
pub fn proxies(section: &Section<'_>) -> Proxies {
    let trusted = section.list("trusted_proxies", "an address or a network like \"10.0.0.0/8\"", |found| {
        Network::parse(found.text()?)
    });
    let told_by = section.choice(
        "forwarded_header",
        ToldBy::XForwardedFor,
        &[("x-forwarded-for", ToldBy::XForwardedFor), ("forwarded", ToldBy::Forwarded)],
    );
    let preface = section.get("proxy_protocol", Preface::None, "true or false", |found| {
        Some(if found.flag()? { Preface::ProxyV2 } else { Preface::None })
    });
    if preface == Preface::ProxyV2 && trusted.is_empty() {
        let what = "gateway.proxy_protocol stands without gateway.trusted_proxies".to_owned();
        section.miss(what, "the addresses of the proxies that write the header", None);
    }
    Proxies { trusted, told_by, preface }
}

/// Reads the sealing keys. What was written is never shown.
pub fn sealing_keys(section: &Section<'_>) -> Vec<MasterKey> {
    let mut place = 0;
    let keys = section.list("sealing_keys", "64 hexadecimal digits or base64url of 32 bytes", |found| {
        place += 1;
        let key = found.text().and_then(|text| MasterKey::from_text(text).ok());
        if key.is_none() {
            let what = format!("gateway.sealing_keys[{place}] is no key");
            let hint = "make one with `openssl rand -hex 32`";
            section.miss(what, "64 hexadecimal digits, or base64url of 32 bytes", Some(hint));
        }
        Some(key)
    });
    keys.into_iter().flatten().collect()
}

/// Reads how often a new sealing key takes over.
pub fn sealing_key_rotation(section: &Section<'_>) -> Option<Duration> {
    let key = "sealing_key_rotation";
    // Texts sealed with a key must open as long as sessions live, and a ring holds 64 keys.
    section.get(key, None, "a time from 12h to 365d, like \"30d\"", |found| {
        super::units::time(found.text()?)
            .filter(|time| (12 * HOUR..=365 * 24 * HOUR).contains(time))
            .map(Some)
    })
}

fn has_port(host: &str) -> bool {
    !host.starts_with('[') && host.contains(':') && host.parse::<std::net::Ipv6Addr>().is_err()
}

/// Reads the bounds.
pub fn limits(section: &Section<'_>) -> Limits {
    const KIB: usize = 1 << 10;
    const GIB: usize = 1 << 30;
    const MANY: usize = 1_000_000;
    let d = Limits::default();
    let s = section;
    let limits = Limits {
        body_max: s.bytes("body_max", d.body_max, KIB..=GIB),
        header_max: s.bytes("header_max", d.header_max, 8 * KIB..=1024 * KIB),
        header_count_max: s.count("header_count_max", d.header_count_max, 20..=10_000),
        event_max: s.bytes("event_max", d.event_max, KIB..=GIB),
        answer_hold_max: s.bytes("answer_hold_max", d.answer_hold_max, KIB..=GIB),
        handle_max: s.bytes("handle_max", d.handle_max, 256..=1024 * KIB),
        token_max: s.bytes("token_max", d.token_max, 512..=64 * KIB),
        inflight_max: s.count("inflight_max", d.inflight_max, 1..=MANY),
        reserved_max: s.count("reserved_max", d.reserved_max, 1..=MANY),
        queue_max: s.count("queue_max", d.queue_max, 0..=MANY),
        queue_wait_max: s.time("queue_wait_max", d.queue_wait_max, MS..=60 * SECOND),
        connections_max: s.count("connections_max", d.connections_max, 1..=MANY),
        streams_per_principal_max: s.count(
            "streams_per_principal_max",
            d.streams_per_principal_max,
            1..=MANY,
        ),
        streams_max: s.count("streams_max", d.streams_max, 1..=MANY),
        initialize_per_minute_max: narrow(s.count(
            "initialize_per_minute_max",
            d.initialize_per_minute_max as usize,
            1..=MANY,
        )),
        limit_keys_max: s.count("limit_keys_max", d.limit_keys_max, 1_000..=10 * MANY),
        detached_per_principal_max: s.count(
            "detached_per_principal_max",
            d.detached_per_principal_max,
            0..=MANY,
        ),
        detached_max: s.count("detached_max", d.detached_max, 0..=MANY),
        parked_max: s.count("parked_max", d.parked_max, 0..=MANY),
        ring_bytes_max: s.bytes("ring_bytes_max", d.ring_bytes_max, KIB..=GIB),
        ring_total_max: s.bytes("ring_total_max", d.ring_total_max, KIB..=64 * GIB),
        resume_window: s.time("resume_window", d.resume_window, Duration::ZERO..=24 * HOUR),
        unread_max: s.bytes("unread_max", d.unread_max, KIB..=GIB),
        header_timeout: s.time("header_timeout", d.header_timeout, 100 * MS..=HOUR),
        body_timeout: s.time("body_timeout", d.body_timeout, 100 * MS..=HOUR),
        keep_alive: s.time("keep_alive", d.keep_alive, 100 * MS..=HOUR),
        tcp_user_timeout: s.time("tcp_user_timeout", d.tcp_user_timeout, SECOND..=HOUR),
        session_lifetime_max: s.time(
            "session_lifetime_max",
            d.session_lifetime_max,
            SECOND..=24 * 365 * HOUR,
        ),
        session_cache_max: s.count("session_cache_max", d.session_cache_max, 1..=MANY),
        cache_bytes_max: s.bytes("cache_bytes_max", d.cache_bytes_max, KIB..=64 * GIB),
        subscriptions_max: s.count("subscriptions_max", d.subscriptions_max, 0..=MANY),
        retry_budget_percent: narrow(s.count(
            "retry_budget_percent",
            d.retry_budget_percent as usize,
            0..=100,
        )),
    };
    if limits.token_max * 2 > limits.header_max {
        let what = "gateway.token_max is more than half of gateway.header_max".to_owned();
        let hint = "the session token rides in a header, and an event id may ride beside it";
        section.miss(what, "at most half", Some(hint));
    }
    limits
}

fn narrow(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
