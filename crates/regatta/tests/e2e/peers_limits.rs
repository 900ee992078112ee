//! Rules over two gateways on one store: one quota for both, whatever dies in between.

use crate::peers::{Pair, SOON};
use regatta_testkit::client::Outcome;
use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::answers;
use regatta_testkit::{Gateway, Result, Stub, eventually};
use serde_json::json;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Two gateways over a stub that see each other, with these `[[limit]]`.
async fn limited(rules: &str) -> (Stub, Pair) {
    let stub = Stub::start(answers::dual()).await;
    let pair = Pair::start(Plan::over([stub.url()]).tables(rules)).await;
    wait_counted(&pair, 2.0).await;
    (stub, pair)
}

/// Until each gateway knows that there are so many.
async fn wait_counted(pair: &Pair, gateways: f64) {
    for gateway in [&pair.one, &pair.two] {
        eventually("the gateways are counted", SOON, async || {
            (gateway.metric("regatta_limit_gateways").await? == gateways).then_some(())
        })
        .await;
    }
}

async fn call(gateway: &Gateway, who: &str, tool: &str) -> Result<Outcome> {
    let client = gateway.client().header("authorization", &format!("Bearer {who}"));
    client.modern().call(tool, json!({"op": tool})).await
}

fn header<'a>(outcome: &'a Outcome, name: &str) -> &'a str {
    outcome.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or("")
}

/// Sends so many calls at once in turn to these gateways, and counts what was granted; everything else is a 429.
async fn burst(gateways: &[&Gateway], who: &str, count: usize) -> usize {
    let mut calls = JoinSet::new();
    for at in 0..count {
        let client = gateways[at % gateways.len()].client();
        let session = client.header("authorization", &format!("Bearer {who}")).modern();
        calls
            .spawn(async move { session.call("work", json!({"op": "burst"})).await.map(|told| told.status) });
    }
    let mut granted = 0;
    for status in calls.join_all().await {
        let status = status.expect("an answer");
        assert!(status == 200 || status == 429, "{status}");
        granted += usize::from(status == 200);
    }
    granted
}

#[tokio::test]
async fn a_limit_is_one_for_both_and_all_of_it_can_be_used() -> Result<()> {
    let (stub, pair) = limited("[[limit]]\nname = \"all\"\nallow = 100\nwithin = \"1h\"").await;
    let both = [&pair.one, &pair.two];
    let mut granted = 0;
    // The last units may lie at the other gateway for a moment: who is refused comes again.
    eventually("all that is allowed was had", SOON, async || {
        granted += burst(&both, "alice", 40).await;
        (granted >= 100).then_some(())
    })
    .await;
    granted += burst(&both, "alice", 40).await;
    assert_eq!(granted, 100);
    assert_eq!(stub.seen_rpc("tools/call").len(), 100, "nothing beyond it reached the server");
    let refused = call(&pair.two, "alice", "work").await?;
    assert_eq!((refused.status.as_u16(), refused.code()), (429, -31003));
    assert_eq!(header(&refused, "x-ratelimit-remaining"), "0");
    assert_eq!(call(&pair.one, "bob", "work").await?.status, 200, "each caller has its own");
    Ok(())
}

#[tokio::test]
async fn who_asks_now_here_and_now_there_is_told_how_it_stands_everywhere() -> Result<()> {
    let (_stub, pair) = limited("[[limit]]\nname = \"six\"\nallow = 6\nwithin = \"1h\"").await;
    for (round, left) in ["5", "4", "3", "2", "1", "0"].into_iter().enumerate() {
        let gateway = if round % 2 == 0 { &pair.one } else { &pair.two };
        let outcome = call(gateway, "alice", "work").await?;
        assert_eq!(outcome.status, 200);
        assert_eq!(header(&outcome, "ratelimit"), format!("\"six\";r={left};t=3600"));
    }
    assert_eq!(call(&pair.one, "alice", "work").await?.status, 429);
    assert_eq!(call(&pair.two, "alice", "work").await?.status, 429);
    Ok(())
}

