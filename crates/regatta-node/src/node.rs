//! The node from start to end: settings checked, keys learned, registered, serving, and gone in the right order.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::Duration;

use bytes::Bytes;
use regatta_store::{Bounds, Store, StoreError, embedded, redis};
use rmcp::ServerHandler;
use tokio::net::TcpListener;

use crate::caller::Callers;
use crate::connections::Connections;
use crate::environment;
use crate::fleet::{self, Fleet};
use crate::journal::Tools;
use crate::keeping::Keeping;
use crate::leave::{self, Signals};
use crate::meters::Meters;
use crate::opened::Opened;
use crate::places::Places;
use crate::questions;
use crate::registry::{Identity, Registration, Status};
use crate::sealing::{Company, REFRESH_EVERY, Sealing};
use crate::serve::{self, Factory, Shared};
use crate::session::{LIFETIME_MAX, Sessions};
use crate::settings::Settings;
use crate::shell::{self, Shell, Toolbox};
use crate::special::{self, On};

/// How long a start waits for the store, and between two attempts.
const START_PATIENCE: Duration = Duration::from_secs(5);
const START_PAUSE: Duration = Duration::from_millis(50);
/// Housekeeping once in so many readings of the keys.
const TEND_EVERY: u32 = 30;
/// Bytes of a server's name and of its version in the registry (docs/registry.md).
const WORD_MAX: usize = 64;

/// Why a node did not start, in words for a person: a line for each complaint. `Debug` says the same, so that `main` can return it.
#[derive(Clone, PartialEq, Eq)]
pub struct NotStarted(String);

impl fmt::Display for NotStarted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NotStarted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::error::Error for NotStarted {}

/// For what a `main` finds wrong itself.
impl From<String> for NotStarted {
    fn from(why: String) -> NotStarted {
        NotStarted(why)
    }
}

/// A server about to be started.
pub struct Node {
    name: String,
    version: String,
    settings: Settings,
    tools: Tools,
    special: BTreeMap<String, On>,
    kept: BTreeMap<String, (Duration, crate::keeping::Shared)>,
}

impl Node {
    /// A node of the server `name`, 1 to 64 bytes: all nodes of one name serve each other's sessions; the gateway knows it by this
    /// name.
    pub fn named(name: &str) -> Node {
        Node {
            name: name.to_owned(),
            version: String::new(),
            settings: Settings::default(),
            tools: Tools::default(),
            special: BTreeMap::new(),
            kept: BTreeMap::new(),
        }
    }

    /// The version, at most 64 bytes, for people who read the registry.
    pub fn version(mut self, version: &str) -> Node {
        version.clone_into(&mut self.version);
        self
    }

    /// A tool that must not run twice for one call: calls of it are kept in a journal, and whoever repeats one gets its result,
    /// waits for it, or is told that its outcome is unknown. It may ask its client: in the modern era each round is a call of
    /// its own. Costs two round trips to the store a call.
    pub fn once(mut self, tool: &str) -> Node {
        self.tools.once.insert(tool.to_owned());
        self
    }

    /// A tool that is on some nodes only: it is listed and served where `on` says so, and unknown elsewhere. The nodes tell the
    /// gateways which tools they have, and calls go where their tool is. One more rule for the same tool replaces the first.
    pub fn tool_on(mut self, tool: &str, on: On) -> Node {
        self.special.insert(tool.to_owned(), on);
        self
    }

    /// A tool whose results are kept on the node for `ttl`, and given to whoever `shared` says. Of equal calls at one time one
    /// runs. Results that are errors, over 1 MiB, or whose call asked the client something, are not kept; all together take at
    /// most 64 MiB. Never for a tool that is declared [`once`](Self::once): equal calls of it are not the same call.
    pub fn cached(mut self, tool: &str, ttl: Duration, shared: crate::keeping::Shared) -> Node {
        self.kept.insert(tool.to_owned(), (ttl, shared));
        self
    }

    /// All settings from code.
    pub fn settings(mut self, settings: Settings) -> Node {
        self.settings = settings;
        self
    }

    /// All settings from a TOML file (docs/node.md, *Settings*), in place of those so far.
    ///
    /// # Errors
    /// Why the file is no use, for a person.
    pub fn file(mut self, path: &Path) -> Result<Node, NotStarted> {
        self.settings = Settings::from_file(path)?;
        Ok(self)
    }

