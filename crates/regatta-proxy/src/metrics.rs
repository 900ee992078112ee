//! What the data plane counts, with handles resolved once.
//!
//! Names are part of the product: they change only with an entry in the changelog. No label ever carries an
//! id, a token, an argument or a caller.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::results::Tallies;

/// Bounds of the latency histogram, in seconds: the MCP semantic conventions' plus three for a gateway's own.
const SECONDS: [f64; 17] =
    [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0];

/// Handles of all metrics of the data plane.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    pub(crate) requests: Counter,
    pub(crate) faults: Counter,
    pub(crate) shed: Counter,
    pub(crate) limited: Counter,
    pub(crate) shut: Counter,
    rules: Rules,
    servers: Servers,
    pub(crate) limit_keys: Gauge,
    pub(crate) limit_keys_displaced: Counter,
    pub(crate) limit_asked: Counter,
    pub(crate) limit_alone: Counter,
    pub(crate) limit_gateways: Gauge,
    pub(crate) unauthorized: Counter,
    pub(crate) keys_asked: Counter,
    pub(crate) retries: Counter,
    pub(crate) retries_refused: Counter,
    pub(crate) rehomed: Counter,
    pub(crate) later_bindings: Counter,
    pub(crate) sessions_opened: Counter,
    pub(crate) sessions_ended: Counter,
    pub(crate) outcome_unknown: Counter,
    pub(crate) journal_asked: Counter,
    pub(crate) bad_answers: Counter,
    pub(crate) dropped_messages: Counter,
    pub(crate) resumed: Counter,
    pub(crate) detached_refused: Counter,
    pub(crate) park_refused: Counter,
    pub(crate) store_away: Counter,
    pub(crate) letters: Counter,
    pub(crate) letters_refused: Counter,
    pub(crate) letters_unsent: Counter,
    pub(crate) spilled_events: Counter,
    pub(crate) spills_refused: Counter,
    pub(crate) resumed_elsewhere: Counter,
    pub(crate) streams_lost: Counter,
    pub(crate) detached: Gauge,
    pub(crate) inflight: Gauge,
    pub(crate) queued: Gauge,
    pub(crate) parked: Gauge,
    pub(crate) streams: Gauge,
    pub(crate) shared_legs: Gauge,
    pub(crate) duration: Histogram,
}

/// The series of the operator's rules, whose names are in the config and therefore bounded.
#[derive(Debug, Default)]
struct Rules {
    granted: Family<Rule, Counter>,
    refused: Family<Rule, Counter>,
    named: Mutex<BTreeSet<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Rule {
    rule: String,
}

/// The series of servers with a bound of their own.
#[derive(Debug, Default)]
struct Servers {
    limit: Family<Server, Gauge>,
    inflight: Family<Server, Gauge>,
    queued: Family<Server, Gauge>,
    connections: Family<Server, Gauge>,
    connections_allowed: Family<Server, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Server {
    server: String,
}

impl Metrics {
    /// Registers everything; `rules` counts what the cache does, by rule.
    pub(crate) fn new(rules: Tallies) -> Metrics {
        let mut registry = Registry::with_prefix("regatta");
        registry.register_collector(Box::new(rules));
        let mut metrics = Metrics {
            registry: Registry::default(),
            requests: Counter::default(),
            faults: Counter::default(),
            shed: Counter::default(),
            limited: Counter::default(),
            shut: Counter::default(),
            rules: Rules::default(),
            servers: Servers::default(),
            limit_keys: Gauge::default(),
            limit_keys_displaced: Counter::default(),
            limit_asked: Counter::default(),
            limit_alone: Counter::default(),
            limit_gateways: Gauge::default(),
            unauthorized: Counter::default(),
            keys_asked: Counter::default(),
            retries: Counter::default(),
            retries_refused: Counter::default(),
            rehomed: Counter::default(),
            later_bindings: Counter::default(),
            sessions_opened: Counter::default(),
            sessions_ended: Counter::default(),
            outcome_unknown: Counter::default(),
            journal_asked: Counter::default(),
            bad_answers: Counter::default(),
            dropped_messages: Counter::default(),
            resumed: Counter::default(),
            detached_refused: Counter::default(),
            park_refused: Counter::default(),
            store_away: Counter::default(),
            letters: Counter::default(),
            letters_refused: Counter::default(),
            letters_unsent: Counter::default(),
            spilled_events: Counter::default(),
            spills_refused: Counter::default(),
            resumed_elsewhere: Counter::default(),
            streams_lost: Counter::default(),
            detached: Gauge::default(),
            inflight: Gauge::default(),
            queued: Gauge::default(),
            parked: Gauge::default(),
            streams: Gauge::default(),
            shared_legs: Gauge::default(),
            duration: Histogram::new(SECONDS),
        };
        metrics.register(&mut registry);
        metrics.registry = registry;
        metrics
    }