#[tokio::test]
async fn a_request_refused_by_one_rule_uses_up_none_of_the_others_at_either_gateway() -> Result<()> {
    let rules = "[[limit]]\nname = \"all\"\nallow = 7\nwithin = \"1h\"\n\
                 [[limit]]\nname = \"search\"\nallow = 1\nwithin = \"1h\"\ntool = \"search_*\"";
    let (_stub, pair) = limited(rules).await;
    assert_eq!(call(&pair.one, "alice", "search_a").await?.status, 200);
    for gateway in [&pair.two, &pair.one, &pair.two, &pair.one] {
        assert_eq!(call(gateway, "alice", "search_a").await?.status, 429);
    }
    let mut granted = 0;
    eventually("the other rule is used up", SOON, async || {
        for gateway in [&pair.one, &pair.two] {
            let outcome = call(gateway, "alice", "get").await.ok()?;
            granted += usize::from(outcome.status == 200);
        }
        (granted >= 6).then_some(())
    })
    .await;
    assert_eq!(granted, 6, "seven, less the one search that was granted");
    assert_eq!(call(&pair.one, "alice", "get").await?.status, 429);
    Ok(())
}

#[tokio::test]
async fn a_breach_at_one_gateway_blocks_the_caller_at_the_other() -> Result<()> {
    let (_stub, pair) = limited("[[limit]]\nallow = 2\nwithin = \"1s\"\nblock = \"1h\"").await;
    let breach = async || (burst(&[&pair.one], "alice", 6).await < 6).then_some(());
    eventually("a breach", SOON, breach).await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    let blocked = call(&pair.two, "alice", "work").await?;
    assert_eq!(blocked.status, 429, "the window has passed, the block has not");
    assert!(header(&blocked, "retry-after").parse::<u64>().expect("seconds") > 3000);
    assert_eq!(call(&pair.two, "bob", "work").await?.status, 200);
    Ok(())
}

#[tokio::test]
async fn a_busy_key_costs_a_question_for_ten_requests_at_most() -> Result<()> {
    let (_stub, pair) = limited("[[limit]]\nallow = 100000\nwithin = \"1m\"").await;
    let evals = || pair.redis.calls().get("evalsha").copied().unwrap_or(0);
    // The first few find out that it is busy.
    burst(&[&pair.one, &pair.two], "alice", 100).await;
    let (before, began) = (evals(), Instant::now());
    let (rounds, each) = (20, 100);
    for _ in 0..rounds {
        assert_eq!(burst(&[&pair.one, &pair.two], "alice", each).await, each);
    }
    let asked = evals() - before;
    // Each gateway besides says once a second that it is there, and gives back what is over.
    let by_itself = 4 * (began.elapsed().as_secs() + 2);
    println!("{asked} questions for {} requests, at most {by_itself} of them not for any", rounds * each);
    assert!(asked <= (rounds * each / 10) as u64 + by_itself, "{asked}");
    let told = pair.one.metric("regatta_limit_asked_total").await.unwrap_or_default();
    assert!(told >= 1.0, "{told}");
    Ok(())
}

