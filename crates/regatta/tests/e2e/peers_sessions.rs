//! A session at two gateways that share a store: each request may land on either.

use crate::fleet::{demos, is_resumed, urls};
use crate::peers::{Pair, SOON};
use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::answers;
use regatta_testkit::{Result, Stub, eventually};
use serde_json::json;

#[tokio::test]
async fn the_first_touch_costs_one_question_to_the_store_and_the_next_none() -> Result<()> {
    let demos = demos(1, &[]).await;
    let pair = Pair::start(Plan::over(urls(&demos))).await;
    let [one, two] = pair.session().await?;
    assert_eq!(one.call("counter", json!({})).await?.text(), "1");
    let before = pair.asked();
    assert_eq!(two.call("counter", json!({})).await?.text(), "2");
    let touched = pair.asked();
    assert!(touched - before <= 2, "{} commands: {:?}", touched - before, pair.redis.calls());
    for count in 3..=20 {
        let session = if count % 2 == 0 { &one } else { &two };
        assert_eq!(session.call("counter", json!({})).await?.text(), count.to_string());
        pair.two.client().modern().call("echo", json!({"text": "x"})).await?.result()?;
    }
    assert_eq!(pair.asked(), touched, "warm requests ask nothing: {:?}", pair.redis.calls());
    Ok(())
}

#[tokio::test]
async fn sessions_of_a_killed_gateway_go_on_at_the_other_without_any_configured_key() -> Result<()> {
    let demos = demos(2, &[]).await;
    let mut pair = Pair::start(Plan::over(urls(&demos))).await;
    let mut sessions = Vec::new();
    for _ in 0..30 {
        let session = pair.one.client().initialize().await?;
        assert_eq!(session.call("counter", json!({})).await?.text(), "1");
        sessions.push(session);
    }
    let modern = pair.one.client().modern();
    let asked = modern.call("ask", json!({"question": "?"})).await?.result()?;
    pair.one.process.kill();
    for session in sessions {
        let next = session.through(&pair.two.client()).call("counter", json!({})).await?;
        assert_eq!(next.text(), "2", "the same session at the same replica: {}", next.message);
        assert!(!is_resumed(&next));
    }
    let key = asked["inputRequests"].as_object().and_then(|all| all.keys().next()).expect("a question");
    let answers = json!({key: {"action": "accept", "content": {"answer": "yes"}}});
    let outcome = pair.two.client().modern().retry("ask", json!({"question": "?"}), &asked, answers).await?;
    assert_eq!(outcome.text(), "answer: yes", "{}", outcome.message);
    Ok(())
}

#[tokio::test]
async fn an_end_at_one_gateway_is_the_end_at_the_other_and_of_its_streams_there() -> Result<()> {
    let stub = Stub::start(answers::legacy()).await;
    let pair = Pair::start(Plan::over([stub.url()])).await;
    let [one, two] = pair.session().await?;
    assert_eq!(two.request("ping", json!({})).await?.status, 200);
    let standing = two.listen().await?.events();
    assert!(one.end().await?.is_success());
    standing.rest().await?;
    eventually("the other gateway has heard of it", SOON, async || {
        let answer = two.request("ping", json!({})).await.ok()?;
        (answer.status == 404).then_some(())
    })
    .await;
    assert_eq!(
        stub.seen_rpc("initialize").iter().filter(|seen| !seen.is_modern()).count() % 2,
        1,
        "no new home"
    );
    Ok(())
}

#[tokio::test]
async fn a_move_at_one_gateway_is_known_at_the_other_and_told_once() -> Result<()> {
    let mut demos = demos(2, &["--eras", "legacy"]).await;
    let pair = Pair::start(Plan::over(urls(&demos))).await;
    let [one, two] = pair.session().await?;
    let level = json!({"level": "notice"});
    one.request("logging/setLevel", level).await?.outcome().await?.result()?;
    assert_eq!(two.call("counter", json!({})).await?.text(), "1");
    let home = crate::fleet::home(&demos, &one).await?;
    demos[home].process.kill();
    let moved = one.call("whoami", json!({})).await?;
    assert!(is_resumed(&moved), "{}", moved.message);
    let there = two.call("counter", json!({})).await?;
    assert_eq!(there.text(), "1", "what the killed replica counted is gone: {}", there.message);
    assert!(!is_resumed(&there), "told twice");
    assert_eq!(one.call("counter", json!({})).await?.text(), "2", "both use one home");
    let logged = two.call("log", json!({"text": "x", "level": "info"})).await?;
    assert!(
        !logged.events.iter().any(|event| event.method() == "notifications/message"),
        "the level moved too"
    );
    Ok(())
}

#[tokio::test]
async fn two_gateways_that_move_the_same_sessions_at_once_agree_on_one_home_for_each() -> Result<()> {
    let mut demos = demos(3, &["--eras", "legacy"]).await;
    let pair = Pair::start(Plan::over(urls(&demos)).on_server("balance = \"round-robin\"")).await;
    let mut sessions = Vec::new();
    for _ in 0..24 {
        let pair_of = pair.session().await?;
        assert_eq!(pair_of[1].call("counter", json!({})).await?.text(), "1");
        sessions.push(pair_of);
    }
    demos[0].process.kill();
    let mut calls = Vec::new();
    for session in sessions.iter().flatten() {
        let session = session.clone();
        calls.push(tokio::spawn(async move { session.call("counter", json!({})).await }));
    }
    for call in calls {
        call.await.expect("the call's task")?.result()?;
    }
    for [one, two] in &sessions {
        let homes = [crate::fleet::home(&demos, one).await?, crate::fleet::home(&demos, two).await?];
        assert_eq!(homes[0], homes[1]);
        let before: u64 = one.call("counter", json!({})).await?.text().parse().expect("a number");
        let after = two.call("counter", json!({})).await?;
        assert_eq!(after.text(), (before + 1).to_string(), "one upstream session: {}", after.message);
    }
    Ok(())
}
