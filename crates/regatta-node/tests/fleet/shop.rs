//! The shop on real nodes: carts are where their session or handle is, and no order is placed twice, whoever dies or sleeps
//! in the middle of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http::StatusCode;
use regatta_testkit::client::Session;
use regatta_testkit::eventually;
use regatta_testkit::process::free_port;
use regatta_testkit::redis::Server;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{Running, text};

/// What `-31001` means: docs/errors.md.
const UNKNOWN: i64 = -31001;

pub struct Shop {
    redis: Server,
    directory: TempDir,
    pub nodes: Vec<Running>,
    more: &'static [(&'static str, &'static str)],
}

impl Shop {
    pub async fn open(nodes: usize) -> Shop {
        Shop::open_with(nodes, &[]).await
    }

    /// The same with further settings of its nodes.
    pub async fn open_with(nodes: usize, more: &'static [(&'static str, &'static str)]) -> Shop {
        let (redis, directory) = (Server::start(&[]).await, TempDir::new().expect("a directory"));
        let mut shop = Shop { redis, directory, nodes: Vec::new(), more };
        for _ in 0..nodes {
            let node = shop.node(free_port()).await;
            shop.nodes.push(node);
        }
        shop
    }

    async fn node(&self, port: u16) -> Running {
        let (url, orders) = (self.redis.url(), self.file());
        let orders = orders.to_str().expect("a plain path");
        let usual = [("REGATTA_NODE_STORE_URL", url.as_str()), ("SHOP_ORDERS", orders)];
        let all: Vec<_> = usual.iter().chain(self.more).copied().collect();
        Running::start("shop", port, &all).await
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("orders")
    }

    /// The numbers of all orders that were placed.
    pub fn orders(&self) -> Vec<String> {
        orders(&self.file())
    }

    async fn kill_and_restart(&mut self, at: usize) {
        let port = self.nodes[at].port;
        self.nodes[at].process.kill();
        self.nodes[at] = self.node(port).await;
    }
}

/// The numbers of all orders that were placed.
pub fn orders(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().filter_map(|line| line.split(' ').next()).map(str::to_owned).collect()
}

fn call(id: u64, tool: &str, arguments: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool, "arguments": arguments}})
}

