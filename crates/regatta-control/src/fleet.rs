//! The replicas of one server: those of the config, and the nodes that registered, with what probes saw of each.
//!
//! Pure sums over what others found out. A node at the place of a configured replica *is* that replica: the config
//! decides that it is there, the node tells its load and when it leaves.

use std::collections::HashMap;

use regatta_policy::ReplicaId;
use regatta_policy::registry::{Reach, Standing};
use regatta_policy::snapshot::{Duty, Endpoint, Eras, Health, Replica, Server, SessionState};
use serde::Serialize;

use crate::probe::Seen;
use crate::registry::{Member, word};

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
    /// What it is in the registry, if it registered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeView>,
}

/// A node as people want to see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct NodeView {
    /// Its own id.
    pub id: String,
    /// `starting`, `joining`, `running`, `suspect` or `stopping`.
    pub standing: &'static str,
    /// The load it reports, in percent, while that is fresh.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub load_percent: Option<u16>,
}

/// One replica, wherever it comes from.
#[derive(Clone, Debug)]
pub struct Placed {
    /// As the data plane is told.
    pub replica: Replica,
    /// What outlives a restart of it.
    pub origin: String,
    /// The tools that it reports.
    pub reported: Option<Vec<String>>,
    /// What the registry says of it.
    pub node: Option<NodeView>,
}

/// All replicas of `server`, the configured ones first.
pub fn placed(server: &Server, members: &[Member], seen: &HashMap<ReplicaId, Seen>) -> Vec<Placed> {
    let members = || members.iter().filter(|member| member.server == server.name);
    let configured = server.replicas.iter().map(|replica| {
        let node = members().find(|member| member.endpoint.url == replica.endpoint.url);
        Placed {
            replica: Replica {
                load: node.and_then(|node| node.load),
                journal: node.map(|node| node.journal.clone()).unwrap_or_default(),
                duty: match node.map(|node| node.standing) {
                    Some(Standing::Stopping | Standing::Starting) => Duty::Draining,
                    Some(Standing::Joining | Standing::Running | Standing::Suspect) | None => replica.duty,
                },
                ..with(replica, seen.get(&replica.id))
            },
            origin: replica.endpoint.url.clone(),
            reported: node.and_then(|node| node.tools.clone()),
            node: node.map(node_view),
        }
    });
    let is_configured =
        |member: &&Member| server.replicas.iter().any(|own| own.endpoint.url == member.endpoint.url);
    let registered = members().filter(|member| !is_configured(member)).map(|member| {
        let seen = seen.get(&member.id);
        let takes = member.standing.takes_new_work(reach(seen));
        let base = Replica {
            id: member.id,
            endpoint: member.endpoint.clone(),
            health: Health::Unknown,
            eras: Eras::Unknown,
            duty: if takes { Duty::Serving } else { Duty::Draining },
            load: member.load,
            journal: member.journal.clone(),
        };
        Placed {
            replica: with(&base, seen),
            origin: member.node.clone(),
            reported: member.tools.clone(),
            node: Some(node_view(member)),
        }
    });
    configured.chain(registered).collect()
}

/// What probes say, in the words of the registry's rule.
pub fn reach(seen: Option<&Seen>) -> Reach {
    match seen.map_or(Health::Unknown, |seen| seen.health) {
        Health::Unknown => Reach::Unknown,
        Health::Healthy | Health::Unhealthy => Reach::Reached,
        Health::Unreachable => Reach::Unreachable,
    }
}

/// Where all nodes of a server without configured replicas say that they keep sessions; `None` unless they agree.
pub fn agreed_state(server: &Server, members: &[Member]) -> Option<SessionState> {
    let mut members = members.iter().filter(|member| member.server == server.name);
    let first = members.next()?.session_state?;
    let agree = members.all(|member| member.session_state == Some(first));
    (agree && server.replicas.is_empty()).then_some(first)
}

/// The same for people.
pub fn view(server: &Server, placed: &Placed, seen: Option<&Seen>) -> ReplicaView {
    ReplicaView {
        server: server.name.clone(),
        id: placed.replica.id.to_string(),
        url: placed.replica.endpoint.url.clone(),
        health: health_word(placed.replica.health),
        eras: eras_word(placed.replica.eras),
        why: seen.and_then(|seen| seen.why.clone()),
        node: placed.node.clone(),
    }
}

fn node_view(member: &Member) -> NodeView {
    NodeView {
        id: member.node.clone(),
        standing: word(member.standing),
        load_percent: member.load.map(|load| load.permille / 10),
    }
}

fn with(replica: &Replica, seen: Option<&Seen>) -> Replica {
    let Some(seen) = seen else { return replica.clone() };
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
