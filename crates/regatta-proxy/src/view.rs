//! A snapshot joined with what the data plane itself keeps of each replica.
//!
//! Made once per snapshot, read by every request: a request holds its `ServerView` to the end, so a reload
//! never changes the rules in the middle of a call. Nothing but its turns changes after it was made.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use regatta_mcp::era::Era;
use regatta_policy::ReplicaId;
use regatta_policy::peers::Proxies;
use regatta_policy::snapshot::{Limits, Origins, Replica, Server, Snapshot};

use crate::access::Guard;
use crate::clock::Clock;
use crate::gate::Gate;
use crate::metrics::Metrics;
use crate::outward::Outward;
use crate::quotas::ready::{self, Ready};
use crate::results::{Results, ServerRules};
use crate::upstream::{Knock, Upstream, Upstreams};

/// One snapshot, ready to serve.
pub(crate) struct View {
    pub servers: Vec<Arc<ServerView>>,
    pub admission: Arc<Origins>,
    /// Whose word about a client's address is taken.
    pub proxies: Arc<Proxies>,
    guard: Option<Arc<Guard>>,
}

/// One server with its replicas and the bounds in force.
pub(crate) struct ServerView {
    pub server: Arc<Server>,
    pub limits: Arc<Limits>,
    pub replicas: Vec<ReplicaView>,
    /// The rules that may count a request to it.
    pub quotas: Vec<Arc<Ready>>,
    /// How many calls it gets at once.
    pub gate: Gate,
    /// The fleet's name in sealed tokens: a token of one path is worth nothing at another.
    pub fleet: [u8; 8],
    /// What of it is cached.
    pub results: Arc<ServerRules>,
    /// Who is let in; none: whoever comes, and the servers check.
    pub guard: Option<Arc<Guard>>,
    /// Whom tokens for this server may be meant for.
    pub audience: Vec<String>,
    turns: Arc<Turns>,
}

/// The turns of a round robin, counted for each era alone: by one count for all, requests that alternate between two
/// eras (or servers) would each meet the same replica every time.
#[derive(Default)]
struct Turns {
    legacy: AtomicU64,
    modern: AtomicU64,
}

/// What the control plane says of a replica, and what we keep of it.
pub(crate) struct ReplicaView {
    pub replica: Replica,
    pub upstream: Arc<Upstream>,
    /// What it is shown of us and of our callers.
    pub outward: Arc<Outward>,
}

impl View {
    /// Joins `snapshot` with `upstreams`, which must have been told of it; what the view `before` counted goes on, a round
    /// robin's turns too: nodes make many snapshots, and each would begin with the same replica again.
    pub fn new(
        snapshot: &Snapshot,
        upstreams: &Upstreams,
        (metrics, results, clock): (&Metrics, &Results, Clock),
        before: Option<&View>,
    ) -> View {
        let rules = ready::rules(snapshot, metrics);
        let guard = snapshot.access.as_ref().map(|access| {
            let kept = before.and_then(|before| before.guard.clone());
            kept.filter(|guard| Arc::ptr_eq(&guard.rules, access))
                .unwrap_or_else(|| Arc::new(Guard::new(access.clone())))
        });
        let servers = snapshot.servers.iter().map(|server| {
            let outward = Arc::new(Outward::of(server, snapshot));
            let replicas = server.replicas.iter().filter_map(|replica| {
                let upstream = upstreams.get(replica.id)?;
                Some(ReplicaView { replica: replica.clone(), upstream, outward: outward.clone() })
            });
            let gate =
                before.and_then(|view| view.servers.iter().find(|view| view.server.name == server.name));
            let gate = Gate::of(server, gate.map(|view| &view.gate), clock);
            let counts_here = |ready: &&Arc<Ready>| ready.rule.subject.counts_server(&server.name);
            Arc::new(ServerView {
                server: server.clone(),
                limits: snapshot.limits.clone(),
                replicas: replicas.collect(),
                gate,
                quotas: rules.iter().filter(counts_here).cloned().collect(),
                fleet: regatta_policy::ids::stable_hash(&[server.path.as_bytes()]).to_be_bytes(),
                results: results.rules_of(server),
                guard: guard.clone(),
                audience: guard.as_ref().map_or(Vec::new(), |guard| guard.rules.audience_at(&server.path)),
                turns: before
                    .and_then(|view| view.server_at(&server.path))
                    .map_or_else(Arc::default, |view| view.turns.clone()),
            })
        });
        View {
            servers: servers.collect(),
            admission: snapshot.admission.clone(),
            proxies: snapshot.proxies.clone(),
            guard,
        }
    }

    /// The server under `path`; compared byte for byte.
    pub fn server_at(&self, path: &str) -> Option<&Arc<ServerView>> {
        self.servers.iter().find(|view| view.server.path == path)
    }
}

impl ServerView {
    /// The next turn of a round robin over the replicas that speak `era`.
    pub fn turn(&self, era: Era) -> u64 {
        let turns = match era {
            Era::Legacy => &self.turns.legacy,
            Era::Modern => &self.turns.modern,
        };
        turns.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether it takes a request: not while every replica fails, but for one at a time that tries.
    pub fn knock(&self) -> Knock {
        self.replicas.first().map_or(Knock::Open, |view| view.upstream.knock())
    }

    /// The replica `id`, unless it left the config.
    pub fn replica(&self, id: ReplicaId) -> Option<&ReplicaView> {
        self.replicas.iter().find(|view| view.replica.id == id)
    }
}
