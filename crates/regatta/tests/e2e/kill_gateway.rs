//! The gateway is killed by `kill -9` and started again over the same state directory: sessions do not notice.

use crate::REGATTA;
use crate::fleet::{demos, home, is_resumed, urls};
use regatta_testkit::gateway::Plan;
use regatta_testkit::{Gateway, Result};
use serde_json::json;

#[tokio::test]
async fn sessions_go_on_where_they_were_also_those_that_had_moved_before() -> Result<()> {
    let mut demos = demos(2, &["--eras", "legacy"]).await;
    let mut gateway =
        Gateway::start(REGATTA, Plan::over(urls(&demos)).on_server("balance = \"round-robin\"")).await;
    let client = gateway.client();
    let (one, two) = (client.initialize().await?, client.initialize().await?);
    let (stays, moves) = if home(&demos, &one).await? == 0 { (one, two) } else { (two, one) };
    assert_eq!(home(&demos, &moves).await?, 1, "round robin");
    assert_eq!(stays.call("counter", json!({})).await?.text(), "1");
    demos[1].process.kill();
    let moved = moves.call("counter", json!({})).await?;
    assert!(is_resumed(&moved));
    assert_eq!(moved.text(), "1", "what the killed replica counted is gone");

    gateway.restart_after_kill().await;
    for session in [&stays, &moves] {
        let next = session.call("counter", json!({})).await?;
        assert_eq!(next.text(), "2", "the same session at the same replica: {}", next.message);
        assert!(!is_resumed(&next));
    }
    Ok(())
}

#[tokio::test]
async fn an_ended_session_stays_ended() -> Result<()> {
    let demos = demos(1, &["--eras", "legacy"]).await;
    let mut gateway = Gateway::start(REGATTA, Plan::over(urls(&demos))).await;
    let (ended, other) = (gateway.client().initialize().await?, gateway.client().initialize().await?);
    assert!(ended.end().await?.is_success());
    gateway.restart_after_kill().await;
    assert_eq!(ended.request("ping", json!({})).await?.status, 404);
    assert_eq!(other.request("ping", json!({})).await?.status, 200);
    Ok(())
}

#[tokio::test]
async fn a_stream_that_was_cut_by_it_ends_honestly_when_it_is_resumed() -> Result<()> {
    let demos = demos(1, &["--eras", "legacy"]).await;
    let mut gateway = Gateway::start(REGATTA, Plan::over(urls(&demos))).await;
    let session = gateway.client().initialize().await?;
    let answer = session.call_with_progress("sleep", json!({"ms": 60_000}), json!("t")).await?;
    let mut events = answer.events();
    let last_id = events.until("notifications/progress").await?.id.expect("an id to resume from");
    gateway.restart_after_kill().await;
    let rest = session.resume(&last_id).await?;
    assert_eq!(rest.status, 200);
    let last = rest.events().rest().await?.pop().expect("a last word").json();
    assert_eq!((&last["id"], &last["error"]["code"]), (&json!(1), &json!(-31001)));
    assert_eq!(last["error"]["data"]["executed"], "unknown");
    Ok(())
}

#[tokio::test]
async fn a_standing_stream_is_opened_anew_when_it_is_resumed() -> Result<()> {
    let demos = demos(1, &["--eras", "legacy"]).await;
    let mut gateway = Gateway::start(REGATTA, Plan::over(urls(&demos))).await;
    let session = gateway.client().initialize().await?;
    let mut standing = session.listen().await?.events();
    let id = standing.next().await?.expect("a priming event").id.expect("an id");
    gateway.restart_after_kill().await;
    let mut again = session.resume(&id).await?.events();
    assert_eq!(again.status, 200);
    session.call("toggle_tool", json!({"name": "later"})).await?.result()?;
    again.until("notifications/tools/list_changed").await?;
    Ok(())
}
