//! What the admin listener shows, put together from both planes: metrics, status, what is degraded.
//!
//! Labels and fields never carry a session, a token, an argument or a caller (RELIABILITY T29).

use std::collections::HashSet;
use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};
use std::time::{SystemTime, UNIX_EPOCH};

use regatta_control::admin::{Panel, Readiness};
use regatta_control::{Control, ReplicaView};
use regatta_policy::ids::ReplicaId;
use regatta_proxy::Gateway;
use regatta_proxy::listener::ListenerStats;
use regatta_store::{Durability, Link, Store};
use serde_json::{Value, json};

use super::cached;
use crate::logging::Sink;

/// Name, help and value of a metric.
type Number = (&'static str, &'static str, u64);

/// All that runs once a gateway serves.
pub struct Plane {
    pub gateway: Arc<Gateway>,
    pub stats: Arc<ListenerStats>,
    pub store: Arc<dyn Store>,
    pub warning: Box<dyn Fn() -> Option<String> + Send + Sync>,
    pub control: Arc<Control>,
    pub sink: Sink,
}

/// The admin listener's facts; nearly empty until `plane` is set.
pub fn panel(ready: &Arc<Readiness>, plane: &Arc<OnceLock<Plane>>, hosts: Vec<String>) -> Panel {
    let (metrics, status, degraded) = (plane.clone(), plane.clone(), plane.clone());
    let (cache, purge) = (plane.clone(), plane.clone());
    Panel {
        ready: ready.clone(),
        metrics: Box::new(move || metrics.get().map_or("# EOF\n".to_owned(), Plane::metrics)),
        status: Box::new(move || status.get().map_or(json!({ "replicas": [] }), Plane::status)),
        degraded: Box::new(move || degraded.get().map_or(Vec::new(), Plane::degraded)),
        cache: Box::new(move || {
            cache.get().map_or(json!({ "rules": [] }), |plane| cached::stats(&plane.gateway))
        }),
        purge: Box::new(move |asked| {
            let plane = purge.clone();
            Box::pin(async move {
                match plane.get() {
                    Some(plane) => cached::purge(&plane.gateway, asked).await,
                    None => Err("the gateway is starting".to_owned()),
                }
            })
        }),
        hosts,
    }
}

impl Plane {
    fn metrics(&self) -> String {
        let mut text = self.gateway.metrics_text();
        // The end mark belongs behind what is added here.
        text.truncate(text.trim_end().trim_end_matches("# EOF").len());
        // Writing to a string cannot fail.
        let counters = [self.process_counters(), self.store_counters(), self.registry_counters()];
        for (name, help, value) in counters.into_iter().flatten() {
            let _ = write!(
                text,
                "# HELP regatta_{name} {help}.\n# TYPE regatta_{name} counter\nregatta_{name}_total {value}\n"
            );
        }
        for (name, help, value) in self.gauges() {
            let _ = write!(
                text,
                "# HELP regatta_{name} {help}.\n# TYPE regatta_{name} gauge\nregatta_{name} {value}\n"
            );
        }
        self.replica_gauges(&mut text);
        text.push_str("# EOF\n");
        text
    }

    fn process_counters(&self) -> Vec<Number> {
        let (stats, control) = (&self.stats, self.control.stats());
        vec![
            ("listener_accepted", "Client connections taken from the kernel", stats.accepted.load(Relaxed)),
            (
                "listener_refused",
                "Client connections closed because of connections_max",
                stats.refused.load(Relaxed),
            ),
            ("listener_accept_errors", "Times that accepting failed", stats.accept_errors.load(Relaxed)),
            ("listener_handshake_errors", "TLS handshakes that failed", stats.handshake_errors.load(Relaxed)),
            (
                "listener_stalled",
                "Connections closed because the client did not read",
                stats.stalled.load(Relaxed),
            ),
            ("listener_panics", "Handlers that panicked", stats.panics.load(Relaxed)),
            ("listener_aborted", "Connections cut at the drain deadline", stats.aborted.load(Relaxed)),
            ("config_reloads", "Configs read again and taken", control.config_reloads.load(Relaxed)),
            (
                "config_reload_failed",
                "Configs read again and refused",
                control.config_reload_failed.load(Relaxed),
            ),
            ("log_dropped", "Log lines that stderr did not take", self.sink.dropped()),
        ]
    }

    fn store_counters(&self) -> Vec<Number> {
        let store = self.store.stats();
        vec![
            (
                "store_refused_records",
                "Records refused by a bound",
                store.refused_records + store.refused_values,
            ),
            ("store_refused_tombstones", "Tombstones refused by a bound", store.refused_tombstones),
            ("store_write_failures", "Writes to the log that failed", store.write_failures),
            ("store_operations", "Operations sent to the shared store", store.link.operations),
            (
                "store_timeouts",
                "Operations of the shared store without an answer in time",
                store.link.timeouts,
            ),
            (
                "store_refused_away",
                "Operations not sent because the store was known to be away",
                store.link.refused_away,
            ),
            ("store_reconnects", "Connections to the shared store made again", store.link.reconnects),
            ("store_breaker_opened", "Times the store began to count as away", store.link.breaker_opened),
            ("store_notices_lost", "Times the store's notices stopped", store.link.notices_lost),
            ("store_published_records", "Records kept here and then published", store.link.published_records),
            (
                "store_merged_records",
                "Of these, records merged with another gateway's",
                store.link.merged_records,
            ),
            (
                "store_restored_writes",
                "Writes that the store had lost and got again",
                store.link.restored_writes,
            ),
            ("store_lost_writes", "Writes that the store may have lost for good", store.link.lost_writes),
            (
                "store_refused_spills",
                "Events of streams that a bound of the store refused or displaced",
                store.refused_spills,
            ),
            ("store_letters_dropped", "Letters between gateways dropped by a bound", store.letters_dropped),
            ("store_notices_missed", "Notices dropped because nobody fetched them", store.notices_missed),
        ]
    }

