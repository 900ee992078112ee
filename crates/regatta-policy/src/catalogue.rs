//! Which replicas have which tools, and the one list that clients are shown when they differ.
//!
//! Pure: what each replica is known to have, and the union before, in; the next union out. Nothing in it depends on
//! the order in which replicas were asked, so that every gateway composes the same bytes (RELIABILITY F72). A tool whose
//! replicas are lost stays in the list for a while: an emptied list would make clients forget what comes back (F10).

mod compose;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

pub use compose::{Coverage, List};

use crate::ids::{Micros, ReplicaId};
use crate::snapshot::Eras;

/// Tools in a union; what sorts behind them is left out.
pub const UNION_MAX: usize = 4096;

/// What is known of one replica's tools.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Which replica.
    pub id: ReplicaId,
    /// What outlives a restart of it: the node's id, or the URL in the config.
    pub origin: &'a str,
    /// The eras it speaks.
    pub eras: Eras,
    /// Its tools.
    pub tools: Known<'a>,
}

/// A replica's tools, as far as they are known.
#[derive(Clone, Copy, Debug)]
pub enum Known<'a> {
    /// Not, or not for sure at this moment: what was believed before is still believed.
    NotNow,
    /// These and no others, each with its definition as the server wrote it, unless that cannot be read.
    Settled(&'a BTreeMap<String, Option<Arc<str>>>),
}

/// What the data plane is told of a server's tools.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalogue {
    /// Whether replicas differ.
    pub spread: Spread,
    /// By name.
    pub tools: BTreeMap<String, Tool>,
    /// What a legacy client is shown.
    pub legacy: List,
    /// What a modern client is shown.
    pub modern: List,
}

/// Whether a call must look where its tool is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spread {
    /// Nobody knows (yet) which tools there are: the servers speak for themselves.
    Unknown,
    /// All replicas have the same tools: calls and lists go where they please.
    Same,
    /// They differ.
    Mixed,
}

/// One tool of a union.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tool {
    /// Replicas that have it as it is listed: new work for it goes there.
    pub carriers: Vec<ReplicaId>,
    /// Replicas that have one of this name, as it is listed or not: a bound session is served there.
    pub holders: Vec<ReplicaId>,
}

/// The tools of all replicas of one server. Starts empty.
#[derive(Clone, Debug, Default)]
pub struct Union {
    tools: BTreeMap<String, Entry>,
}

/// One tool, as it is remembered between two sums.
#[derive(Clone, Debug, Default)]
struct Entry {
    /// Who is believed to have it.
    origins: BTreeSet<String>,
    /// The definition that is listed.
    definition: Option<Arc<str>>,
    /// The definition that each origin gave last.
    given: BTreeMap<String, Given>,
    eras: Option<Eras>,
    lost_since: Option<Micros>,
    is_disputed: bool,
    tool: Tool,
}

/// A definition as its server wrote it.
#[derive(Clone, Debug)]
struct Given {
    text: Arc<str>,
    /// The same without the freedoms of spelling: blanks, and the order of members.
    meaning: Arc<str>,
}

impl Given {
    fn new(text: &Arc<str>) -> Given {
        let read = serde_json::from_str::<serde_json::Value>(text);
        let meaning = read.map_or_else(|_| text.clone(), |value| value.to_string().into());
        Given { text: text.clone(), meaning }
    }
}

