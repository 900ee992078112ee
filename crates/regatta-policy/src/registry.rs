//! Which registered nodes are alive: leases by the gateway's own clock, over successive readings of the registry.
//!
//! Pure: entries, what probes say and `now` in; standings out. A node lives while its `lastHeartbeat` *changes*; the
//! value is never compared with any clock, so that nobody's wall clock matters (RELIABILITY F64, F65). When most nodes
//! fall silent at once the fault is more likely the registry's than theirs: the last ones known stay (F71).

mod entry;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

pub use entry::{Entry, Load, Status, TOOLS_MAX, Unfit};

use crate::ids::{Micros, ReplicaId};

/// How patiently nodes are judged. Nodes should beat four times in a lease, and be read eight times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Without a new heartbeat for so long, a node is gone: its sessions may move at once. A node that says that it beats
    /// more seldom has four of its own beats.
    pub lease: Duration,
    /// Nodes that are known at one time, the gone ones that are still listed included.
    pub nodes_max: usize,
}

/// What active probes say of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Nothing yet.
    Unknown,
    /// It answered.
    Reached,
    /// It gave no answer at all, twice in a row.
    Unreachable,
}

/// Where a node stands that is not gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It says itself that it is not ready.
    Starting,
    /// It was read once: nobody knows yet whether its heart beats.
    Joining,
    /// Its heart beats.
    Running,
    /// It missed heartbeats: no new work, bound sessions stay.
    Suspect,
    /// It says itself that it is leaving: no new work, what is bound goes on until it left.
    Stopping,
}

/// How a reading as a whole is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mood {
    /// Each node is judged by its own heartbeats.
    Calm,
    /// More than half of the nodes are missing at once: they stay as they were, and only probes take one away.
    Glitch,
}

/// What a reading came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// How it was taken.
    pub mood: Mood,
    /// Entries that found no place because of `nodes_max`.
    pub over_max: usize,
}

/// A node that is not gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alive<'a> {
    /// As it was read last.
    pub entry: &'a Entry,
    /// Where it stands.
    pub standing: Standing,
    /// When it joined under this identity.
    pub joined: Micros,
    /// The load it reports; `None` once its heartbeats are missing.
    pub load: Option<Load>,
}

/// All nodes that are known. Starts empty.
#[derive(Clone, Debug, Default)]
pub struct Nodes {
    seen: BTreeMap<String, Seen>,
    last: Option<Micros>,
    is_blind: bool,
    is_glitch: bool,
}

#[derive(Clone, Debug)]
struct Seen {
    entry: Entry,
    joined: Micros,
    /// When its heartbeat was seen to change last; by the gateway's own clock.
    changed: Micros,
    beats: u64,
    is_listed: bool,
    /// Remembered only so that the same dead entry is not taken for a new node.
    is_gone: bool,
    standing: Standing,
}

impl Terms {
    /// The terms for a node that says how often it beats.
    fn of(self, entry: &Entry) -> Terms {
        let own = entry.beat_every.map_or(Duration::ZERO, |every| every * 4);
        Terms { lease: self.lease.max(own), ..self }
    }

    /// One heartbeat missed: counts as missing when it is asked whether most are.
    fn late_after(&self) -> Duration {
        self.lease / 2
    }

    /// Two missed: no new work. A heartbeat later than `late_after`, because nodes that fall silent together are seen to
    /// do so one after the other.
    fn suspect_after(&self) -> Duration {
        self.lease * 3 / 4
    }
}

impl Standing {
    /// Whether new unbound work may go there.
    pub fn takes_new_work(self, reach: Reach) -> bool {
        match self {
            Standing::Running => true,
            // An entry may be all that is left of a node: a probe must have met it, or its next heartbeat.
            Standing::Joining => reach == Reach::Reached,
            Standing::Starting | Standing::Suspect | Standing::Stopping => false,
        }
    }
}

impl Nodes {
    /// The registry could not be read. Nothing is judged, and nothing is held against a node at the next reading.
    pub fn away(&mut self) {
        self.is_blind = true;
    }

