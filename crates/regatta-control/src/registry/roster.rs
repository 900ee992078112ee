//! The nodes that are alive, as replicas of their servers; what changed since the last reading is logged here, once.
//!
//! Keeps its bounds: what it remembers of refused entries goes with them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use regatta_policy::registry::{Alive, Entry, Load, Mood, Nodes, Reach, Standing};
use regatta_policy::snapshot::{Endpoint, SessionState};
use regatta_policy::{Micros, ReplicaId};

use super::door::{Gate, Verdict};
use super::poll::Registered;

/// A node that is not gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its server's name.
    pub server: String,
    /// Its own id.
    pub node: String,
    /// Its name as a replica.
    pub id: ReplicaId,
    /// Where it listens.
    pub endpoint: Endpoint,
    /// Where it stands.
    pub standing: Standing,
    /// The load it reports, while that is fresh.
    pub load: Option<Load>,
    /// Where it keeps what it knows of a session, if it says so.
    pub session_state: Option<SessionState>,
    /// The names of its tools, if it reports them.
    pub tools: Option<Vec<String>>,
    /// The tools whose calls it keeps in a journal, sorted.
    pub journal: Arc<[String]>,
    joined: Micros,
}

impl Member {
    fn place(&self) -> (&str, &str) {
        (&self.server, &self.endpoint.url)
    }
}

/// What the registry counts; only rises.
#[derive(Debug, Default)]
pub struct RegistryStats {
    /// Readings of the registry that failed.
    pub failed: AtomicU64,
    /// Entries that were refused, counted when they are first seen.
    pub refused: AtomicU64,
    /// Entries without a place, in this reading or that: more than `nodes_max`, or larger than the store lets through.
    pub left_out: AtomicU64,
    /// Times that most nodes were missing at once and the last ones known were kept.
    pub glitches: AtomicU64,
}

/// Lost nodes that are remembered: calls that wait for one hear of it at the next snapshot.
const LOST_MAX: usize = 64;

/// All nodes, as of the last reading.
#[derive(Debug, Default)]
pub struct Roster {
    nodes: Nodes,
    endpoints: BTreeMap<String, Endpoint>,
    members: Vec<Member>,
    /// Those that went without a word, with their servers; the latest last.
    lost: Vec<(String, ReplicaId)>,
    /// Refused entries and why, so that each is told once.
    refused: BTreeMap<String, String>,
    is_away: bool,
    is_glitch: bool,
}

impl Roster {
    /// The nodes that are not gone, by server and id.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Nodes of `server` whose lease ended without a word.
    pub fn lost(&self, server: &str) -> Vec<ReplicaId> {
        self.lost.iter().filter(|(of, _)| of == server).map(|(_, id)| *id).collect()
    }

    /// Takes a reading; whether anything changed that others should know.
    pub fn read(
        &mut self,
        reading: Registered,
        gate: Gate<'_>,
        reach: impl Fn(ReplicaId) -> Reach,
        now: Micros,
        stats: &RegistryStats,
    ) -> bool {
        let listed = match reading {
            Ok(listed) => listed,
            Err(why) => {
                stats.failed.fetch_add(1, Ordering::Relaxed);
                if !std::mem::replace(&mut self.is_away, true) {
                    tracing::warn!(%why, "the registry cannot be read: the nodes known last are kept");
                }
                self.nodes.away();
                return false;
            }
        };
        if std::mem::take(&mut self.is_away) {
            tracing::info!("the registry can be read again");
        }
        let mut entries = Vec::with_capacity(listed.nodes.len());
        let mut refused = BTreeMap::new();
        for (id, fields) in &listed.nodes {
            match gate.judge(id, fields) {
                Verdict::Welcome(entry, endpoint) => {
                    self.endpoints.insert(id.clone(), endpoint);
                    entries.push(entry);
                }
                Verdict::Refused(why) => _ = refused.insert(id.clone(), why.to_string()),
                Verdict::Foreign => {}
            }
        }
        self.tell_refused(refused, stats);
        let judged = self.nodes.read(gate.reading.terms, entries, reach, now);
        stats.left_out.fetch_add(judged.over_max as u64 + listed.left_out, Ordering::Relaxed);
        self.tell_mood(judged.mood, stats);
        self.settle()
    }

    /// Forgets nodes whose server is not open any more, after the config changed; whether there were any.
    pub fn keep_only(&mut self, is_open: impl Fn(&str) -> bool) -> bool {
        let before = self.members.len();
        self.members.retain(|member| is_open(&member.server));
        before != self.members.len()
    }

