//! The one list of tools that clients are shown, the same at every gateway, and the news of its changes.

use std::time::Duration;

use regatta_testkit::client::Events;
use regatta_testkit::{Result, eventually};
use serde_json::{Value, json};

use crate::hosted::{Hosted, Node, SOON, definitions, listed, server_with};

const CHANGED: &str = "notifications/tools/list_changed";

#[tokio::test]
async fn the_list_is_the_union_in_one_page_for_both_eras_and_the_same_at_every_gateway() -> Result<()> {
    let mut gateway = Hosted::start("").await;
    let mut other = Hosted::over(gateway.store.clone(), "").await;
    let _nodes = [
        Node::join(&gateway.store, "n1", &["b", "c"]).await,
        Node::join(&gateway.store, "n2", &["a", "c"]).await,
    ];
    gateway.until_tools(&["a", "b", "c"]).await;
    other.until_tools(&["a", "b", "c"]).await;
    let modern = gateway.client().modern();
    let first = modern.request("tools/list", json!({})).await?.outcome().await?.result()?;
    assert_eq!(listed(&first), ["a", "b", "c"]);
    assert_eq!((&first["resultType"], &first["cacheScope"]), (&json!("complete"), &json!("private")));
    for _ in 0..200 {
        for gateway in [&gateway, &other] {
            let modern = gateway.client().modern();
            let list = modern.request("tools/list", json!({})).await?.outcome().await?.result()?;
            assert_eq!(list.to_string(), first.to_string());
        }
    }
    let session = gateway.client().initialize().await?;
    let list = session.request("tools/list", json!({})).await?.outcome().await?.result()?;
    assert_eq!((listed(&list), list.get("nextCursor")), (vec!["a", "b", "c"], None));
    let cursor = session.request("tools/list", json!({"cursor": "x"})).await?.outcome().await?;
    assert_eq!(cursor.code(), -32602, "no cursor was given out");
    Ok(())
}

#[tokio::test]
async fn of_two_definitions_of_one_tool_the_same_wins_everywhere_and_calls_go_where_it_is() -> Result<()> {
    let described = |text: &str| vec![json!({"name": "pay", "description": text, "inputSchema": {}})];
    let mut gateway = Hosted::start("").await;
    let store = gateway.store.clone();
    let old = server_with(described("old"));
    let one = Node::join_as(&store, "n1", &["pay"], server_with(described("new"))).await;
    let two = Node::join_as(&store, "n2", &["pay"], old).await;
    let three = Node::join_as(&store, "n3", &["pay"], server_with(described("old"))).await;
    let all = |snapshot: &regatta_policy::snapshot::Snapshot| {
        let catalogue = snapshot.servers[0].catalogue.as_deref();
        catalogue
            .and_then(|catalogue| catalogue.tools.get("pay"))
            .is_some_and(|pay| (pay.holders.len(), pay.carriers.len()) == (3, 2))
    };
    gateway.until(all).await;
    let modern = gateway.client().modern();
    for op in 0..20 {
        let list = modern.request("tools/list", json!({})).await?.outcome().await?.result()?;
        assert_eq!(list["tools"][0]["description"], "old");
        modern.call("pay", json!({"op": op.to_string()})).await?.result()?;
    }
    assert_eq!((one.called().len(), two.called().len() + three.called().len()), (0, 20));
    let conflicts = gateway.control.stats();
    assert!(1 <= conflicts.tool_conflicts.load(std::sync::atomic::Ordering::Relaxed));
    Ok(())
}

/// How many list changes come until `last` does; nothing is missed, because events come in order.
async fn changes_until(events: &mut Events, last: &str) -> Result<usize> {
    let mut changes = 0;
    loop {
        let message = events.next().await?.expect("the stream stands").json();
        match message["method"].as_str() {
            Some(CHANGED) => changes += 1,
            Some(method) if method == last => return Ok(changes),
            _other => {}
        }
    }
}

/// Says something at the node that every subscriber hears, after whatever it was told before.
fn mark(node: &Node, message: &Value) {
    node.stub.say(message);
}

#[tokio::test]
async fn every_change_is_told_once_to_each_who_listens() -> Result<()> {
    let mut gateway = Hosted::start("").await;
    let one = Node::join(&gateway.store, "n1", &["old", "stays"]).await;
    gateway.until_tools(&["old", "stays"]).await;
    let session = gateway.client().initialize().await?;
    let mut standing = session.listen().await?.events();
    let modern = gateway.client().modern();
    let mut shared =
        modern.listen(json!({"toolsListChanged": true, "promptsListChanged": true})).await?.events();
    let filter = json!({"toolsListChanged": true, "resourceSubscriptions": ["a://1"]});
    let mut own = modern.listen(filter).await?.events();
    for events in [&mut shared, &mut own] {
        events.until("notifications/subscriptions/acknowledged").await?;
    }
    eventually("all legs stand", SOON, async || (one.stub.live_count() == 3).then_some(())).await;

    one.stub.behave(server_with(definitions(&["new", "stays"])));
    // What the node says itself is not passed on: it would be one more, and too early.
    one.stub.say(&json!({"jsonrpc": "2.0", "method": CHANGED}));
    one.say("tools", r#"["new","stays"]"#);
    gateway.until_tools(&["new", "stays"]).await;
    for events in [&mut standing, &mut shared, &mut own] {
        events.until(CHANGED).await?;
    }
    // A mark on every stream, behind which nothing more may have come.
    tokio::time::sleep(Duration::from_millis(300)).await;
    mark(&one, &json!({"jsonrpc": "2.0", "method": "notifications/prompts/list_changed"}));
    for events in [&mut standing, &mut shared, &mut own] {
        assert_eq!(changes_until(events, "notifications/prompts/list_changed").await?, 0, "told once");
    }

    // A node that joins with a tool of its own is one change more.
    let two = Node::join(&gateway.store, "n2", &["stays", "third"]).await;
    gateway.until_tools(&["new", "stays", "third"]).await;
    for events in [&mut standing, &mut shared, &mut own] {
        events.until(CHANGED).await?;
    }
    let list = session.request("tools/list", json!({})).await?.outcome().await?.result()?;
    assert_eq!(listed(&list), ["new", "stays", "third"]);
    drop(two);
    Ok(())
}

#[tokio::test]
async fn where_nobody_looks_after_tools_servers_speak_for_themselves() -> Result<()> {
    let stub = regatta_testkit::Stub::start(server_with(definitions(&["work"]))).await;
    let gateway = Hosted::start(&format!("replicas = [{:?}]", stub.url())).await;
    let session = gateway.client().initialize().await?;
    let mut standing = session.listen().await?.events();
    eventually("the leg stands", SOON, async || (stub.live_count() == 1).then_some(())).await;
    stub.say(&json!({"jsonrpc": "2.0", "method": CHANGED}));
    standing.until(CHANGED).await?;
    let list = session.request("tools/list", json!({})).await?.outcome().await?.result()?;
    assert_eq!(listed(&list), ["work"]);
    assert!(stub.seen_rpc("tools/list").len() == 1, "asked by its client alone");
    Ok(())
}
