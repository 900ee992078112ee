//! The life of a node: it joins and works, drains and leaves, falls silent and is gone; and what a registry that is
//! wiped, frozen or full of lies does to nobody.

use std::time::Duration;

use regatta_policy::snapshot::{Duty, Snapshot};
use regatta_store::Registry;
use regatta_testkit::{Result, eventually};
use serde_json::json;

use crate::hosted::{Hosted, Node, SOON, definitions, server_with};

fn serving(count: usize) -> impl Fn(&Snapshot) -> bool {
    move |snapshot| {
        snapshot.servers[0].replicas.iter().filter(|one| one.duty == Duty::Serving).count() == count
    }
}

#[tokio::test]
async fn a_node_that_registers_gets_traffic() -> Result<()> {
    let mut gateway = Hosted::start("balance = \"round-robin\"").await;
    let modern = gateway.client().modern();
    let refused = modern.call("work", json!({"op": "early"})).await?;
    assert_eq!(refused.code(), -31004, "nobody is there: {}", refused.message);
    let node = Node::join(&gateway.store, "n1", &["work"]).await;
    gateway.until(serving(1)).await;
    modern.call("work", json!({"op": "a"})).await?.result()?;
    assert_eq!(node.stub.journal().executions("a"), 1);
    let second = Node::join(&gateway.store, "n2", &["work"]).await;
    gateway.until(serving(2)).await;
    for op in 0..20 {
        modern.call("work", json!({"op": op.to_string()})).await?.result()?;
    }
    assert!(!second.called().is_empty() && node.called().len() > 1, "both work");
    Ok(())
}

#[tokio::test]
async fn a_node_that_stops_gets_no_new_work_and_its_sessions_stay_until_it_left() -> Result<()> {
    let mut gateway = Hosted::start("").await;
    let (one, two) = (
        Node::join(&gateway.store, "n1", &["work"]).await,
        Node::join(&gateway.store, "n2", &["work"]).await,
    );
    gateway.until(serving(2)).await;
    let session = gateway.client().initialize().await?;
    session.call("work", json!({"op": "before"})).await?.result()?;
    let (home, other) = if one.called().is_empty() { (&two, &one) } else { (&one, &two) };
    home.say("status", "stopping");
    gateway.until(serving(1)).await;
    session.call("work", json!({"op": "stays"})).await?.result()?;
    assert_eq!(home.stub.journal().executions("stays"), 1, "a bound session stays");
    let modern = gateway.client().modern();
    for op in 0..10 {
        modern.call("work", json!({"op": format!("new{op}")})).await?.result()?;
        assert_eq!(other.stub.journal().executions(&format!("new{op}")), 1, "new work goes elsewhere");
    }
    home.leave().await;
    gateway.until(|snapshot| snapshot.servers[0].replicas.len() == 1).await;
    let moved = session.call("work", json!({"op": "after"})).await?.result()?;
    assert_eq!(moved["_meta"]["io.regatta/sessionResumed"], true);
    assert_eq!(other.stub.journal().executions("after"), 1);
    Ok(())
}

#[tokio::test]
async fn a_node_that_falls_silent_loses_its_sessions_when_its_lease_is_over() -> Result<()> {
    let mut gateway = Hosted::start("").await;
    let (one, two) = (
        Node::join(&gateway.store, "n1", &["work"]).await,
        Node::join(&gateway.store, "n2", &["work"]).await,
    );
    gateway.until(serving(2)).await;
    let session = gateway.client().initialize().await?;
    session.call("work", json!({"op": "before"})).await?.result()?;
    let (home, other) = if one.called().is_empty() { (&two, &one) } else { (&one, &two) };
    home.fall_silent();
    gateway.until(|snapshot| snapshot.servers[0].replicas.len() == 1).await;
    session.call("work", json!({"op": "after"})).await?.result()?;
    assert_eq!(other.stub.journal().executions("after"), 1, "though it would still answer");
    Ok(())
}

#[tokio::test]
async fn when_all_fall_silent_the_last_ones_known_serve_on() -> Result<()> {
    let mut gateway = Hosted::start("").await;
    let nodes = [
        Node::join(&gateway.store, "n1", &["work"]).await,
        Node::join(&gateway.store, "n2", &["work"]).await,
    ];
    gateway.until(serving(2)).await;
    for node in &nodes {
        node.leave().await;
    }
    let stats = gateway.control.stats();
    eventually("the glitch is seen", SOON, async || {
        (stats.registry.glitches.load(std::sync::atomic::Ordering::Relaxed) == 1).then_some(())
    })
    .await;
    // Many leases later.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let modern = gateway.client().modern();
    for op in 0..10 {
        modern.call("work", json!({"op": op.to_string()})).await?.result()?;
    }
    let back = Node::join(&gateway.store, "n3", &["work"]).await;
    gateway.until(|snapshot| snapshot.servers[0].replicas.len() == 3).await;
    drop(back);
    Ok(())
}

#[tokio::test]
async fn a_forged_entry_gets_no_traffic() -> Result<()> {
    let gateway = Hosted::start("registry_secret = \"a secret of the shop\"").await;
    let thief = Node::join(&gateway.store, "n1", &["work"]).await;
    thief.say("sig", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA");
    let stats = gateway.control.stats();
    eventually("the entry is refused", SOON, async || {
        (stats.registry.refused.load(std::sync::atomic::Ordering::Relaxed) >= 1).then_some(())
    })
    .await;
    let refused = gateway.client().modern().call("work", json!({"op": "a"})).await?;
    assert_eq!(refused.code(), -31004);
    assert_eq!(thief.stub.seen().len(), 0, "not even a probe");
    gateway.store.leave("n1").await.expect("the store is here");
    Ok(())
}

#[tokio::test]
async fn a_call_that_waits_for_a_node_hears_of_it_when_the_lease_is_over() -> Result<()> {
    let mut gateway = Hosted::start("").await;
    let hanging = |seen: &regatta_testkit::Seen| match seen.rpc() {
        "tools/call" => regatta_testkit::Reply::hang(),
        _ => server_with(definitions(&["work"]))(seen),
    };
    let stuck = Node::join_as(&gateway.store, "n1", &["work"], hanging).await;
    let _other = Node::join(&gateway.store, "n2", &["other"]).await;
    gateway.until_tools(&["other", "work"]).await;
    let modern = gateway.client().modern();
    let waiting = tokio::spawn(async move { modern.call("work", json!({"op": "a"})).await });
    stuck.stub.wait_for("tools/call", 1).await;
    stuck.fall_silent();
    let told = waiting.await.expect("the call's task")?;
    assert_eq!((told.code(), told.status.as_u16()), (-31001, 200), "{}", told.message);
    assert_eq!(told.message["error"]["data"]["executed"], "unknown");
    Ok(())
}