    /// Serves until SIGTERM or SIGINT, with a handler from `factory` for each request; returns when everything that ran is over,
    /// or after `drain_s`. The environment (`REGATTA_NODE_…`) is over the settings. It starts a tokio runtime of its own, which
    /// `factory` is called in: not to be called in one.
    ///
    /// # Errors
    /// Why it cannot start: nonsense in the settings or in what is said of tools, the
    /// address taken, the store away for five seconds.
    pub fn run<H: ServerHandler>(
        self,
        factory: impl Fn() -> H + Send + Sync + 'static,
    ) -> Result<(), NotStarted> {
        self.start(Arc::new(factory)).map_err(NotStarted)
    }

    fn start<H: ServerHandler>(self, factory: Factory<H>) -> Result<(), String> {
        let settings = self.settings.clone().with_environment(|name| std::env::var(name).ok())?;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        self.check(&settings, cores)?;
        let threads = if settings.worker_threads == 0 { cores } else { settings.worker_threads };
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
        let runtime = runtime.map_err(|why| format!("the threads cannot be started: {why}"))?;
        let environment = std::env::vars_os().filter_map(|(name, value)| {
            Some((name.into_string().ok()?, value.to_string_lossy().into_owned()))
        });
        let odd = settings.oddities().into_iter().chain(environment::overlooked(environment));
        odd.for_each(|odd| tracing::warn!("{odd}"));
        let ended = runtime.block_on(self.serve(settings, factory));
        // A handler that holds a thread does not hold up the end.
        runtime.shutdown_background();
        ended
    }

