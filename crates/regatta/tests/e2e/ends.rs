//! How sessions end, and servers that have none.

use crate::REGATTA;
use crate::fleet::{demos, home, urls};
use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::answers;
use regatta_testkit::{Gateway, Reply, Result, Stub};
use serde_json::json;

#[tokio::test]
async fn an_end_reaches_the_server_and_closes_the_sessions_streams() -> Result<()> {
    let stub = Stub::start(answers::legacy()).await;
    let gateway = Gateway::start(REGATTA, Plan::over([stub.url()])).await;
    let session = gateway.client().initialize().await?;
    let called = session.request("tools/call", json!({"name": "work", "arguments": {}})).await?;
    assert_eq!(called.header("mcp-session-id"), "", "the server's own session id stays inside");
    called.bytes().await?;
    let upstream = stub.wait_for("tools/call", 1).await.header("mcp-session-id").to_owned();
    assert!(!session.id.contains(&upstream), "the token is sealed");
    let mut standing = session.listen().await?.events();
    let priming = standing.next().await?.expect("a priming event").id.expect("an id");
    assert!(session.end().await?.is_success());
    assert_eq!(standing.next().await?, None, "the standing stream ends in order");
    let ends: Vec<_> = stub.seen().into_iter().filter(|seen| seen.method == "DELETE").collect();
    assert!(ends.iter().any(|seen| seen.header("mcp-session-id") == upstream), "under the server's own id");
    for status in [
        session.request("ping", json!({})).await?.status,
        session.listen().await?.status,
        session.resume(&priming).await?.status,
        session.end().await?,
    ] {
        assert_eq!(status, 404);
    }
    Ok(())
}

#[tokio::test]
async fn an_end_holds_though_the_replica_is_dead() -> Result<()> {
    let mut demos = demos(2, &["--eras", "legacy"]).await;
    let gateway = Gateway::start(REGATTA, Plan::over(urls(&demos))).await;
    let session = gateway.client().initialize().await?;
    let lost = home(&demos, &session).await?;
    demos[lost].process.kill();
    assert!(session.end().await?.is_success());
    assert_eq!(session.request("ping", json!({})).await?.status, 404, "and it is not re-homed");
    Ok(())
}

#[tokio::test]
async fn a_server_that_lets_nobody_end_its_sessions_keeps_them() -> Result<()> {
    let base = answers::legacy();
    let stub = Stub::start(move |seen| match seen.method.as_str() {
        "DELETE" => Reply::status(405).header("allow", "GET, POST"),
        _ => base(seen),
    })
    .await;
    let gateway = Gateway::start(REGATTA, Plan::over([stub.url()])).await;
    let session = gateway.client().initialize().await?;
    assert_eq!(session.end().await?, 405);
    session.call("work", json!({})).await?.result()?;
    Ok(())
}

#[tokio::test]
async fn a_server_without_sessions_gets_none_from_the_gateway() -> Result<()> {
    let stubs = [Stub::start(answers::sessionless()).await, Stub::start(answers::sessionless()).await];
    let plan = Plan::over(stubs.each_ref().map(Stub::url)).on_server("balance = \"round-robin\"");
    let gateway = Gateway::start(REGATTA, plan).await;
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    let initialize = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
    let client = gateway.client();
    let opened = client.post(&[], &initialize).await?;
    assert_eq!((opened.status.as_u16(), opened.header("mcp-session-id")), (200, ""));
    opened.bytes().await?;
    let version = [("mcp-protocol-version", "2025-11-25")];
    for number in 0..8 {
        let params = json!({"name": "work", "arguments": {"op": number.to_string()}});
        let call = json!({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params});
        client.post(&version, &call).await?.outcome().await?.result()?;
    }
    assert_eq!(stubs.each_ref().map(|stub| stub.journal().entries().len()), [4, 4], "any replica will do");
    let get = client.send(http::Method::GET, &version, "").await?;
    assert_eq!(get.status, 405, "what such a server says to GET");
    Ok(())
}