    /// Judges a reading. `reach` is asked for nodes whose lease is over while most nodes are missing.
    pub fn read(
        &mut self,
        terms: Terms,
        entries: Vec<Entry>,
        reach: impl Fn(ReplicaId) -> Reach,
        now: Micros,
    ) -> Judgement {
        self.renew_if_blind(terms, now);
        let over_max = self.take(terms, entries, now);
        let mood = self.mood(terms, now);
        if self.is_glitch && mood == Mood::Calm {
            // Those whose next heartbeat has not come through yet had no better chance than the others.
            self.renew(now);
        }
        self.is_glitch = mood == Mood::Glitch;
        self.seen.retain(|_, seen| {
            if !seen.is_gone && seen.is_over(terms, mood, &reach, now) {
                seen.is_gone = true;
            }
            seen.standing = seen.stand(terms, mood, now);
            seen.is_listed || !seen.is_gone
        });
        Judgement { mood, over_max }
    }

    /// The nodes that are not gone, by id.
    pub fn alive(&self) -> impl Iterator<Item = Alive<'_>> {
        self.seen.values().filter(|seen| !seen.is_gone).map(|seen| Alive {
            entry: &seen.entry,
            standing: seen.standing,
            joined: seen.joined,
            // While its heartbeats are missing, nobody knows how old the figure is.
            load: seen.entry.load.filter(|_| seen.standing != Standing::Suspect && !self.is_glitch),
        })
    }

    /// While nobody looked, no heartbeat could be seen: every lease begins anew.
    fn renew_if_blind(&mut self, terms: Terms, now: Micros) {
        let was_late = self.last.is_some_and(|last| now.since(last) > terms.late_after());
        if self.is_blind || was_late {
            self.renew(now);
        }
        (self.last, self.is_blind) = (Some(now), false);
    }

    fn renew(&mut self, now: Micros) {
        self.seen.values_mut().for_each(|seen| seen.changed = now);
    }

    /// Notes who is listed and whose heart beat; the number of those who found no place.
    fn take(&mut self, terms: Terms, entries: Vec<Entry>, now: Micros) -> usize {
        self.seen.values_mut().for_each(|seen| seen.is_listed = false);
        let mut over_max = 0;
        for entry in entries {
            let known = self.seen.len();
            match self.seen.get_mut(&entry.id) {
                Some(seen) => seen.meet(entry, now),
                None if known < terms.nodes_max => {
                    self.seen.insert(entry.id.clone(), Seen::new(entry, now));
                }
                None => over_max += 1,
            }
        }
        over_max
    }

    fn mood(&self, terms: Terms, now: Micros) -> Mood {
        let (mut all, mut missing) = (0usize, 0usize);
        for seen in self.seen.values().filter(|seen| !seen.is_gone && seen.entry.status != Status::Stopping) {
            all += 1;
            missing += usize::from(now.since(seen.changed) > terms.of(&seen.entry).late_after());
        }
        if missing * 2 > all { Mood::Glitch } else { Mood::Calm }
    }
}

impl Seen {
    fn new(entry: Entry, now: Micros) -> Seen {
        let standing = Standing::Joining;
        Seen { entry, joined: now, changed: now, beats: 0, is_listed: true, is_gone: false, standing }
    }

    fn meet(&mut self, entry: Entry, now: Micros) {
        let beats = self.entry.heartbeat != entry.heartbeat;
        if !self.entry.is_same_process(&entry) || (self.is_gone && beats) {
            *self = Seen::new(entry, now);
            return;
        }
        if beats {
            (self.changed, self.beats) = (now, self.beats.saturating_add(1));
        }
        (self.entry, self.is_listed) = (entry, true);
    }

    fn is_over(&self, terms: Terms, mood: Mood, reach: &impl Fn(ReplicaId) -> Reach, now: Micros) -> bool {
        let lease_over = now.since(self.changed) > terms.of(&self.entry).lease;
        match (self.entry.status, mood) {
            // It said that it would go.
            (Status::Stopping, _) => !self.is_listed || lease_over,
            (Status::Starting | Status::Running, Mood::Calm) => lease_over,
            (Status::Starting | Status::Running, Mood::Glitch) => {
                lease_over && reach(self.entry.replica()) == Reach::Unreachable
            }
        }
    }

    fn stand(&self, terms: Terms, mood: Mood, now: Micros) -> Standing {
        match self.entry.status {
            Status::Stopping => Standing::Stopping,
            Status::Starting | Status::Running
                if mood == Mood::Calm && now.since(self.changed) > terms.of(&self.entry).suspect_after() =>
            {
                Standing::Suspect
            }
            Status::Starting => Standing::Starting,
            Status::Running if self.beats == 0 => Standing::Joining,
            Status::Running => Standing::Running,
        }
    }
}
