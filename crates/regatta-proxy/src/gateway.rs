//! What all requests of one gateway share. `Gateway` is made once and handed to every stage by reference.
//!
//! It obeys snapshots and gives out metrics; it never asks the control plane anything.

use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::time::Instant;

use arc_swap::ArcSwap;
use regatta_cache::{Fleet, Rings};
use regatta_policy::access::Asked;
use regatta_policy::admission::Bounds;
use regatta_policy::ids::{ReplicaId, mix};
use regatta_policy::peers::Proxies;
use regatta_policy::retry::{ALLOWANCE, Allowance, Budget, Spend};
use regatta_policy::snapshot::{Duty, Health, Limits, Snapshot};
use regatta_seal::{KeyRing, MasterKey};
use regatta_store::{Store, Uuid16};
use tokio::sync::watch;

use crate::busy_poll::Poller;
use crate::callers::Callers;
use crate::clock::Clock;
use crate::handover::Account;
use crate::listen::shared::SharedLegs;
use crate::metrics::Metrics;
use crate::nap::Nap;
use crate::peers::{Company, Keys, Peers};
use crate::pending::Pending;
use crate::pipeline::rehome::{self, Retired, Untold};
use crate::quotas::Quotas;
use crate::results::Results;
use crate::session::SessionCache;
use crate::slots::Slots;
use crate::streams::stream::{Stream, Turned};
use crate::streams::table::{Resting, StreamTable};
use crate::tool_news::{self, ToolNews};
use crate::upstream::{ReplicaStatus, Upstreams};
use crate::view::View;

/// One gateway's data plane.
pub struct Gateway {
    view: ArcSwap<View>,
    /// The version of the view, for who waits for a newer one.
    applied: watch::Sender<u64>,
    ask_keys: AskKeys,
    limits: Arc<ArcSwap<Limits>>,
    proxies: Arc<ArcSwap<Proxies>>,
    pub(crate) upstreams: Upstreams,
    pub(crate) ring: Arc<ArcSwap<KeyRing>>,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Clock,
    pub(crate) nap: Nap,
    /// Tells this run of the process from any other, in event ids.
    pub(crate) boot: [u8; 8],
    pub(crate) slots: Arc<Slots>,
    pub(crate) sessions: SessionCache,
    pub(crate) streams: StreamTable,
    pub(crate) shared_legs: SharedLegs,
    pub(crate) callers: Callers,
    pub(crate) quotas: Quotas,
    pub(crate) pending: Pending,
    pub(crate) peers: Peers,
    pub(crate) metrics: Metrics,
    pub(crate) poller: Poller,
    pub(crate) results: Results,
    pub(crate) rehoming: Rehoming,
    pub(crate) tool_news: ToolNews,
    retries: Mutex<Budget>,
    rolls: AtomicU64,
    draining: AtomicBool,
    /// Rings once, when a drain begins.
    pub(crate) leaving: Arc<tokio::sync::Notify>,
    /// Rings once, when a drain's deadline is near.
    pub(crate) last_words: Arc<tokio::sync::Notify>,
}

/// Re-homings under way, and what is left to do after them.
#[derive(Default)]
pub(crate) struct Rehoming {
    /// One at a time for each session.
    pub flights: Mutex<HashMap<Uuid16, Arc<tokio::sync::Mutex<()>>>>,
    /// Homes that were left while their replica was out of reach, to be ended when it returns (SESSIONS 4).
    pub retired: Mutex<Vec<Retired>>,
    /// Moved sessions whose client was not told yet.
    pub untold: Untold,
}

/// Asks whoever keeps the issuers' keys for newer ones of the issuer with this URL. Bounded in number and in time by
/// who answers.
pub type AskKeys = Arc<dyn Fn(String) -> Pin<Box<dyn Future<Output = Asked> + Send>> + Send + Sync>;

/// What a gateway is made of.
pub struct Parts {
    /// The first snapshot.
    pub snapshot: Arc<Snapshot>,
    /// The keys for tokens, event ids, handles and letters.
    pub keys: Keys,
    /// Where deviations go.
    pub store: Arc<dyn Store>,
    /// Whether other gateways use the same store.
    pub company: Company,
    /// Where results go that other gateways may give out too.
    pub fleet: Option<Arc<dyn Fleet>>,
    /// Whom to ask for keys of issuers.
    pub ask_keys: AskKeys,
}

