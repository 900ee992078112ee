//! Two gateways with the same sealing keys: a session that one opened goes on at the other.

use crate::REGATTA;
use crate::fleet::{demos, is_resumed, urls};
use regatta_testkit::gateway::Plan;
use regatta_testkit::{Gateway, Result};
use serde_json::json;

const KEY: &str = "sealing_keys = [\"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\"]";

#[tokio::test]
async fn sessions_of_a_killed_gateway_go_on_at_the_other() -> Result<()> {
    let demos = demos(2, &[]).await;
    let plan = Plan::over(urls(&demos)).on_gateway(KEY);
    let mut first = Gateway::start(REGATTA, plan.clone()).await;
    let second = Gateway::start(REGATTA, plan).await;
    let mut sessions = Vec::new();
    for _ in 0..20 {
        let session = first.client().initialize().await?;
        assert_eq!(session.call("counter", json!({})).await?.text(), "1");
        sessions.push(session);
    }
    let modern = first.client().modern();
    let asked = modern.call("ask", json!({"question": "?"})).await?.result()?;
    first.process.kill();
    for session in sessions {
        let next = session.through(&second.client()).call("counter", json!({})).await?;
        assert_eq!(next.text(), "2", "the same session at the same replica: {}", next.message);
        assert!(!is_resumed(&next));
    }
    let key = asked["inputRequests"].as_object().and_then(|all| all.keys().next()).expect("a question");
    let answers = json!({key: {"action": "accept", "content": {"answer": "yes"}}});
    let outcome = second.client().modern().retry("ask", json!({"question": "?"}), &asked, answers).await?;
    assert_eq!(outcome.text(), "answer: yes", "{}", outcome.message);
    Ok(())
}

#[tokio::test]
async fn a_gateway_with_other_keys_knows_nothing_of_the_session() -> Result<()> {
    let demos = demos(1, &["--eras", "legacy"]).await;
    let plan = Plan::over(urls(&demos));
    let first = Gateway::start(REGATTA, plan.clone()).await;
    let second = Gateway::start(REGATTA, plan).await;
    let session = first.client().initialize().await?;
    let foreign = session.through(&second.client()).request("ping", json!({})).await?;
    assert_eq!(foreign.status, 404);
    assert_eq!(session.request("ping", json!({})).await?.status, 200);
    Ok(())
}