impl Union {
    /// The union after `replicas` were looked at; tools without any replica stay for `kept`.
    pub fn next(&self, replicas: &[Facts<'_>], kept: Duration, now: Micros) -> Union {
        let mut tools = self.tools.clone();
        for replica in replicas {
            learn(&mut tools, replica);
        }
        for entry in tools.values_mut() {
            entry.settle(replicas, now);
        }
        tools.retain(|_, entry| {
            let is_kept = entry.lost_since.is_none_or(|since| now.since(since) < kept);
            !entry.origins.is_empty() && is_kept
        });
        while tools.len() > UNION_MAX {
            tools.pop_last();
        }
        Union { tools }
    }

    /// Tools that replicas define in different ways, by name.
    pub fn disputed(&self) -> impl Iterator<Item = &str> {
        self.tools.iter().filter(|(_, entry)| entry.is_disputed).map(|(name, _)| name.as_str())
    }

    /// What the data plane is told.
    pub fn catalogue(&self, replicas: &[Facts<'_>]) -> Catalogue {
        let is_known = |replica: &&Facts<'_>| matches!(replica.tools, Known::Settled(_));
        let known: Vec<ReplicaId> = replicas.iter().filter(is_known).map(|replica| replica.id).collect();
        let is_everywhere = |entry: &Entry| known.iter().all(|id| entry.tool.carriers.contains(id));
        let is_same = self.tools.values().all(|entry| entry.lost_since.is_none() && is_everywhere(entry));
        Catalogue {
            spread: match (self.tools.is_empty(), is_same) {
                (true, _) => Spread::Unknown,
                (false, true) => Spread::Same,
                (false, false) => Spread::Mixed,
            },
            tools: self.tools.iter().map(|(name, entry)| (name.clone(), entry.tool.clone())).collect(),
            legacy: self.list(Eras::speaks_legacy),
            modern: self.list(Eras::speaks_modern),
        }
    }

    fn list(&self, speaks: fn(Eras) -> bool) -> List {
        let shown = self.tools.iter().filter(|(_, entry)| entry.eras.is_some_and(speaks));
        List::of(shown.map(|(name, entry)| (name.as_str(), entry.definition.as_deref())))
    }
}

/// Takes what `replica` says over what was believed of it.
fn learn(tools: &mut BTreeMap<String, Entry>, replica: &Facts<'_>) {
    let Known::Settled(has) = replica.tools else { return };
    for (_, entry) in tools.iter_mut().filter(|(name, _)| !has.contains_key(*name)) {
        entry.origins.remove(replica.origin);
        entry.given.remove(replica.origin);
    }
    for (name, definition) in has {
        let entry = tools.entry(name.clone()).or_default();
        entry.origins.insert(replica.origin.to_owned());
        match definition {
            Some(text) if entry.given.get(replica.origin).is_some_and(|given| given.text == *text) => {}
            Some(text) => _ = entry.given.insert(replica.origin.to_owned(), Given::new(text)),
            None => _ = entry.given.remove(replica.origin),
        }
    }
}

impl Entry {
    /// Works out who has it now, and which definition is listed.
    fn settle(&mut self, replicas: &[Facts<'_>], now: Micros) {
        let here: Vec<&Facts<'_>> =
            replicas.iter().filter(|replica| self.origins.contains(replica.origin)).collect();
        if here.is_empty() {
            // Who had it is lost, and may come back with it: listed as it was.
            self.lost_since = self.lost_since.or(Some(now));
            (self.tool, self.is_disputed) = (Tool::default(), false);
            return;
        }
        self.lost_since = None;
        // What each meaning is worth: how many give it, and the first of its spellings.
        let mut votes: BTreeMap<&str, (usize, &Arc<str>)> = BTreeMap::new();
        for given in here.iter().filter_map(|replica| self.given.get(replica.origin)) {
            let (count, text) = votes.entry(&given.meaning).or_insert((0, &given.text));
            (*count, *text) = (*count + 1, (*text).min(&given.text));
        }
        self.is_disputed = votes.len() > 1;
        // The most frequent one wins, the first in order of bytes among equals: the same in every gateway.
        let winner = votes.iter().max_by(|(_, (m, a)), (_, (n, b))| m.cmp(n).then(b.cmp(a)));
        let winner = winner.map(|(meaning, (_, text))| ((*meaning).to_owned(), Arc::clone(text)));
        let is_winners = |replica: &&&Facts<'_>| match (self.given.get(replica.origin), &winner) {
            (Some(given), Some((meaning, _))) => *given.meaning == **meaning,
            (Some(_) | None, _) => true,
        };
        let carriers = here.iter().filter(is_winners).map(|replica| replica.id).collect();
        let holders = here.iter().map(|replica| replica.id).collect();
        self.eras = here.iter().map(|replica| replica.eras).reduce(either);
        self.tool = Tool { carriers, holders };
        if let Some((_, text)) = winner {
            self.definition = Some(text);
        }
    }
}

/// What one of two replicas speaks.
fn either(one: Eras, other: Eras) -> Eras {
    match (one, other) {
        (Eras::Unknown, _) | (_, Eras::Unknown) => Eras::Unknown,
        (Eras::Legacy, Eras::Legacy) => Eras::Legacy,
        (Eras::Modern, Eras::Modern) => Eras::Modern,
        (Eras::Legacy | Eras::Modern | Eras::Dual, Eras::Legacy | Eras::Modern | Eras::Dual) => Eras::Dual,
    }
}
