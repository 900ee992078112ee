//! Nodes that specialise: each tool's calls go where it is, and nowhere else; what is lost is refused, never misled.

use regatta_testkit::{Result, eventually};
use serde_json::json;

use crate::hosted::{Hosted, Node, SOON};

#[tokio::test]
async fn a_tool_that_one_node_has_is_called_there_and_nowhere_else() -> Result<()> {
    let mut gateway = Hosted::start("").await;
    let (one, two) = (
        Node::join(&gateway.store, "n1", &["both", "one"]).await,
        Node::join(&gateway.store, "n2", &["both", "two"]).await,
    );
    gateway.until_tools(&["both", "one", "two"]).await;
    let modern = gateway.client().modern();
    for op in 0..10 {
        modern.call("one", json!({"op": op.to_string()})).await?.result()?;
        modern.call("two", json!({"op": op.to_string()})).await?.result()?;
        modern.call("both", json!({"op": op.to_string()})).await?.result()?;
    }
    assert!(one.called().iter().all(|tool| tool != "two") && two.called().iter().all(|tool| tool != "one"));
    let unknown = modern.call("three", json!({})).await?;
    assert_eq!(unknown.code(), -32602, "what nobody has is refused by a server");
    Ok(())
}

#[tokio::test]
async fn when_all_nodes_of_a_tool_are_gone_its_calls_are_refused_and_it_stays_listed() -> Result<()> {
    let mut gateway = Hosted::start("").await;
    let _others =
        [Node::join(&gateway.store, "n1", &["one"]).await, Node::join(&gateway.store, "n2", &["one"]).await];
    let special = Node::join(&gateway.store, "n3", &["two"]).await;
    gateway.until_tools(&["one", "two"]).await;
    special.die().await;
    gateway.until(|snapshot| snapshot.servers[0].replicas.len() == 2).await;
    let modern = gateway.client().modern();
    let refused = modern.call("two", json!({"op": "a"})).await?;
    assert_eq!((refused.code(), refused.status.as_u16()), (-31004, 503), "{}", refused.message);
    assert_eq!(refused.message["error"]["data"]["executed"], "no");
    let list = modern.request("tools/list", json!({})).await?.outcome().await?.result()?;
    assert_eq!(crate::hosted::listed(&list), ["one", "two"]);
    let session = gateway.client().initialize().await?;
    let refused = session.call("two", json!({"op": "b"})).await?;
    assert_eq!((refused.code(), refused.status.as_u16()), (-31004, 200), "its session lives on");
    session.call("one", json!({"op": "c"})).await?.result()?;
    let back = Node::join(&gateway.store, "n3", &["two"]).await;
    gateway.until(|snapshot| snapshot.servers[0].replicas.len() == 3).await;
    eventually("its calls are taken again", SOON, async || {
        let call = modern.call("two", json!({"op": "d"})).await.ok()?;
        call.result().ok()
    })
    .await;
    drop(back);
    Ok(())
}

#[tokio::test]
async fn calls_that_run_when_a_tool_is_dropped_finish_and_later_ones_are_refused_by_the_server() -> Result<()>
{
    let mut gateway = Hosted::start("").await;
    let one = Node::join(&gateway.store, "n1", &["old", "stays"]).await;
    gateway.until_tools(&["old", "stays"]).await;
    let base = crate::hosted::server_with(crate::hosted::definitions(&["old", "stays"]));
    one.stub.behave(move |seen| {
        let reply = base(seen);
        if seen.tool() == "old" { reply.wait(std::time::Duration::from_millis(700)) } else { reply }
    });
    let modern = gateway.client().modern();
    let running = {
        let modern = gateway.client().modern();
        tokio::spawn(async move { modern.call("old", json!({"op": "running"})).await })
    };
    one.stub.wait_for("tools/call", 1).await;
    one.stub.behave(crate::hosted::server_with(crate::hosted::definitions(&["new", "stays"])));
    one.say("tools", r#"["new","stays"]"#);
    gateway.until_tools(&["new", "stays"]).await;
    running.await.expect("the call's task")?.result()?;
    assert_eq!(modern.call("old", json!({})).await?.code(), -32602);
    modern.call("new", json!({"op": "x"})).await?.result()?;
    Ok(())
}
