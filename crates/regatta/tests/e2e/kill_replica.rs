//! A replica is killed while sessions are idle: they go on at another one, and their clients are told, once.

use crate::REGATTA;
use crate::fleet::{demos, home, is_resumed, urls};
use regatta_testkit::client::Session;
use regatta_testkit::gateway::Plan;
use regatta_testkit::{Gateway, Result};
use serde_json::json;

#[tokio::test]
async fn an_idle_session_goes_on_under_its_id_with_all_that_it_had_asked_for() -> Result<()> {
    let mut demos = demos(2, &["--eras", "legacy"]).await;
    let gateway = Gateway::start(REGATTA, Plan::over(urls(&demos))).await;
    let session = gateway.client().initialize().await?;
    session.request("logging/setLevel", json!({"level": "notice"})).await?.outcome().await?.result()?;
    let clock = json!({"uri": "demo://clock"});
    session.request("resources/subscribe", clock).await?.outcome().await?.result()?;
    let mut standing = session.listen().await?.events();
    standing.until("notifications/resources/updated").await?;
    let killed = home(&demos, &session).await?;
    demos[killed].process.kill();

    let first = session.call("whoami", json!({})).await?;
    let second = session.call("whoami", json!({})).await?;
    assert_eq!(first.result()?["structuredContent"]["port"], json!(demos[1 - killed].port()));
    assert!(is_resumed(&first), "{}", first.message);
    assert!(!is_resumed(&second), "said twice");
    let warning = standing.until("notifications/message").await?.json();
    assert_eq!(
        (&warning["params"]["level"], &warning["params"]["logger"]),
        (&json!("warning"), &json!("regatta"))
    );
    standing.until("notifications/resources/updated").await?;
    for (level, heard) in [("info", 0), ("error", 1)] {
        let logged = session.call("log", json!({"text": "x", "level": level})).await?;
        let messages = logged.events.iter().filter(|event| event.method() == "notifications/message");
        assert_eq!(messages.count(), heard, "the log level was repeated: {level}");
    }
    let tools = session.request("tools/list", json!({})).await?.outcome().await?.result()?;
    assert!(tools["tools"].as_array().is_some_and(|tools| !tools.is_empty()));
    assert_eq!(gateway.metric("regatta_rehomed_total").await, Some(1.0));
    Ok(())
}

/// 2025-03-26 basic/transports, *Sending Messages*: requests may come in a batch.
#[tokio::test]
async fn a_later_home_is_told_of_what_a_batch_asked_for() -> Result<()> {
    let mut demos = demos(2, &["--eras", "legacy"]).await;
    let gateway = Gateway::start(REGATTA, Plan::over(urls(&demos))).await;
    let session = Session::open(&gateway.client(), "2025-03-26", json!({})).await?;
    let batch = json!([
        {"jsonrpc": "2.0", "id": 1, "method": "logging/setLevel", "params": {"level": "error"}},
        {"jsonrpc": "2.0", "id": 2, "method": "resources/subscribe", "params": {"uri": "demo://clock"}},
    ]);
    assert_eq!(session.post(&batch).await?.status, 200);
    let killed = home(&demos, &session).await?;
    demos[killed].process.kill();

    let moved = session.call("whoami", json!({})).await?;
    assert_eq!(moved.result()?["structuredContent"]["port"], json!(demos[1 - killed].port()));
    session.listen().await?.events().until("notifications/resources/updated").await?;
    for (level, heard) in [("warning", 0), ("critical", 1)] {
        let logged = session.call("log", json!({"text": "x", "level": level})).await?;
        let messages = logged.events.iter().filter(|event| event.method() == "notifications/message");
        assert_eq!(messages.count(), heard, "the log level was repeated: {level}");
    }
    Ok(())
}

#[tokio::test]
async fn fifty_sessions_move_at_once() -> Result<()> {
    let mut demos = demos(3, &["--eras", "legacy"]).await;
    let gateway =
        Gateway::start(REGATTA, Plan::over(urls(&demos)).on_server("balance = \"round-robin\"")).await;
    let client = gateway.client();
    let mut sessions = Vec::new();
    for _ in 0..50 {
        sessions.push(client.initialize().await?);
    }
    let mut bereft = 0;
    for session in &sessions {
        bereft += usize::from(home(&demos, session).await? == 0);
    }
    demos[0].process.kill();
    let calls: Vec<_> = sessions
        .into_iter()
        .map(|session| tokio::spawn(async move { session.call("whoami", json!({})).await }))
        .collect();
    let mut resumed = 0;
    for call in calls {
        let outcome = call.await.expect("the call's task")?;
        outcome.result()?;
        resumed += usize::from(is_resumed(&outcome));
    }
    assert!(bereft > 10, "{bereft} sessions lived at the killed replica");
    assert_eq!(resumed, bereft);
    assert_eq!(gateway.metric("regatta_rehomed_total").await, Some(bereft as f64));
    Ok(())
}

#[tokio::test]
async fn a_session_whose_server_keeps_it_in_memory_gets_404_and_can_begin_anew() -> Result<()> {
    let mut demos = demos(2, &["--eras", "legacy"]).await;
    let plan = Plan::over(urls(&demos)).on_server("session_state = \"memory\"");
    let gateway = Gateway::start(REGATTA, plan).await;
    let session = gateway.client().initialize().await?;
    let killed = home(&demos, &session).await?;
    demos[killed].process.kill();
    let lost = session.call("whoami", json!({})).await?;
    assert_eq!((lost.status.as_u16(), lost.code()), (404, -32001), "{}", lost.message);
    let next = gateway.client().initialize().await?;
    assert_eq!(home(&demos, &next).await?, 1 - killed);
    Ok(())
}
