//! What the data plane counts, with handles resolved once.
//!
//! Names are part of the product: they change only with an entry in the changelog. No label ever carries an
//! id, a token, an argument or a caller.

use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
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
    pub(crate) retries: Counter,
    pub(crate) retries_refused: Counter,
    pub(crate) rehomed: Counter,
    pub(crate) sessions_opened: Counter,
    pub(crate) sessions_ended: Counter,
    pub(crate) outcome_unknown: Counter,
    pub(crate) bad_answers: Counter,
    pub(crate) dropped_messages: Counter,
    pub(crate) resumed: Counter,
    pub(crate) detached_refused: Counter,
    pub(crate) park_refused: Counter,
    pub(crate) detached: Gauge,
    pub(crate) inflight: Gauge,
    pub(crate) queued: Gauge,
    pub(crate) parked: Gauge,
    pub(crate) streams: Gauge,
    pub(crate) duration: Histogram,
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
            retries: Counter::default(),
            retries_refused: Counter::default(),
            rehomed: Counter::default(),
            sessions_opened: Counter::default(),
            sessions_ended: Counter::default(),
            outcome_unknown: Counter::default(),
            bad_answers: Counter::default(),
            dropped_messages: Counter::default(),
            resumed: Counter::default(),
            detached_refused: Counter::default(),
            park_refused: Counter::default(),
            detached: Gauge::default(),
            inflight: Gauge::default(),
            queued: Gauge::default(),
            parked: Gauge::default(),
            streams: Gauge::default(),
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
            ("retries", "Requests sent a second time after a loss", &self.retries),
            ("retries_refused", "Harmless repeats that the retry budget refused", &self.retries_refused),
            ("rehomed", "Sessions moved to another replica after a loss", &self.rehomed),
            ("sessions_opened", "Legacy sessions opened", &self.sessions_opened),
            ("sessions_ended", "Legacy sessions ended by their client", &self.sessions_ended),
            ("outcome_unknown", "Calls that were written upstream and lost", &self.outcome_unknown),
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
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        let gauges = [
            ("detached", "Calls and streams that run without a connection", &self.detached),
            ("inflight", "Requests in flight", &self.inflight),
            ("queued", "Requests that wait for a place", &self.queued),
            ("parked", "Calls that wait for a person", &self.parked),
            ("streams", "Open standing and listen streams", &self.streams),
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

    /// The text for a Prometheus scrape (OpenMetrics 1.0).
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
