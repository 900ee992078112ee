//! A tool whose definition changed: what it gave before is not given out again, though nobody said that anything changed.

use crate::REGATTA;
use crate::cache_fleet::wait_shared;
use crate::peers::{Pair, SOON};
use regatta_testkit::client::Outcome;
use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::{Seen, answers};
use regatta_testkit::{Gateway, Reply, Result, Stub, eventually};
use serde_json::{Value, json};

const RULES: &str = "[[cache]]\ntool = \"get\"\nttl = \"1h\"\n[[cache]]\ntool = \"own\"\nttl = \"1h\"\n";

/// A server whose tool `get` takes what `properties` say, and says by which of its versions it was run.
fn version(name: &'static str, properties: Value) -> impl Fn(&Seen) -> Reply + Send + Sync + 'static {
    let base = answers::dual();
    move |seen| {
        let schema = json!({"type": "object", "properties": properties});
        match (seen.rpc(), seen.tool()) {
            ("tools/list", _) => Reply::result(
                seen,
                json!({"resultType": "complete", "ttlMs": 0, "cacheScope": "private",
                    "tools": [{"name": "get", "inputSchema": schema}, {"name": "own", "inputSchema": {}}]}),
            ),
            ("tools/call", "get") => Reply::tool_text(seen, name),
            _ => base(seen),
        }
    }
}

fn old() -> impl Fn(&Seen) -> Reply + Send + Sync + 'static {
    version("old", json!({"op": {"type": "string"}}))
}

fn new() -> impl Fn(&Seen) -> Reply + Send + Sync + 'static {
    version("new", json!({"op": {"type": "string"}, "unit": {"type": "string"}}))
}

async fn get(gateway: &Gateway, op: &str) -> Result<Outcome> {
    gateway.client().modern().call("get", json!({"op": op})).await
}

/// Waits until a call is answered by the server's version of this name, executed or kept.
async fn until_made_by(gateway: &Gateway, version: &str) {
    eventually(&format!("results of the {version} definition"), SOON, async || {
        (get(gateway, "x").await.ok()?.text() == version).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_changed_definition_is_another_key_and_the_former_one_finds_what_it_had() -> Result<()> {
    let stub = Stub::start(old()).await;
    let gateway = Gateway::start(REGATTA, Plan::over([stub.url()]).tables(RULES)).await;
    let session = gateway.client().initialize().await?;
    for _ in 0..2 {
        assert_eq!(get(&gateway, "x").await?.text(), "old");
        assert_eq!(session.call("get", json!({"op": "in a session"})).await?.text(), "old");
    }
    stub.behave(new());
    until_made_by(&gateway, "new").await;
    assert_eq!(session.call("get", json!({"op": "in a session"})).await?.text(), "new");
    assert_eq!(stub.journal().executions("x"), 2);
    assert_eq!(stub.journal().executions("in a session"), 2);
    stub.behave(old());
    until_made_by(&gateway, "old").await;
    assert_eq!(stub.journal().executions("x"), 2, "a roll-back: what it gave is still what it gives");
    Ok(())
}

#[tokio::test]
async fn two_gateways_tell_a_changed_definition_alike_and_share_what_it_gives() -> Result<()> {
    let stub = Stub::start(old()).await;
    let pair = Pair::start(Plan::over([stub.url()]).tables(RULES)).await;
    wait_shared(&pair.one, &pair.two, &stub).await;
    for gateway in [&pair.one, &pair.two] {
        assert_eq!(get(gateway, "x").await?.text(), "old");
    }
    assert_eq!(stub.journal().executions("x"), 1);
    stub.behave(new());
    for gateway in [&pair.one, &pair.two] {
        until_made_by(gateway, "new").await;
    }
    assert_eq!(stub.journal().executions("x"), 2, "one of them executed it, and the other found that");
    Ok(())
}

#[tokio::test]
async fn a_tool_that_is_said_to_have_changed_is_executed_again_at_once() -> Result<()> {
    let stub = Stub::start(old()).await;
    let gateway = Gateway::start(REGATTA, Plan::over([stub.url()]).tables(RULES)).await;
    let mut heard = gateway.client().modern().listen(json!({"toolsListChanged": true})).await?.events();
    heard.until("notifications/subscriptions/acknowledged").await?;
    let subscription = stub.wait_for("subscriptions/listen", 1).await.id().clone();
    assert_eq!(get(&gateway, "x").await?.text(), "old");
    stub.behave(new());
    stub.say(&json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed",
        "params": {"_meta": {"io.modelcontextprotocol/subscriptionId": subscription}}}));
    heard.until("notifications/tools/list_changed").await?;
    assert_eq!(get(&gateway, "x").await?.text(), "new");
    Ok(())
}
