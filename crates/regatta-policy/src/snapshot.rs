//! What the control plane knows and the data plane obeys: one immutable value, handed down whole.
//!
//! Pure data, already checked: nothing here can be half valid. It never holds what only the data plane sees
//! (in-flight counts, latency, ejection); secrets stand in types that show and log nothing.

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;

use crate::access::Access;
use crate::cache;
use crate::catalogue::Catalogue;
use crate::glob::Glob;
use crate::ids::ReplicaId;
use crate::line::Rank;
use crate::peers::Proxies;
use crate::quota::Rule;
use crate::registry::Load;

/// Everything the data plane needs to serve, as of one moment.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Rises by one with every snapshot that a control plane hands down.
    pub version: u64,
    /// The servers, each under a path of its own.
    pub servers: Vec<Arc<Server>>,
    /// The gateway's own bounds.
    pub limits: Arc<Limits>,
    /// Which `Host` and `Origin` values are let in.
    pub admission: Arc<Origins>,
    /// How much callers may ask for.
    pub quotas: Arc<Vec<Rule>>,
    /// Who may call; none: nobody checks here, the servers do (SESSIONS 9).
    pub access: Option<Arc<Access>>,
    /// Whose word about a client's address is taken.
    pub proxies: Arc<Proxies>,
}

/// Host and Origin allow-lists (2026-07-28 basic/transports/streamable-http, *Security & Endpoint*).
#[derive(Clone, Debug, Default)]
pub struct Origins {
    /// Lower-case host names without port, besides the loopback names and the listener's own address.
    pub hosts: Vec<String>,
    /// Lower-case origins (`https://app.example`), besides loopback origins.
    pub origins: Vec<String>,
    /// `"*"` was written as a host: every Host is let in.
    pub any_host: bool,
}

/// One logical MCP server.
#[derive(Clone, Debug)]
pub struct Server {
    /// The name in the config.
    pub name: String,
    /// The path clients use, `/mcp` by default.
    pub path: String,
    /// How an unbound request finds its replica.
    pub balance: Balance,
    /// Where the server keeps what it knows of a session.
    pub session_state: SessionState,
    /// What binds modern requests softly to one replica.
    pub affinity: Affinity,
    /// Whether list cursors only mean something to the replica that made them.
    pub cursors: Cursors,
    /// Whether the upstream's own SSE event ids can be used to resume at it.
    pub upstream_resume: UpstreamResume,
    /// Tools that may be sent again after a loss.
    pub repeatable_tools: Vec<Glob>,
    /// What of its results may be kept; the first rule that names a tool is the tool's.
    pub cache: Vec<cache::Rule>,
    /// What of its lists and reads may be kept.
    pub lists: cache::Lists,
    /// The bounds of a call to this server.
    pub call: CallBounds,
    /// Connections to all its replicas, of all gateways together; none: no such bound.
    pub connections_max: Option<u32>,
    /// How many calls it gets at once.
    pub concurrency: Concurrency,
    /// What happens while every replica fails.
    pub breaker: Breaker,
    /// Tools that are treated apart, the first that fits counts.
    pub classes: Vec<ToolClass>,
    /// What this gateway shows the server of itself; none: nothing.
    pub credential: Option<Credential>,
    /// The replicas: those of the config in its order, then nodes by their id.
    pub replicas: Vec<Replica>,
    /// Whether nodes may join, and which of them were lost.
    pub leases: Leases,
    /// Which replica has which tools; none where that is nobody's business.
    pub catalogue: Option<Arc<Catalogue>>,
    /// The definitions of the tools whose results are kept.
    pub definitions: Arc<cache::Definitions>,
}

/// What a server's replicas owe their place to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leases {
    /// The config alone: one that leaves it finishes what it has.
    Unleased,
    /// Some of them to a lease, which can end without a word.
    Leased {
        /// Nodes whose lease ended so, the latest last, for as long as somebody may wait there: what has no answer yet
        /// is lost.
        lost: Vec<ReplicaId>,
    },
}

/// How many calls a server gets at once from this gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Concurrency {
    /// How that number is found.
    pub mode: ConcurrencyMode,
    /// The number, or the most that may be found.
    pub inflight_max: usize,
    /// Calls that wait for a place at this server.
    pub queue_max: usize,
    /// How long one waits.
    pub queue_wait_max: Duration,
}

/// What happens while every replica of a server fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breaker {
    /// Requests are refused at once, and one at a time tries.
    On,
    /// Every request finds out by itself.
    Off,
}

/// How the number of calls at once is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConcurrencyMode {
    /// There is none: the gateway's own bounds hold.
    Off,
    /// It is what the operator wrote.
    Static,
    /// From how fast the server answers.
    Adaptive,
}

