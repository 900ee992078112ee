//! Legacy sessions whose own replica lacks a tool: a second binding where the tool is, one for all gateways.

use regatta_testkit::client::Session;
use regatta_testkit::{Result, eventually};
use serde_json::json;

use crate::hosted::{Hosted, Node, SOON};

/// The upstream sessions that clients opened at a node.
fn opened(node: &Node) -> usize {
    let opened = node.stub.seen_rpc("initialize");
    opened.iter().filter(|seen| seen.json["params"]["clientInfo"]["name"] == "regatta-testkit").count()
}

async fn two_nodes(gateway: &mut Hosted) -> (Node, Node) {
    let store = gateway.store.clone();
    let (one, two) =
        (Node::join(&store, "n1", &["both", "one"]).await, Node::join(&store, "n2", &["both", "two"]).await);
    gateway.until_tools(&["both", "one", "two"]).await;
    (one, two)
}

/// A session whose own replica is `node`.
async fn session_at(gateway: &Hosted, node: &Node) -> Result<Session> {
    loop {
        let session = gateway.client().initialize().await?;
        let before = node.called().len();
        session.call("both", json!({"op": "home"})).await?.result()?;
        if node.called().len() > before {
            return Ok(session);
        }
    }
}

#[tokio::test]
async fn a_session_calls_the_tools_of_both_nodes_in_one_upstream_session_each() -> Result<()> {
    let mut gateway = Hosted::start("").await;
    let (one, two) = two_nodes(&mut gateway).await;
    let session = gateway.client().initialize().await?;
    for op in 0..5 {
        session.call("one", json!({"op": format!("one{op}")})).await?.result()?;
        let result = session.call("two", json!({"op": format!("two{op}")})).await?.result()?;
        assert!(result.get("_meta").is_none(), "nothing was lost: {result}");
    }
    assert_eq!((one.called().len(), two.called().len()), (5, 5));
    assert_eq!((opened(&one), opened(&two)), (1, 1));
    assert_eq!(session.end().await?.as_u16(), 200);
    for node in [&one, &two] {
        let what = format!("{} hears of the end", node.id);
        eventually(&what, SOON, async || {
            let home = node.stub.seen_rpc("tools/call")[0].header("mcp-session-id").to_owned();
            let ended = |seen: &regatta_testkit::Seen| {
                seen.method == "DELETE" && seen.header("mcp-session-id") == home
            };
            node.stub.seen().iter().any(|seen| ended(seen)).then_some(())
        })
        .await;
    }
    Ok(())
}

#[tokio::test]
async fn many_calls_at_two_gateways_make_one_later_binding() -> Result<()> {
    let mut gateway = Hosted::start("").await;
    let mut other = Hosted::over(gateway.store.clone(), "").await;
    let (one, two) = two_nodes(&mut gateway).await;
    other.until_tools(&["both", "one", "two"]).await;
    let session = gateway.client().initialize().await?;
    let through = session.through(&other.client());
    let calls: Vec<_> = (0..20)
        .map(|n| {
            let session = if n % 2 == 0 { session.clone() } else { through.clone() };
            let tool = if n % 4 < 2 { "one" } else { "two" };
            tokio::spawn(async move { session.call(tool, json!({"op": n.to_string()})).await })
        })
        .collect();
    for call in calls {
        call.await.expect("the call's task")?.result()?;
    }
    assert_eq!((one.called().len(), two.called().len()), (10, 10));
    let homes = |node: &Node| {
        let calls = node.stub.seen_rpc("tools/call");
        let homes: std::collections::BTreeSet<String> =
            calls.iter().map(|seen| seen.header("mcp-session-id").to_owned()).collect();
        homes.len()
    };
    assert_eq!((homes(&one), homes(&two)), (1, 1), "one binding at each place, whichever gateway");
    Ok(())
}

#[tokio::test]
async fn a_lost_later_binding_is_made_anew_where_the_tool_still_is_and_says_so() -> Result<()> {
    let mut gateway = Hosted::start("").await;
    let (one, two) = two_nodes(&mut gateway).await;
    let three = Node::join(&gateway.store, "n3", &["both", "two"]).await;
    let has_three = |snapshot: &regatta_policy::snapshot::Snapshot| {
        let catalogue = snapshot.servers[0].catalogue.as_deref();
        catalogue.and_then(|catalogue| catalogue.tools.get("two")).is_some_and(|two| two.carriers.len() == 2)
    };
    gateway.until(has_three).await;
    let session = session_at(&gateway, &one).await?;
    session.call("two", json!({"op": "before"})).await?.result()?;
    // By who was called: both may have had calls of sessions that were opened in search of one at the first node.
    let is_at_two = two.called().iter().any(|tool| tool == "two");
    let (lost, left) = if is_at_two { (&two, &three) } else { (&three, &two) };
    lost.die().await;
    let moved = eventually("the call is taken elsewhere", SOON, async || {
        session.call("two", json!({"op": "after"})).await.ok()?.result().ok()
    })
    .await;
    assert_eq!(moved["_meta"]["io.regatta/sessionResumed"], true);
    assert_eq!(left.stub.journal().executions("after"), 1);
    let before = opened(&one);
    session.call("one", json!({"op": "own"})).await?.result()?;
    assert_eq!(opened(&one), before, "the session's own binding never moved");
    Ok(())
}

#[tokio::test]
async fn a_cancellation_reaches_the_node_that_runs_the_call() -> Result<()> {
    let mut gateway = Hosted::start("").await;
    let (_one, two) = two_nodes(&mut gateway).await;
    let session = gateway.client().initialize().await?;
    session.call("one", json!({"op": "a"})).await?.result()?;
    session.call("two", json!({"op": "b"})).await?.result()?;
    session.notify("notifications/cancelled", json!({"requestId": 77})).await?;
    let seen = two.stub.wait_for("notifications/cancelled", 1).await;
    assert_eq!(seen.json["params"]["requestId"], 77);
    Ok(())
}

#[tokio::test]
async fn a_level_that_is_set_later_reaches_the_later_home_too() -> Result<()> {
    let mut gateway = Hosted::start("").await;
    let (one, two) = two_nodes(&mut gateway).await;
    let session = gateway.client().initialize().await?;
    session.call("one", json!({"op": "a"})).await?.result()?;
    session.call("two", json!({"op": "b"})).await?.result()?;
    let set = session.request("logging/setLevel", json!({"level": "error"})).await?;
    set.outcome().await?.result()?;
    for node in [&one, &two] {
        let told = node.stub.wait_for("logging/setLevel", 1).await;
        let called = node.stub.seen_rpc("tools/call").pop().expect("a call");
        assert_eq!(told.json["params"]["level"], "error");
        assert_eq!(told.header("mcp-session-id"), called.header("mcp-session-id"));
    }
    Ok(())
}
