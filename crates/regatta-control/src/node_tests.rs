//! Nodes as the data plane gets to know them: joined, probed, drained, gone; their tools, and one list of them.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use regatta_policy::catalogue::Spread;
use regatta_policy::snapshot::{Duty, Health, SessionState, Snapshot};
use regatta_store::{Bounds, Embedded, NodeFields, Registry, Store, embedded};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::Control;
use crate::config::{Env, check};
use crate::stub::{Answer, Asked, Stub, dual, result};

const TTL: Duration = Duration::from_secs(60);

struct Fleet {
    store: Arc<Embedded>,
    control: Control,
    snapshots: watch::Receiver<Arc<Snapshot>>,
}

impl Fleet {
    async fn start(server: &str) -> Fleet {
        let text = format!(
            "[store]\nurl = \"redis://127.0.0.1:6379\"\nregistry_poll = \"50ms\"\nregistry_lease = \"400ms\"\n[[server]]\nname = \"shop\"\nregistry = true\n{server}"
        );
        let store = Arc::new(embedded::open(None, Bounds::default()).unwrap());
        let config = check("regatta.toml", &text, &Env::default()).unwrap();
        let control = Control::start(config, None, Some(store.clone() as Arc<dyn Store>)).await;
        let snapshots = control.snapshots();
        Fleet { store, control, snapshots }
    }

    async fn until(&mut self, fits: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
        self.snapshots.wait_for(|snapshot| fits(snapshot)).await.unwrap().clone()
    }

    async fn say(&self, id: &str, fields: &[(&str, &str)]) {
        self.store.register(id, fields_of(fields), TTL).await.unwrap();
    }
}

fn fields_of(fields: &[(&str, &str)]) -> NodeFields {
    fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn running<'a>(url: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let least = [("status", "running"), ("lastHeartbeat", "1"), ("server", "shop"), ("url", url)];
    least.iter().chain(more).copied().collect()
}

/// A server of both eras whose tools can be changed while it runs.
async fn with_tools(tools: &Arc<Mutex<Vec<&'static str>>>) -> Stub {
    let tools = tools.clone();
    let script = move |asked: &Asked| -> Answer {
        if asked.method != "tools/list" {
            return dual(asked);
        }
        let tools = tools.lock().unwrap();
        let all: Vec<Value> = tools.iter().map(|name| json!({ "name": name, "inputSchema": {} })).collect();
        result(json!({ "tools": all, "resultType": "complete" }))
    };
    Stub::start(script).await
}

fn names(snapshot: &Snapshot) -> Vec<&str> {
    let catalogue = snapshot.servers[0].catalogue.as_deref();
    catalogue.into_iter().flat_map(|catalogue| catalogue.tools.keys().map(String::as_str)).collect()
}

#[tokio::test]
async fn a_node_joins_is_probed_and_serves_then_drains_and_leaves() {
    let (mut fleet, stub) = (Fleet::start("").await, Stub::start(dual).await);
    let url = stub.url();
    fleet.say("n1", &running(&url, &[("sessionState", "external"), ("load", "1"), ("maxLoad", "2")])).await;
    let serving = |snapshot: &Snapshot| {
        let replica = snapshot.servers[0].replicas.first();
        replica.is_some_and(|one| one.duty == Duty::Serving && one.health == Health::Healthy)
    };
    let snapshot = fleet.until(serving).await;
    assert_eq!(snapshot.servers[0].session_state, SessionState::External, "by the node's own word");
    assert_eq!(snapshot.servers[0].replicas[0].load.map(|load| load.permille), Some(500));
    fleet.say("n1", &running(&url, &[("status", "stopping")])).await;
    fleet.until(|snapshot| snapshot.servers[0].replicas[0].duty == Duty::Draining).await;
    fleet.store.leave("n1").await.unwrap();
    let last = fleet.until(|snapshot| snapshot.servers[0].replicas.is_empty()).await;
    assert_eq!(last.servers[0].session_state, SessionState::External, "it outlives the last node");
    fleet.control.stop().await;
}