#[tokio::test]
async fn a_gateway_that_is_killed_takes_what_it_held_along_and_that_comes_back_after_its_lease() -> Result<()>
{
    let rules = "[[limit]]\nname = \"hour\"\nallow = 60\nwithin = \"1h\"\ntool = \"work\"\n\
                 [[limit]]\nname = \"short\"\nallow = 40\nwithin = \"2s\"\ntool = \"quick\"";
    let (stub, mut pair) = limited(rules).await;
    let mut granted = burst(&[&pair.one, &pair.two], "alice", 30).await;
    call(&pair.one, "alice", "quick").await?.result()?;
    pair.one.process.kill();
    for _ in 0..4 {
        granted += burst(&[&pair.two], "alice", 30).await;
    }
    pair.one.restart_after_kill().await;
    granted += burst(&[&pair.one, &pair.two], "alice", 60).await;
    assert!(granted <= 60, "{granted}");
    assert!(granted >= 40, "what the dead one held is at most an eighth at once: {granted}");
    let work = stub.seen_rpc("tools/call").len() - 1;
    assert!(work <= 60, "{work} reached the server");

    eventually("all forty are there again within two seconds and a lease", SOON, async || {
        tokio::time::sleep(Duration::from_millis(2200)).await;
        let (began, mut granted) = (Instant::now(), 0);
        while granted < 40 && began.elapsed() < Duration::from_millis(1800) {
            granted += usize::from(call(&pair.two, "alice", "quick").await.ok()?.status == 200);
        }
        (granted == 40).then_some(())
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn without_the_store_each_gateway_grants_its_share_and_with_it_all_is_one_again() -> Result<()> {
    let (_stub, mut pair) = limited("[[limit]]\nallow = 60\nwithin = \"1h\"").await;
    pair.redis.process.kill();
    for gateway in [&pair.one, &pair.two] {
        let mut granted = 0;
        for _ in 0..45 {
            granted += usize::from(call(gateway, "alice", "work").await?.status == 200);
        }
        assert_eq!(granted, 30, "half of sixty: neither all nor nothing");
        assert!(gateway.metric("regatta_limit_alone_total").await.unwrap_or_default() >= 30.0);
    }
    pair.redis.restart().await;
    pair.wait_linked().await;
    wait_counted(&pair, 2.0).await;
    let mut granted = 0;
    eventually("sixty over both, by themselves", SOON, async || {
        granted += burst(&[&pair.one, &pair.two], "bob", 30).await;
        (granted >= 60).then_some(())
    })
    .await;
    granted += burst(&[&pair.one, &pair.two], "bob", 30).await;
    assert_eq!(granted, 60);
    Ok(())
}

#[tokio::test]
async fn a_store_that_stalls_holds_up_no_request_for_long_and_lets_nobody_through_without_limit() -> Result<()>
{
    let (_stub, pair) = limited("[[limit]]\nallow = 40\nwithin = \"1h\"").await;
    assert_eq!(call(&pair.one, "alice", "work").await?.status, 200);
    pair.redis.process.stop();
    let mut granted = 0;
    for _ in 0..60 {
        granted += usize::from(call(&pair.one, "alice", "work").await?.status == 200);
    }
    assert!((19..=24).contains(&granted), "its half, less what it had, and what it held by then: {granted}");
    pair.redis.process.go_on();
    pair.wait_linked().await;
    let back = async || (call(&pair.one, "carol", "work").await.ok()?.status == 200).then_some(());
    eventually("the store is asked again", SOON, back).await;
    let asked = pair.one.metric("regatta_limit_asked_total").await.unwrap_or_default();
    let again = async || {
        call(&pair.one, "dave", "work").await.ok()?;
        (pair.one.metric("regatta_limit_asked_total").await? > asked).then_some(())
    };
    eventually("and answers", SOON, again).await;
    Ok(())
}

#[tokio::test]
async fn a_wiped_store_refuses_nobody_for_ever_and_its_keys_have_an_end() -> Result<()> {
    let (_stub, pair) = limited("[[limit]]\nallow = 5\nwithin = \"1h\"\nblock = \"1h\"").await;
    burst(&[&pair.one, &pair.two], "alice", 20).await;
    assert_eq!(call(&pair.one, "bob", "work").await?.status, 200);
    assert_eq!(pair.redis.say(&["FLUSHALL"]), "OK");
    wait_counted(&pair, 2.0).await;
    assert_eq!(call(&pair.two, "carol", "work").await?.status, 200);
    let mut granted = 0;
    for _ in 0..10 {
        granted += usize::from(call(&pair.two, "bob", "work").await?.status == 200);
    }
    assert!(
        (4..=5).contains(&granted),
        "what the store forgot is granted once more, not more often: {granted}"
    );
    let keys = pair.redis.say(&["KEYS", "mcp:rl:*"]);
    assert!(keys.lines().count() >= 2, "{keys}");
    for key in keys.lines() {
        assert_ne!(pair.redis.say(&["PTTL", key]), "-1", "{key} never ends");
    }
    Ok(())
}
