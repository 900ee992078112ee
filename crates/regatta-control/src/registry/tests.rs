//! The door and the roster: who is let in, who is refused and why, and what becomes of two at one place.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use regatta_policy::Micros;
use regatta_policy::registry::{Reach, Standing};
use regatta_seal::RegistrationSecret;
use regatta_store::{NodeFields, Nodes, StoreError};

use super::door::{Refused, Verdict};
use super::{Gate, RegistryStats, Roster};
use crate::config::{Config, Env, check};

const SECRET: &str = "a secret of the fleet";

fn config(store: &str, server: &str) -> Config {
    let text = format!(
        "[store]\nurl = \"redis://127.0.0.1:6379\"\n{store}\n[[server]]\nname = \"shop\"\nregistry = true\n{server}\n"
    );
    check("regatta.toml", &text, &Env::default()).unwrap_or_else(|complaints| panic!("{complaints}"))
}

fn gate(config: &Config) -> Gate<'_> {
    Gate { reading: &config.registry, servers: &config.servers, doors: &config.doors }
}

fn fields(more: &[(&str, &str)]) -> NodeFields {
    let least = [
        ("status", "running"),
        ("lastHeartbeat", "1"),
        ("server", "shop"),
        ("url", "http://10.0.0.1:3001/mcp"),
    ];
    least.iter().chain(more).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// The same, signed as a node would.
fn signed(id: &str, secret: &str, mut fields: NodeFields) -> NodeFields {
    let field = |name: &str| fields.get(name).cloned().unwrap_or_default();
    let parts =
        [id.to_owned(), field("boot"), field("url"), field("server"), field("tools"), field("sessionState")];
    let journal = Some(field("journal")).filter(|journal| !journal.is_empty());
    let parts: Vec<&[u8]> = parts.iter().chain(&journal).map(|part| part.as_bytes()).collect();
    let sig = RegistrationSecret::new(secret).unwrap().sign(&parts);
    fields.insert("sig".to_owned(), sig);
    fields
}

fn refusal(verdict: Verdict) -> Option<Refused> {
    match verdict {
        Verdict::Refused(why) => Some(why),
        Verdict::Welcome(..) | Verdict::Foreign => None,
    }
}

#[test]
fn without_a_secret_any_whole_entry_is_welcome() {
    let config = config("", "");
    assert!(matches!(gate(&config).judge("n1", &fields(&[])), Verdict::Welcome(..)));
    let why = refusal(gate(&config).judge("n1", &fields(&[("status", "odd")])));
    assert_eq!(why.unwrap().to_string(), "status is not what it should be");
    for url in ["ftp://10.0.0.1/", "http://user:pw@10.0.0.1/", "file:///etc/passwd"] {
        assert!(matches!(
            refusal(gate(&config).judge("n1", &fields(&[("url", url)]))),
            Some(Refused::Url(_))
        ));
    }
}

#[test]
fn a_node_of_another_server_is_no_business_of_this_gateway() {
    let config = config("", "");
    assert_eq!(gate(&config).judge("n1", &fields(&[("server", "bank")])), Verdict::Foreign);
    assert_eq!(gate(&config).judge("n1", &NodeFields::new()), Verdict::Foreign);
}

#[test]
fn with_a_secret_what_is_unsigned_or_forged_is_refused() {
    let config = config(&format!("registry_secret = [\"the newest of them\", {SECRET:?}]"), "");
    let gate = gate(&config);
    assert_eq!(refusal(gate.judge("n1", &fields(&[]))), Some(Refused::Unsigned));
    let good =
        signed("n1", SECRET, fields(&[("boot", "b"), ("tools", "[\"a\"]"), ("sessionState", "memory")]));
    assert!(matches!(gate.judge("n1", &good), Verdict::Welcome(..)));
    assert_eq!(refusal(gate.judge("n2", &good)), Some(Refused::Forged), "another id");
    for (name, value) in [
        ("boot", "c"),
        ("url", "http://10.0.0.2:1/mcp"),
        ("tools", "[]"),
        ("sessionState", "external"),
        ("journal", "[\"a\"]"),
        ("sig", "x"),
    ] {
        let mut changed = good.clone();
        changed.insert(name.to_owned(), value.to_owned());
        assert_eq!(refusal(gate.judge("n1", &changed)), Some(Refused::Forged), "{name}");
    }
    let foreign = signed("n1", "another secret, as long", fields(&[]));
    assert_eq!(refusal(gate.judge("n1", &foreign)), Some(Refused::Forged));
    let mut keeps = signed("n1", SECRET, fields(&[("journal", "[\"order\"]")]));
    assert!(matches!(gate.judge("n1", &keeps), Verdict::Welcome(entry, _) if entry.journal == ["order"]));
    keeps.remove("journal");
    assert_eq!(refusal(gate.judge("n1", &keeps)), Some(Refused::Forged), "nobody takes it away");
}

#[test]
fn a_server_with_a_secret_of_its_own_takes_no_other() {
    let config =
        config(&format!("registry_secret = {SECRET:?}"), "registry_secret = \"the shop's own secret\"");
    assert_eq!(refusal(gate(&config).judge("n1", &signed("n1", SECRET, fields(&[])))), Some(Refused::Forged));
    let own = signed("n1", "the shop's own secret", fields(&[]));
    assert!(matches!(gate(&config).judge("n1", &own), Verdict::Welcome(..)));
}

#[test]
fn hosts_and_tools_beyond_the_lists_are_refused() {
    let config = config("", "registry_hosts = [\"10.0.0.*\"]\nregistry_tools = [\"shop_*\"]");
    let gate = gate(&config);
    assert!(matches!(gate.judge("n1", &fields(&[("tools", "[\"shop_pay\"]")])), Verdict::Welcome(..)));
    assert_eq!(refusal(gate.judge("n1", &fields(&[("tools", "[\"bank_pay\"]")]))), Some(Refused::Tool));
    let metadata = fields(&[("url", "http://169.254.169.254/mcp")]);
    assert_eq!(refusal(gate.judge("n1", &metadata)), Some(Refused::Host));
}

struct Registry {
    config: Config,
    roster: Roster,
    stats: Arc<RegistryStats>,
    listed: Nodes,
}

impl Registry {
    fn new() -> Registry {
        let (config, roster) = (config("", ""), Roster::default());
        Registry { config, roster, stats: Arc::default(), listed: Nodes::default() }
    }

    fn list(&mut self, id: &str, fields: NodeFields) {
        self.listed.nodes.insert(id.to_owned(), fields);
    }

    fn read(&mut self, seconds: u64) -> bool {
        let (reading, now) = (Ok(self.listed.clone()), Micros(seconds * 1_000_000));
        self.roster.read(reading, gate(&self.config), |_| Reach::Unknown, now, &self.stats)
    }

    fn members(&self) -> Vec<(&str, Standing)> {
        self.roster.members().iter().map(|member| (member.node.as_str(), member.standing)).collect()
    }
}

#[test]
fn only_a_change_is_told_and_a_refusal_is_counted_once() {
    let mut registry = Registry::new();
    registry.list("n1", fields(&[]));
    registry.list("n2", fields(&[("status", "odd")]));
    assert!(registry.read(0));
    assert!(!registry.read(1));
    registry.list("n1", fields(&[("lastHeartbeat", "2")]));
    assert!(registry.read(2), "it joins, then it runs");
    registry.list("n1", fields(&[("lastHeartbeat", "3")]));
    assert!(!registry.read(3), "one more heartbeat is no news");
    assert_eq!(registry.members(), [("n1", Standing::Running)]);
    assert_eq!(registry.stats.refused.load(Ordering::Relaxed), 1);
}

#[test]
fn who_joined_last_at_a_place_is_who_listens_there() {
    let mut registry = Registry::new();
    registry.list("old", fields(&[]));
    registry.read(0);
    registry.list("new", fields(&[("boot", "b")]));
    registry.read(1);
    assert_eq!(registry.members(), [("new", Standing::Joining)]);
}

#[test]
fn a_registry_that_cannot_be_read_changes_nothing() {
    let mut registry = Registry::new();
    registry.list("n1", fields(&[]));
    registry.read(0);
    let away = Err(StoreError::Away("gone".to_owned()));
    let changed = registry.roster.read(
        away,
        gate(&registry.config),
        |_| Reach::Unknown,
        Micros(99_000_000),
        &registry.stats,
    );
    assert!(!changed);
    assert_eq!(registry.members().len(), 1);
    assert_eq!(registry.stats.failed.load(Ordering::Relaxed), 1);
}