    /// Makes members of who is alive.
    fn settle(&mut self) -> bool {
        let alive = self.nodes.alive().filter_map(|alive| member(&alive, &self.endpoints));
        let mut members: Vec<Member> = alive.collect();
        // Who joined last at a place is the one who listens there now.
        members.sort_by(|a, b| {
            a.place().cmp(&b.place()).then(b.joined.cmp(&a.joined)).then(a.node.cmp(&b.node))
        });
        members.dedup_by(|later, first| later.place() == first.place());
        members.sort_by(|a, b| (&a.server, &a.node).cmp(&(&b.server, &b.node)));
        let known: BTreeSet<&str> = self.nodes.alive().map(|alive| alive.entry.id.as_str()).collect();
        self.endpoints.retain(|id, _| known.contains(id.as_str()));
        tell_changes(&self.members, &members);
        self.note_lost(&members);
        let changed = self.members != members;
        self.members = members;
        changed
    }

    fn note_lost(&mut self, members: &[Member]) {
        let is_here = |id: ReplicaId| members.iter().any(|member| member.id == id);
        let gone = self.members.iter().filter(|member| !is_here(member.id));
        let lost = gone.filter(|member| member.standing != Standing::Stopping);
        self.lost.extend(lost.map(|member| (member.server.clone(), member.id)));
        self.lost.retain(|(_, id)| !is_here(*id));
        let over = self.lost.len().saturating_sub(LOST_MAX);
        self.lost.drain(..over);
    }

    fn tell_refused(&mut self, refused: BTreeMap<String, String>, stats: &RegistryStats) {
        for (node, why) in &refused {
            if self.refused.get(node) != Some(why) {
                stats.refused.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(node = shown(node), why, "a registration is refused");
            }
        }
        self.refused = refused;
    }

    fn tell_mood(&mut self, mood: Mood, stats: &RegistryStats) {
        let is_glitch = mood == Mood::Glitch;
        if is_glitch == std::mem::replace(&mut self.is_glitch, is_glitch) {
            return;
        }
        if is_glitch {
            stats.glitches.fetch_add(1, Ordering::Relaxed);
            tracing::warn!("more than half of all nodes are missing at once: the last ones known are kept");
        } else {
            tracing::info!("most nodes are heard of again");
        }
    }
}

fn member(alive: &Alive<'_>, endpoints: &BTreeMap<String, Endpoint>) -> Option<Member> {
    let entry: &Entry = alive.entry;
    Some(Member {
        server: entry.server.clone(),
        node: entry.id.clone(),
        id: entry.replica(),
        endpoint: endpoints.get(&entry.id)?.clone(),
        standing: alive.standing,
        load: alive.load,
        session_state: entry.session_state,
        tools: entry.tools.clone(),
        journal: entry.journal.as_slice().into(),
        joined: alive.joined,
    })
}

fn tell_changes(before: &[Member], after: &[Member]) {
    for member in after {
        let (node, server, replica) = (member.node.as_str(), &member.server, &member.endpoint.url);
        let known = before.iter().find(|other| other.node == member.node && other.id == member.id);
        match known.map(|known| known.standing) {
            Some(standing) if standing == member.standing => {}
            None => tracing::info!(node, server, replica, "a node joins"),
            Some(_) if member.standing == Standing::Suspect => {
                tracing::warn!(node, server, replica, "a node misses heartbeats: it gets no new work");
            }
            Some(_) => {
                tracing::info!(node, server, replica, standing = word(member.standing), "a node changes")
            }
        }
    }
    for member in before {
        if !after.iter().any(|other| other.node == member.node && other.id == member.id) {
            let (node, server, replica) = (member.node.as_str(), &member.server, &member.endpoint.url);
            match member.standing {
                Standing::Stopping => tracing::info!(node, server, replica, "a node left"),
                Standing::Starting | Standing::Joining | Standing::Running | Standing::Suspect => {
                    tracing::warn!(node, server, replica, "a node is gone");
                }
            }
        }
    }
}

/// A standing in a word, for people.
pub fn word(standing: Standing) -> &'static str {
    match standing {
        Standing::Starting => "starting",
        Standing::Joining => "joining",
        Standing::Running => "running",
        Standing::Suspect => "suspect",
        Standing::Stopping => "stopping",
    }
}

/// An id that anybody may have written, for the log.
fn shown(id: &str) -> String {
    id.chars().filter(|c| c.is_ascii_graphic()).take(64).collect()
}