    fn register(&self, registry: &mut Registry) {
        let counters = [
            ("requests", "HTTP requests to MCP endpoints", &self.requests),
            ("faults", "Answers of the gateway's own that refuse or report a fault", &self.faults),
            ("shed", "Requests refused because every place was taken", &self.shed),
            ("limited", "Requests refused because their caller used its quota", &self.limited),
            ("shut", "Requests refused because every replica of their server failed", &self.shut),
            (
                "limit_keys_displaced",
                "Keys that were forgotten before their time because limit_keys_max was reached",
                &self.limit_keys_displaced,
            ),
            (
                "unauthorized",
                "Requests refused with 400, 401 or 403 for their credential",
                &self.unauthorized,
            ),
            ("keys_asked", "Times that an issuer was asked for a key that was not here", &self.keys_asked),
            ("retries", "Requests sent a second time after a loss", &self.retries),
            ("retries_refused", "Harmless repeats that the retry budget refused", &self.retries_refused),
            ("rehomed", "Sessions moved to another replica after a loss", &self.rehomed),
            ("later_bindings", "Sessions bound at a second replica too", &self.later_bindings),
            ("sessions_opened", "Legacy sessions opened", &self.sessions_opened),
            ("sessions_ended", "Legacy sessions ended by their client", &self.sessions_ended),
            ("outcome_unknown", "Calls that were written upstream and lost", &self.outcome_unknown),
            ("journal_asked", "Lost calls that the journal of the nodes was asked for", &self.journal_asked),
            ("bad_answers", "Upstream answers that could not be used", &self.bad_answers),
            (
                "dropped_messages",
                "Upstream messages that no client asked for or may get",
                &self.dropped_messages,
            ),
            ("resumed", "Streams resumed with Last-Event-ID", &self.resumed),
            (
                "detached_refused",
                "Calls ended with their connection because detached_max was reached",
                &self.detached_refused,
            ),
            (
                "park_refused",
                "Calls that kept their place because parked_max was reached",
                &self.park_refused,
            ),
        ];
        for (name, help, counter) in counters.into_iter().chain(self.shared_counters()) {
            registry.register(name, help, counter.clone());
        }
        self.register_families(registry);
        let gauges = [
            ("limit_keys", "Keys under which requests are counted", &self.limit_keys),
            ("limit_gateways", "Gateways that share the rules", &self.limit_gateways),
            ("detached", "Calls and streams that run without a connection", &self.detached),
            ("inflight", "Requests in flight", &self.inflight),
            ("queued", "Requests that wait for a place", &self.queued),
            ("parked", "Calls that wait for a person", &self.parked),
            ("streams", "Open standing and listen streams", &self.streams),
            ("shared_legs", "Subscriptions to list changes that clients share", &self.shared_legs),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
        registry.register(
            "operation_duration_seconds",
            "From the request's head to the answer's head",
            self.duration.clone(),
        );
    }

    /// What has a label.
    fn register_families(&self, registry: &mut Registry) {
        registry.register("limit_granted", "Requests that a rule counted", self.rules.granted.clone());
        registry.register("limit_refused", "Requests that a rule refused", self.rules.refused.clone());
        let servers = [
            ("server_limit", "Calls that a server gets at once", &self.servers.limit),
            ("server_inflight", "Calls at a server with a bound of its own", &self.servers.inflight),
            ("server_queued", "Calls that wait for such a server", &self.servers.queued),
            (
                "server_connections",
                "Connections to a server whose connections are bounded over all gateways",
                &self.servers.connections,
            ),
            (
                "server_connections_allowed",
                "Connections that this gateway may have to such a server now",
                &self.servers.connections_allowed,
            ),
        ];
        for (name, help, family) in servers {
            registry.register(name, help, family.clone());
        }
    }

    /// The series of one rule: granted, refused.
    pub(crate) fn of_rule(&self, name: &str) -> (Counter, Counter) {
        self.rules.named.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
        let label = Rule { rule: name.to_owned() };
        (self.rules.granted.get_or_create_owned(&label), self.rules.refused.get_or_create_owned(&label))
    }

    /// Drops the series of rules that are not there any more.
    pub(crate) fn keep_rules(&self, is_there: impl Fn(&str) -> bool) {
        let mut named = self.rules.named.lock().unwrap_or_else(PoisonError::into_inner);
        named.retain(|name| {
            let stays = is_there(name);
            if !stays {
                let label = Rule { rule: name.clone() };
                self.rules.granted.remove(&label);
                self.rules.refused.remove(&label);
            }
            stays
        });
    }

    /// Forgets all servers; those that have a bound of their own are shown anew.
    pub(crate) fn clear_servers(&self) {
        let Servers { limit, inflight, queued, connections, connections_allowed } = &self.servers;
        for family in [limit, inflight, queued, connections, connections_allowed] {
            family.clear();
        }
    }

    /// Shows how many calls a server gets, has, and keeps waiting.
    pub(crate) fn show_server(&self, name: &str, limit: usize, (inflight, queued): (usize, usize)) {
        let Servers { limit: limits, inflight: inflights, queued: queueds, .. } = &self.servers;
        show(name, [(limits, limit), (inflights, inflight), (queueds, queued)]);
    }

    /// Shows how many connections a server has from here, and may have.
    pub(crate) fn show_connections(&self, name: &str, taken: usize, allowed: usize) {
        let Servers { connections, connections_allowed, .. } = &self.servers;
        show(name, [(connections, taken), (connections_allowed, allowed)]);
    }

    /// Of what several gateways share.
    fn shared_counters(&self) -> [(&'static str, &'static str, &Counter); 10] {
        [
            ("store_away", "Sessions served by their token because the store was away", &self.store_away),
            ("letters", "Letters of other gateways", &self.letters),
            ("limit_asked", "Questions about quotas to the shared store", &self.limit_asked),
            (
                "limit_alone",
                "Requests granted out of this gateway's share because the store was away",
                &self.limit_alone,
            ),
            (
                "letters_refused",
                "Letters that were forged, too old, or not understood",
                &self.letters_refused,
            ),
            ("letters_unsent", "Letters that the store did not take", &self.letters_unsent),
            ("spilled_events", "Events of streams written to the store", &self.spilled_events),
            ("spills_refused", "Events of streams that the store did not take", &self.spills_refused),
            (
                "resumed_elsewhere",
                "Streams resumed here that had been cut at another gateway",
                &self.resumed_elsewhere,
            ),
            ("streams_lost", "Resumed streams whose rest could not be had", &self.streams_lost),
        ]
    }

    /// The text for a Prometheus scrape (OpenMetrics 1.0).
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
fn show<const N: usize>(name: &str, counts: [(&Family<Server, Gauge>, usize); N]) {
    let server = Server { server: name.to_owned() };
    for (family, count) in counts {
        family.get_or_create(&server).set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}
