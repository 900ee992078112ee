//! The store is away, slow, wiped or on another side of a partition: what goes on, what waits, and what is said
//! (DESIGN 4; RELIABILITY E.4 and F49 to F53).

use crate::REGATTA;
use crate::fleet::{demos, home, is_resumed, urls};
use crate::peers::{Heard, Pair, SOON, on_store, sleep};
use regatta_testkit::gateway::Plan;
use regatta_testkit::redis::{Sentinels, Server};
use regatta_testkit::{FaultProxy, Gateway, Mode, Result, eventually};
use serde_json::json;

/// Waits until both say that the store is away, and why, and are ready all the same.
async fn wait_degraded(pair: &Pair) {
    for gateway in [&pair.one, &pair.two] {
        eventually("/ready says that the store is away", SOON, async || {
            let (status, text) = gateway.admin("/ready").await?;
            assert_eq!(status, 200, "a store that is away makes nobody leave: {text}");
            text.contains("the store is away").then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn without_the_store_sessions_go_on_and_begin_and_only_an_end_has_to_wait() -> Result<()> {
    let mut demos = demos(2, &[]).await;
    let mut pair = Pair::start(Plan::over(urls(&demos)).on_server("balance = \"round-robin\"")).await;
    let [known, elsewhere] = pair.session().await?;
    assert_eq!(known.call("counter", json!({})).await?.text(), "1");
    pair.redis.process.kill();

    // A session that this gateway never met goes on by its token, one that it knows by what it knew.
    assert_eq!(elsewhere.call("counter", json!({})).await?.text(), "2");
    assert_eq!(known.call("counter", json!({})).await?.text(), "3");
    for gateway in [&pair.one, &pair.two] {
        gateway.client().modern().call("echo", json!({"text": "x"})).await?.result()?;
    }
    let fresh = pair.two.client().initialize().await?;
    assert_eq!(fresh.call("counter", json!({})).await?.text(), "1");
    assert_eq!(fresh.through(&pair.one.client()).call("counter", json!({})).await?.text(), "2");
    let level = json!({"level": "error"});
    known.request("logging/setLevel", level).await?.outcome().await?.result()?;
    let ended = known.end().await?;
    assert_eq!(ended, 503, "an end that cannot be written down is not begun");
    assert_eq!(known.call("counter", json!({})).await?.text(), "4", "and nothing was done");
    wait_degraded(&pair).await;

    let at = home(&demos, &fresh).await?;
    demos[at].process.kill();
    let moved = fresh.call("counter", json!({})).await?;
    assert!(is_resumed(&moved), "{}", moved.message);
    assert_eq!(moved.text(), "1");

    pair.redis.restart().await;
    pair.wait_linked().await;
    eventually("what was kept is published", SOON, async || {
        (pair.two.metric("regatta_store_unpublished_records").await? == 0.0).then_some(())
    })
    .await;
    let there = fresh.through(&pair.one.client()).call("counter", json!({})).await?;
    assert_eq!(there.text(), "2", "the other gateway learned of the move: {}", there.message);
    assert!(known.end().await?.is_success());
    eventually("its end is known everywhere", SOON, async || {
        let answer = elsewhere.request("ping", json!({})).await.ok()?;
        (answer.status == 404).then_some(())
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn a_store_that_stalls_costs_its_patience_once_and_then_nothing() -> Result<()> {
    let demos = demos(1, &[]).await;
    let pair = Pair::start(Plan::over(urls(&demos))).await;
    let [one, two] = pair.session().await?;
    assert_eq!(one.call("counter", json!({})).await?.text(), "1");
    pair.redis.process.stop();
    for count in 2..=30 {
        let session = if count % 2 == 0 { &two } else { &one };
        assert_eq!(session.call("counter", json!({})).await?.text(), count.to_string());
    }
    wait_degraded(&pair).await;
    let timeouts = pair.two.metric("regatta_store_timeouts_total").await.unwrap_or_default();
    for count in 31..=60 {
        assert_eq!(two.call("counter", json!({})).await?.text(), count.to_string());
    }
    let later = pair.two.metric("regatta_store_timeouts_total").await.unwrap_or_default();
    assert!(later - timeouts <= 10.0, "30 requests waited for the store {} times", later - timeouts);
    pair.redis.process.go_on();
    pair.wait_linked().await;
    assert_eq!(two.call("counter", json!({})).await?.text(), "61");
    Ok(())
}

#[tokio::test]
async fn a_store_that_was_wiped_gets_the_keys_back_from_who_has_them() -> Result<()> {
    let demos = demos(1, &[]).await;
    let mut pair = Pair::start(Plan::over(urls(&demos))).await;
    let [one, two] = pair.session().await?;
    assert_eq!(one.call("counter", json!({})).await?.text(), "1");
    pair.redis.restart().await;
    pair.wait_linked().await;
    eventually("the keys are there again", SOON, async || {
        (pair.redis.say(&["HLEN", "mcp:keys"]) != "0").then_some(())
    })
    .await;
    pair.two.restart_after_kill().await;
    assert_eq!(two.call("counter", json!({})).await?.text(), "2", "a gateway that knew nothing");
    Ok(())
}

#[tokio::test]
async fn a_stream_that_was_cut_while_the_store_was_away_is_had_when_it_is_back() -> Result<()> {
    let demos = demos(1, &["--eras", "legacy"]).await;
    let pair = Pair::start(Plan::over(urls(&demos))).await;
    let [one, two] = pair.session().await?;
    let mut heard = Heard::default();
    let mut events = sleep(&one, 950).await?.events();
    heard.note(&events.until("notifications/progress").await?);
    pair.redis.process.stop();
    drop(events);
    let rest = two.resume(heard.last_id()).await?;
    assert_eq!(rest.status, 200, "held open meanwhile");
    eventually("the call has ended", SOON, async || {
        (pair.one.metric("regatta_detached").await? == 0.0).then_some(())
    })
    .await;
    pair.redis.process.go_on();
    for event in rest.events().rest().await? {
        heard.note(&event);
    }
    heard.assert_slept(950);
    Ok(())
}

#[tokio::test]
async fn two_sides_of_a_partition_that_both_moved_a_session_agree_afterwards_and_the_loser_says_so()
-> Result<()> {
    let mut demos = demos(3, &["--eras", "legacy"]).await;
    let redis = Server::start(&[]).await;
    let ways = [
        FaultProxy::start(redis.address().parse().expect("an address")).await,
        FaultProxy::start(redis.address().parse().expect("an address")).await,
    ];
    let plan = |way: &FaultProxy| on_store(Plan::over(urls(&demos)), &format!("redis://{}", way.address()));
    let one = Gateway::start(REGATTA, plan(&ways[0])).await;
    let two = Gateway::start(REGATTA, plan(&ways[1])).await;
    let mut pair = Pair { redis, one, two };
    pair.wait_linked().await;
    let [here, there] = pair.session().await?;
    assert_eq!(there.call("counter", json!({})).await?.text(), "1");
    ways.iter().for_each(|way| way.set(Mode::Refuse));
    wait_degraded(&pair).await;
    let at = home(&demos, &here).await?;
    demos[at].process.kill();
    for session in [&here, &there] {
        let moved = session.call("counter", json!({})).await?;
        assert!(is_resumed(&moved), "{}", moved.message);
        assert_eq!(moved.text(), "1", "each side has a home of its own");
    }
    assert_eq!(there.call("counter", json!({})).await?.text(), "2");
    ways[0].set(Mode::Pass);
    eventually("the first side has published", SOON, async || {
        (pair.one.metric("regatta_store_unpublished_records").await? == 0.0).then_some(())
    })
    .await;
    ways[1].set(Mode::Pass);
    pair.wait_linked().await;
    eventually("the second side gave way", SOON, async || {
        (pair.two.metric("regatta_store_merged_records_total").await? >= 1.0).then_some(())
    })
    .await;
    let again = eventually("the loser says that the session moved once more", SOON, async || {
        let outcome = there.call("counter", json!({})).await.ok()?;
        is_resumed(&outcome).then_some(outcome)
    })
    .await;
    let before: u64 = again.text().parse().expect("a number");
    assert_eq!(here.call("counter", json!({})).await?.text(), (before + 1).to_string(), "one home");
    pair.one.process.kill();
    assert_eq!(there.call("counter", json!({})).await?.text(), (before + 2).to_string());
    Ok(())
}

#[tokio::test]
async fn sessions_outlive_the_master_of_their_store() -> Result<()> {
    let demos = demos(2, &[]).await;
    let mut sentinels = Sentinels::start().await;
    let plan = on_store(Plan::over(urls(&demos)), &sentinels.url());
    let one = Gateway::start(REGATTA, plan.clone()).await;
    let two = Gateway::start(REGATTA, plan).await;
    let mut sessions = Vec::new();
    for _ in 0..10 {
        let session = one.client().initialize().await?;
        assert_eq!(session.call("counter", json!({})).await?.text(), "1");
        sessions.push(session);
    }
    let master = sentinels.master().expect("a master");
    sentinels.servers[master].process.kill();
    for (count, session) in sessions.iter().enumerate() {
        let client = if count % 2 == 0 { one.client() } else { two.client() };
        assert_eq!(session.through(&client).call("counter", json!({})).await?.text(), "2");
    }
    for session in &sessions {
        assert_eq!(session.through(&two.client()).call("counter", json!({})).await?.text(), "3");
    }
    eventually("another master is followed, so that ends can be written again", SOON * 2, async || {
        let ended = sessions[0].end().await.ok()?;
        assert!(ended.is_success() || ended == 503, "{ended}");
        ended.is_success().then_some(())
    })
    .await;
    assert_eq!(sessions[0].request("ping", json!({})).await?.status, 404);
    Ok(())
}

#[tokio::test]
async fn a_session_whose_key_nobody_can_look_up_is_refused_and_not_given_up() -> Result<()> {
    let demos = demos(1, &[]).await;
    let mut pair = Pair::start(Plan::over(urls(&demos))).await;
    let [one, _] = pair.session().await?;
    assert_eq!(one.call("counter", json!({})).await?.text(), "1");
    pair.redis.process.kill();
    let fresh = Gateway::start(REGATTA, on_store(Plan::over(urls(&demos)), &pair.redis.url())).await;
    let there = one.through(&fresh.client());
    let refused = there.call("counter", json!({})).await?;
    assert_eq!((refused.status.as_u16(), refused.code()), (503, -31005), "{}", refused.message);
    assert!(refused.headers.contains_key("retry-after"));
    assert_eq!(one.call("counter", json!({})).await?.text(), "2", "whoever knows the key goes on");
    pair.redis.restart().await;
    let next = eventually("the key is learned when the store is back", SOON, async || {
        let outcome = there.call("counter", json!({})).await.ok()?;
        assert_ne!(outcome.status, 404, "{}", outcome.message);
        outcome.result().is_ok().then_some(outcome)
    })
    .await;
    assert_eq!(next.text(), "3");
    Ok(())
}

#[tokio::test]
async fn without_the_store_lists_are_given_and_questions_answered() -> Result<()> {
    let demos = demos(1, &[]).await;
    let pair = Pair::start(Plan::over(urls(&demos))).await;
    pair.redis.process.stop();
    wait_degraded(&pair).await;
    let modern = pair.one.client().modern();
    for method in ["server/discover", "tools/list"] {
        modern.request(method, json!({})).await?.outcome().await?.result()?;
    }
    let asked = modern.call("ask", json!({"question": "?"})).await?.result()?;
    let key = asked["inputRequests"].as_object().and_then(|all| all.keys().next()).expect("a question");
    let answers = json!({key: {"action": "accept", "content": {"answer": "yes"}}});
    let outcome = modern.retry("ask", json!({"question": "?"}), &asked, answers).await?;
    assert_eq!(outcome.text(), "answer: yes", "{}", outcome.message);

    let session = pair.two.client().initialize().await?;
    let mut events =
        session.request("tools/call", json!({"name": "ask", "arguments": {"question": "?"}})).await?.events();
    let question = events.until("elicitation/create").await?.json();
    let answer = json!({"action": "accept", "content": {"answer": "yes"}});
    assert_eq!(session.answer(&question["id"], answer).await?.status, 202);
    let last = events.rest().await?.pop().expect("a response").json();
    assert_eq!(last["result"]["content"][0]["text"], "answer: yes", "{last}");
    Ok(())
}

#[tokio::test]
async fn a_drain_takes_no_longer_without_the_store_and_loses_no_call() -> Result<()> {
    let demos = demos(1, &["--eras", "legacy"]).await;
    let mut pair = Pair::start(Plan::over(urls(&demos)).on_gateway("drain_deadline = \"10s\"")).await;
    let [session, _] = pair.session().await?;
    pair.redis.process.stop();
    wait_degraded(&pair).await;
    let call = tokio::spawn(async move { session.call("sleep", json!({"ms": 1500})).await });
    pair.one.metric_reaches("regatta_inflight", 1.0).await;
    pair.one.process.terminate();
    eventually("it says that it leaves", SOON, async || {
        let (status, _) = pair.one.admin("/ready").await?;
        (status == 503).then_some(())
    })
    .await;
    assert_eq!(call.await.expect("the call's task")?.text(), "slept 1500 ms");
    // With the deadline it would have taken much longer.
    assert!(pair.one.process.exit_within(std::time::Duration::from_secs(9)).await.success());
    Ok(())
}