/// Tools of a server that are treated apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ToolClass {
    /// For metrics and people.
    pub name: String,
    /// The tools.
    pub tools: Vec<Glob>,
    /// Whether somebody waits for them.
    pub rank: Rank,
    /// Calls of this class at once; none: as many as the server gets.
    pub inflight_max: Option<usize>,
}

/// A header with a secret that a server asks for.
#[derive(Clone, Debug)]
pub struct Credential {
    /// Its name, in lower case.
    pub header: String,
    /// Its value.
    pub value: SecretString,
}

/// The bounds of one call.
#[derive(Clone, Debug)]
pub struct CallBounds {
    /// How long a server may be silent in a call; every event of the server starts it again.
    pub request_timeout: Duration,
    /// The end of any call.
    pub request_max: Duration,
    /// How long a TCP (and TLS) connect may take.
    pub connect_timeout: Duration,
    /// How long a bound replica may be unreachable before it counts as gone.
    pub gone_after: Duration,
    /// How long an upstream head may take before we commit to 200 and SSE (legacy).
    pub prime_after: Duration,
    /// Connections to one replica.
    pub connections_per_replica_max: usize,
}

/// One running copy of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// Stable name: hash of server and endpoint, or of a node's id and boot nonce.
    pub id: ReplicaId,
    /// Where it listens.
    pub endpoint: Endpoint,
    /// What active probes say.
    pub health: Health,
    /// Which eras it answered to.
    pub eras: Eras,
    /// Work it may get.
    pub duty: Duty,
    /// What it says of its own load, if it is a node and its report is fresh.
    pub load: Option<Load>,
    /// The tools, sorted, whose calls it keeps in the journal of its server: sent again to a replica that keeps them too,
    /// such a call runs at most once.
    pub journal: Arc<[String]>,
}

impl Replica {
    /// Whether calls of `tool` are in its journal.
    pub fn journals(&self, tool: &str) -> bool {
        self.journal.binary_search_by(|kept| kept.as_str().cmp(tool)).is_ok()
    }
}

/// Where a replica listens, taken apart once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// As written, for people.
    pub url: String,
    /// Plain or TLS.
    pub scheme: Scheme,
    /// Host name or address without port or brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Path and query, from `/`.
    pub path: String,
}

/// Transport security of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    /// HTTP over TCP.
    Http,
    /// HTTP over TLS.
    Https,
}

/// What active probes say of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// Not probed yet: may serve.
    Unknown,
    /// Spoke MCP at the last probe.
    Healthy,
    /// Did not.
    Unhealthy,
    /// Gave no answer at all, twice in a row: bound sessions may leave it after `gone_after` (SESSIONS 4).
    Unreachable,
}

/// Which protocol eras a replica speaks, as far as known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Eras {
    /// Not known yet: tried with either.
    Unknown,
    /// `initialize` and sessions only.
    Legacy,
    /// Per-request `_meta` only.
    Modern,
    /// Both.
    Dual,
}

/// Whether a replica takes new work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duty {
    /// Takes new sessions and calls.
    Serving,
    /// Finishes what it has; bound sessions stay until it is gone. A node that is suspect or leaving, or not ready yet.
    Draining,
}

/// How an unbound request finds its replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// One after the other.
    RoundRobin,
    /// Fewest requests in flight.
    LeastConnections,
    /// Power of two choices over in-flight and latency.
    LeastLoad,
    /// The client's address chooses.
    StickyIp,
}

/// Where a server keeps what it knows of a session (DESIGN 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// Outside its process: a session resumes anywhere and nothing is lost.
    External,
    /// Not known: a session resumes, and says so.
    Unknown,
    /// In its memory: a lost replica ends its sessions with 404.
    Memory,
}

/// What binds modern requests softly to one replica (SESSIONS 7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Affinity {
    /// Nothing.
    None,
    /// Who calls.
    Principal,
    /// The value of a header.
    Header(String),
    /// The value of an argument of `tools/call`.
    Argument(String),
}

/// Whether list cursors are wrapped with their maker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cursors {
    /// Any replica understands them.
    Shared,
    /// Only the replica that made them does.
    Replica,
}

/// Whether the upstream's own event ids can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpstreamResume {
    /// They cannot.
    Unsupported,
    /// They can.
    Supported,
}