    fn gauges(&self) -> Vec<Number> {
        let (stats, store) = (&self.stats, self.store.stats());
        vec![
            ("connections", "Client connections that are open", stats.open() as u64),
            ("store_records", "Deviation records", store.records),
            ("store_tombstones", "Tombstones", store.tombstones),
            (
                "store_unpublished_records",
                "Records that only this gateway knows",
                store.link.unpublished_records,
            ),
            ("store_log_bytes", "Bytes of the deviation log", store.log_bytes),
        ]
    }

    fn registry_counters(&self) -> Vec<Number> {
        let control = self.control.stats();
        let registry = &control.registry;
        vec![
            ("registry_failed", "Readings of the registry that failed", registry.failed.load(Relaxed)),
            ("registry_refused", "Registrations that were refused", registry.refused.load(Relaxed)),
            (
                "registry_left_out",
                "Registrations beyond nodes_max or too large",
                registry.left_out.load(Relaxed),
            ),
            (
                "registry_glitches",
                "Times that most nodes were missing at once",
                registry.glitches.load(Relaxed),
            ),
            (
                "tool_conflicts",
                "Tools that replicas define differently",
                control.tool_conflicts.load(Relaxed),
            ),
        ]
    }

    fn replica_gauges(&self, text: &mut String) {
        // As the data plane has it, which hears of a change a moment after it was seen.
        let serving: HashSet<String> = self.gateway.serving().iter().map(ReplicaId::to_string).collect();
        let (views, healthy) = (self.control.views(), |view: &ReplicaView| view.health == "healthy");
        let views = views.borrow();
        let mut gauge = |name: &str, help: &str, is: &dyn Fn(&ReplicaView) -> bool| {
            let _ = writeln!(text, "# HELP {name} {help}.\n# TYPE {name} gauge");
            for view in views.iter() {
                let (server, id, value) = (&view.server, &view.id, u8::from(is(view)));
                let _ = writeln!(text, "{name}{{server=\"{server}\",replica=\"{id}\"}} {value}");
            }
        };
        gauge("regatta_replica_healthy", "1 if probes reach it", &healthy);
        gauge("regatta_replica_serving", "1 if it is given new work", &|view| serving.contains(&view.id));
    }

    fn status(&self) -> Value {
        let seen = self.gateway.status();
        let views = self.control.views();
        let replicas: Vec<Value> = views
            .borrow()
            .iter()
            .map(|view| {
                let mut shown = serde_json::to_value(view).unwrap_or(Value::Null);
                if let (Some(own), Some(fields)) =
                    (seen.iter().find(|own| own.id.to_string() == view.id), shown.as_object_mut())
                {
                    fields.insert("in_flight".into(), own.in_flight.into());
                    fields
                        .insert("latency_ms".into(), own.latency.map(|time| time.as_secs_f64() * 1e3).into());
                    fields.insert("ejected".into(), own.ejected_for.is_some().into());
                    fields.insert("connections".into(), own.connections.into());
                }
                shown
            })
            .collect();
        let version = self.control.snapshots().borrow().version;
        json!({ "version": env!("CARGO_PKG_VERSION"), "snapshot": version, "replicas": replicas })
    }

    fn degraded(&self) -> Vec<String> {
        let mut reasons = Vec::new();
        if let Durability::ProcessOnly { why } = self.store.durability() {
            reasons.push(format!("sessions end with this process: {why}"));
        }
        reasons.extend((self.warning)());
        if let Link::Degraded { since_s, why } = self.store.link() {
            let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(since_s, |since| since.as_secs());
            let away_s = now_s.saturating_sub(since_s);
            reasons.push(format!("the store is away for {away_s} s, sessions go on by their tokens: {why}"));
        }
        let (views, snapshots) = (self.control.views(), self.control.snapshots());
        let (views, snapshot) = (views.borrow(), snapshots.borrow());
        if let Some(access) = &snapshot.access {
            let without = access.issuers.iter().filter(|issuer| issuer.keys.is_empty());
            reasons.extend(without.map(|issuer| format!("no keys of the issuer {} yet", issuer.url)));
        }
        for server in snapshot.servers.iter().map(|server| server.name.as_str()) {
            if !views.iter().any(|view| view.server == server && view.health == "healthy") {
                reasons.push(format!("no replica of {server} is healthy"));
            }
        }
        reasons
    }
}
