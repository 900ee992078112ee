//! All replicas by id, for lock-free reads; changed only when a snapshot arrives.
//!
//! A replica that stays keeps its connections and what was learned of it; one that left finishes what it has.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use arc_swap::ArcSwap;
use regatta_policy::ReplicaId;
use regatta_policy::snapshot::{Duty, Leases, Limits, Server, Snapshot};
use rustls::ClientConfig;

use super::budget::Budget;
use super::connect::Trust;
use super::flock::Flock;
use super::replica::{Common, ReplicaStatus, Upstream};

/// The replicas of all servers.
pub struct Upstreams {
    table: ArcSwap<HashMap<ReplicaId, Arc<Upstream>>>,
    /// By server name; its mutex also makes `apply` one at a time.
    flocks: Mutex<HashMap<String, Arc<Flock>>>,
    common: Arc<Common>,
}

impl Upstreams {
    /// None yet; `start` is the zero of the clock that [`Upstream::candidate`] is given. Certificates are verified by the
    /// platform's rules.
    pub fn new(start: Instant) -> Upstreams {
        Upstreams::trusting(start, Trust::default())
    }

    /// As [`Upstreams::new`], with a TLS config of the caller: a CA of one's own, client certificates.
    pub fn with_tls(start: Instant, config: Arc<ClientConfig>) -> Upstreams {
        Upstreams::trusting(start, Trust::by(config))
    }

    fn trusting(start: Instant, trust: Trust) -> Upstreams {
        let user_timeout_ms = AtomicU64::new(Limits::default().tcp_user_timeout.as_millis() as u64);
        Upstreams {
            table: ArcSwap::default(),
            flocks: Mutex::default(),
            common: Arc::new(Common { start, trust, user_timeout_ms }),
        }
    }

    /// Adds and removes replicas as `snapshot` says.
    pub fn apply(&self, snapshot: &Snapshot) {
        let mut flocks = self.flocks.lock().unwrap_or_else(PoisonError::into_inner);
        let user_timeout_ms = snapshot.limits.tcp_user_timeout.as_millis() as u64;
        self.common.user_timeout_ms.store(user_timeout_ms, Ordering::Relaxed);
        let before = self.table.load_full();
        let mut after = HashMap::new();
        for server in &snapshot.servers {
            let flock = Arc::clone(flocks.entry(server.name.clone()).or_default());
            self.add(server, &flock, &before, &mut after);
        }
        let after = Arc::new(after);
        self.table.store(Arc::clone(&after));
        before.values().filter(|upstream| !after.contains_key(&upstream.id)).for_each(|left| left.leave());
        // One that left and has connections is kept with them, and counts them if it returns.
        let is_here = |name: &str| snapshot.servers.iter().any(|server| server.name == name);
        flocks.retain(|name, flock| is_here(name) || flock.budget.used().taken > 0);
        for server in &snapshot.servers {
            if let Leases::Leased { lost } = &server.leases {
                lost.iter().filter_map(|id| before.get(id)).for_each(|upstream| upstream.lose());
            }
        }
    }

    fn add(
        &self,
        server: &Server,
        flock: &Arc<Flock>,
        before: &HashMap<ReplicaId, Arc<Upstream>>,
        after: &mut HashMap<ReplicaId, Arc<Upstream>>,
    ) {
        let serving = server.replicas.iter().filter(|replica| replica.duty == Duty::Serving).count();
        flock.replicas.store(serving, Ordering::Relaxed);
        flock.arm(server.breaker);
        flock.budget.bound(server.connections_max.is_some());
        for replica in &server.replicas {
            if let Entry::Vacant(vacant) = after.entry(replica.id) {
                let stays = before.get(&replica.id).cloned();
                let made = || Upstream::new(replica, Arc::clone(flock), Arc::clone(&self.common));
                vacant.insert(stays.unwrap_or_else(made)).hear(replica.health);
            }
        }
        let replicas = server.replicas.iter().filter_map(|replica| after.get(&replica.id));
        flock.budget.serve(replicas.map(Arc::downgrade).collect());
    }

    /// What bounds the connections to all replicas of the server of this name; there is one while it is in the config,
    /// or was and has connections.
    pub fn budget(&self, server: &str) -> Option<Arc<Budget>> {
        let flocks = self.flocks.lock().unwrap_or_else(PoisonError::into_inner);
        flocks.get(server).map(|flock| Arc::clone(&flock.budget))
    }

    /// The replica `id`, unless it left the config.
    pub fn get(&self, id: ReplicaId) -> Option<Arc<Upstream>> {
        self.table.load().get(&id).cloned()
    }

    /// Closes connections that were idle for too long, or that their replica closed. To be called each second.
    pub fn sweep(&self) {
        let now = self.common.now();
        self.table.load_full().values().for_each(|upstream| upstream.pool.sweep(now));
    }

    /// All replicas, for people; in no order.
    pub fn status(&self) -> Vec<ReplicaStatus> {
        self.table.load_full().values().map(|upstream| upstream.status()).collect()
    }
}
