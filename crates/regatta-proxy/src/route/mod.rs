//! The seventh stage: which replica gets an unbound request, and in which order a re-homing tries them.
//!
//! Facts from here, the rule from `regatta_policy::balance`. It never waits and never sends.

pub(crate) mod handles;
pub(crate) mod tools;

use regatta_mcp::era::Era;
use regatta_policy::ReplicaId;
use regatta_policy::balance::{Candidate, Facts, choose};
use regatta_policy::ids::stable_hash;
use regatta_policy::rendezvous;
use regatta_policy::snapshot::{Balance, Duty, Health};

use crate::gateway::Gateway;
use crate::handover::Caller;
use crate::view::{ReplicaView, ServerView};
use tools::Among;

/// Replicas of one server that a request was tried at, as bits by their place in the list.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tried(u128);

impl Tried {
    /// Leaves this replica out from now on.
    pub fn add(&mut self, server: &ServerView, id: ReplicaId) {
        if let Some(at) = server.replicas.iter().position(|view| view.replica.id == id) {
            self.0 |= 1u128.checked_shl(at as u32).unwrap_or(0);
        }
    }

    fn has(self, at: usize) -> bool {
        1u128.checked_shl(at as u32).is_some_and(|bit| self.0 & bit != 0)
    }
}

/// A replica for an unbound request of `era` among those that may get it, other than those tried; `None` if there is none
/// left.
pub(crate) fn any<'a>(
    gateway: &Gateway,
    server: &'a ServerView,
    era: Era,
    caller: &Caller,
    affinity: Option<u64>,
    among: &Among,
    tried: Tried,
) -> Option<&'a ReplicaView> {
    let now = gateway.clock.now();
    let open = server
        .replicas
        .iter()
        .enumerate()
        .filter(|(at, view)| !tried.has(*at) && speaks(view, era) && among.has(view.replica.id));
    let (views, candidates): (Vec<&ReplicaView>, Vec<Candidate>) =
        open.map(|(_, view)| (view, view.upstream.candidate(&view.replica, now))).unzip();
    let (rule, key) = match affinity {
        Some(key) => (Balance::StickyIp, key),
        None => (server.server.balance, sticky_key(caller)),
    };
    let facts = Facts { turn: server.turn(era), dice: gateway.dice(), key };
    choose(rule, &candidates, facts).map(|at| views[at])
}

/// Whether any replica may speak `era`.
pub(crate) fn is_spoken(server: &ServerView, era: Era) -> bool {
    server.replicas.is_empty() || server.replicas.iter().any(|view| speaks(view, era))
}

/// The replicas that a session may move to, best first: the same order in every gateway.
pub(crate) fn homes<'a>(
    server: &'a ServerView,
    uuid: &[u8; 16],
    left: Option<ReplicaId>,
) -> Vec<&'a ReplicaView> {
    let open: Vec<&ReplicaView> = server
        .replicas
        .iter()
        .filter(|view| Some(view.replica.id) != left && speaks(view, Era::Legacy))
        .filter(|view| view.replica.duty == Duty::Serving)
        .collect();
    let healthy = |view: &&ReplicaView| matches!(view.replica.health, Health::Unknown | Health::Healthy);
    let usable: Vec<&ReplicaView> = open.iter().copied().filter(|view| healthy(view)).collect();
    // When every probe fails the fault may be the prober's: better to try than to refuse.
    let usable = if usable.is_empty() { open } else { usable };
    let ids: Vec<ReplicaId> = usable.iter().map(|view| view.replica.id).collect();
    rendezvous::ranking(stable_hash(&[uuid]), &ids).into_iter().map(|at| usable[at]).collect()
}

fn speaks(view: &ReplicaView, era: Era) -> bool {
    match era {
        Era::Legacy => view.replica.eras.speaks_legacy(),
        Era::Modern => view.replica.eras.speaks_modern(),
    }
}

fn sticky_key(caller: &Caller) -> u64 {
    match caller.ip.to_canonical() {
        std::net::IpAddr::V4(ip) => stable_hash(&[&ip.octets()]),
        std::net::IpAddr::V6(ip) => stable_hash(&[&ip.octets()[..8]]),
    }
}
