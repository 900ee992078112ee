//! The result cache as this gateway has it: one table, and for each server its rules, its purges and their counts.
//!
//! What is counted and what was purged belongs to names (server, rule), so that it outlives a snapshot; the rules
//! themselves come with each snapshot (`view.rs`).

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;
use regatta_cache::{Purge, Purges, ResultCache, Tallied, Tally, call_digest};
use regatta_mcp::{Method, Skim};
use regatta_policy::Micros;
use regatta_policy::cache::{Lists, Rule};
use regatta_policy::snapshot::{Server, Snapshot};

use crate::gateway::Gateway;

/// Kept results and what goes with them.
pub(crate) struct Results {
    pub cache: Arc<ResultCache>,
    purges: Mutex<BTreeMap<String, Arc<Purges>>>,
    reads: Mutex<BTreeMap<Name, Arc<Read>>>,
    tallies: Tallies,
}

/// The counts of all rules, by server and tool pattern.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tallies(Arc<Mutex<BTreeMap<Name, Arc<Tally>>>>);

/// A rule's name: its server, its pattern.
type Name = (String, String);

/// What is cached of one server.
pub(crate) struct ServerRules {
    pub purges: Arc<Purges>,
    pub rules: Vec<RuleView>,
    pub lists: Lists,
    /// Changes with `lists`.
    pub lists_version: u64,
    reads: [Arc<Read>; READS.len()],
}

/// The methods whose results say themselves whether they may be kept (2026-07-28 server/utilities/caching).
const READS: [Method; 6] = [
    Method::ServerDiscover,
    Method::ToolsList,
    Method::PromptsList,
    Method::ResourcesList,
    Method::ResourcesTemplatesList,
    Method::ResourcesRead,
];

/// What is remembered of one such method of a server.
#[derive(Debug, Default)]
pub(crate) struct Read {
    pub tally: Arc<Tally>,
    /// Its results are not kept, so until then nobody waits for another's.
    aside_until: AtomicU64,
}

/// How long a method stays aside after its server did not want a result kept.
const ASIDE: Duration = Duration::from_secs(30);

/// A rule of a snapshot with what is kept of it beyond the snapshot.
pub(crate) struct RuleView {
    pub rule: Rule,
    pub version: u64,
    pub tally: Arc<Tally>,
}

impl Results {
    /// Nothing yet, and at most `bytes_max` bytes ever.
    pub fn new(bytes_max: u64) -> Results {
        Results {
            cache: ResultCache::new(bytes_max),
            purges: Mutex::default(),
            reads: Mutex::default(),
            tallies: Tallies::default(),
        }
    }

    /// The rules of one server of a snapshot.
    pub fn rules_of(&self, server: &Server) -> Arc<ServerRules> {
        let rules = server.cache.iter().map(|rule| {
            let name = (server.name.clone(), rule.tool.as_str().to_owned());
            let tally = self.tallies.lock().entry(name).or_default().clone();
            RuleView { rule: rule.clone(), version: rule.version(), tally }
        });
        Arc::new(ServerRules {
            purges: self.purges_of(&server.name),
            rules: rules.collect(),
            lists: server.lists,
            lists_version: server.lists.version(),
            reads: READS.map(|method| self.read(&server.name, method)),
        })
    }

    fn read(&self, server: &str, method: Method) -> Arc<Read> {
        let name = (server.to_owned(), method.as_str().to_owned());
        let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        let read = reads.entry(name.clone()).or_default().clone();
        self.tallies.lock().entry(name).or_insert_with(|| read.tally.clone());
        read
    }

    /// The purges of the server with this name.
    pub fn purges_of(&self, server: &str) -> Arc<Purges> {
        let mut purges = self.purges.lock().unwrap_or_else(PoisonError::into_inner);
        purges.entry(server.to_owned()).or_default().clone()
    }

    /// Forgets servers and rules that are no longer configured. What was kept of them dies of age.
    pub fn retain(&self, snapshot: &Snapshot) {
        let named = |name: &String| snapshot.servers.iter().find(|server| server.name == *name);
        let mut purges = self.purges.lock().unwrap_or_else(PoisonError::into_inner);
        purges.retain(|name, _| named(name).is_some());
        drop(purges);
        self.reads
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|(server, _), _| named(server).is_some());
        let is_read = |tool: &str| READS.iter().any(|method| method.as_str() == tool);
        self.tallies.lock().retain(|(server, tool), _| {
            named(server).is_some_and(|server| {
                is_read(tool) || server.cache.iter().any(|rule| rule.tool.as_str() == tool)
            })
        });
    }

    /// The counts, for metrics.
    pub fn tallies(&self) -> Tallies {
        self.tallies.clone()
    }
}

impl ServerRules {
    /// What is remembered of a method, if it is one whose results say themselves whether they may be kept.
    pub fn read(&self, method: Method) -> Option<&Read> {
        READS.iter().position(|known| *known == method).map(|place| &*self.reads[place])
    }

