//! A gateway in this process, and stubs that register as its nodes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use regatta_control::Control;
use regatta_control::config::{Env, check};
use regatta_policy::access::Asked;
use regatta_policy::snapshot::Snapshot;
use regatta_proxy::listener::{self, Drainer, Listener, ListenerBounds, ListenerStats, drain_signal};
use regatta_proxy::peers::{Company, KeyPlan, Keys};
use regatta_proxy::{AskKeys, Gateway, Parts};
use regatta_seal::MasterKey;
use regatta_store::{Bounds, Embedded, Registry, Store, embedded};
use regatta_testkit::stub::answers;
use regatta_testkit::{Client, Reply, Seen, Stub, eventually};
use serde_json::{Value, json};
use tokio::sync::watch;

/// How long anything may take that has to happen.
pub const SOON: Duration = Duration::from_secs(20);
/// Entries outlive any test: nodes go by their heartbeats, not by the store's clock.
const TTL: Duration = Duration::from_secs(600);

/// A gateway whose registry is read twenty times a second, with a lease of four tenths of a second.
pub struct Hosted {
    pub store: Arc<Embedded>,
    pub control: Control,
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    pub gateway: Arc<Gateway>,
    url: String,
    drainer: Drainer,
}

impl Hosted {
    /// Serves one server named `shop` that takes nodes; `more` are lines of its table.
    pub async fn start(more: &str) -> Hosted {
        let store = Arc::new(embedded::open(None, Bounds::default()).expect("a store without a directory"));
        Hosted::over(store, more).await
    }

    /// The same over a store that others use too.
    pub async fn over(store: Arc<Embedded>, more: &str) -> Hosted {
        let text = format!(
            "[store]\nurl = \"redis://127.0.0.1:6379\"\nregistry_poll = \"50ms\"\nregistry_lease = \"400ms\"\n[[server]]\nname = \"shop\"\nregistry = true\n{more}"
        );
        let config = check("regatta.toml", &text, &Env::default()).unwrap_or_else(|all| panic!("{all}"));
        let control = Control::start(config, None, Some(store.clone() as Arc<dyn Store>)).await;
        let mut snapshots = control.snapshots();
        let snapshot = snapshots.borrow_and_update().clone();
        let plan = KeyPlan { configured: vec![MasterKey::new([7; 32])], wrap: None, rotation: None };
        let keys = Keys::start(plan, &*store, Company::Alone).await.expect("keys of the config");
        let ask_keys: AskKeys = Arc::new(|_| Box::pin(async { Asked::Away }));
        let gateway = Gateway::new(Parts {
            snapshot,
            keys,
            store: store.clone(),
            company: Company::Alone,
            fleet: None,
            ask_keys,
        });
        tokio::spawn(obey(gateway.clone(), snapshots.clone()));
        let listener = Listener::bind(&["127.0.0.1:0".parse().expect("an address")]).expect("a free port");
        let url = format!("http://{}/mcp", listener.local_addr().expect("a bound socket"));
        let (drainer, drain) = drain_signal();
        let bounds = ListenerBounds { limits: gateway.shared_limits(), proxies: gateway.shared_proxies() };
        let handled = gateway.clone();
        let handler = move |arrival| regatta_proxy::serve(handled.clone(), arrival);
        tokio::spawn(listener::serve(
            listener,
            None,
            bounds,
            handler,
            drain,
            Arc::<ListenerStats>::default(),
        ));
        Hosted { store, control, snapshots, gateway, url, drainer }
    }

    /// A client of it.
    pub fn client(&self) -> Client {
        Client::new(&self.url)
    }

    /// Waits for a snapshot, and until the data plane obeys it.
    pub async fn until(&mut self, fits: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
        let seen = tokio::time::timeout(SOON, self.snapshots.wait_for(|snapshot| fits(snapshot))).await;
        let snapshot = seen.expect("the snapshot comes").expect("the control plane runs").clone();
        let wanted = snapshot.servers[0].replicas.len();
        eventually("the data plane obeys", SOON, async || {
            (self.gateway.status().len() == wanted).then_some(())
        })
        .await;
        snapshot
    }

    /// Waits until exactly these tools are known.
    pub async fn until_tools(&mut self, names: &[&str]) -> Arc<Snapshot> {
        self.until(|snapshot| tools(snapshot) == names).await
    }
}

impl Drop for Hosted {
    fn drop(&mut self) {
        self.drainer.drain(Duration::ZERO);
    }
}

