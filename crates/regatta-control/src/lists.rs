//! The tools of all servers whose replicas may differ: who is asked for them, and what their union is.
//!
//! A node's own report says at once that something changed; the union follows when its list was read again, so that a
//! rename is one change and not two. The sums are `regatta_policy::catalogue`'s.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use regatta_policy::catalogue::{Catalogue, Facts, Known, Union};
use regatta_policy::{Micros, ReplicaId};

use crate::config::registry::{Door, Joining, ToolSource};
use crate::fleet::Placed;
use crate::probe::Seen;
use crate::probe::tools::{Listing, Tools};

/// What is remembered of all servers.
#[derive(Debug, Default)]
pub struct Lists {
    servers: HashMap<String, ServerLists>,
    asks: HashMap<ReplicaId, Ask>,
}

#[derive(Debug, Default)]
struct ServerLists {
    union: Union,
    catalogue: Option<Arc<Catalogue>>,
    disputed: BTreeSet<String>,
}

/// What a replica reported when it was last sent for its list.
#[derive(Debug)]
struct Ask {
    reported: Option<Vec<String>>,
    number: u64,
}

impl Lists {
    /// How urgently the tools of `placed` are wanted: 0 for not at all, more than before for now.
    pub fn ask(&mut self, placed: &Placed, is_wanted: bool) -> u64 {
        if !is_wanted {
            self.asks.remove(&placed.replica.id);
            return 0;
        }
        let fresh = || Ask { reported: placed.reported.clone(), number: 1 };
        let ask = self.asks.entry(placed.replica.id).or_insert_with(fresh);
        if ask.reported != placed.reported {
            (ask.reported, ask.number) = (placed.reported.clone(), ask.number + 1);
        }
        ask.number
    }

    /// Forgets servers and replicas that are not there any more.
    pub fn keep_only(&mut self, servers: &[&str], replicas: &BTreeSet<ReplicaId>) {
        self.servers.retain(|name, _| servers.contains(&name.as_str()));
        self.asks.retain(|id, _| replicas.contains(id));
    }

    /// Sums up the tools of one server; whether its catalogue changed. `tell` hears of each tool that replicas begin to
    /// define in different ways.
    pub fn sum(
        &mut self,
        server: &str,
        (door, is_tracked): (&Door, bool),
        placed: &[Placed],
        seen: &HashMap<ReplicaId, Seen>,
        now: Micros,
        mut tell: impl FnMut(&str),
    ) -> bool {
        let lists = self.servers.entry(server.to_owned()).or_default();
        let settled: Vec<Option<Arc<Tools>>> = placed
            .iter()
            .map(|one| {
                // Lists that are read for the sake of kept results alone say nothing of where calls go.
                let wanted =
                    self.asks.get(&one.replica.id).filter(|_| is_tracked).map_or(0, |ask| ask.number);
                settled(one.reported.as_deref(), seen.get(&one.replica.id)?, wanted)
            })
            .collect();
        let facts: Vec<Facts<'_>> = placed
            .iter()
            .zip(&settled)
            .map(|(one, tools)| Facts {
                id: one.replica.id,
                origin: &one.origin,
                eras: one.replica.eras,
                tools: tools.as_ref().map_or(Known::NotNow, |tools| Known::Settled(tools)),
            })
            .collect();
        lists.union = lists.union.next(&facts, door.lost_tools_kept, now);
        let disputed: BTreeSet<String> = lists.union.disputed().map(str::to_owned).collect();
        disputed.difference(&lists.disputed).for_each(|tool| tell(tool));
        lists.disputed = disputed;
        let next = may_be_tracked(door).then(|| lists.union.catalogue(&facts));
        if next.as_ref() == lists.catalogue.as_deref() {
            return false;
        }
        lists.catalogue = next.map(Arc::new);
        true
    }

    /// What the data plane is told of a server's tools.
    pub fn catalogue(&self, server: &str) -> Option<Arc<Catalogue>> {
        self.servers.get(server)?.catalogue.clone()
    }
}

/// Whether the tools of this server's replicas may ever be looked after.
fn may_be_tracked(door: &Door) -> bool {
    door.source == ToolSource::Probe || door.nodes == Joining::Open
}

/// Whether they are, as of now.
pub fn is_tracked(door: &Door, placed: &[Placed]) -> bool {
    door.source == ToolSource::Probe || placed.iter().any(|one| one.reported.is_some())
}

/// What a replica has for sure: its report and its list together, once the list was read after the report.
fn settled(reported: Option<&[String]>, seen: &Seen, wanted: u64) -> Option<Arc<Tools>> {
    if wanted == 0 || seen.asked < wanted {
        return None;
    }
    match (&seen.tools, reported) {
        (Listing::Read(tools), None) => Some(tools.clone()),
        (Listing::Read(tools), Some(names)) if tools.keys().eq(names) => Some(tools.clone()),
        (Listing::Read(tools), Some(names)) => {
            let definition = |name: &String| tools.get(name).cloned().flatten();
            Some(Arc::new(names.iter().map(|name| (name.clone(), definition(name))).collect()))
        }
        (Listing::Guarded | Listing::Unreadable(_), Some(names)) => {
            Some(Arc::new(names.iter().map(|name| (name.clone(), None)).collect()))
        }
        (Listing::Guarded | Listing::Unreadable(_), None) | (Listing::NotRead, _) => None,
    }
}
