//! The worker that turns config, registry and probes into snapshots, one after the other, each complete.
//!
//! A bad config never replaces a good one; a snapshot is only made when something changed. It knows nothing of who
//! obeys its snapshots.

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use regatta_policy::snapshot::{Leases, Server, SessionState, Snapshot};
use regatta_policy::{Micros, ReplicaId};
use regatta_store::Store;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, interval_at, timeout_at};

use crate::config::registry::Joining;
use crate::config::{self, Config, Env};
use crate::definitions::Written;
use crate::files::{LOOK_EVERY, Watched};
use crate::fleet::{self, Placed, ReplicaView, agreed_state, placed, reach};
use crate::identity::{FIRST_KEYS_MAX, Identity};
use crate::keys::Asking;
use crate::lists::{self, Lists};
use crate::probe::{Prober, Seen, Target};
use crate::registry::{self, Gate, Registered, RegistryStats, Roster};

/// How long the first snapshot waits for the first probes.
const FIRST_ROUND_MAX: Duration = Duration::from_secs(2);
/// Between two attempts at a first reading of the registry.
const FIRST_READING_AGAIN: Duration = Duration::from_millis(100);
/// Reports of probes that may wait for the worker.
const REPORTS_MAX: usize = 256;

/// Where the config came from, so that it can be read again.
#[derive(Clone, Debug)]
pub struct Source {
    /// The file.
    pub path: PathBuf,
    /// The variables over it.
    pub env: Env,
}

/// What the control plane counts; only rises.
#[derive(Debug, Default)]
pub struct ControlStats {
    /// Configs that were read again and taken.
    pub config_reloads: AtomicU64,
    /// Configs that were read again and refused.
    pub config_reload_failed: AtomicU64,
    /// Of the registry.
    pub registry: RegistryStats,
    /// Tools that replicas of one server began to define in different ways.
    pub tool_conflicts: AtomicU64,
}

/// The running control plane.
#[derive(Debug)]
pub struct Control {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    views: watch::Receiver<Arc<Vec<ReplicaView>>>,
    store_url: watch::Receiver<Option<String>>,
    orders: mpsc::Sender<Order>,
    asking: Asking,
    stats: Arc<ControlStats>,
}

#[derive(Debug)]
enum Order {
    Reload(oneshot::Sender<()>),
    Stop(oneshot::Sender<()>),
}

impl Control {
    /// Starts probing and waits for the first snapshot, at most two seconds. Needs a tokio runtime, on which it stays.
    /// Nodes register in `store`; without one there are none.
    pub async fn start(config: Config, source: Option<Source>, store: Option<Arc<dyn Store>>) -> Control {
        let (report, reports) = mpsc::channel(REPORTS_MAX);
        let (orders, inbox) = mpsc::channel(16);
        let (every, pauses) = watch::channel(None);
        let (reading, readings) = mpsc::channel(1);
        let stats = Arc::new(ControlStats::default());
        let (identity, asking) = Identity::new(&config);
        let (store_renewed, store_url) = watch::channel(config.store.url.clone());
        let mut worker = Worker {
            watched: source.as_ref().map(|source| Watched::new(vec![source.path.clone()])),
            source,
            config,
            prober: Prober::new(report),
            identity,
            store_renewed,
            reports,
            readings,
            every,
            seen: HashMap::new(),
            roster: Roster::default(),
            lists: Lists::default(),
            written: Written::default(),
            states: HashMap::new(),
            fleets: Vec::new(),
            start: Instant::now(),
            version: 0,
            stats: Arc::clone(&stats),
        };
        worker.first_round(store.as_deref()).await;
        worker.every.send_replace(worker.pause());
        if let Some(store) = store {
            tokio::spawn(registry::poll(store, pauses, reading));
        }
        let (snapshot, snapshots) = watch::channel(Arc::new(worker.snapshot()));
        let (view, views) = watch::channel(Arc::new(worker.view()));
        tokio::spawn(worker.run(inbox, snapshot, view));
        Control { snapshots, views, store_url, orders, asking, stats }
    }

    /// The snapshots: the newest at once, and each later one.
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    /// The replicas as people want to see them, in the order of the config.
    pub fn views(&self) -> watch::Receiver<Arc<Vec<ReplicaView>>> {
        self.views.clone()
    }

    /// The URL of the shared store, and each later one at the same place: with other credentials.
    pub fn store_url(&self) -> watch::Receiver<Option<String>> {
        self.store_url.clone()
    }

    /// The way to ask for newer keys of an issuer; who asks hears in which snapshot they are.
    pub fn asking(&self) -> Asking {
        self.asking.clone()
    }

    /// What is counted.
    pub fn stats(&self) -> Arc<ControlStats> {
        Arc::clone(&self.stats)
    }

    /// Reads the config again, whether it changed or not. Returns when it was taken or refused.
    pub async fn reload(&self) {
        self.order(Order::Reload).await;
    }

