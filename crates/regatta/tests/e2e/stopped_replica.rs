//! A replica stands still (SIGSTOP) and wakes up again: calls are answered, sessions leave it, nothing is doubled.

use crate::REGATTA;
use crate::fleet::{demos, executed, home, is_resumed, urls};
use regatta_testkit::gateway::Plan;
use regatta_testkit::{Client, Gateway, Result, eventually};
use serde_json::json;
use std::time::{Duration, Instant};

/// Two probes without an answer (2 s each), the pauses between, `gone_after`, and slack for two cores.
const LEAVES_WITHIN: Duration = Duration::from_secs(9);

/// Whether the replica at `url` itself lists the tool.
async fn has_tool(url: &str, name: &str) -> Result<bool> {
    let session = Client::new(url).initialize().await?;
    let tools = session.request("tools/list", json!({})).await?.outcome().await?.result()?;
    session.end().await?;
    Ok(tools["tools"].as_array().is_some_and(|tools| tools.iter().any(|tool| tool["name"] == name)))
}

#[tokio::test]
async fn its_pending_call_is_answered_its_session_leaves_and_its_waking_doubles_nothing() -> Result<()> {
    let demos = demos(2, &["--eras", "legacy"]).await;
    let plan = Plan::over(urls(&demos)).on_server("request_timeout = \"700ms\"\ngone_after = \"400ms\"");
    let gateway = Gateway::start(REGATTA, plan).await;
    let session = gateway.client().initialize().await?;
    let (stopped, other) = match home(&demos, &session).await? {
        0 => (&demos[0], &demos[1]),
        _ => (&demos[1], &demos[0]),
    };
    let mut standing = session.listen().await?.events();
    stopped.process.stop();

    let began = Instant::now();
    let pending = session.call("toggle_tool", json!({"name": "once"})).await?;
    assert_eq!((pending.status.as_u16(), pending.code()), (200, -31001), "{}", pending.message);
    assert_eq!(executed(&pending), "unknown");
    assert!(began.elapsed() < Duration::from_secs(3), "answered after {:?}", began.elapsed());

    let moved = eventually("the session lives at the other replica", LEAVES_WITHIN, async || {
        let outcome = session.call("counter", json!({})).await.ok()?;
        outcome.result().is_ok().then_some(outcome)
    })
    .await;
    assert!(is_resumed(&moved), "{}", moved.message);
    assert_eq!(moved.text(), "1");
    assert!(!has_tool(&other.url, "once").await?, "the lost call was executed a second time");

    stopped.process.go_on();
    gateway.metric_reaches("regatta_replica_healthy", 2.0).await;
    let next = session.call("counter", json!({})).await?;
    assert_eq!((next.text(), is_resumed(&next)), ("2", false), "it stays where it moved: {}", next.message);
    assert!(!has_tool(&other.url, "once").await?);
    other_change_is_heard_once(&session, &mut standing).await
}

/// The standing stream hangs at one replica, and a change there comes once.
async fn other_change_is_heard_once(
    session: &regatta_testkit::client::Session,
    standing: &mut regatta_testkit::client::Events,
) -> Result<()> {
    standing.until("notifications/message").await?;
    session.call("toggle_tool", json!({"name": "heard"})).await?.result()?;
    standing.until("notifications/tools/list_changed").await?;
    session.call("toggle_tool", json!({"name": "mark"})).await?.result()?;
    let next = standing.next().await?.map(|event| event.method());
    assert_eq!(next.as_deref(), Some("notifications/tools/list_changed"));
    let silence = standing.next_within(Duration::from_millis(200)).await;
    assert!(silence.is_err(), "two changes were heard as three: {silence:?}");
    Ok(())
}
