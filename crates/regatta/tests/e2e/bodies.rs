//! Bodies of requests: large ones pass, too large, too slow and broken ones end here and reach no server.

use crate::REGATTA;
use regatta_testkit::client::RawConnection;
use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::answers;
use regatta_testkit::{Gateway, Result, Stub};
use serde_json::json;
use std::time::{Duration, Instant};

async fn chain(more: &str) -> (Stub, Gateway) {
    let stub = Stub::start(answers::dual()).await;
    let gateway = Gateway::start(REGATTA, Plan::over([stub.url()]).on_gateway(more)).await;
    (stub, gateway)
}

fn head(length: usize) -> String {
    format!(
        "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\naccept: application/json, \
         text/event-stream\r\ncontent-length: {length}\r\n\r\n"
    )
}

#[tokio::test]
async fn the_largest_body_passes_byte_for_byte_and_one_byte_more_does_not() -> Result<()> {
    let (stub, gateway) = chain("body_max = \"1MiB\"").await;
    let session = gateway.client().initialize().await?;
    let headers = [("mcp-session-id", session.id.as_str()), ("mcp-protocol-version", "2025-11-25")];
    let start = r#"{"jsonrpc":"2.0", "id" : 7,"method":"tools/call","params":{"name":"work","arguments":{"op":"large","é":""#;
    let body = |length: usize| format!("{start}{}\"}}}}}}", "x".repeat(length - start.len() - 4));
    let largest = body(1 << 20);
    let outcome = session.client.send(http::Method::POST, &headers, largest.clone()).await?.outcome().await?;
    outcome.result()?;
    assert_eq!(stub.wait_for("tools/call", 1).await.body, largest.as_bytes());
    let refused = session.client.send(http::Method::POST, &headers, body((1 << 20) + 1)).await?;
    assert_eq!(refused.status, 413);
    assert_eq!(stub.seen_rpc("tools/call").len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_slow_body_takes_no_place_at_a_server_and_ends() -> Result<()> {
    let (stub, gateway) = chain("body_timeout = \"500ms\"").await;
    let modern = gateway.client().modern();
    modern.call("work", json!({"op": "warm"})).await?.result()?;
    let connections = stub.connections();
    let (began, mut slow) = (Instant::now(), Vec::new());
    for _ in 0..8 {
        let mut raw = RawConnection::open(gateway.client().address()).await?;
        raw.write(head(1000) + "{\"jsonrpc\"").await?;
        slow.push(raw);
    }
    modern.call("work", json!({"op": "meanwhile"})).await?.result()?;
    assert!(stub.connections() <= connections + 1, "a body that is not here takes no connection");
    for mut raw in slow {
        let (answer, closed) = raw.read_rest(Duration::from_secs(3)).await;
        assert!(answer.starts_with(b"HTTP/1.1 408"), "{}", String::from_utf8_lossy(&answer));
        assert!(closed);
    }
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    assert_eq!(gateway.metric("regatta_inflight").await, Some(0.0));
    Ok(())
}

#[tokio::test]
async fn a_body_that_breaks_off_reaches_nobody() -> Result<()> {
    let (stub, gateway) = chain("").await;
    for _ in 0..5 {
        let mut raw = RawConnection::open(gateway.client().address()).await?;
        raw.write(head(1000) + "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\"").await?;
        raw.reset();
    }
    regatta_testkit::eventually("the places are given back", Duration::from_secs(5), async || {
        (gateway.metric("regatta_inflight").await? == 0.0).then_some(())
    })
    .await;
    gateway.client().modern().call("work", json!({})).await?.result()?;
    assert_eq!(stub.seen_rpc("tools/call").len(), 1);
    Ok(())
}

/// L7: of a hundred and sixty bodies of a MiB at once only those that have a place are read.
#[tokio::test]
async fn bodies_take_as_much_memory_as_there_are_places_for_them() -> Result<()> {
    const LENGTH: usize = 1 << 20;
    let bounds = "inflight_max = 8\nqueue_max = 8\nqueue_wait_max = \"1m\"\nbody_timeout = \"1m\"";
    let (_stub, gateway) = chain(bounds).await;
    gateway.client().modern().call("work", json!({"op": "warm"})).await?.result()?;
    let before = gateway.process.rss();
    let mut senders = Vec::new();
    for _ in 0..160 {
        let mut raw = RawConnection::open(gateway.client().address()).await?;
        raw.write(head(LENGTH)).await?;
        senders.push(tokio::spawn(async move {
            // Who is refused may find the connection closed before all is written; who has a place never ends.
            let _ = raw.write(vec![b' '; LENGTH - 1]).await;
            raw.read_answer().await.status
        }));
    }
    gateway.metric_reaches("regatta_shed_total", 144.0).await;
    assert_eq!(gateway.metric("regatta_inflight").await, Some(8.0));
    assert_eq!(gateway.metric("regatta_queued").await, Some(8.0));
    let mut most = 0;
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        most = most.max(gateway.process.rss().saturating_sub(before));
    }
    println!("{} KiB for eight bodies of 1024 KiB", most >> 10);
    let bodies = 8 * LENGTH as u64;
    // What was read, as much again while it grows, and 64 KiB for each connection.
    assert!(most >= bodies / 2 && most <= 2 * bodies + (160 << 16), "{most} bytes more");
    let ended = senders.iter().filter(|sender| sender.is_finished()).count();
    assert_eq!(ended, 144, "whoever has no place has an answer");
    Ok(())
}