    /// Ends the probing and its sessions at the replicas; takes at most about a second.
    pub async fn stop(&self) {
        self.order(Order::Stop).await;
    }

    async fn order(&self, order: impl FnOnce(oneshot::Sender<()>) -> Order) {
        let (done, ended) = oneshot::channel();
        if self.orders.send(order(done)).await.is_ok() {
            let _ = ended.await;
        }
    }
}

#[derive(Debug)]
struct Worker {
    config: Config,
    source: Option<Source>,
    watched: Option<Watched>,
    prober: Prober,
    identity: Identity,
    store_renewed: watch::Sender<Option<String>>,
    reports: mpsc::Receiver<(ReplicaId, Seen)>,
    readings: mpsc::Receiver<Registered>,
    /// How often the registry is read; not at all while no server is open to nodes.
    every: watch::Sender<Option<Duration>>,
    seen: HashMap<ReplicaId, Seen>,
    roster: Roster,
    lists: Lists,
    written: Written,
    /// What the nodes of a server last agreed on; it outlives the last of them.
    states: HashMap<String, SessionState>,
    /// The replicas of each server, in the order of the config.
    fleets: Vec<Vec<Placed>>,
    start: Instant,
    version: u64,
    stats: Arc<ControlStats>,
}

impl Worker {
    async fn first_round(&mut self, store: Option<&dyn Store>) {
        let begun = Instant::now();
        let deadline = begun + FIRST_ROUND_MAX;
        if let Some(store) = store.filter(|_| self.pause().is_some()) {
            self.first_reading(store, deadline).await;
        }
        self.settle();
        let count = self.fleets.iter().map(Vec::len).sum();
        while self.seen.len() < count {
            match timeout_at(deadline, self.reports.recv()).await {
                Ok(Some((id, seen))) => self.seen.insert(id, seen),
                Ok(None) | Err(_) => break,
            };
        }
        self.settle();
        // Their tasks have been looking since the beginning.
        self.identity.first(&self.config, deadline.max(begun + FIRST_KEYS_MAX)).await;
    }

    /// Waits for a store that is only just being connected to.
    async fn first_reading(&mut self, store: &dyn Store, deadline: Instant) {
        while Instant::now() < deadline {
            match timeout_at(deadline, registry::read(store)).await {
                Ok(Ok(nodes)) => {
                    self.register(Ok(nodes));
                    return;
                }
                Ok(Err(_)) => tokio::time::sleep(FIRST_READING_AGAIN).await,
                Err(_) => return,
            }
        }
    }

    async fn run(
        mut self,
        mut inbox: mpsc::Receiver<Order>,
        snapshots: watch::Sender<Arc<Snapshot>>,
        views: watch::Sender<Arc<Vec<ReplicaView>>>,
    ) {
        let mut look = interval_at(Instant::now() + LOOK_EVERY, LOOK_EVERY);
        loop {
            let changed = tokio::select! {
                Some((id, seen)) = self.reports.recv() => self.note(id, seen),
                Some(reading) = self.readings.recv() => self.register(reading),
                told = self.identity.next(&self.config) => told,
                order = inbox.recv() => match order {
                    Some(Order::Reload(done)) => {
                        // Looked at now: the next look must not read the same content again.
                        self.watched.as_mut().map(Watched::changed);
                        let changed = self.reload();
                        let _ = done.send(());
                        changed
                    }
                    Some(Order::Stop(done)) => {
                        self.prober.stop().await;
                        let _ = done.send(());
                        return;
                    }
                    None => return self.prober.stop().await,
                },
                _ = look.tick() => {
                    let reloaded = self.watched.as_mut().is_some_and(Watched::changed) && self.reload();
                    self.identity.look(&self.config) || reloaded
                }
            };
            let lists_changed = self.settle();
            if changed || lists_changed {
                snapshots.send_replace(Arc::new(self.snapshot()));
            }
            self.identity.told(self.version);
            let view = Arc::new(self.view());
            views.send_if_modified(|last| {
                let differs = **last != *view;
                *last = view;
                differs
            });
        }
    }

    /// Whether the data plane must hear of it.
    fn note(&mut self, id: ReplicaId, seen: Seen) -> bool {
        if !self.fleets.iter().flatten().any(|placed| placed.replica.id == id) {
            return false;
        }
        let facts = |seen: &Seen| (seen.health, seen.eras, seen.path.clone());
        let now = facts(&seen);
        self.seen.insert(id, seen).map(|before| facts(&before)) != Some(now)
    }

    /// Whether the data plane must hear of it.
    fn register(&mut self, reading: Registered) -> bool {
        let Config { registry, servers, doors, .. } = &self.config;
        let gate = Gate { reading: registry, servers, doors };
        let (seen, now) = (&self.seen, self.now());
        self.roster.read(reading, gate, |id| reach(seen.get(&id)), now, &self.stats.registry)
    }

