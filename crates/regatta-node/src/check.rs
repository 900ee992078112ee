//! Which settings make no sense, alone or together, and which are only odd: asked once, at the start.
//!
//! Complains about everything at once, in words for a person. Pure: it looks at the settings and the number of cores only.

use http::Uri;
use http::uri::Authority;
use regatta_seal::{IDENTITY_SECRET_MIN, SECRET_MIN};

use crate::door;
use crate::node::redis_options;
use crate::session::LIFETIME_MAX;
use crate::settings::{SessionBinding, Settings, WhenFull};

/// The longest pause between heartbeats that gateways bear with (`regatta_policy::registry`).
const HEARTBEAT_MS_MAX: u64 = 60_000;
/// A heartbeat more often than this is of no use: gateways read the registry once a second, and ten times at most.
const HEARTBEAT_MS_MIN: u64 = 100;
/// No machine has more of anything; the gateway's limits end here too.
const MANY: u64 = 1_000_000;
const DAY_S: u64 = 24 * 3600;
/// The shortest `initialize` has more bytes.
const REQUEST_BYTES_MIN: usize = 128;
/// What docs/registry.md says of ids, and the gateway's config of prefixes.
const ID_MAX: usize = 256;
const PREFIX_MAX: usize = 64;

/// Whether something is wrong, and what.
type Rule = (bool, String);

impl Settings {
    /// Whether all this makes sense on a machine of so many cores.
    ///
    /// # Errors
    /// All that does not, a line each.
    pub fn check(&self, cores: usize) -> Result<(), String> {
        let rules = [
            ceilings(self, cores),
            floors(self),
            places(self),
            names(self),
            secrets(self),
            connections(self),
            times(self),
        ];
        let wrong = told(rules.into_iter().flatten());
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }

    /// What can be meant, but seldom is, a line each. [`Node::run`](crate::Node::run) logs it as warnings.
    pub fn oddities(&self) -> Vec<String> {
        let has_store = !self.store_url.is_empty();
        let waits_in_vain =
            self.when_full == WhenFull::Refuse && self.queue_max == 0 && self.queue_wait_max_ms > 0;
        told([
            (waits_in_vain, "queue_wait_max_ms is set, but queue_max is 0: nothing waits".to_owned()),
            (
                self.session_ttl_s < self.answer_timeout_s,
                "session_ttl_s is below answer_timeout_s: data of a session can be gone when its client answers"
                    .to_owned(),
            ),
            (
                (1..HEARTBEAT_MS_MIN).contains(&self.heartbeat_ms),
                format!("heartbeat_ms is below {HEARTBEAT_MS_MIN}: gateways do not look that often"),
            ),
            (
                !has_store && self.store_prefix != Settings::default().store_prefix,
                "store_prefix is set, but no store_url: nothing is kept under it".to_owned(),
            ),
            (
                !self.identity_secrets.is_empty() && self.session_binding == SessionBinding::Nobody,
                "identity_secrets are set, but session_binding is nobody: whom a gateway names is verified, and counts for nothing"
                    .to_owned(),
            ),
            (
                self.identity_secrets.iter().any(|secret| secret.0 == self.registry_secret.0),
                "registry_secret is one of identity_secrets: take two, for two purposes".to_owned(),
            ),
            (
                self.url.is_empty() && has_store && !reaches_itself(self),
                format!(
                    "address is {:?} and url is not set: gateways cannot reach the node by {}, or get 403 for its name",
                    self.address,
                    self.public_url()
                ),
            ),
            (
                !has_store && is_open(self) && self.allowed_hosts == Settings::default().allowed_hosts,
                format!(
                    "address is {:?}, but allowed_hosts are this machine's names only: others get 403 unless what is between changes Host",
                    self.address
                ),
            ),
        ])
    }
}

fn told(rules: impl IntoIterator<Item = Rule>) -> Vec<String> {
    rules.into_iter().filter_map(|(is, why)| is.then_some(why)).collect()
}