/// As a client behind a balancer without stickiness: at one node, and the same again at the other when that fails.
async fn until_answered(session: &Session, shop: &Shop, first: usize, message: &Value) -> Value {
    for attempt in 0..200 {
        let client = shop.nodes[(first + attempt) % shop.nodes.len()].client();
        let there = session.through(&client);
        let told = tokio::time::timeout(Duration::from_secs(8), async {
            there.post(message).await.ok()?.outcome().await.ok()
        });
        if let Ok(Some(outcome)) = told.await {
            assert!(outcome.message.is_object(), "not an answer: {outcome:?}");
            return outcome.message;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never answered: {message}");
}

/// Sends an order to the first node, and waits until it is placed while its call still runs.
async fn begin(session: &Session, shop: &Shop, message: &Value, number: &str) {
    let (there, message) = (session.through(&shop.nodes[0].client()), message.clone());
    tokio::spawn(async move { there.post(&message).await.is_ok() });
    eventually("the order is placed", Duration::from_secs(10), async || {
        shop.orders().contains(&number.to_owned()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_cart_is_at_every_node_and_ends_with_its_session() {
    let mut shop = Shop::open(2).await;
    let here = shop.nodes[0].client().initialize().await.unwrap();
    let there = here.through(&shop.nodes[1].client());
    for (session, item, told) in
        [(&here, "rope", "rope"), (&there, "sail", "rope,sail"), (&here, "x", "rope,sail,x")]
    {
        let added = session.call("add", json!({"item": item})).await.unwrap().result().unwrap();
        assert_eq!(text(&added), told);
    }
    shop.nodes[0].process.kill();
    assert_eq!(text(&there.call("cart", json!({})).await.unwrap().result().unwrap()), "rope,sail,x");
    let other = shop.nodes[1].client().initialize().await.unwrap();
    assert_eq!(text(&other.call("cart", json!({})).await.unwrap().result().unwrap()), "");
    assert_eq!(there.end().await.unwrap(), StatusCode::NO_CONTENT);
    let late = there.request("tools/call", json!({"name": "cart", "arguments": {}})).await.unwrap();
    assert_eq!(late.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_handle_opens_at_every_node_and_for_its_maker_only() {
    let shop = Shop::open(2).await;
    let modern = |at: usize, who: &str| shop.nodes[at].client().header("authorization", who).modern();
    let made = modern(0, "Bearer ann").call("new_cart", json!({})).await.unwrap().result().unwrap();
    let cart = text(&made).to_owned();
    let add = modern(1, "Bearer ann").call("add", json!({"cart": cart, "item": "rope"})).await.unwrap();
    assert_eq!(text(&add.result().unwrap()), "rope");
    let seen = modern(0, "Bearer ann").call("cart", json!({"cart": cart})).await.unwrap();
    assert_eq!(text(&seen.result().unwrap()), "rope");
    let stolen = modern(0, "Bearer bob").call("cart", json!({"cart": cart})).await.unwrap();
    assert_eq!(stolen.code(), -32602, "{}", stolen.message);
    let guessed = modern(0, "Bearer ann").call("cart", json!({"cart": "made-up"})).await.unwrap();
    assert_eq!(guessed.code(), -32602, "{}", guessed.message);
}

#[tokio::test]
async fn a_call_that_is_repeated_anywhere_runs_once_and_all_get_its_result() {
    let shop = Shop::open(2).await;
    let session = shop.nodes[0].client().initialize().await.unwrap();
    session.call("add", json!({"item": "rope"})).await.unwrap().result().unwrap();
    let message = call(77, "order", &json!({"number": "A", "pause_ms": 300}));
    let (one, other) = tokio::join!(
        until_answered(&session, &shop, 0, &message),
        until_answered(&session, &shop, 1, &message),
    );
    let late = until_answered(&session, &shop, 1, &message).await;
    for told in [&one, &other, &late] {
        assert_eq!((told["id"].as_u64(), text(&told["result"])), (Some(77), "rope"), "{told}");
    }
    assert_eq!(shop.orders(), ["A"]);
    let again = call(78, "order", &json!({"number": "B"}));
    assert_eq!(text(&until_answered(&session, &shop, 0, &again).await["result"]), "");
    assert_eq!(shop.orders(), ["A", "B"], "another id is another call");

    let keyed = |at: usize| {
        let modern = shop.nodes[at].client().modern();
        modern.with_meta("io.regatta/idempotencyKey", json!("order 9 of ann"))
    };
    let cart = keyed(0).call("new_cart", json!({})).await.unwrap().result().unwrap();
    let arguments = json!({"cart": text(&cart), "number": "C"});
    for at in [0, 1, 0] {
        keyed(at).call("order", arguments.clone()).await.unwrap().result().unwrap();
    }
    assert_eq!(shop.orders(), ["A", "B", "C"]);
}

#[tokio::test]
async fn what_was_refused_because_the_store_did_not_answer_may_be_sent_again_though_it_did_hear() {
    let shop = Shop::open(1).await;
    let session = shop.nodes[0].client().initialize().await.unwrap();
    let order = |id, number| call(id, "order", &json!({"number": number, "keep": true}));
    // The store has every script that it takes: what it hears next it does.
    session.post(&order(1, "A")).await.unwrap().outcome().await.unwrap().result().unwrap();
    let message = order(2, "B");
    shop.redis.stop();
    let refused = session.post(&message).await.unwrap().outcome().await.unwrap();
    assert_eq!(refused.code(), -31005, "{}", refused.message);
    assert_eq!(refused.message["error"]["data"]["executed"], "no");
    shop.redis.go_on();
    let told = eventually("the store answers", Duration::from_secs(20), async || {
        let told = session.post(&message).await.ok()?.outcome().await.ok()?;
        (told.code() != -31005).then_some(told.message)
    })
    .await;
    assert!(told["result"].is_object(), "{told}");
    assert_eq!(shop.orders(), ["A", "B"]);
}

#[tokio::test]
async fn the_outcome_of_a_call_whose_node_died_or_sleeps_is_told_to_be_unknown_and_it_is_not_run_again() {
    let mut shop = Shop::open(2).await;
    let session = shop.nodes[0].client().initialize().await.unwrap();
    let asleep = call(1001, "order", &json!({"number": "sleeper", "pause_ms": 2500}));
    begin(&session, &shop, &asleep, "sleeper").await;
    shop.nodes[0].process.stop();
    let told = until_answered(&session, &shop, 1, &asleep).await;
    assert_eq!(
        (told["error"]["code"].as_i64(), &told["error"]["data"]["executed"]),
        (Some(UNKNOWN), &json!("unknown")),
        "{told}"
    );
    shop.nodes[0].process.go_on();
    let kept = async || {
        let told = until_answered(&session, &shop, 1, &asleep).await;
        told["result"].is_object().then_some(())
    };
    eventually("who wakes up and ends its call is heard still", Duration::from_secs(20), kept).await;

    let dies = call(1002, "order", &json!({"number": "dies", "pause_ms": 4000}));
    begin(&session, &shop, &dies, "dies").await;
    shop.kill_and_restart(0).await;
    for at in [1, 0] {
        let told = until_answered(&session, &shop, at, &dies).await;
        assert_eq!(told["error"]["code"].as_i64(), Some(UNKNOWN), "{told}");
    }
    assert_eq!(shop.orders(), ["sleeper", "dies"]);
}

#[tokio::test]
async fn nodes_are_killed_again_and_again_and_no_cart_is_lost_and_no_order_placed_twice() {
    let mut shop = Shop::open(2).await;
    let mut carts: Vec<(Session, BTreeSet<String>)> = Vec::new();
    for _ in 0..4 {
        carts.push((shop.nodes[0].client().initialize().await.unwrap(), BTreeSet::new()));
    }
    let (mut id, mut acknowledged, mut unknown) = (100, BTreeSet::new(), 0);
    for round in 0..12 {
        let calls = carts.iter().enumerate().map(|(at, (session, _))| {
            id += 2;
            let item = format!("item-{round}-{at}");
            let add = call(id, "add", &json!({"item": item}));
            let order =
                call(id + 1, "order", &json!({"number": format!("order-{round}-{at}"), "keep": true}));
            (session.clone(), add, order, item)
        });
        let calls: Vec<_> = calls.collect();
        let victim = round % 2;
        let (dies, works) = shop.nodes.split_at_mut(1);
        let killed = if victim == 0 { &mut dies[0] } else { &mut works[0] };
        let sent: Vec<_> = calls
            .iter()
            .map(|(session, add, _, _)| {
                let there = session.through(&killed.client());
                let add = add.clone();
                tokio::spawn(async move { there.post(&add).await.map(|answer| answer.status) })
            })
            .collect();
        // At another moment of the call each time.
        tokio::time::sleep(Duration::from_millis(round as u64)).await;
        killed.process.kill();
        for sending in sent {
            let _ = sending.await;
        }
        for (at, (session, add, order, item)) in calls.iter().enumerate() {
            let told = until_answered(session, &shop, 1 - victim, add).await;
            match told["error"]["code"].as_i64() {
                None => assert!(carts[at].1.insert(item.clone())),
                Some(code) => {
                    assert_eq!(code, UNKNOWN, "{told}");
                    unknown += 1;
                }
            }
            for _ in 0..2 {
                let told = until_answered(session, &shop, 1 - victim, order).await;
                assert!(told["result"].is_object(), "{told}");
            }
            acknowledged.insert(format!("order-{round}-{at}"));
        }
        shop.kill_and_restart(victim).await;
    }
    for (session, promised) in &carts {
        let told = until_answered(session, &shop, 0, &call(9999, "cart", &json!({}))).await;
        assert!(told["result"].is_object(), "{told}");
        let held: Vec<String> = text(&told["result"]).split(',').map(str::to_owned).collect();
        let once: BTreeSet<String> = held.iter().cloned().collect();
        assert_eq!(held.len(), once.len(), "nothing is added twice: {held:?}");
        assert!(promised.is_subset(&once), "what was acknowledged is there: {promised:?} in {held:?}");
    }
    let placed = shop.orders();
    let once: BTreeSet<String> = placed.iter().cloned().collect();
    assert_eq!(placed.len(), once.len(), "no order is placed twice: {placed:?}");
    assert_eq!(once, acknowledged, "and none is lost");
    assert!(unknown < 48, "some calls were answered: {unknown} of 48 are unknown");
}