async fn obey(gateway: Arc<Gateway>, mut snapshots: watch::Receiver<Arc<Snapshot>>) {
    while snapshots.changed().await.is_ok() {
        let snapshot = snapshots.borrow_and_update().clone();
        gateway.apply(snapshot);
    }
}

/// The names of the tools that are known.
pub fn tools(snapshot: &Snapshot) -> Vec<&str> {
    let catalogue = snapshot.servers[0].catalogue.as_deref();
    catalogue.into_iter().flat_map(|catalogue| catalogue.tools.keys().map(String::as_str)).collect()
}

/// A stub that is registered, and whose heart beats until it is dropped or stopped.
pub struct Node {
    pub id: String,
    pub stub: Stub,
    store: Arc<Embedded>,
    fields: watch::Sender<BTreeMap<String, String>>,
    heart: tokio::task::JoinHandle<()>,
}

impl Node {
    /// Joins with these tools, of both eras; each tool notes its op in the journal.
    pub async fn join(store: &Arc<Embedded>, id: &str, tools: &[&str]) -> Node {
        Node::join_as(store, id, tools, server_with(definitions(tools))).await
    }

    /// The same with any behaviour.
    pub async fn join_as(
        store: &Arc<Embedded>,
        id: &str,
        tools: &[&str],
        behaviour: impl Fn(&Seen) -> Reply + Send + Sync + 'static,
    ) -> Node {
        let stub = Stub::start(behaviour).await;
        let fields: BTreeMap<String, String> = [
            ("status", "running".to_owned()),
            ("server", "shop".to_owned()),
            ("url", stub.url()),
            ("boot", format!("{id}-1")),
            ("tools", json!(tools).to_string()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        let (fields, said) = watch::channel(fields);
        let heart = tokio::spawn(beat(store.clone(), id.to_owned(), said));
        Node { id: id.to_owned(), stub, store: store.clone(), fields, heart }
    }

    /// Says something else from the next heartbeat on.
    pub fn say(&self, name: &str, value: &str) {
        self.fields.send_modify(|fields| _ = fields.insert(name.to_owned(), value.to_owned()));
    }

    /// Its heart stops; it goes on serving, and its entry stays.
    pub fn fall_silent(&self) {
        self.heart.abort();
    }

    /// Dies without a word.
    pub async fn die(&self) {
        self.heart.abort();
        self.stub.die().await;
    }

    /// Takes itself off the registry.
    pub async fn leave(&self) {
        self.heart.abort();
        self.store.leave(&self.id).await.expect("the store is here");
    }

    /// The tools that it was called for.
    pub fn called(&self) -> Vec<String> {
        self.stub.seen_rpc("tools/call").iter().map(|seen| seen.tool().to_owned()).collect()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.heart.abort();
    }
}

async fn beat(store: Arc<Embedded>, id: String, said: watch::Receiver<BTreeMap<String, String>>) {
    for heartbeat in 1_u64.. {
        let mut fields = said.borrow().clone();
        fields.insert("lastHeartbeat".to_owned(), heartbeat.to_string());
        let _ = store.register(&id, fields, TTL).await;
        tokio::time::sleep(Duration::from_millis(40)).await;
    }
}

/// Definitions of tools that take an `op`.
pub fn definitions(names: &[&str]) -> Vec<Value> {
    let schema = json!({"type": "object", "properties": {"op": {"type": "string"}}});
    names.iter().map(|name| json!({"name": name, "inputSchema": schema})).collect()
}

/// A server of both eras that lists these tools and refuses others.
pub fn server_with(tools: Vec<Value>) -> impl Fn(&Seen) -> Reply + Send + Sync + 'static {
    let base = answers::dual();
    move |seen| {
        let has = |name: &str| tools.iter().any(|tool| tool["name"] == name);
        match seen.rpc() {
            "tools/list" if seen.is_modern() => Reply::result(
                seen,
                json!({"resultType": "complete", "tools": tools, "ttlMs": 0, "cacheScope": "public"}),
            ),
            "tools/list" if !seen.header("mcp-session-id").is_empty() => {
                Reply::result(seen, json!({"tools": tools}))
            }
            "tools/call" if !has(seen.tool()) => Reply::error(seen, -32602, "Unknown tool"),
            _ => base(seen),
        }
    }
}

/// The names in a `tools/list` result, in its order.
pub fn listed(result: &Value) -> Vec<&str> {
    let tools = result["tools"].as_array().expect("a list");
    tools.iter().map(|tool| tool["name"].as_str().expect("a name")).collect()
}