/// What is more than any machine has, or longer than what it is for.
fn ceilings(all: &Settings, cores: usize) -> Vec<Rule> {
    let threads = cores.max(1) * 2;
    let many = [
        ("concurrent_max", all.concurrent_max as u64, MANY),
        ("queue_max", all.queue_max as u64, MANY),
        ("connections_max", all.connections_max as u64, MANY),
        ("parked_max", all.parked_max as u64, MANY),
        ("streams_max", all.streams_max as u64, MANY),
        ("request_bytes_max", all.request_bytes_max as u64, 1 << 30),
        ("request_timeout_ms", all.request_timeout_ms, DAY_S * 1000),
        ("keep_alive_s", all.keep_alive_s, DAY_S),
        ("write_timeout_s", all.write_timeout_s, DAY_S),
        ("drain_s", all.drain_s, DAY_S),
        ("answer_timeout_s", all.answer_timeout_s, LIFETIME_MAX.as_secs()),
        ("session_ttl_s", all.session_ttl_s, 365 * DAY_S),
        ("journal_ttl_s", all.journal_ttl_s, 365 * DAY_S),
    ];
    let over = |(name, value, most)| (value > most, format!("{name} is over {most}"));
    let mut rules: Vec<Rule> = many.into_iter().map(over).collect();
    rules
        .push((all.worker_threads > threads, format!("worker_threads is over {threads}, two for each core")));
    rules.push((
        all.heartbeat_ms > HEARTBEAT_MS_MAX,
        format!("heartbeat_ms is over {HEARTBEAT_MS_MAX}: gateways wait no longer for a node"),
    ));
    rules
}

/// What is too little to be of use.
fn floors(all: &Settings) -> Vec<Rule> {
    vec![
        (all.concurrent_max == 0, "concurrent_max is 0: nothing would ever be served".to_owned()),
        (
            all.request_bytes_max < REQUEST_BYTES_MIN,
            format!("request_bytes_max is below {REQUEST_BYTES_MIN}: no client could even initialize"),
        ),
        (all.request_timeout_ms == 0, "request_timeout_ms is 0: no request could be answered".to_owned()),
        (
            all.answer_timeout_s == 0 && all.parked_max > 0,
            "answer_timeout_s is 0: no client could answer in time; parked_max = 0 lets no call ask"
                .to_owned(),
        ),
        (all.write_timeout_s == 0, "write_timeout_s is 0: no client could read an answer in time".to_owned()),
        (all.heartbeat_ms == 0, "heartbeat_ms is 0: the store would be flooded".to_owned()),
        (all.journal_ttl_s < 60, "journal_ttl_s is below 60: repeats could run a call twice".to_owned()),
        (all.session_ttl_s == 0, "session_ttl_s is 0: no session would keep anything".to_owned()),
    ]
}

/// Addresses, and what the node is known by.
fn places(all: &Settings) -> Vec<Rule> {
    let visible = |text: &str| text.bytes().all(|byte| byte.is_ascii_graphic());
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.".contains(&byte);
    let prefix = &all.store_prefix;
    let store = if all.store_url.is_empty() { None } else { redis_options(all).err() };
    vec![
        (port(&all.address).is_none(), format!("address is {:?}, and should be HOST:PORT", all.address)),
        (
            port(&all.address) == Some(0),
            "address has port 0: nobody would know where the node listens".to_owned(),
        ),
        (
            !all.url.is_empty() && !is_url(&all.url),
            format!("url is {:?}, and should be like http://HOST:PORT/mcp", all.url),
        ),
        (
            all.node_id.len() > ID_MAX || !visible(&all.node_id),
            format!(
                "node_id is longer than {ID_MAX} bytes or not of visible ASCII: gateways would overlook it"
            ),
        ),
        (store.is_some(), store.unwrap_or_default()),
        (
            prefix.is_empty() || prefix.len() > PREFIX_MAX || !prefix.bytes().all(fits),
            format!(
                "store_prefix is {prefix:?}, and should be 1 to {PREFIX_MAX} letters, digits, or `: - _ .`"
            ),
        ),
        (
            !all.url.is_empty() && !all.store_url.is_empty() && is_url(&all.url) && !reaches_itself(all),
            format!("allowed_hosts lacks the host of url, {:?}: gateways would get 403", all.url),
        ),
    ]
}

/// Lists of names: each entry must be one that can be met.
fn names(all: &Settings) -> Vec<Rule> {
    let mut rules = Vec::new();
    for label in &all.labels {
        let is_label = label.split_once('=').is_some_and(|(key, _)| !key.is_empty());
        rules.push((!is_label, format!("labels has {label:?}, and a label is like gpu=yes")));
    }
    for tool in &all.tools {
        rules.push((tool.is_empty(), "tools has an empty name".to_owned()));
    }
    for host in &all.allowed_hosts {
        let why = "and a host is a name without scheme and path; no host at all: any is answered";
        rules.push((!is_host(host), format!("allowed_hosts has {host:?}, {why}")));
    }
    for origin in &all.allowed_origins {
        let why = "and an origin is like https://app.example, without a path; there is none for all";
        rules.push((!is_origin(origin), format!("allowed_origins has {origin:?}, {why}")));
    }
    rules
}

