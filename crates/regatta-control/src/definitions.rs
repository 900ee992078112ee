//! The definitions of the tools whose results are kept, as each replica's `tools/list` gave them last.
//!
//! A replica that cannot be asked for a while counts with what it said before; one that left does not count. What it
//! comes to is `regatta_policy::cache`'s to say.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use regatta_mcp::canonical;
use regatta_policy::ReplicaId;
use regatta_policy::cache::{Definitions, Digests, rule_for};
use regatta_policy::snapshot::Server;
use regatta_seal::digest16;

use crate::fleet::Placed;
use crate::probe::Seen;
use crate::probe::tools::{Listing, Tools};

/// What is remembered of all servers.
#[derive(Debug, Default)]
pub struct Written {
    replicas: HashMap<ReplicaId, Reading>,
    servers: HashMap<String, Arc<Definitions>>,
}

/// One replica's list, and what it comes to.
#[derive(Debug)]
struct Reading {
    tools: Arc<Tools>,
    digests: Digests,
}

impl Written {
    /// Sums up the definitions of one server; whether they changed.
    pub fn sum(&mut self, server: &Server, placed: &[Placed], seen: &HashMap<ReplicaId, Seen>) -> bool {
        for id in placed.iter().map(|one| one.replica.id) {
            if let Some(Listing::Read(tools)) = seen.get(&id).map(|seen| &seen.tools) {
                self.learn(id, tools);
            }
        }
        let given = placed.iter().filter_map(|one| {
            let id = one.replica.id;
            Some((id, &self.replicas.get(&id)?.digests))
        });
        let next = Definitions::sum(given, |tool| rule_for(&server.cache, tool).is_some());
        if self.servers.get(&server.name).is_some_and(|last| **last == next) {
            return false;
        }
        self.servers.insert(server.name.clone(), Arc::new(next)).is_some()
    }

    fn learn(&mut self, id: ReplicaId, tools: &Arc<Tools>) {
        let known = self.replicas.get(&id).map(|reading| &reading.tools);
        // Most lists say what they said before, and every probe reads one.
        if !known.is_some_and(|known| Arc::ptr_eq(known, tools) || known == tools) {
            let digests =
                tools.iter().filter_map(|(name, text)| Some((name.clone(), digest(text.as_deref()?)?)));
            self.replicas.insert(id, Reading { tools: tools.clone(), digests: digests.collect() });
        }
    }

    /// Forgets servers and replicas that are not there any more.
    pub fn keep_only(&mut self, servers: &[&str], replicas: &BTreeSet<ReplicaId>) {
        self.servers.retain(|name, _| servers.contains(&name.as_str()));
        self.replicas.retain(|id, _| replicas.contains(id));
    }

    /// What the data plane is told of a server.
    pub fn of(&self, server: &str) -> Arc<Definitions> {
        self.servers.get(server).cloned().unwrap_or_default()
    }
}

/// The same for every spelling of a definition; none if it is not JSON.
fn digest(definition: &str) -> Option<u64> {
    let [a, b, c, d, e, f, g, h, ..] =
        digest16(&[b"regatta definition 1", &canonical(definition.as_bytes())?]);
    // Zero is the unknown one.
    Some(u64::from_be_bytes([a, b, c, d, e, f, g, h]).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_is_told_by_what_it_says_and_not_by_how_it_is_spelled() {
        let plain = digest(r#"{"name":"get","inputSchema":{"type":"object","maxProperties":1}}"#);
        assert!(plain.is_some_and(|digest| digest != 0));
        assert_eq!(
            digest("{ \"inputSchema\": {\"maxProperties\":1, \"type\":\"object\"}, \"name\":\"g\\u0065t\"}"),
            plain
        );
        for other in [
            r#"{"name":"get","inputSchema":{"type":"object","maxProperties":"1"}}"#,
            r#"{"name":"get","inputSchema":{"type":"object","maxProperties":1},"outputSchema":{}}"#,
            r#"{"name":"get","description":"","inputSchema":{"type":"object","maxProperties":1}}"#,
        ] {
            assert_ne!(digest(other), plain, "{other}");
        }
        assert_eq!(digest("{"), None);
    }
}