/// The gateway's own bounds; each has a metric that rises when it bites.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a request body.
    pub body_max: usize,
    /// Bytes of all request headers together.
    pub header_max: usize,
    /// Header lines of a request.
    pub header_count_max: usize,
    /// Bytes of one SSE event from a server.
    pub event_max: usize,
    /// Bytes of a JSON answer that is held to be checked; a longer one streams.
    pub answer_hold_max: usize,
    /// Bytes of a handle (`requestState`, task id) that can be wrapped.
    pub handle_max: usize,
    /// Bytes of a session token.
    pub token_max: usize,
    /// Calls in flight.
    pub inflight_max: usize,
    /// Requests of the exempt classes in flight; overflow waits.
    pub reserved_max: usize,
    /// Requests that wait for a place.
    pub queue_max: usize,
    /// How long one waits for a place.
    pub queue_wait_max: Duration,
    /// Client connections.
    pub connections_max: usize,
    /// Open streams (standing GET, listen) of one principal.
    pub streams_per_principal_max: usize,
    /// Open streams in all.
    pub streams_max: usize,
    /// `initialize` requests of one principal per minute.
    pub initialize_per_minute_max: u32,
    /// Keys under which requests are counted, over all rules.
    pub limit_keys_max: usize,
    /// Legacy calls that run on without their connection, of one principal.
    pub detached_per_principal_max: usize,
    /// The same in all.
    pub detached_max: usize,
    /// Calls that wait for a person.
    pub parked_max: usize,
    /// Bytes kept of one stream for a resume.
    pub ring_bytes_max: usize,
    /// Bytes kept of all streams for a resume.
    pub ring_total_max: usize,
    /// How long the end of a stream can still be fetched.
    pub resume_window: Duration,
    /// Bytes a slow reader may leave unread.
    pub unread_max: usize,
    /// How long a client may take for its headers, and an idle connection may stay.
    pub header_timeout: Duration,
    /// How long a client may take for its body.
    pub body_timeout: Duration,
    /// Silence on a stream before a comment is sent.
    pub keep_alive: Duration,
    /// How long a peer may leave sent bytes unacknowledged (`TCP_USER_TIMEOUT`).
    pub tcp_user_timeout: Duration,
    /// How long a session lives from its issue.
    pub session_lifetime_max: Duration,
    /// Opened tokens kept.
    pub session_cache_max: usize,
    /// Bytes of kept results.
    pub cache_bytes_max: usize,
    /// Live `resources/subscribe` of one session.
    pub subscriptions_max: usize,
    /// Retries as a share of requests, in percent.
    pub retry_budget_percent: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            body_max: 4 << 20,
            header_max: 64 << 10,
            header_count_max: 100,
            event_max: 16 << 20,
            answer_hold_max: 256 << 10,
            handle_max: 64 << 10,
            token_max: 4 << 10,
            inflight_max: 1000,
            reserved_max: 64,
            queue_max: 1000,
            queue_wait_max: Duration::from_secs(1),
            connections_max: 20_000,
            streams_per_principal_max: 10_000,
            streams_max: 15_000,
            initialize_per_minute_max: 6_000,
            limit_keys_max: 65_536,
            detached_per_principal_max: 100,
            detached_max: 1000,
            parked_max: 1000,
            ring_bytes_max: 256 << 10,
            ring_total_max: 32 << 20,
            resume_window: Duration::from_secs(60),
            unread_max: 256 << 10,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            keep_alive: Duration::from_secs(15),
            tcp_user_timeout: Duration::from_secs(20),
            session_lifetime_max: Duration::from_secs(7 * 24 * 3600),
            session_cache_max: 8192,
            cache_bytes_max: 64 << 20,
            subscriptions_max: 1000,
            retry_budget_percent: 10,
        }
    }
}

impl Default for CallBounds {
    fn default() -> Self {
        CallBounds {
            request_timeout: Duration::from_secs(30),
            request_max: Duration::from_secs(600),
            connect_timeout: Duration::from_secs(1),
            gone_after: Duration::from_secs(2),
            prime_after: Duration::from_secs(1),
            connections_per_replica_max: 16_384,
        }
    }
}

impl Default for Concurrency {
    fn default() -> Self {
        Concurrency {
            mode: ConcurrencyMode::Off,
            inflight_max: 1000,
            queue_max: 1000,
            queue_wait_max: Duration::from_secs(1),
        }
    }
}

impl Eras {
    /// Whether legacy sessions may be opened there.
    pub fn speaks_legacy(self) -> bool {
        match self {
            Eras::Unknown | Eras::Legacy | Eras::Dual => true,
            Eras::Modern => false,
        }
    }

    /// Whether modern requests may be sent there.
    pub fn speaks_modern(self) -> bool {
        match self {
            Eras::Unknown | Eras::Modern | Eras::Dual => true,
            Eras::Legacy => false,
        }
    }
}

impl Snapshot {
    /// The server under `path`, if one is there. Paths are compared byte for byte: nothing is normalised.
    pub fn server_at(&self, path: &str) -> Option<&Arc<Server>> {
        self.servers.iter().find(|server| server.path == path)
    }
}
