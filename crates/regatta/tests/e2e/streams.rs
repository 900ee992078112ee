//! Streams through the gateway: every event at once, kept alive, bounded, and ended when the server falls silent.

use crate::REGATTA;
use crate::fleet::{demos, executed, urls};
use regatta_testkit::client::{Answer, Events, RawConnection};
use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::answers;
use regatta_testkit::{Gateway, Reply, Result, Stub, eventually};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const SOON: Duration = Duration::from_secs(8);
const MIB: usize = 1 << 20;

fn notice(data: &str) -> Value {
    json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": data}})
}

/// `live` says what the test says, `flood` 48 MiB in events, `silent` one event.
async fn stub() -> Stub {
    let base = answers::dual();
    Stub::start(move |seen| match seen.tool() {
        "live" => Reply::sse().comment("open").live(),
        "flood" => (0..48).fold(Reply::sse(), |reply, _| reply.huge_event(MIB)).event_result(seen, json!({})),
        "silent" => Reply::sse().event(&notice("last sign of life")).hold(),
        _ => base(seen),
    })
    .await
}

/// One call in each era: the heads of their answers.
async fn both(gateway: &Gateway, tool: &str) -> Result<[Answer; 2]> {
    let client = gateway.client().header("accept-encoding", "gzip, br, deflate, zstd");
    let params = json!({"name": tool, "arguments": {"op": "o"}});
    let session = client.initialize().await?;
    let legacy = session.request("tools/call", params.clone()).await?;
    Ok([legacy, client.modern().request("tools/call", params).await?])
}

#[tokio::test]
async fn each_event_is_passed_on_before_the_next_one_is_made() -> Result<()> {
    let stub = stub().await;
    let gateway = Gateway::start(REGATTA, Plan::over([stub.url()])).await;
    for answer in both(&gateway, "live").await? {
        assert!(answer.is_sse());
        assert_eq!(answer.header("x-accel-buffering"), "no");
        assert_eq!(answer.header("content-encoding"), "");
        let mut events = answer.events();
        for number in 0..20 {
            let text = format!("event {number}");
            stub.say(&notice(&text));
            let heard = events.until("notifications/message").await?.json();
            assert_eq!(heard["params"]["data"], text);
        }
    }
    Ok(())
}

/// Two comments in silence.
async fn is_kept_alive(what: &str, events: &mut Events) -> Result<()> {
    let began = Instant::now();
    let mut comments = 0;
    while comments < 2 {
        let next = tokio::time::timeout(Duration::from_secs(3), events.next_raw()).await;
        let event = next.unwrap_or_else(|_| panic!("{what}: no comment"))?.expect("it stays open");
        comments += event.comments.iter().filter(|comment| *comment != "open").count();
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{what}: {:?}", began.elapsed());
    Ok(())
}

#[tokio::test]
async fn comments_keep_every_kind_of_stream_alive() -> Result<()> {
    let stub = stub().await;
    let plan = Plan::over([stub.url()]).on_gateway("keep_alive = \"200ms\"");
    let gateway = Gateway::start(REGATTA, plan).await;
    let [legacy, modern] = both(&gateway, "live").await?;
    let standing = gateway.client().initialize().await?.listen().await?;
    let listen = gateway.client().modern().listen(json!({"toolsListChanged": true})).await?;
    let all = [("legacy call", legacy), ("modern call", modern), ("standing", standing), ("listen", listen)];
    for (what, answer) in all {
        is_kept_alive(what, &mut answer.events()).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_server_that_falls_silent_is_not_waited_for_longer_than_request_timeout() -> Result<()> {
    let stub = stub().await;
    let plan = Plan::over([stub.url()]).on_server("request_timeout = \"500ms\"");
    let gateway = Gateway::start(REGATTA, plan).await;
    let began = Instant::now();
    for answer in both(&gateway, "silent").await? {
        let outcome = answer.outcome().await?;
        assert_eq!((outcome.status.as_u16(), outcome.code()), (200, -31001), "{}", outcome.message);
        assert_eq!(executed(&outcome), "unknown");
        let heard = outcome.events.iter().filter(|event| event.method() == "notifications/message");
        assert_eq!(heard.count(), 1, "what was said before is there");
    }
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    for seen in stub.seen_rpc("tools/call") {
        eventually("the server is left", SOON, async || seen.fate().left).await;
    }
    Ok(())
}

#[tokio::test]
async fn events_of_the_server_start_the_clock_of_silence_again() -> Result<()> {
    let demos = demos(1, &[]).await;
    let plan = Plan::over(urls(&demos)).on_server("request_timeout = \"600ms\"");
    let gateway = Gateway::start(REGATTA, plan).await;
    let session = gateway.client().initialize().await?;
    let answer = session.call_with_progress("sleep", json!({"ms": 1500}), json!("t")).await?;
    assert_eq!(answer.outcome().await?.text(), "slept 1500 ms");
    let modern = gateway.client().modern().with_meta("progressToken", json!("t"));
    assert_eq!(modern.call("sleep", json!({"ms": 1500})).await?.text(), "slept 1500 ms");
    Ok(())
}

#[tokio::test]
async fn clients_that_do_not_read_hold_the_server_back_and_not_the_gateways_memory() -> Result<()> {
    let stub = stub().await;
    let gateway = Gateway::start(REGATTA, Plan::over([stub.url()])).await;
    let session = gateway.client().initialize().await?;
    session.call("work", json!({"op": "warm"})).await?.result()?;
    let before = gateway.process.rss();
    let params = json!({"name": "flood", "arguments": {"op": "flood"}});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).to_string();
    let request = format!(
        "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\naccept: application/json, \
         text/event-stream\r\nmcp-session-id: {}\r\nmcp-protocol-version: 2025-11-25\r\ncontent-length: {}\r\n\r\n{body}",
        session.id,
        body.len()
    );
    let mut clients = Vec::new();
    for number in 1..=4 {
        let mut raw = RawConnection::open(gateway.client().address()).await?;
        raw.write(&request).await?;
        raw.read_until("notifications/message").await?;
        stub.wait_for("tools/call", number + 1).await;
        clients.push(raw);
    }
    // What would be read ahead is read ahead while others are served.
    let end = Instant::now() + Duration::from_secs(1);
    let mut most = before;
    while Instant::now() < end {
        session.call("work", json!({})).await?.result()?;
        most = most.max(gateway.process.rss());
    }
    // A stream may hold the event that it sends, the one it reads, and what its ring keeps; each twice while it grows.
    let grown = most.saturating_sub(before) as usize / MIB;
    assert!(grown < 4 * 8, "the gateway grew by {grown} MiB for 4 clients that do not read");
    let floods = stub.seen_rpc("tools/call").into_iter().filter(|seen| seen.tool() == "flood");
    assert!(floods.into_iter().all(|seen| seen.fate().answered.is_none()), "the server is held back");
    drop(clients);
    Ok(())
}