    /// Brings replicas, probes and lists in line with what is known; whether a catalogue changed.
    fn settle(&mut self) -> bool {
        let now = self.now();
        let Worker { config, roster, seen, .. } = self;
        self.fleets = config.servers.iter().map(|server| placed(server, roster.members(), seen)).collect();
        let mut changed = false;
        let mut targets = Vec::new();
        for ((server, door), placed) in config.servers.iter().zip(&config.doors).zip(&self.fleets) {
            let is_tracked = lists::is_tracked(door, placed);
            for one in placed {
                let ask = self.lists.ask(one, is_tracked || !server.cache.is_empty());
                targets.push(target(server, one, ask));
            }
            let stats = &self.stats;
            changed |= self.written.sum(server, placed, seen);
            changed |= self.lists.sum(&server.name, (door, is_tracked), placed, seen, now, |tool| {
                stats.tool_conflicts.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(server = server.name, tool, "replicas define a tool in different ways");
            });
            if let Some(state) = agreed_state(server, roster.members()) {
                changed |= self.states.insert(server.name.clone(), state) != Some(state);
            }
        }
        let ids: BTreeSet<ReplicaId> = targets.iter().map(|target| target.id).collect();
        let names: Vec<&str> = config.servers.iter().map(|server| server.name.as_str()).collect();
        seen.retain(|id, _| ids.contains(id));
        self.lists.keep_only(&names, &ids);
        self.written.keep_only(&names, &ids);
        self.states.retain(|name, _| names.contains(&name.as_str()));
        self.prober.set(targets);
        changed
    }

    fn reload(&mut self) -> bool {
        let Some(source) = &self.source else { return false };
        let loaded = config::load(&source.path, &source.env).map_err(|complaints| complaints.to_string());
        let loaded = loaded.and_then(|mut config| config.read_secrets().map(|()| config));
        let config = match loaded {
            Ok(config) => config,
            Err(complaints) => {
                self.stats.config_reload_failed.fetch_add(1, Ordering::Relaxed);
                tracing::error!("the config was not reloaded, the old one stays:\n{complaints}");
                return false;
            }
        };
        let is_same_store = config.store.differs_in_credentials_only(&self.config.store);
        if config.process != self.config.process || !is_same_store {
            tracing::warn!(
                "addresses, TLS files, threads, state_dir, the store, log and drain settings change at a restart only"
            );
        }
        if is_same_store {
            self.store_renewed.send_if_modified(|url| {
                let before = std::mem::replace(url, config.store.url.clone());
                before != *url
            });
        }
        self.config = config;
        let doors = self.config.servers.iter().zip(&self.config.doors);
        let open: Vec<&str> = doors
            .filter(|(_, door)| door.nodes == Joining::Open)
            .map(|(server, _)| server.name.as_str())
            .collect();
        self.roster.keep_only(|server| open.contains(&server));
        let pause = self.pause();
        self.every.send_if_modified(|every| std::mem::replace(every, pause) != pause);
        self.identity.set(&self.config);
        self.stats.config_reloads.fetch_add(1, Ordering::Relaxed);
        tracing::info!("the config was reloaded");
        true
    }

    /// How often the registry is read, if any server is open to nodes.
    fn pause(&self) -> Option<Duration> {
        let is_open = self.config.doors.iter().any(|door| door.nodes == Joining::Open);
        is_open.then_some(self.config.registry.poll)
    }

    fn now(&self) -> Micros {
        Micros(u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX))
    }

    fn snapshot(&mut self) -> Snapshot {
        self.version += 1;
        let servers = self.config.servers.iter().zip(&self.fleets);
        Snapshot {
            version: self.version,
            servers: servers.map(|(server, placed)| Arc::new(self.merged(server, placed))).collect(),
            limits: Arc::clone(&self.config.limits),
            admission: Arc::clone(&self.config.admission),
            quotas: Arc::clone(&self.config.quotas),
            access: self.identity.access(),
            proxies: Arc::clone(&self.config.proxies),
        }
    }

    fn merged(&self, server: &Server, placed: &[Placed]) -> Server {
        Server {
            replicas: placed.iter().map(|one| one.replica.clone()).collect(),
            catalogue: self.lists.catalogue(&server.name),
            definitions: self.written.of(&server.name),
            leases: match server.leases {
                Leases::Unleased => Leases::Unleased,
                Leases::Leased { .. } => Leases::Leased { lost: self.roster.lost(&server.name) },
            },
            session_state: self.states.get(&server.name).copied().unwrap_or(server.session_state),
            credential: self.identity.credential(&server.name),
            ..server.clone()
        }
    }

    fn view(&self) -> Vec<ReplicaView> {
        let servers = self.config.servers.iter().zip(&self.fleets);
        let each = servers.flat_map(|(server, placed)| placed.iter().map(move |one| (server, one)));
        each.map(|(server, one)| fleet::view(server, one, self.seen.get(&one.replica.id))).collect()
    }
}

fn target(server: &Server, placed: &Placed, ask: u64) -> Target {
    Target {
        id: placed.replica.id,
        server: server.name.clone(),
        endpoint: placed.replica.endpoint.clone(),
        ask,
    }
}