#[tokio::test]
async fn a_node_at_a_configured_place_is_that_replica() {
    let stub = Stub::start(dual).await;
    let url = stub.url();
    let mut fleet = Fleet::start(&format!("replicas = [{url:?}]")).await;
    fleet.say("n1", &running(&url, &[("load", "9"), ("maxLoad", "10")])).await;
    let snapshot = fleet.until(|snapshot| snapshot.servers[0].replicas[0].load.is_some()).await;
    assert_eq!(snapshot.servers[0].replicas.len(), 1);
    fleet.control.stop().await;
}

#[tokio::test]
async fn a_node_that_specialises_makes_the_lists_one() {
    let (first, second) = (Arc::new(Mutex::new(vec!["a", "both"])), Arc::new(Mutex::new(vec!["b", "both"])));
    let (one, two) = (with_tools(&first).await, with_tools(&second).await);
    let mut fleet = Fleet::start("").await;
    let (one_url, two_url) = (one.url(), two.url());
    fleet.say("n1", &running(&one_url, &[("tools", r#"["a","both"]"#)])).await;
    fleet.until(|snapshot| names(snapshot) == ["a", "both"]).await;
    fleet.say("n2", &running(&two_url, &[("tools", r#"["b","both"]"#), ("lastHeartbeat", "2")])).await;
    let mixed = fleet.until(|snapshot| names(snapshot) == ["a", "b", "both"]).await;
    let catalogue = mixed.servers[0].catalogue.as_deref().unwrap();
    assert_eq!(catalogue.spread, Spread::Mixed);
    assert_eq!(
        &*catalogue.modern.text,
        r#"[{"inputSchema":{},"name":"a"},{"inputSchema":{},"name":"b"},{"inputSchema":{},"name":"both"}]"#
    );
    assert_eq!(catalogue.tools["b"].carriers, [mixed.servers[0].replicas[1].id]);
    fleet.control.stop().await;
}

#[tokio::test]
async fn a_rename_is_one_change() {
    let tools = Arc::new(Mutex::new(vec!["old", "stays"]));
    let stub = with_tools(&tools).await;
    let mut fleet = Fleet::start("").await;
    let url = stub.url();
    fleet.say("n1", &running(&url, &[("tools", r#"["old","stays"]"#)])).await;
    let before = fleet.until(|snapshot| names(snapshot) == ["old", "stays"]).await;
    *tools.lock().unwrap() = vec!["new", "stays"];
    fleet.say("n1", &running(&url, &[("tools", r#"["new","stays"]"#), ("lastHeartbeat", "2")])).await;
    let mut lists = vec![before.servers[0].catalogue.as_ref().unwrap().modern.version];
    loop {
        fleet.snapshots.changed().await.unwrap();
        let snapshot = fleet.snapshots.borrow_and_update().clone();
        let version = snapshot.servers[0].catalogue.as_ref().unwrap().modern.version;
        if lists.last() != Some(&version) {
            lists.push(version);
        }
        if names(&snapshot) == ["new", "stays"]
            && snapshot.servers[0].catalogue.as_ref().unwrap().modern.text.contains("new")
        {
            break;
        }
    }
    assert_eq!(lists.len(), 2);
    fleet.control.stop().await;
}

#[tokio::test]
async fn probes_find_the_tools_of_replicas_that_report_none() {
    let (first, second) = (Arc::new(Mutex::new(vec!["a"])), Arc::new(Mutex::new(vec!["b"])));
    let (one, two) = (with_tools(&first).await, with_tools(&second).await);
    let server = format!("replicas = [{:?}, {:?}]\ntools = \"probe\"", one.url(), two.url());
    let mut fleet = Fleet::start(&server).await;
    fleet.until(|snapshot| names(snapshot) == ["a", "b"]).await;
    drop(two);
    let lost = fleet.until(|snapshot| snapshot.servers[0].replicas[1].health == Health::Unreachable).await;
    assert_eq!(names(&lost), ["a", "b"], "what is lost stays listed");
    fleet.control.stop().await;
}