fn secrets(all: &Settings) -> Vec<Rule> {
    let registry = &all.registry_secret.0;
    vec![
        (
            !registry.is_empty() && registry.len() < SECRET_MIN,
            format!("registry_secret is shorter than {SECRET_MIN} bytes: it could be guessed"),
        ),
        (
            !registry.is_empty() && all.store_url.is_empty(),
            "registry_secret is set, but no store_url: there is no registry to sign for".to_owned(),
        ),
        (
            all.identity_secrets.iter().any(|secret| secret.0.len() < IDENTITY_SECRET_MIN),
            format!(
                "one of identity_secrets is shorter than {IDENTITY_SECRET_MIN} bytes: it could be guessed"
            ),
        ),
    ]
}

/// A connection carries one request at a time.
fn connections(all: &Settings) -> Vec<Rule> {
    let beside = all.connections_max.saturating_sub(all.concurrent_max);
    vec![
        (
            all.connections_max < all.concurrent_max,
            "connections_max is below concurrent_max: the places could never be filled".to_owned(),
        ),
        (
            all.connections_max >= all.concurrent_max && all.streams_max > beside,
            format!(
                "streams_max is over {beside}, connections_max without concurrent_max: streams could take the connections of calls"
            ),
        ),
        (
            all.when_full == WhenFull::Refuse && all.queue_max > beside,
            format!(
                "queue_max is over {beside}, connections_max without concurrent_max: the queue could never be full, \
                 and nobody be refused"
            ),
        ),
    ]
}

/// Times that contradict one another.
fn times(all: &Settings) -> Vec<Rule> {
    let ms = |seconds: u64| seconds.saturating_mul(1000);
    vec![
        (
            all.queue_wait_max_ms >= all.request_timeout_ms.max(1),
            "queue_wait_max_ms is not below request_timeout_ms: what waited so long would have no time left"
                .to_owned(),
        ),
        (
            ms(all.drain_s) < all.request_timeout_ms,
            "drain_s is shorter than request_timeout_ms: a shutdown would cut off sound requests".to_owned(),
        ),
        (
            ms(all.session_ttl_s) < all.request_timeout_ms,
            "session_ttl_s is shorter than request_timeout_ms: what a session keeps could be gone before its call ends"
                .to_owned(),
        ),
    ]
}

/// The port of `HOST:PORT`.
fn port(address: &str) -> Option<u16> {
    let (host, port) = address.rsplit_once(':')?;
    if host.is_empty() { None } else { port.parse().ok() }
}

/// Whether others than this machine reach the node.
fn is_open(all: &Settings) -> bool {
    let host = all.address.rsplit_once(':').map_or("", |(host, _)| host).trim_matches(['[', ']']);
    let is_loopback = host.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback());
    !is_loopback && !host.eq_ignore_ascii_case("localhost")
}

/// Whether a request to where the node says it is comes in: the address is one, and its host is allowed.
fn reaches_itself(all: &Settings) -> bool {
    let url = all.public_url().parse::<Uri>();
    let Some(authority) = url.ok().and_then(|url| url.authority().cloned()) else { return false };
    let ip = authority.host().trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    !ip.is_ok_and(|ip| ip.is_unspecified()) && door::is_allowed(&all.allowed_hosts, &authority)
}

fn is_url(url: &str) -> bool {
    let Ok(url) = url.parse::<Uri>() else { return false };
    let has_host = url
        .authority()
        .is_some_and(|authority| !authority.host().is_empty() && !authority.as_str().contains('@'));
    has_host && matches!(url.scheme_str(), Some("http" | "https"))
}

fn is_host(host: &str) -> bool {
    let is_ipv6 = host.parse::<std::net::Ipv6Addr>().is_ok();
    is_ipv6 || (!host.contains(['*', '@']) && host.parse::<Authority>().is_ok())
}

/// `scheme://host[:port]`, as browsers write it.
fn is_origin(origin: &str) -> bool {
    let Some((scheme, host)) = origin.split_once("://") else { return false };
    !scheme.is_empty() && is_host(host)
}

#[cfg(test)]
mod tests;
