//! SIGTERM: no new work, old work finishes, every stream ends with a word, and the process ends in time.

use crate::REGATTA;
use crate::fleet::{demos, executed, urls};
use http::Method;
use regatta_testkit::gateway::Plan;
use regatta_testkit::{Client, Gateway, Result, eventually};
use serde_json::json;
use std::collections::HashSet;
use std::time::{Duration, Instant};

const SLACK: Duration = Duration::from_secs(1);

async fn not_ready(gateway: &Gateway) {
    let (status, _) = gateway.admin("/ready").await.expect("the admin listener answers while draining");
    assert_eq!(status, 503);
}

async fn start(demos: &[regatta_testkit::process::Demo], deadline: &str) -> Gateway {
    let plan = Plan::over(urls(demos)).on_gateway(&format!("drain_deadline = {deadline:?}"));
    Gateway::start(REGATTA, plan).await
}

/// Waits until this many requests are in flight.
async fn in_flight(gateway: &Gateway, count: f64) {
    gateway.metric_reaches("regatta_inflight", count).await;
}

#[tokio::test]
async fn calls_finish_and_new_work_is_refused() -> Result<()> {
    let demos = demos(2, &[]).await;
    let mut gateway = start(&demos, "8s").await;
    let (session, modern) = (gateway.client().initialize().await?, gateway.client().modern());
    let idle = gateway.client();
    idle.modern().call("whoami", json!({})).await?;
    let progress = session.call_with_progress("sleep", json!({"ms": 2000}), json!("t")).await?;
    let calls = [
        tokio::spawn(progress.outcome()),
        tokio::spawn(async move { modern.call("sleep", json!({"ms": 2000})).await }),
    ];
    in_flight(&gateway, 2.0).await;
    let began = Instant::now();
    gateway.process.terminate();
    eventually("/ready says 503", SLACK, async || {
        gateway.admin("/ready").await.filter(|(status, _)| *status == 503)
    })
    .await;
    for call in calls {
        assert_eq!(call.await.expect("the call's task")?.text(), "slept 2000 ms");
    }
    assert!(gateway.process.exit_within(Duration::from_secs(4)).await.success());
    assert!(began.elapsed() < Duration::from_secs(6), "it waited for nothing: {:?}", began.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_kept_connection_is_told_to_go_elsewhere() -> Result<()> {
    let demos = demos(1, &[]).await;
    let gateway = start(&demos, "8s").await;
    let session = gateway.client().initialize().await?;
    // A body that is begun before the signal keeps its connection through it.
    let mut kept = regatta_testkit::client::RawConnection::open(gateway.client().address()).await?;
    let body =
        json!({"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": {"name": "whoami"}}).to_string();
    let head = format!(
        "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\naccept: application/json, \
         text/event-stream\r\nmcp-session-id: {}\r\nmcp-protocol-version: 2025-11-25\r\ncontent-length: {}\r\n\r\n",
        session.id,
        body.len()
    );
    kept.write(&head).await?;
    in_flight(&gateway, 1.0).await;
    gateway.process.terminate();
    eventually("/ready says 503", SLACK, async || {
        gateway.admin("/ready").await.filter(|(status, _)| *status == 503)
    })
    .await;
    kept.write(&body).await?;
    let answer = kept.read_until("retryAfterMs").await?.to_lowercase();
    assert!(answer.starts_with("http/1.1 200"), "inside a session a 503 rides on 200: {answer}");
    assert!(answer.contains("-31006") && answer.contains("\"executed\":\"no\""), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    Ok(())
}

#[tokio::test]
async fn standing_streams_end_with_a_spread_retry_and_listens_with_their_result() -> Result<()> {
    let demos = demos(2, &[]).await;
    let mut gateway = start(&demos, "5s").await;
    let mut standing = Vec::new();
    for _ in 0..8 {
        standing.push(gateway.client().initialize().await?.listen().await?.events());
    }
    let mut listen = gateway.client().modern().listen(json!({"toolsListChanged": true})).await?.events();
    let first = listen.until("notifications/subscriptions/acknowledged").await?.json();
    let began = Instant::now();
    gateway.process.terminate();
    let mut waits = HashSet::new();
    for stream in standing {
        let rest = stream.rest().await?;
        waits.insert(rest.iter().find_map(|event| event.retry_ms).expect("a retry before the end"));
    }
    assert!(waits.len() > 2 && waits.iter().all(|wait| (500..=10_000).contains(wait)), "{waits:?}");
    let last = listen.rest().await?.pop().expect("a result").json();
    let key = "io.modelcontextprotocol/subscriptionId";
    assert_eq!(last["result"]["_meta"][key], first["params"]["_meta"][key]);
    gateway.process.exit_within(Duration::from_secs(3)).await;
    assert!(began.elapsed() < Duration::from_secs(3), "nothing was left to wait for: {:?}", began.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_call_that_is_longer_than_the_deadline_gets_a_last_word() -> Result<()> {
    let demos = demos(1, &[]).await;
    let mut gateway = start(&demos, "2s").await;
    let (streamed, held) = (gateway.client().initialize().await?, gateway.client().initialize().await?);
    let modern = gateway.client().modern();
    let stream = streamed.call_with_progress("sleep", json!({"ms": 60_000}), json!("t")).await?;
    let modern_stream = modern
        .clone()
        .with_meta("progressToken", json!("t"))
        .request("tools/call", json!({"name": "sleep", "arguments": {"ms": 60_000}}))
        .await?;
    let calls = [
        ("legacy stream", tokio::spawn(stream.outcome())),
        ("modern stream", tokio::spawn(modern_stream.outcome())),
        ("legacy, no head yet", tokio::spawn(async move { held.call("sleep", json!({"ms": 60_000})).await })),
        (
            "modern, no head yet",
            tokio::spawn(async move { modern.call("sleep", json!({"ms": 60_000})).await }),
        ),
    ];
    in_flight(&gateway, 4.0).await;
    let began = Instant::now();
    gateway.process.terminate();
    for (which, call) in calls {
        let outcome = call.await.expect("the call's task");
        let outcome = outcome.unwrap_or_else(|error| panic!("{which}: {error}"));
        assert_eq!((outcome.status.as_u16(), outcome.code()), (200, -31001), "{which}: {}", outcome.message);
        assert_eq!(executed(&outcome), "unknown", "{which}");
    }
    gateway.process.exit_within(Duration::from_secs(4)).await;
    assert!(began.elapsed() < Duration::from_secs(2) + SLACK, "it ended after {:?}", began.elapsed());
    Ok(())
}

#[tokio::test]
async fn a_second_signal_ends_it_at_once() -> Result<()> {
    let demos = demos(1, &[]).await;
    let mut gateway = start(&demos, "60s").await;
    let session = gateway.client().initialize().await?;
    let stream = session.call_with_progress("sleep", json!({"ms": 60_000}), json!("t")).await?;
    gateway.process.terminate();
    eventually("/ready says 503", SLACK, async || {
        gateway.admin("/ready").await.filter(|(status, _)| *status == 503)
    })
    .await;
    not_ready(&gateway).await;
    assert_eq!(gateway.process.exited(), None, "it waits for the call");
    let refused = Client::new(&gateway.url()).send(Method::GET, &[], "").await;
    assert!(refused.is_err(), "nobody listens any more: {refused:?}");
    let began = Instant::now();
    gateway.process.terminate();
    gateway.process.exit_within(SLACK * 2).await;
    assert!(began.elapsed() < SLACK * 2);
    drop(stream);
    Ok(())
}
