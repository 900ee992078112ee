//! Three masters with a replica each, with a short node timeout so that a failover takes seconds.

use super::{READY_WITHIN, Server};
use crate::eventually;
use crate::process::free_port;
use std::process::Command;

/// Six members of a cluster.
#[derive(Debug)]
pub struct Cluster {
    /// The members.
    pub members: Vec<Server>,
}

impl Cluster {
    /// Starts them and waits until all slots are served and copied. They come back empty.
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    /// The same, with members that come back with what they had.
    pub async fn start_durable() -> Self {
        Self::start_with(&["--appendonly", "yes"]).await
    }

    async fn start_with(more: &[&str]) -> Self {
        let mut members = Vec::new();
        for _ in 0..6 {
            let bus = free_port().to_string();
            let ours = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000", "--cluster-port", &bus];
            let fast = ["--repl-diskless-sync-delay", "0", "--cluster-replica-validity-factor", "0"];
            // Without this, the loss of one master closes the slots of all.
            let partial = ["--cluster-require-full-coverage", "no"];
            members.push(Server::start(&[&ours[..], &fast[..], &partial[..], more].concat()).await);
        }
        let cluster = Cluster { members };
        let addresses = cluster.members.iter().map(Server::address);
        let mut create = Command::new("redis-cli");
        create.args(["--cluster", "create"]).args(addresses);
        let made = create.args(["--cluster-replicas", "1", "--cluster-yes"]).output();
        let made = made.unwrap_or_else(|error| panic!("{} ({error})", super::MISSING));
        assert!(made.status.success(), "no cluster: {}", String::from_utf8_lossy(&made.stdout));
        eventually("the cluster is whole", READY_WITHIN, async || cluster.is_whole().then_some(())).await;
        cluster
    }

    /// Whether all members that run see all slots served, and all replicas follow.
    pub fn is_whole(&self) -> bool {
        self.members.iter().all(|member| {
            let state = member.say(&["CLUSTER", "INFO"]);
            let replica = member.info("role").as_deref() == Some("slave");
            state.contains("cluster_state:ok")
                && state.contains("cluster_known_nodes:6")
                && (!replica || member.info("master_link_status").as_deref() == Some("up"))
        })
    }

    /// `redis+cluster://…` with three of its members.
    pub fn url(&self) -> String {
        let hosts: Vec<String> = self.members.iter().take(3).map(Server::address).collect();
        format!("redis+cluster://{}", hosts.join(","))
    }

    /// Runs of slots and the member that is their master, as `asked` sees it.
    pub fn slots(&self, asked: usize) -> Vec<(u16, u16, usize)> {
        let nodes = self.members[asked].say(&["CLUSTER", "NODES"]);
        nodes.lines().flat_map(|line| self.read_node(line)).collect()
    }

    /// One line of `CLUSTER NODES`: id, address, flags, …, runs of slots.
    fn read_node(&self, line: &str) -> Vec<(u16, u16, usize)> {
        let words: Vec<&str> = line.split(' ').collect();
        let [_, address, flags, ..] = words[..] else { return Vec::new() };
        if !flags.contains("master") || flags.contains("fail") {
            return Vec::new();
        }
        let port = address.split([':', '@']).nth(1).and_then(|port| port.parse::<u16>().ok());
        let Some(member) = self.members.iter().position(|member| Some(member.port()) == port) else {
            return Vec::new();
        };
        let run = |text: &&str| {
            let (first, last) = text.split_once('-').unwrap_or((text, text));
            Some((first.parse().ok()?, last.parse().ok()?, member))
        };
        words.get(8..).unwrap_or_default().iter().filter_map(run).collect()
    }

    /// The slot of `key`.
    pub fn slot_of(&self, key: &str, asked: usize) -> Option<u16> {
        self.members[asked].say(&["CLUSTER", "KEYSLOT", key]).parse().ok()
    }

    /// The member that is master of the slot of `key`, as `asked` sees it.
    pub fn master_of(&self, key: &str, asked: usize) -> Option<usize> {
        let slot = self.slot_of(key, asked)?;
        self.slots(asked)
            .into_iter()
            .find(|(first, last, _)| (*first..=*last).contains(&slot))
            .map(|run| run.2)
    }
    /// Says that `slot` is on its way from one master to another: what is not there any more is asked for at the new one.
    pub fn begin_to_move(&self, slot: u16, from: usize, to: usize) {
        let (slot, ids) = (slot.to_string(), [from, to].map(|at| self.members[at].say(&["CLUSTER", "MYID"])));
        self.ok(to, &["CLUSTER", "SETSLOT", &slot, "IMPORTING", &ids[0]]);
        self.ok(from, &["CLUSTER", "SETSLOT", &slot, "MIGRATING", &ids[1]]);
    }

    /// Carries the keys that a slot holds now over to another master.
    pub fn carry(&self, slot: u16, from: usize, to: usize) {
        let (slot, port) = (slot.to_string(), self.members[to].port().to_string());
        let held = self.members[from].say(&["CLUSTER", "GETKEYSINSLOT", &slot, "1000"]);
        for key in held.lines().filter(|key| !key.is_empty()) {
            let said = self.members[from].say(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]);
            // It may have ended meanwhile.
            assert!(["OK", "NOKEY"].contains(&&said[..]), "{key}: {said}");
        }
    }

    /// From now on `slot` is the new master's, who has all its keys.
    pub fn end_to_move(&self, slot: u16, from: usize, to: usize) {
        let (slot, id) = (slot.to_string(), self.members[to].say(&["CLUSTER", "MYID"]));
        for at in [to, from] {
            self.ok(at, &["CLUSTER", "SETSLOT", &slot, "NODE", &id]);
        }
    }

    fn ok(&self, at: usize, words: &[&str]) {
        assert_eq!(self.members[at].say(words), "OK", "{words:?}");
    }

    /// Errors of this name (`CROSSSLOT`, `ASK`, …) that all members have answered with (`INFO errorstats`).
    pub fn errors(&self, name: &str) -> u64 {
        let name = format!("errorstat_{name}");
        let counts = self.members.iter().filter_map(|member| {
            member.info(&name)?.strip_prefix("count=").and_then(|count| count.parse::<u64>().ok())
        });
        counts.sum()
    }
}