    /// All that makes no sense, of the settings and of what the code says of tools.
    fn check(&self, settings: &Settings, cores: usize) -> Result<(), String> {
        let mut wrong: Vec<String> =
            [settings.check(cores), special::decide(&self.special, settings).map(|_| ())]
                .into_iter()
                .filter_map(Result::err)
                .collect();
        for (what, text) in [("name", &self.name), ("version", &self.version)] {
            if text.len() > WORD_MAX {
                wrong.push(format!(
                    "the server's {what} is longer than {WORD_MAX} bytes: gateways would overlook the node"
                ));
            }
        }
        if self.name.is_empty() {
            wrong.push("the server has no name".to_owned());
        }
        for (tool, (ttl, _)) in &self.kept {
            if ttl.is_zero() {
                wrong.push(format!("results of the tool {tool:?} are kept for no time"));
            }
            // Equal arguments do not make it the same call.
            if self.tools.once.contains(tool) {
                wrong.push(format!(
                    "the tool {tool:?} is to run once for each call, and its results are to be kept: a second call would not run"
                ));
            }
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
    }

    async fn serve<H: ServerHandler>(self, settings: Settings, factory: Factory<H>) -> Result<(), String> {
        let toolbox = Arc::new(Toolbox {
            placed: special::decide(&self.special, &settings)?,
            keeping: Keeping::new(&self.name, self.kept.clone()),
            meters: Meters::default(),
        });
        let tools = self.reported(&factory, &toolbox).await?;
        let store = open(&settings)?;
        let signals = Signals::listen()?;
        let places = Arc::new(Places::new(settings.concurrent_max, settings.queue_max, settings.when_full));
        let listener = TcpListener::bind(&settings.address).await;
        let listener = listener.map_err(|why| format!("{}: {why}", settings.address))?;
        let registration = self.register(&settings, &places, tools)?;
        let company = if settings.store_url.is_empty() { Company::Alone } else { Company::Many };
        let sealing = keys(&*store, company).await;
        let sealing = sealing.map_err(|why| format!("the sealing keys cannot be had: {why}"))?;
        let sessions = Arc::new(Sessions {
            store,
            sealing: Arc::new(sealing),
            server: self.name,
            data_life: Duration::from_secs(settings.session_ttl_s),
            opened: Opened::new(),
        });
        let shared = Arc::new(Shared {
            transport: serve::transport(&settings, factory.clone(), toolbox.clone()),
            toolbox,
            callers: Callers::of(&settings, &sessions.server),
            fleet: Arc::new(Fleet::new(&sessions, &settings)),
            sessions,
            places,
            ready: AtomicBool::new(true),
            answered: AtomicU64::new(0),
            timed_out: AtomicU64::new(0),
            stalled: Arc::default(),
            tools: self.tools,
            journal: Arc::default(),
            settings,
            factory,
        });
        if let Some(registration) = &registration {
            registration.say(Status::Running);
        }
        let memory_max_mib = shared.settings.memory_max() >> 20;
        tracing::info!(address = %shared.settings.address, memory_max_mib, "the node serves");
        let connections = Arc::new(Connections::new(shared.settings.connections_max));
        let accepting = tokio::spawn({
            let (connections, shared) = (connections.clone(), shared.clone());
            async move { connections.accept(listener, shared).await }
        });
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(tend(shared.sessions.clone()));
        tasks.spawn(fleet::hear(shared.fleet.clone()));
        tasks.spawn(fleet::tell_standing(shared.fleet.clone()));
        let (questions, post) = (shared.fleet.questions.clone(), shared.fleet.post.clone());
        tasks.spawn(questions::look_for_all(questions, post));
        let mut signals = signals;
        signals.next().await;
        leave::leave(&shared, leave::Outside { registration, connections, accepting }, signals).await;
        // The store is let go of last.
        tasks.shutdown().await;
        Ok(())
    }

    /// The tools of this node as it reports them: none, where all nodes have the same.
    async fn reported<H: ServerHandler>(
        &self,
        factory: &Factory<H>,
        toolbox: &Arc<Toolbox>,
    ) -> Result<String, String> {
        if self.special.is_empty() {
            return Ok(String::new());
        }
        let names = shell::inventory(|| Shell::new(factory(), toolbox.clone())).await;
        let mut names = names.map_err(|why| format!("the tools cannot be listed for the gateways: {why}"))?;
        names.retain(|tool| toolbox.placed.serves(tool));
        Ok(serde_json::json!(names).to_string())
    }

    /// In the registry where there is a store that others read.
    fn register(
        &self,
        settings: &Settings,
        places: &Arc<Places>,
        tools: String,
    ) -> Result<Option<Registration>, String> {
        if settings.store_url.is_empty() {
            return Ok(None);
        }
        let url = settings.public_url();
        let id = settings.id();
        let secret = settings.registration_secret();
        let (server, version) = (self.name.clone(), self.version.clone());
        let journal = self.tools.once.iter().cloned().collect();
        let identity = Identity { id, server, url, version, tools, journal, secret };
        let every = Duration::from_millis(settings.heartbeat_ms);
        let started = Registration::start(redis_options(settings)?, identity, every, places.clone());
        started.map(Some).map_err(|why| format!("the heartbeat cannot be started: {why}"))
    }
}

pub(crate) fn redis_options(settings: &Settings) -> Result<redis::Options, String> {
    // A change that could not be written is refused, so of two records the store's is the one that counts.
    let merge = Arc::new(|_: &[u8], stored: &[u8]| Bytes::copy_from_slice(stored));
    let mut options =
        redis::Options::at(&settings.store_url, merge).map_err(|why| format!("store_url: {why}"))?;
    options.prefix.clone_from(&settings.store_prefix);
    options.limits.record_ttl = Duration::from_secs(settings.session_ttl_s);
    options.limits.session_lifetime_max = LIFETIME_MAX;
    Ok(options)
}

/// The store of `settings`, shared or this process's own.
pub(crate) fn open(settings: &Settings) -> Result<Arc<dyn Store>, String> {
    if !settings.store_url.is_empty() {
        return Ok(Arc::new(redis::open(redis_options(settings)?)));
    }
    let record_ttl = Duration::from_secs(settings.session_ttl_s);
    let bounds = Bounds { record_ttl, session_lifetime_max: LIFETIME_MAX, ..Bounds::default() };
    embedded::open(None, bounds).map(|store| Arc::new(store) as Arc<dyn Store>).map_err(|why| why.to_string())
}

async fn keys(store: &dyn Store, company: Company) -> Result<Sealing, StoreError> {
    let end = tokio::time::Instant::now() + START_PATIENCE;
    loop {
        match Sealing::learn(store, company).await {
            Err(_) if tokio::time::Instant::now() < end => tokio::time::sleep(START_PAUSE).await,
            learned => return learned,
        }
    }
}

async fn tend(sessions: Arc<Sessions>) {
    for round in 1_u32.. {
        tokio::time::sleep(REFRESH_EVERY).await;
        if round.is_multiple_of(TEND_EVERY) {
            sessions.store.tend();
        }
        if let Err(why) = sessions.sealing.refresh(&*sessions.store).await {
            tracing::warn!(%why, "the sealing keys could not be read again");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keeping::Shared as Keep;

    #[test]
    fn what_code_and_settings_say_wrong_is_told_at_once() {
        let settings = Settings { concurrent_max: 0, ..Settings::default() };
        let node = Node::named("")
            .version(&"1".repeat(65))
            .once("order")
            .cached("order", Duration::from_secs(1), Keep::Public)
            .cached("price", Duration::ZERO, Keep::Public)
            .tool_on("index", On::shard(4, 3));
        let told = node.check(&settings, 1).unwrap_err();
        for what in ["concurrent_max", "no name", "version", "\"order\"", "\"price\"", "shard 4 of 3"] {
            assert!(told.contains(what), "{what} in {told}");
        }
        assert_eq!(told.lines().count(), 6, "{told}");
        assert_eq!(Node::named("shop").once("order").check(&Settings::default(), 1), Ok(()));
    }
}
