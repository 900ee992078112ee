//! Every version of the protocol gets its own manners, and each era reaches only servers that speak it.

use crate::REGATTA;
use crate::fleet::{demos, is_resumed, urls, visited};
use regatta_testkit::client::Session;
use regatta_testkit::gateway::Plan;
use regatta_testkit::process::Demo;
use regatta_testkit::{Gateway, Result};
use serde_json::json;

#[tokio::test]
async fn only_clients_that_know_it_get_an_event_without_content() -> Result<()> {
    let demos = demos(1, &[]).await;
    let gateway = Gateway::start(REGATTA, Plan::over(urls(&demos))).await;
    for (version, is_primed) in [("2025-03-26", false), ("2025-06-18", false), ("2025-11-25", true)] {
        let session = Session::open(&gateway.client(), version, json!({})).await?;
        assert_eq!(session.version, version);
        let answer = session.call_with_progress("sleep", json!({"ms": 250}), json!("t")).await?;
        let first = answer.events().next().await?.expect("an event");
        assert_eq!(first.json().is_null(), is_primed, "{version}: {first:?}");
        assert!(first.id.is_some(), "{version}: something to resume from");
    }
    Ok(())
}

#[tokio::test]
async fn a_batch_goes_whole_to_the_session_of_the_oldest_version_only() -> Result<()> {
    let mut demos = demos(2, &[]).await;
    let gateway = Gateway::start(REGATTA, Plan::over(urls(&demos))).await;
    let batch = |ids: [u64; 2]| {
        let call = |id| json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "counter", "arguments": {}}});
        json!([call(ids[0]), call(ids[1])])
    };
    let old = Session::open(&gateway.client(), "2025-03-26", json!({})).await?;
    let answer = old.post(&batch([71, 72])).await?;
    assert_eq!(answer.status, 200);
    let text = String::from_utf8_lossy(&answer.bytes().await?).into_owned();
    assert!(text.contains("71") && text.contains("72"), "{text}");
    let new = gateway.client().initialize().await?;
    assert_eq!(new.post(&batch([73, 74])).await?.status, 400);
    assert_eq!(gateway.client().post(&[], &batch([75, 76])).await?.status, 400);

    let home = crate::fleet::home(&demos, &old).await?;
    demos[home].process.kill();
    let moved = old.call("counter", json!({})).await?;
    assert!(is_resumed(&moved) && moved.text() == "1", "the old version moves as well: {}", moved.message);
    Ok(())
}

#[tokio::test]
async fn a_fleet_of_mixed_eras_serves_both_each_by_who_speaks_it() -> Result<()> {
    let legacy = Demo::start(REGATTA, &["--eras", "legacy"]).await;
    let modern = Demo::start(REGATTA, &["--eras", "modern"]).await;
    let fleet = [legacy, modern];
    let gateway =
        Gateway::start(REGATTA, Plan::over(urls(&fleet)).on_server("balance = \"round-robin\"")).await;
    for _ in 0..6 {
        let session = gateway.client().initialize().await?;
        assert_eq!(crate::fleet::home(&fleet, &session).await?, 0);
        assert_eq!(visited(&fleet, &gateway.client().modern()).await?, 1);
    }
    Ok(())
}

#[tokio::test]
async fn an_era_that_no_replica_speaks_is_refused_in_words_of_that_era() -> Result<()> {
    let legacy = demos(1, &["--eras", "legacy"]).await;
    let gateway = Gateway::start(REGATTA, Plan::over(urls(&legacy))).await;
    let refused = gateway.client().modern().call("whoami", json!({})).await?;
    assert_eq!((refused.status.as_u16(), refused.code()), (400, -32600), "{}", refused.message);
    let modern = demos(1, &["--eras", "modern"]).await;
    let gateway = Gateway::start(REGATTA, Plan::over(urls(&modern))).await;
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    let refused =
        gateway.client().post(&[("mcp-protocol-version", "2025-11-25")], &ping).await?.outcome().await?;
    assert_eq!((refused.status.as_u16(), refused.code()), (400, -32022), "{}", refused.message);
    assert_eq!(refused.message["error"]["data"]["supported"], json!(["2026-07-28"]));
    Ok(())
}
