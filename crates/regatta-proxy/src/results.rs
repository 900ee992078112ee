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
use regatta_cache::{
    Away, Fleet, Holder, Interest, Purge, Purges, ResultCache, Rings, Shelf, Tallied, Tally, call_digest,
};
use regatta_mcp::{Method, Skim, skim};
use regatta_policy::Micros;
use regatta_policy::cache::{Lists, Rule};
use regatta_policy::snapshot::{Server, Snapshot};
use regatta_seal::digest16;

use crate::gateway::Gateway;

/// A server's purges, and the shelf it shares with other gateways if there are any.
type OfServer = (Arc<Purges>, Option<Arc<Shelf>>);

/// Kept results and what goes with them.
pub(crate) struct Results {
    pub cache: Arc<ResultCache>,
    purges: Mutex<BTreeMap<String, OfServer>>,
    /// What the gateways of a fleet share, and this gateway's name there.
    fleet: Option<(Arc<dyn Fleet>, Rings, Holder)>,
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
    /// What the gateways share of it, if they share anything.
    pub shelf: Option<Arc<Shelf>>,
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
#[derive(Debug)]
pub(crate) struct Read {
    pub tally: Arc<Tally>,
    /// What of it is not kept, so that until then nobody waits for another's: by what was asked for, as far as there are
    /// places; what falls on one place shares it.
    aside_until: [AtomicU64; ASIDES],
    /// When it was last made old because a page was refused.
    began_anew: AtomicU64,
}

/// Between two times that a list is made old because a page of it was refused: cursors can be made up.
const ANEW_GAP: Duration = Duration::from_secs(1);

/// Places for what is aside.
const ASIDES: usize = 256;

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
    pub fn new(bytes_max: u64, fleet: Option<(Arc<dyn Fleet>, Rings)>) -> Results {
        Results {
            fleet: fleet.map(|(fleet, rings)| (fleet, rings, Holder(regatta_seal::random16()))),
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
        let (purges, shelf) = self.purges_of(server);
        if let Some(shelf) = &shelf {
            shelf.set_interest(if server.cache.is_empty() { Interest::Lists } else { Interest::Results });
        }
        Arc::new(ServerRules {
            purges,
            shelf,
            rules: rules.collect(),
            lists: server.lists,
            lists_version: server.lists.version(),
            reads: READS.map(|method| self.read(&server.name, method)),
        })
    }

    fn read(&self, server: &str, method: Method) -> Arc<Read> {
        let name = (server.to_owned(), method.as_str().to_owned());
        let mut reads = self.reads.lock().unwrap_or_else(PoisonError::into_inner);
        let read = reads.entry(name.clone()).or_insert_with(|| Arc::new(Read::new())).clone();
        self.tallies.lock().entry(name).or_insert_with(|| read.tally.clone());
        read
    }

    /// The purges of a server, here and in the fleet.
    fn purges_of(&self, server: &Server) -> (Arc<Purges>, Option<Arc<Shelf>>) {
        let mut purges = self.purges.lock().unwrap_or_else(PoisonError::into_inner);
        let make = || {
            let purges: Arc<Purges> = Arc::default();
            let name = digest16(&[b"regatta shelf 1", server.path.as_bytes(), server.name.as_bytes()]);
            let shelf = self.fleet.as_ref().map(|(fleet, rings, own)| {
                Shelf::new((fleet.clone(), rings.clone()), name, *own, purges.clone())
            });
            (purges, shelf)
        };
        purges.entry(server.name.clone()).or_insert_with(make).clone()
    }

    /// Whether other gateways give out what this one fetched.
    pub fn is_shared(&self) -> bool {
        self.fleet.is_some()
    }

    /// Forgets servers and rules that are no longer configured. What was kept of them dies of age.
    pub fn retain(&self, snapshot: &Snapshot) {
        let named = |name: &String| snapshot.servers.iter().find(|server| server.name == *name);
        let mut purges = self.purges.lock().unwrap_or_else(PoisonError::into_inner);
        purges.retain(|name, (here, _)| {
            let is_named = named(name).is_some();
            if !is_named {
                // It may come back under this name, with other purges: nothing could strike what was kept before.
                here.purge(&Purge::Server);
            }
            is_named
        });
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

    /// Makes it old at once here, and soon in the fleet; what waits for the latter has to await it.
    pub fn purge(&self, what: Vec<Purge>) -> Option<Publishing> {
        match &self.shelf {
            None => {
                what.iter().for_each(|purge| self.purges.purge(purge));
                None
            }
            Some(shelf) => Some(shelf.purge_soon(what)),
        }
    }

    /// Whether anything is kept of the server.
    pub fn keeps_any(&self) -> bool {
        let rules = self.rules.iter().map(|view| &view.tally);
        let mut all = rules.chain(self.reads.iter().map(|read| &read.tally));
        all.any(|tally| tally.now().held_bytes > 0)
    }

    /// Whether a purge elsewhere would be heard of here.
    pub fn hears_purges(&self) -> bool {
        self.shelf.as_ref().is_none_or(|shelf| shelf.is_trusted())
    }

    /// The same of a message that nobody looked at yet.
    pub fn hear_any(&self, text: &[u8]) -> Option<Publishing> {
        self.hear(&skim(text).ok()?, text)
    }

    /// A server said that something changed: what was kept of it is old. Who tells a client of it waits for what this gives,
    /// or the client could ask another gateway that does not know yet.
    #[must_use]
    pub fn hear(&self, seen: &Skim, text: &[u8]) -> Option<Publishing> {
        let method = seen.method?;
        let list = |list: Method| Purge::Tool(list.as_str().to_owned());
        let old = match method.get(text).as_ref() {
            // Tools that changed may give other results too.
            "notifications/tools/list_changed" => vec![Purge::Server],
            "notifications/prompts/list_changed" => vec![list(Method::PromptsList)],
            "notifications/resources/list_changed" => {
                vec![list(Method::ResourcesList), list(Method::ResourcesTemplatesList)]
            }
            "notifications/resources/updated" => {
                let uri = seen.uri?;
                let named = call_digest(Method::ResourcesRead.as_str(), uri.get(text).as_bytes());
                vec![Purge::Call(named)]
            }
            _ => return None,
        };
        self.purge(old)
    }

    /// A stream of notices was broken: any of them may have been missed.
    pub fn missed(&self) -> Option<Publishing> {
        self.purge(READS.map(|read| Purge::Tool(read.as_str().to_owned())).to_vec())
    }
}

impl Read {
    fn new() -> Read {
        Read {
            tally: Arc::default(),
            aside_until: std::array::from_fn(|_| AtomicU64::new(0)),
            began_anew: AtomicU64::new(0),
        }
    }

    /// Whether nobody need look for the results of what hashes to `asked`.
    pub fn is_aside(&self, asked: u64, now: Micros) -> bool {
        now.0 < self.place(asked).load(Ordering::Relaxed)
    }

    fn place(&self, asked: u64) -> &AtomicU64 {
        &self.aside_until[asked as usize % ASIDES]
    }

    /// A page was refused; whether the list is to be made old for that.
    pub fn begins_anew(&self, now: Micros) -> bool {
        let is_due = |last: u64| (last == 0 || now.since(Micros(last)) >= ANEW_GAP).then_some(now.0.max(1));
        self.began_anew.fetch_update(Ordering::Relaxed, Ordering::Relaxed, is_due).is_ok()
    }

    /// A result came that is not to be kept.
    pub fn put_aside(&self, asked: u64, now: Micros) {
        self.place(asked).store(now.after(ASIDE).0, Ordering::Relaxed);
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

/// Why kept results are not old everywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unpurged {
    /// There is no such server.
    #[error("no server has this name")]
    UnknownServer,
    /// The store is away.
    #[error("purged at this gateway; the store is away, so the others were not told")]
    HereOnly,
}

/// Purges on their way to the other gateways.
pub(crate) type Publishing = tokio::task::JoinHandle<()>;

impl Gateway {
    /// Makes what was kept of a server's results old: here from this moment on, in the fleet when it returns.
    ///
    /// # Errors
    /// When no server has this name, or when the other gateways could not be told.
    pub async fn purge(&self, server: &str, what: &Purge) -> Result<(), Unpurged> {
        let rules = {
            let view = self.view();
            let view = view.servers.iter().find(|view| view.server.name == server);
            view.ok_or(Unpurged::UnknownServer)?.results.clone()
        };
        match &rules.shelf {
            None => rules.purges.purge(what),
            Some(shelf) => shelf.purge(what).await.map_err(|Away| Unpurged::HereOnly)?,
        }
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

const COLUMNS: [Column; 10] = [
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
        name: "cache_refused",
        help: "Results in the shared store that were not sealed by this fleet for their place",
        kind: MetricType::Counter,
        read: |tallied| tallied.refused as f64,
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
