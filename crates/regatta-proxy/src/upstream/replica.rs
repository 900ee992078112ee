//! The running side of one replica: its connections, what is in flight there, what was seen of it.
//!
//! Lives as long as somebody uses it, also after its replica left the config. What the control plane thinks of it is in
//! the snapshot and not here.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use http::{HeaderValue, Uri};
use regatta_policy::balance::{Candidate, Standing};
use regatta_policy::eject::{Decision, Outcome};
use regatta_policy::gone::{Attempt, Verdict};
use regatta_policy::snapshot::{CallBounds, Duty, Endpoint, Health, Replica, Scheme};
use regatta_policy::{Micros, ReplicaId};
use tokio::sync::watch;

use super::codec;
use super::connect::Trust;
use super::flock::{Flock, Knock};
use super::pool::Pool;
use super::vitals::Vitals;

/// One replica, as the data plane sees it.
pub struct Upstream {
    /// Its name in every gateway.
    pub id: ReplicaId,
    /// Where it listens.
    pub endpoint: Endpoint,
    /// What stands between the method and the headers of every request to it.
    pub(super) opening: Box<[u8]>,
    pub(super) pool: Pool,
    pub(super) common: Arc<Common>,
    vitals: Vitals,
    in_flight: AtomicU32,
    /// Until when no new work is sent there, microseconds of the clock; in the past mostly.
    held_until_us: AtomicU64,
    /// Rings when its lease ended without a word; true from then on.
    lost: watch::Sender<bool>,
    pub(super) connects: AtomicU64,
}

/// What all replicas share.
pub(super) struct Common {
    pub(super) start: Instant,
    pub(super) trust: Trust,
    /// `TCP_USER_TIMEOUT` of new connections, milliseconds.
    pub(super) user_timeout_ms: AtomicU64,
}

/// One request in flight at a replica, until dropped.
pub struct Lease {
    pub(super) upstream: Arc<Upstream>,
}

/// One replica, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaStatus {
    /// Its name in every gateway.
    pub id: ReplicaId,
    /// Where it listens, as written.
    pub url: String,
    /// Requests in flight from this gateway, open streams included.
    pub in_flight: u32,
    /// Average latency of whole answers; `None` while unknown.
    pub latency: Option<Duration>,
    /// How much longer it is ejected; zero when a probe is due, `None` if it is not ejected.
    pub ejected_for: Option<Duration>,
    /// Open connections, idle ones included.
    pub connections: usize,
    /// Of these, idle.
    pub idle: usize,
    /// Connections ever opened.
    pub connects: u64,
    /// Requests that found an open connection.
    pub reused: u64,
}

impl Upstream {
    pub(super) fn new(replica: &Replica, flock: Arc<Flock>, common: Arc<Common>) -> Arc<Upstream> {
        let endpoint = replica.endpoint.clone();
        let now = common.now();
        let authority = authority(&endpoint);
        // A path that is none would end the request line early; the snapshot is checked, so this never happens.
        let target = endpoint.path.parse().unwrap_or_else(|_| Uri::from_static("/"));
        let target = target.path_and_query().map_or("/", PathAndQuery::as_str);
        Arc::new(Upstream {
            id: replica.id,
            opening: codec::opening(target, &authority),
            endpoint,
            pool: Pool::new(Arc::clone(&flock.budget)),
            vitals: Vitals::new(flock, now),
            common,
            in_flight: AtomicU32::new(0),
            held_until_us: AtomicU64::new(0),
            lost: watch::Sender::new(false),
            connects: AtomicU64::new(0),
        })
    }

    /// Its lease ended without a word: who waits for an answer of it waits no longer.
    pub(super) fn lose(&self) {
        self.lost.send_replace(true);
    }

    /// Returns when its lease ended so.
    pub async fn lost(&self) {
        let mut lost = self.lost.subscribe();
        // The sender is ours, so it cannot end before.
        let _ = lost.wait_for(|lost| *lost).await;
    }

    /// Counts as unhealthy until `until`, or until it is let in: what it still holds is ended first.
    pub(crate) fn hold(&self, until: Micros) {
        self.held_until_us.store(until.0, Ordering::Relaxed);
    }

    /// It is held no longer.
    pub(crate) fn let_in(&self) {
        self.held_until_us.store(0, Ordering::Relaxed);
    }

    /// What it is called in `Host`.
    pub(crate) fn authority(&self) -> HeaderValue {
        authority(&self.endpoint)
    }

