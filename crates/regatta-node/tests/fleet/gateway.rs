//! Nodes behind a gateway: a session keeps its data wherever it goes, the journal answers lost calls, and callers that the
//! gateway tells apart are told apart by the nodes.

use std::time::Duration;

use regatta_testkit::eventually;
use regatta_testkit::process::free_port;
use regatta_testkit::redis::Server;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::front::Front;
use crate::shop::orders;
use crate::{Running, text};

pub const SOON: Duration = Duration::from_secs(30);
const SECRET: &str = "an identity secret of this fleet";
pub const ANN: &str = "ann-0123456789abcdef0123456789abcdef";
pub const BOB: &str = "bob-0123456789abcdef0123456789abcdef";
/// Whom the gateway lets in, by the SHA-256 of their keys.
pub const AUTH: &str = r#"
[auth]
identity_headers = true
identity_secret = "an identity secret of this fleet"
[[auth.api_key]]
name = "ann"
sha256 = "d99beba193bab267149a475648404827d44a6863517faeb7478f77fe40edc3af"
[[auth.api_key]]
name = "bob"
sha256 = "d299290865a76d16a240989c5fb0896ca9930c230d54c6b7b3318de40a9b7cf0"
"#;

pub struct Town {
    pub front: Front,
    pub nodes: Vec<Running>,
    redis: Server,
    directory: TempDir,
}

impl Town {
    pub async fn of(nodes: usize, more: &[(&str, &str)], tables: &str) -> Town {
        let (redis, directory) = (Server::start(&[]).await, TempDir::new().expect("a directory"));
        let (url, file) = (redis.url(), directory.path().join("orders"));
        let usual = [
            ("REGATTA_NODE_STORE_URL", url.as_str()),
            ("REGATTA_NODE_HEARTBEAT_MS", "500"),
            ("SHOP_ORDERS", file.to_str().expect("a plain path")),
        ];
        let all: Vec<_> = usual.iter().chain(more).copied().collect();
        let mut running = Vec::new();
        for _ in 0..nodes {
            running.push(Running::start("shop", free_port(), &all).await);
        }
        let front = Front::gateway_with("shop", nodes, &redis, tables).await;
        Town { front, nodes: running, redis, directory }
    }

    pub fn orders(&self) -> Vec<String> {
        orders(&self.directory.path().join("orders"))
    }

    /// The node that runs something now.
    async fn busy(&self) -> usize {
        self.told_by("a node is busy", "regatta_node_in_flight 1").await
    }

    /// The first node of whose metrics `metric` is one, once there is one.
    pub async fn told_by(&self, what: &str, metric: &str) -> usize {
        eventually(what, SOON, async || {
            for (at, node) in self.nodes.iter().enumerate() {
                if node.get("/metrics").await?.contains(metric) {
                    return Some(at);
                }
            }
            None
        })
        .await
    }
}

fn order(id: u64, number: &str, pause_ms: u64) -> Value {
    let arguments = json!({"number": number, "pause_ms": pause_ms, "keep": true});
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "order", "arguments": arguments}})
}

#[tokio::test]
async fn a_session_keeps_its_cart_when_its_node_dies_and_its_client_hears_of_nothing() {
    let mut town = Town::of(3, &[], "").await;
    let session = town.front.client().initialize().await.unwrap();
    let mut held = Vec::new();
    for round in 0..2 {
        held.push(format!("item-{round}"));
        let added = session.call("add", json!({"item": held[round]})).await.unwrap();
        assert_eq!(added.text(), held.join(","));
        let home = {
            let slow = order(90 + round as u64, &format!("o{round}"), 1500);
            let asking = session.clone();
            let sending = tokio::spawn(async move { asking.post(&slow).await.unwrap().outcome().await });
            let home = town.busy().await;
            sending.await.unwrap().unwrap().result().unwrap();
            home
        };
        town.nodes[home].process.kill();
        town.nodes.remove(home);
        let cart = session.call("cart", json!({})).await.unwrap();
        assert_eq!(cart.text(), held.join(","), "{}", cart.message);
        assert!(cart.message["result"]["_meta"]["io.regatta/sessionResumed"].is_null(), "{}", cart.message);
    }
    assert_eq!(town.orders(), ["o0", "o1"]);
}