impl Gateway {
    /// A gateway that can serve at once.
    pub fn new(parts: Parts) -> Arc<Gateway> {
        let Parts { snapshot, keys, store, company, fleet, ask_keys } = parts;
        let ring = keys.ring().unwrap_or_else(|| KeyRing::new(&MasterKey::random()));
        let boot = regatta_seal::random_u64().to_be_bytes();
        let start = Instant::now();
        let upstreams = Upstreams::new(start);
        upstreams.apply(&snapshot);
        let limits = snapshot.limits.clone();
        let clock = Clock::start(start);
        let ring = Arc::new(ArcSwap::from_pointee(ring));
        let fleet = fleet.map(|fleet| {
            let ring = ring.clone();
            (fleet, Arc::new(move || ring.load_full()) as Rings)
        });
        let results = Results::new(limits.cache_bytes_max as u64, fleet);
        let metrics = Metrics::new(results.tallies());
        let with = (&metrics, &results, clock);
        Arc::new(Gateway {
            view: ArcSwap::from_pointee(View::new(&snapshot, &upstreams, with, None)),
            quotas: Quotas::new(company, limits.limit_keys_max),
            applied: watch::Sender::new(snapshot.version),
            ask_keys,
            slots: Arc::new(Slots::new(bounds(&limits))),
            sessions: SessionCache::new(limits.session_cache_max),
            limits: Arc::new(ArcSwap::new(limits)),
            proxies: Arc::new(ArcSwap::new(snapshot.proxies.clone())),
            upstreams,
            ring,
            store,
            nap: Nap::default(),
            boot,
            streams: StreamTable::default(),
            shared_legs: SharedLegs::default(),
            callers: Callers::default(),
            pending: Pending::default(),
            peers: Peers::new(company, boot, keys),
            metrics,
            poller: Poller::default(),
            results,
            rehoming: Rehoming::default(),
            tool_news: ToolNews::default(),
            retries: Mutex::new(Budget::new(ALLOWANCE, clock.now())),
            rolls: AtomicU64::new(regatta_seal::random_u64()),
            draining: AtomicBool::new(false),
            leaving: Arc::default(),
            last_words: Arc::default(),
            clock,
        })
    }

    /// Serves by `snapshot` from the next request on.
    pub fn apply(&self, snapshot: Arc<Snapshot>) {
        self.upstreams.apply(&snapshot);
        self.limits.store(snapshot.limits.clone());
        self.proxies.store(snapshot.proxies.clone());
        self.slots.rebound(bounds(&snapshot.limits));
        self.results.cache.rebound(snapshot.limits.cache_bytes_max as u64);
        self.quotas.rebound(snapshot.limits.limit_keys_max);
        let (with, before) = ((&self.metrics, &self.results, self.clock), self.view.load_full());
        let view = View::new(&snapshot, &self.upstreams, with, Some(&before));
        let view = Arc::new(view);
        // Before anybody sees that they are back.
        rehome::hold_returning(self, &before, &view);
        self.view.store(view.clone());
        self.results.retain(&snapshot);
        for server in view.servers.iter().filter(|server| tool_news::is_renewed(&before, server)) {
            drop(server.results.missed());
        }
        // After the view and what was kept: who is told of a new list must find it.
        self.tool_news.publish(&before, &snapshot);
        self.applied.send_replace(snapshot.version);
    }

    /// Tells of each snapshot that was applied.
    pub(crate) fn watch_applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    /// The metrics of the data plane, gauges brought up to date.
    pub fn metrics_text(&self) -> String {
        let counts = self.slots.counts();
        let gauge = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.metrics.inflight.set(gauge(counts.inflight + counts.reserved));
        self.metrics.queued.set(gauge(counts.queued + counts.reserved_queued));
        self.metrics.parked.set(gauge(counts.parked));
        self.metrics.streams.set(gauge(self.callers.streams_open()));
        self.metrics.shared_legs.set(gauge(self.shared_legs.open_legs()));
        self.metrics.limit_keys.set(gauge(self.quotas.keys()));
        let displaced = self.quotas.displaced();
        self.metrics
            .limit_keys_displaced
            .inc_by(displaced.saturating_sub(self.metrics.limit_keys_displaced.get()));
        let (asked, alone, gateways) = self.quotas.counts();
        let counters = [(&self.metrics.limit_asked, asked), (&self.metrics.limit_alone, alone)];
        counters.into_iter().for_each(|(counter, now)| {
            counter.inc_by(now.saturating_sub(counter.get()));
        });
        self.metrics.limit_gateways.set(i64::from(gateways));
        self.metrics.clear_servers();
        for server in &self.view().servers {
            if let Some(limit) = server.gate.limit() {
                self.metrics.show_server(&server.server.name, limit, server.gate.counts());
            }
            let name = &server.server.name;
            if let (Some(_), Some(budget)) = (server.server.connections_max, self.upstreams.budget(name)) {
                let used = budget.used();
                self.metrics.show_connections(name, used.taken, used.allowed);
            }
        }
        self.metrics.text()
    }

