//! Who cancels what: a modern disconnect does, a legacy one does not, a legacy notification reaches its server.

use crate::REGATTA;
use regatta_testkit::client::RawConnection;
use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::answers;
use regatta_testkit::{Gateway, Reply, Result, Stub, eventually};
use serde_json::{Value, json};
use std::fmt::Write;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
const SOON: Duration = Duration::from_secs(8);

/// `hang` never answers, `talk` begins to, `late` answers after 400 ms.
async fn stub() -> Stub {
    let base = answers::dual();
    Stub::start(move |seen| match seen.tool() {
        "hang" => Reply::hang(),
        "talk" => Reply::sse().comment("open").hold(),
        "late" => Reply::tool_text(seen, "late").after(Duration::from_millis(400)),
        _ => base(seen),
    })
    .await
}

/// A POST on a connection of its own, which the test can close.
async fn post(gateway: &Gateway, headers: &[(&str, &str)], message: &Value) -> Result<RawConnection> {
    let mut head = "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n".to_owned();
    let body = message.to_string();
    for (name, value) in headers {
        let _ = write!(head, "{name}: {value}\r\n");
    }
    let mut raw = RawConnection::open(gateway.client().address()).await?;
    let rest = format!(
        "accept: application/json, text/event-stream\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    raw.write(head + &rest).await?;
    Ok(raw)
}

#[tokio::test]
async fn a_modern_client_that_leaves_cancels_its_call_within_a_second() -> Result<()> {
    let stub = stub().await;
    let gateway = Gateway::start(REGATTA, Plan::over([stub.url()])).await;
    let modern = gateway.client().modern();
    for (number, tool) in [(1, "hang"), (2, "talk")] {
        let (headers, message) =
            modern.build(&json!(number), "tools/call", json!({"name": tool, "arguments": {}}));
        let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let raw = post(&gateway, &headers, &message).await?;
        let seen = stub.wait_for("tools/call", number).await;
        assert!(seen.fate().left.is_none());
        drop(raw);
        eventually(&format!("the server sees that {tool} was left"), SECOND, async || seen.fate().left).await;
    }
    // A client that closes its sending side has left as well (RELIABILITY F41).
    let (headers, message) = modern.build(&json!(3), "tools/call", json!({"name": "hang", "arguments": {}}));
    let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let mut raw = post(&gateway, &headers, &message).await?;
    let seen = stub.wait_for("tools/call", 3).await;
    raw.half_close().await?;
    eventually("the server sees the half-close", SECOND, async || seen.fate().left).await;
    let idle = async || (gateway.metric("regatta_inflight").await? == 0.0).then_some(());
    eventually("the places are free", SOON, idle).await;
    Ok(())
}

#[tokio::test]
async fn a_legacy_client_that_leaves_cancels_nothing() -> Result<()> {
    let stub = stub().await;
    let gateway = Gateway::start(REGATTA, Plan::over([stub.url()])).await;
    let session = gateway.client().initialize().await?;
    let headers = [("mcp-session-id", session.id.as_str()), ("mcp-protocol-version", "2025-11-25")];
    let params = json!({"name": "late", "arguments": {"op": "late"}});
    let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    let raw = post(&gateway, &headers, &message).await?;
    let seen = stub.wait_for("tools/call", 1).await;
    drop(raw);
    let fate = async || seen.fate().answered.or(seen.fate().left);
    eventually("the call ends", SOON, fate).await;
    assert!(seen.fate().left.is_none(), "it was cut");
    assert_eq!(stub.journal().executions("late"), 1);
    let idle = async || (gateway.metric("regatta_detached").await? == 0.0).then_some(());
    eventually("nothing is left behind", SOON, idle).await;
    Ok(())
}

#[tokio::test]
async fn a_cancellation_reaches_the_bound_replica_with_the_raw_id() -> Result<()> {
    let stubs = [stub().await, stub().await];
    let plan = Plan::over(stubs.each_ref().map(Stub::url)).on_server("balance = \"round-robin\"");
    let gateway = Gateway::start(REGATTA, plan).await;
    for (count, raw) in [(1, "12345678901234567890"), (2, r#""\u0061 b""#)] {
        let session = gateway.client().initialize().await?;
        let headers = [("mcp-session-id", session.id.as_str()), ("mcp-protocol-version", "2025-11-25")];
        let call = format!(
            r#"{{"jsonrpc":"2.0","id":{raw},"method":"tools/call","params":{{"name":"talk","arguments":{{}}}}}}"#
        );
        let open = session.client.send(http::Method::POST, &headers, call).await?;
        let cancel = format!(
            r#"{{"jsonrpc":"2.0","method":"notifications/cancelled","params":{{"requestId":{raw},"reason":"r"}}}}"#
        );
        assert_eq!(session.client.send(http::Method::POST, &headers, cancel.clone()).await?.status, 202);
        let all =
            || stubs.iter().flat_map(|stub| stub.seen_rpc("notifications/cancelled")).collect::<Vec<_>>();
        let seen = async || (all().len() == count).then(all);
        let cancelled = eventually("one replica is told", SOON, seen).await;
        let told = cancelled.iter().find(|seen| seen.body == cancel.as_bytes()).expect("as it was sent");
        let upstream = told.header("mcp-session-id");
        let called = stubs.iter().flat_map(|stub| stub.seen_rpc("tools/call"));
        let called: Vec<_> = called.filter(|seen| seen.header("mcp-session-id") == upstream).collect();
        assert_eq!(called.len(), 1, "told to the replica that runs the call");
        drop(open);
    }
    Ok(())
}