    /// A server said that something changed: what was kept of it is old.
    pub fn hear(&self, seen: &Skim, text: &[u8]) {
        let Some(method) = seen.method else { return };
        let lists: &[Method] = match method.get(text).as_ref() {
            // Tools that changed may give other results too.
            "notifications/tools/list_changed" => return self.purges.purge(&Purge::Server),
            "notifications/prompts/list_changed" => &[Method::PromptsList],
            "notifications/resources/list_changed" => {
                &[Method::ResourcesList, Method::ResourcesTemplatesList]
            }
            "notifications/resources/updated" => {
                let Some(uri) = seen.uri else { return };
                let named = call_digest(Method::ResourcesRead.as_str(), uri.get(text).as_bytes());
                return self.purges.purge(&Purge::Call(named));
            }
            _ => return,
        };
        lists.iter().for_each(|list| self.purges.purge(&Purge::Tool(list.as_str().to_owned())));
    }

    /// A stream of notices was broken: any of them may have been missed.
    pub fn missed(&self) {
        READS.iter().for_each(|read| self.purges.purge(&Purge::Tool(read.as_str().to_owned())));
    }
}

impl Read {
    /// Whether nobody need look for its results.
    pub fn is_aside(&self, now: Micros) -> bool {
        now.0 < self.aside_until.load(Ordering::Relaxed)
    }

    /// A result came that is not to be kept.
    pub fn put_aside(&self, now: Micros) {
        self.aside_until.store(now.after(ASIDE).0, Ordering::Relaxed);
    }
}

impl Tallies {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, Arc<Tally>>> {
        // Every change under this lock is a single step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The counts of each rule that was ever asked, as of now.
    pub fn now(&self) -> Vec<(Name, Tallied)> {
        let all = self.lock();
        let counts = all.iter().map(|(name, tally)| (name.clone(), tally.now()));
        counts.filter(|(_, tallied)| *tallied != Tallied::default()).collect()
    }
}

/// What the cache holds and did, for people.
#[derive(Clone, Debug)]
pub struct CacheStats {
    /// Bytes of kept results.
    pub bytes: u64,
    /// Kept results.
    pub results: usize,
    /// Server, tool pattern and counts of each rule.
    pub rules: Vec<(String, String, Tallied)>,
}

/// No server has this name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no server has this name")]
pub struct UnknownServer;

impl Gateway {
    /// Makes what was kept of a server's results old, from this moment on.
    ///
    /// # Errors
    /// When no server has this name.
    pub fn purge(&self, server: &str, what: &Purge) -> Result<(), UnknownServer> {
        let view = self.view();
        let view = view.servers.iter().find(|view| view.server.name == server).ok_or(UnknownServer)?;
        view.results.purges.purge(what);
        Ok(())
    }

    /// What the cache holds and did.
    pub fn cache_stats(&self) -> CacheStats {
        let rules = self.results.tallies.now().into_iter();
        CacheStats {
            bytes: self.results.cache.bytes(),
            results: self.results.cache.len(),
            rules: rules.map(|((server, tool), tallied)| (server, tool, tallied)).collect(),
        }
    }
}

/// One metric of each rule.
struct Column {
    name: &'static str,
    help: &'static str,
    kind: MetricType,
    read: fn(&Tallied) -> f64,
}

const COLUMNS: [Column; 9] = [
    Column {
        name: "cache_hits",
        help: "Answers out of the result cache, fresh",
        kind: MetricType::Counter,
        read: |tallied| tallied.hits as f64,
    },
    Column {
        name: "cache_stale",
        help: "Answers out of the result cache, past their ttl",
        kind: MetricType::Counter,
        read: |tallied| tallied.stale as f64,
    },
    Column {
        name: "cache_shared",
        help: "Answers to requests that waited for another one's result",
        kind: MetricType::Counter,
        read: |tallied| tallied.shared as f64,
    },
    Column {
        name: "cache_misses",
        help: "Requests for cached tools that went to the server",
        kind: MetricType::Counter,
        read: |tallied| tallied.misses as f64,
    },
    Column {
        name: "cache_passed",
        help: "Results of cached tools that may not be kept",
        kind: MetricType::Counter,
        read: |tallied| tallied.passed as f64,
    },
    Column {
        name: "cache_refreshes",
        help: "Results fetched anew in the background",
        kind: MetricType::Counter,
        read: |tallied| tallied.refreshed as f64,
    },
    Column {
        name: "cache_saved_bytes",
        help: "Bytes of results that no server had to send",
        kind: MetricType::Counter,
        read: |tallied| tallied.saved_bytes as f64,
    },
    Column {
        name: "cache_saved_seconds",
        help: "Time that servers took for the results that were given out again",
        kind: MetricType::Counter,
        read: |tallied| tallied.saved.as_secs_f64(),
    },
    Column {
        name: "cache_bytes",
        help: "Bytes of kept results",
        kind: MetricType::Gauge,
        read: |tallied| tallied.held_bytes as f64,
    },
];

impl Collector for Tallies {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        let rules = self.now();
        if rules.is_empty() {
            return Ok(());
        }
        for column in COLUMNS {
            let mut family = encoder.encode_descriptor(column.name, column.help, None, column.kind)?;
            for ((server, tool), tallied) in &rules {
                let labels = [("server", server.as_str()), ("tool", tool.as_str())];
                let mut metric = family.encode_family(&labels)?;
                let value = (column.read)(tallied);
                match column.kind {
                    MetricType::Gauge => metric.encode_gauge(&value)?,
                    _counter => metric.encode_counter::<NoLabelSet, f64, f64>(&value, None)?,
                }
            }
        }
        Ok(())
    }
}