#[tokio::test]
async fn a_call_whose_node_dies_in_it_is_run_once_and_told_to_be_unknown() {
    let mut town = Town::of(2, &[], "").await;
    let session = town.front.client().initialize().await.unwrap();
    let message = order(7, "once", 4000);
    let (asking, slow) = (session.clone(), message.clone());
    let sending = tokio::spawn(async move { asking.post(&slow).await.unwrap().outcome().await });
    eventually("it is placed", SOON, async || (town.orders() == ["once"]).then_some(())).await;
    let home = town.busy().await;
    town.nodes[home].process.kill();
    let told = sending.await.unwrap().unwrap();
    assert_eq!((told.code(), &told.message["error"]["data"]["executed"]), (-31001, &json!("unknown")));
    // Asked of the other node, not said by the gateway alone; and no other word later.
    assert!(town.front.metric("regatta_journal_asked_total").await >= 1.0);
    // On a full machine the other node may be late with its heartbeat: then it is said that nothing was run, and is asked again.
    let again = eventually("a node hears of it again", SOON, async || {
        let again = session.post(&message).await.unwrap().outcome().await.unwrap();
        (again.code() != -31004).then_some(again)
    })
    .await;
    assert_eq!(again.code(), -31001, "{}", again.message);
    assert_eq!(town.orders(), ["once"]);
}

#[tokio::test]
async fn a_call_that_a_sleeping_node_did_not_begin_is_run_elsewhere_and_not_again_when_it_wakes() {
    let town = Town::of(2, &[], "").await;
    let session = town.front.client().initialize().await.unwrap();
    let (asking, first) = (session.clone(), order(1, "first", 1500));
    let sending = tokio::spawn(async move { asking.post(&first).await.unwrap().outcome().await });
    let home = town.busy().await;
    sending.await.unwrap().unwrap().result().unwrap();
    town.nodes[home].process.stop();
    let told = session.post(&order(2, "second", 0)).await.unwrap().outcome().await.unwrap();
    assert!(told.message["result"].is_object(), "{}", told.message);
    town.nodes[home].process.go_on();
    town.nodes[home].wait_ready().await;
    let again = session.post(&order(2, "second", 0)).await.unwrap().outcome().await.unwrap();
    assert_eq!(again.message["result"], told.message["result"]);
    assert_eq!(town.orders(), ["first", "second"]);
}

#[tokio::test]
async fn callers_whom_the_gateway_tells_apart_share_no_key_no_handle_and_no_session_at_the_nodes() {
    let town = Town::of(2, &[("REGATTA_NODE_IDENTITY_SECRETS", SECRET)], AUTH).await;
    let of = |key: &str| town.front.client().header("authorization", &format!("Bearer {key}"));
    let keyed = |key: &str| of(key).modern().with_meta("io.regatta/idempotencyKey", json!("my order"));
    let cart = of(ANN).modern().call("new_cart", json!({})).await.unwrap().result().unwrap();
    let arguments = |name: &str| json!({"cart": text(&cart), "item": name});
    keyed(ANN).call("add", arguments("rope")).await.unwrap().result().unwrap();
    let stolen = keyed(BOB).call("add", arguments("rope")).await.unwrap();
    assert_eq!(stolen.code(), -32602, "neither ann's result nor her cart: {}", stolen.message);
    let seen = of(ANN).modern().call("cart", arguments("")).await.unwrap();
    assert_eq!(seen.text(), "rope");
    let session = of(ANN).initialize().await.unwrap();
    session.call("add", json!({"item": "sail"})).await.unwrap().result().unwrap();

    let port = town.nodes[0].port;
    let direct = regatta_testkit::Client::new(&format!("http://127.0.0.1:{port}/mcp"));
    let forged = direct
        .header("x-regatta-principal", "iss=api-key&sub=ann")
        .header("x-regatta-scopes", "")
        .header("x-regatta-claims", "")
        .header("x-regatta-signature", "t=1,v1=00");
    let refused = forged.modern().request("tools/call", json!({"name": "cart"})).await.unwrap();
    assert_eq!(refused.status, http::StatusCode::FORBIDDEN);
    assert!(town.redis.say(&["HGET", &format!("mcp:node:127.0.0.1:{port}"), "journal"]).contains("order"));
}