    /// Counts one more request in flight, until the lease is dropped.
    pub fn lease(self: &Arc<Self>) -> Lease {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Lease { upstream: Arc::clone(self) }
    }

    /// Requests in flight from this gateway.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// This replica in a choice at `now`, on the clock that `Upstreams::new` was given.
    ///
    /// One whose ejection is over counts as good: the request that is sent there first is its probe, and until that ended
    /// it is ejected again.
    pub fn candidate(&self, replica: &Replica, now: Micros) -> Candidate {
        let seen = self.vitals.look();
        let is_held = now.0 < self.held_until_us.load(Ordering::Relaxed);
        let standing = if replica.duty == Duty::Draining {
            Standing::Draining
        } else if is_held || !matches!(replica.health, Health::Unknown | Health::Healthy) {
            Standing::Unhealthy
        } else if seen.is_shut(now) {
            Standing::Ejected
        } else {
            Standing::Good
        };
        Candidate {
            id: self.id,
            in_flight: self.in_flight(),
            ewma_us: seen.latency_us(now),
            load: replica.load,
            age: now.since(seen.since),
            standing,
        }
    }

    /// Whether its server takes a request now: not while every replica of it fails, but for one that tries.
    pub fn knock(&self) -> Knock {
        self.vitals.knock(|| self.common.now())
    }

    /// Tells what probes say of it.
    pub(super) fn hear(&self, health: Health) {
        self.vitals.hear(health, self.common.now());
    }

    /// Tells that a call was silent for `request_timeout`: only the caller has that clock.
    pub fn timed_out(&self) {
        self.record(Outcome::TimedOut, None, self.common.now());
    }

    /// Whether a bound session may leave this replica, after `attempt`. All calls that are bound here share the memory.
    pub fn judge_gone(&self, attempt: Attempt, bounds: &CallBounds) -> Verdict {
        self.vitals.judge_gone(attempt, bounds, self.common.now())
    }

    /// For people.
    pub fn status(&self) -> ReplicaStatus {
        let now = self.common.now();
        let seen = self.vitals.look();
        ReplicaStatus {
            id: self.id,
            url: self.endpoint.url.clone(),
            in_flight: self.in_flight(),
            latency: seen.latency.map(|latency| Duration::from_micros(latency.read_us(now))),
            ejected_for: seen.is_ejected().then(|| seen.ejected_until.since(now)),
            connections: self.pool.connections(),
            idle: self.pool.idle_count(),
            connects: self.connects.load(Ordering::Relaxed),
            reused: self.pool.reused.load(Ordering::Relaxed),
        }
    }

    pub(super) fn begin(&self, now: Micros) {
        self.vitals.begin(now);
    }

    pub(super) fn record(&self, outcome: Outcome, latency: Option<Duration>, now: Micros) {
        let replica = self.endpoint.url.as_str();
        match self.vitals.record(outcome, latency, now) {
            Decision::Ejected { until } => {
                tracing::warn!(replica, ?outcome, seconds = until.since(now).as_secs(), "replica ejected");
            }
            Decision::Returned => tracing::info!(replica, "ejected replica returned"),
            Decision::Spared => tracing::debug!(replica, "not ejected: too many are already"),
            Decision::Stays => {}
        }
    }

    /// The replica left the config: idle connections close now, busy ones as they end.
    pub(super) fn leave(&self) {
        self.vitals.leave();
        self.pool.close();
    }
}

impl Common {
    /// Now, on the clock that `Upstreams::new` was given.
    pub(super) fn now(&self) -> Micros {
        Micros(u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX))
    }
}

impl Lease {
    /// The replica that this request is at.
    pub fn upstream(&self) -> &Arc<Upstream> {
        &self.upstream
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.upstream.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

impl fmt::Debug for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstream")
            .field("id", &self.id)
            .field("url", &self.endpoint.url)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Lease").field(&self.upstream.endpoint.url).finish()
    }
}

/// Host and port as in a `Host` header: brackets round IPv6, no default port (RFC 9110 7.2).
pub(super) fn authority(endpoint: &Endpoint) -> HeaderValue {
    let host = &endpoint.host;
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    let text = match (endpoint.scheme, endpoint.port) {
        (Scheme::Http, 80) | (Scheme::Https, 443) => host,
        (Scheme::Http | Scheme::Https, port) => format!("{host}:{port}"),
    };
    // The snapshot is checked; an empty Host would be refused by any server, so nothing is sent astray.
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(""))
}