    /// How each replica is doing, as seen from here.
    pub fn status(&self) -> Vec<ReplicaStatus> {
        self.upstreams.status()
    }

    /// The replicas that are given new work: serving and healthy, as the snapshot in force has it.
    pub fn serving(&self) -> HashSet<ReplicaId> {
        let view = self.view();
        let replicas = view.servers.iter().flat_map(|server| &server.replicas).map(|seen| &seen.replica);
        let serving = replicas.filter(|one| one.duty == Duty::Serving && one.health == Health::Healthy);
        serving.map(|one| one.id).collect()
    }

    /// The bounds in force, shared with the listener.
    pub fn shared_limits(&self) -> Arc<ArcSwap<Limits>> {
        self.limits.clone()
    }

    /// The trusted proxies, shared with the listener.
    pub fn shared_proxies(&self) -> Arc<ArcSwap<Proxies>> {
        self.proxies.clone()
    }

    /// Whether a drain has begun.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// New work is refused from now on; `leave` does the rest.
    pub fn begin_drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    pub(crate) fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Asks for newer keys of `issuer`; returns when the view has them, if there are any.
    pub(crate) async fn newer_keys(&self, issuer: String) -> Asked {
        self.metrics.keys_asked.inc();
        let asked = (self.ask_keys)(issuer).await;
        if let Asked::Found { version } = asked {
            // The sender lives as long as `self`.
            let _ = self.applied.subscribe().wait_for(|applied| *applied >= version).await;
        }
        asked
    }

    pub(crate) fn limits(&self) -> Arc<Limits> {
        self.limits.load_full()
    }

    /// 64 random bits for a choice that nobody should foresee but that protects nothing.
    pub(crate) fn dice(&self) -> u64 {
        mix(self.rolls.fetch_add(0x9e37_79b9_7f4a_7c15, Ordering::Relaxed))
    }

    /// How long a call may run without a connection; its own clocks are shorter.
    pub(crate) fn detached_wait(&self) -> Duration {
        const LONGER_THAN_ANY_CALL: Duration = Duration::from_secs(24 * 3600);
        LONGER_THAN_ANY_CALL
    }

    /// Keeps the table right when a stream came to rest.
    pub(crate) fn note_turn(&self, stream: &Stream, turned: Turned) {
        match turned {
            Turned::No => {}
            Turned::Rests { rest, bytes } => {
                let resting = Resting { rest, at: self.clock.now(), bytes };
                self.streams.rests(stream, resting, self.limits.load().ring_total_max);
            }
        }
    }

    /// Runs `work` of a caller that has gone, in a task of its own, if the caller may have one more (`detached_max`).
    pub(crate) fn detach(
        self: &Arc<Self>,
        account: Account,
        work: impl Future<Output = ()> + Send + 'static,
    ) {
        let Some(place) = self.callers.detach(account, &self.limits()) else {
            self.metrics.detached_refused.inc();
            return;
        };
        let gateway = self.clone();
        gateway.metrics.detached.inc();
        tokio::spawn(async move {
            let _place = place;
            work.await;
            gateway.metrics.detached.dec();
        });
    }

    /// A first sending earns a share of a retry.
    pub(crate) fn earn_retry(&self) {
        let mut budget = self.retries.lock().unwrap_or_else(PoisonError::into_inner);
        *budget = budget.earn(self.allowance(), self.clock.now());
    }

    fn allowance(&self) -> Allowance {
        Allowance { percent: self.limits.load().retry_budget_percent, ..ALLOWANCE }
    }

    /// Whether one repeat is in the budget (10 % of requests, DESIGN 5).
    pub(crate) fn spend_retry(&self) -> bool {
        let mut budget = self.retries.lock().unwrap_or_else(PoisonError::into_inner);
        let (next, spend) = budget.spend(self.allowance(), self.clock.now());
        *budget = next;
        match spend {
            Spend::Granted => self.metrics.retries.inc(),
            Spend::Refused => self.metrics.retries_refused.inc(),
        };
        spend == Spend::Granted
    }
}

fn bounds(limits: &Limits) -> Bounds {
    Bounds {
        inflight_max: limits.inflight_max,
        queue_max: limits.queue_max,
        reserved_max: limits.reserved_max,
        parked_max: limits.parked_max,
    }
}
