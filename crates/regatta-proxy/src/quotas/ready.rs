//! The rules as a request meets them: worked out once a snapshot, with their metrics.
//!
//! `Shown` is what a client is told of its quotas; encode/quota.rs writes it.

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use regatta_policy::Glob;
use regatta_policy::quota::counter::Breach;
use regatta_policy::quota::rule::Part;
use regatta_policy::quota::rule::{Answer, Shape, Subject, Terms};
use regatta_policy::quota::{Quota, Rule, Standing};
use regatta_policy::snapshot::Snapshot;
use std::num::NonZeroU32;

use crate::metrics::Metrics;

/// One rule, ready to be asked.
#[derive(Debug)]
pub(crate) struct Ready {
    pub rule: Rule,
    pub quota: Quota,
    /// Whether it matters to it which tool is called.
    pub asks_for_tool: bool,
    /// The first half of its keys.
    pub digest: u64,
    pub visibility: Visibility,
    pub reach: Reach,
    pub granted: Counter,
    pub refused: Counter,
}

/// Whether clients see on success how they stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Visibility {
    /// They do.
    Shown,
    /// A bound of the gateway's own, wide enough that nobody needs to plan with it.
    Hidden,
}

/// Over what a rule is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// All gateways on the same store.
    Fleet,
    /// This gateway: it is a bound of its own.
    Gateway,
}

/// How a request's rules stand after it was judged.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    pub lines: Vec<(Arc<Ready>, Standing)>,
}

/// The rule behind `initialize_per_minute_max`.
const INITIALIZE: &str = "initialize_per_minute_max";

/// The rules of `snapshot`, the gateway's own last. Series of rules that left are dropped from `metrics`.
pub(crate) fn rules(snapshot: &Snapshot, metrics: &Metrics) -> Vec<Arc<Ready>> {
    let ready = |rule: Rule, visibility, reach| {
        let (granted, refused) = metrics.of_rule(&rule.name);
        let asks_for_tool = rule.asks_for_tool();
        Arc::new(Ready {
            quota: rule.quota(),
            asks_for_tool,
            digest: rule.digest(),
            rule,
            visibility,
            reach,
            granted,
            refused,
        })
    };
    let written = snapshot.quotas.iter().map(|rule| ready(rule.clone(), Visibility::Shown, Reach::Fleet));
    let own = initialize(snapshot.limits.initialize_per_minute_max);
    let own = ready(own, Visibility::Hidden, Reach::Gateway);
    let rules: Vec<Arc<Ready>> = written.chain([own]).collect();
    metrics.keep_rules(|name| rules.iter().any(|ready| ready.rule.name == name));
    rules
}

fn initialize(per_minute_max: u32) -> Rule {
    let allow = NonZeroU32::new(per_minute_max).unwrap_or(NonZeroU32::MIN);
    Rule {
        name: INITIALIZE.to_owned(),
        subject: Subject { methods: vec![Glob::new("initialize")], ..Subject::default() },
        per: vec![Part::Principal],
        terms: Terms {
            allow,
            within: Duration::from_secs(60),
            shape: Shape::Gcra { burst: allow },
            breach: Breach::Refused,
        },
        costs: Vec::new(),
        cost: NonZeroU32::MIN,
        answer: Answer::Http,
    }
}
