//! What the admin listener shows, put together from both planes: metrics, status, what is degraded.
//!
//! Labels and fields never carry a session, a token, an argument or a caller (RELIABILITY T29).

use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};

use regatta_control::Control;
use regatta_control::admin::{Panel, Readiness};
use regatta_proxy::Gateway;
use regatta_proxy::listener::ListenerStats;
use regatta_store::{Durability, Embedded, Store};
use serde_json::{Value, json};

use crate::logging::Sink;

/// All that runs once a gateway serves.
pub struct Plane {
    pub gateway: Arc<Gateway>,
    pub stats: Arc<ListenerStats>,
    pub store: Arc<Embedded>,
    pub control: Arc<Control>,
    pub sink: Sink,
}

/// The admin listener's facts; nearly empty until `plane` is set.
pub fn panel(ready: &Arc<Readiness>, plane: &Arc<OnceLock<Plane>>, hosts: Vec<String>) -> Panel {
    let (metrics, status, degraded) = (plane.clone(), plane.clone(), plane.clone());
    Panel {
        ready: ready.clone(),
        metrics: Box::new(move || metrics.get().map_or("# EOF\n".to_owned(), Plane::metrics)),
        status: Box::new(move || status.get().map_or(json!({ "replicas": [] }), Plane::status)),
        degraded: Box::new(move || degraded.get().map_or(Vec::new(), Plane::degraded)),
        hosts,
    }
}

impl Plane {
    fn metrics(&self) -> String {
        let mut text = self.gateway.metrics_text();
        // The end mark belongs behind what is added here.
        text.truncate(text.trim_end().trim_end_matches("# EOF").len());
        let (stats, control, store) = (&self.stats, self.control.stats(), self.store.stats());
        let counters = [
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
            (
                "store_refused_records",
                "Records refused by a bound",
                store.refused_records + store.refused_values,
            ),
            ("store_refused_tombstones", "Tombstones refused by a bound", store.refused_tombstones),
            ("store_write_failures", "Writes to the log that failed", store.write_failures),
        ];
        // Writing to a string cannot fail.
        for (name, help, value) in counters {
            let _ = write!(
                text,
                "# HELP regatta_{name} {help}.\n# TYPE regatta_{name} counter\nregatta_{name}_total {value}\n"
            );
        }
        let gauges = [
            ("connections", "Client connections that are open", stats.open() as u64),
            ("store_records", "Deviation records", store.records),
            ("store_tombstones", "Tombstones", store.tombstones),
            ("store_log_bytes", "Bytes of the deviation log", store.log_bytes),
        ];
        for (name, help, value) in gauges {
            let _ = write!(
                text,
                "# HELP regatta_{name} {help}.\n# TYPE regatta_{name} gauge\nregatta_{name} {value}\n"
            );
        }
        self.replica_gauges(&mut text);
        text.push_str("# EOF\n");
        text
    }

    fn replica_gauges(&self, text: &mut String) {
        let _ = write!(
            text,
            "# HELP regatta_replica_healthy 1 if probes reach it.\n# TYPE regatta_replica_healthy gauge\n"
        );
        for view in self.control.views().borrow().iter() {
            let healthy = u8::from(view.health == "healthy");
            let (server, id) = (&view.server, &view.id);
            let _ =
                writeln!(text, "regatta_replica_healthy{{server=\"{server}\",replica=\"{id}\"}} {healthy}");
        }
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
        if let Some(access) = &self.control.snapshots().borrow().access {
            let without = access.issuers.iter().filter(|issuer| issuer.keys.is_empty());
            reasons.extend(without.map(|issuer| format!("no keys of the issuer {} yet", issuer.url)));
        }
        let views = self.control.views();
        let views = views.borrow();
        let mut servers: Vec<&str> = views.iter().map(|view| view.server.as_str()).collect();
        servers.dedup();
        for server in servers {
            if !views.iter().any(|view| view.server == server && view.health == "healthy") {
                reasons.push(format!("no replica of {server} is healthy"));
            }
        }
        reasons
    }
}
