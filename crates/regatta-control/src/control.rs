//! The worker that turns config and probes into snapshots, one after the other, each complete.
//!
//! A bad config never replaces a good one; a snapshot is only made when something changed. It knows nothing of who
//! obeys its snapshots.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use regatta_policy::ReplicaId;
use regatta_policy::snapshot::{Endpoint, Eras, Health, Replica, Server, Snapshot};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, interval_at, timeout_at};

use crate::config::{self, Config, Env};
use crate::files::{LOOK_EVERY, Watched};
use crate::identity::{FIRST_KEYS_MAX, Identity};
use crate::keys::Asking;
use crate::probe::{Prober, Seen, Target};

/// How long the first snapshot waits for the first probes.
const FIRST_ROUND_MAX: Duration = Duration::from_secs(2);
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

/// A replica as people want to see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ReplicaView {
    /// Its server's name.
    pub server: String,
    /// Its id as hexadecimal text.
    pub id: String,
    /// Its endpoint.
    pub url: String,
    /// `healthy`, `unhealthy`, `unreachable` or `unknown`.
    pub health: &'static str,
    /// `legacy`, `modern`, `dual` or `unknown`.
    pub eras: &'static str,
    /// Why the last probe failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// What the control plane counts; only rises.
#[derive(Debug, Default)]
pub struct ControlStats {
    /// Configs that were read again and taken.
    pub config_reloads: AtomicU64,
    /// Configs that were read again and refused.
    pub config_reload_failed: AtomicU64,
}

/// The running control plane.
#[derive(Debug)]
pub struct Control {
    snapshots: watch::Receiver<Arc<Snapshot>>,
    views: watch::Receiver<Arc<Vec<ReplicaView>>>,
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
    pub async fn start(config: Config, source: Option<Source>) -> Control {
        let (report, reports) = mpsc::channel(REPORTS_MAX);
        let (orders, inbox) = mpsc::channel(16);
        let stats = Arc::new(ControlStats::default());
        let (identity, asking) = Identity::new(&config);
        let mut worker = Worker {
            watched: source.as_ref().map(|source| Watched::new(vec![source.path.clone()])),
            source,
            config,
            prober: Prober::new(report),
            identity,
            reports,
            seen: HashMap::new(),
            version: 0,
            stats: Arc::clone(&stats),
        };
        worker.first_round().await;
        let (snapshot, snapshots) = watch::channel(Arc::new(worker.snapshot()));
        let (view, views) = watch::channel(Arc::new(worker.view()));
        tokio::spawn(worker.run(inbox, snapshot, view));
        Control { snapshots, views, orders, asking, stats }
    }

    /// The snapshots: the newest at once, and each later one.
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    /// The replicas as people want to see them, in the order of the config.
    pub fn views(&self) -> watch::Receiver<Arc<Vec<ReplicaView>>> {
        self.views.clone()
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
    reports: mpsc::Receiver<(ReplicaId, Seen)>,
    seen: HashMap<ReplicaId, Seen>,
    version: u64,
    stats: Arc<ControlStats>,
}

impl Worker {
    async fn first_round(&mut self) {
        let targets = targets(&self.config.servers);
        let count = targets.len();
        self.prober.set(targets);
        let begun = Instant::now();
        let deadline = begun + FIRST_ROUND_MAX;
        while self.seen.len() < count {
            match timeout_at(deadline, self.reports.recv()).await {
                Ok(Some((id, seen))) => self.seen.insert(id, seen),
                Ok(None) | Err(_) => break,
            };
        }
        // Their tasks have been looking since the beginning.
        self.identity.first(&self.config, deadline.max(begun + FIRST_KEYS_MAX)).await;
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
            if changed {
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
        if !self.config.servers.iter().flat_map(|server| &server.replicas).any(|replica| replica.id == id) {
            return false;
        }
        let facts = |seen: &Seen| (seen.health, seen.eras, seen.path.clone());
        let now = facts(&seen);
        self.seen.insert(id, seen).map(|before| facts(&before)) != Some(now)
    }

    fn reload(&mut self) -> bool {
        let Some(source) = &self.source else { return false };
        let config = match config::load(&source.path, &source.env) {
            Ok(config) => config,
            Err(complaints) => {
                self.stats.config_reload_failed.fetch_add(1, Ordering::Relaxed);
                tracing::error!("the config was not reloaded, the old one stays:\n{complaints}");
                return false;
            }
        };
        if config.process != self.config.process {
            tracing::warn!(
                "addresses, TLS files, threads, state_dir, log and drain settings change at a restart only"
            );
        }
        self.config = config;
        self.identity.set(&self.config);
        let targets = targets(&self.config.servers);
        self.seen.retain(|id, _| targets.iter().any(|target| target.id == *id));
        self.prober.set(targets);
        self.stats.config_reloads.fetch_add(1, Ordering::Relaxed);
        tracing::info!("the config was reloaded");
        true
    }

    fn snapshot(&mut self) -> Snapshot {
        self.version += 1;
        Snapshot {
            version: self.version,
            servers: self.config.servers.iter().map(|server| Arc::new(self.merged(server))).collect(),
            limits: Arc::clone(&self.config.limits),
            admission: Arc::clone(&self.config.admission),
            quotas: Arc::clone(&self.config.quotas),
            access: self.identity.access(),
            proxies: Arc::clone(&self.config.proxies),
        }
    }

    fn merged(&self, server: &Server) -> Server {
        let mut server = server.clone();
        server.credential = self.identity.credential(&server.name);
        for replica in &mut server.replicas {
            if let Some(seen) = self.seen.get(&replica.id) {
                *replica = with(replica, seen);
            }
        }
        server
    }

    fn view(&self) -> Vec<ReplicaView> {
        let each =
            self.config.servers.iter().flat_map(|server| server.replicas.iter().map(move |r| (server, r)));
        each.map(|(server, replica)| {
            let seen = self.seen.get(&replica.id);
            ReplicaView {
                server: server.name.clone(),
                id: replica.id.to_string(),
                url: replica.endpoint.url.clone(),
                health: health_word(seen.map_or(Health::Unknown, |seen| seen.health)),
                eras: eras_word(seen.map_or(Eras::Unknown, |seen| seen.eras)),
                why: seen.and_then(|seen| seen.why.clone()),
            }
        })
        .collect()
    }
}

fn targets(servers: &[Arc<Server>]) -> Vec<Target> {
    let each = servers.iter().flat_map(|server| server.replicas.iter().map(move |replica| (server, replica)));
    each.map(|(server, replica)| Target {
        id: replica.id,
        server: server.name.clone(),
        endpoint: replica.endpoint.clone(),
    })
    .collect()
}

fn with(replica: &Replica, seen: &Seen) -> Replica {
    let endpoint = Endpoint { path: seen.path.clone(), ..replica.endpoint.clone() };
    Replica { endpoint, health: seen.health, eras: seen.eras, ..replica.clone() }
}

fn health_word(health: Health) -> &'static str {
    match health {
        Health::Unknown => "unknown",
        Health::Healthy => "healthy",
        Health::Unhealthy => "unhealthy",
        Health::Unreachable => "unreachable",
    }
}

fn eras_word(eras: Eras) -> &'static str {
    match eras {
        Eras::Unknown => "unknown",
        Eras::Legacy => "legacy",
        Eras::Modern => "modern",
        Eras::Dual => "dual",
    }
}
