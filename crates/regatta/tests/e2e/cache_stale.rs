//! Old results that are given out on purpose: while one request of the fleet fetches a new one, and to all who wait for a
//! server that cannot answer.

use crate::REGATTA;
use crate::cache_fleet::wait_shared;
use crate::peers::{Pair, SOON};
use regatta_testkit::client::{Modern, Outcome};
use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::{Seen, answers};
use regatta_testkit::{Gateway, Reply, Result, Stub, eventually};
use serde_json::json;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

fn status(outcome: &Outcome) -> &str {
    outcome.message["result"]["_meta"]["io.regatta/cache"]["status"].as_str().unwrap_or_default()
}

/// Calls until the answer says this of itself.
async fn until_status(modern: &Modern, tool: &str, op: &str, wanted: &str) -> Outcome {
    eventually(&format!("{tool} is answered as {wanted}"), SOON, async || {
        let outcome = modern.call(tool, json!({"op": op})).await.ok()?;
        (status(&outcome) == wanted).then_some(outcome)
    })
    .await
}

/// The server cannot answer `slow_*`, which it says after a while.
fn fails(seen: &Seen) -> Option<Reply> {
    let away = || Reply::text(503, "text/plain", "away");
    match seen.tool() {
        "old" => Some(away()),
        "slow" => Some(away().after(Duration::from_secs(3))),
        _ => None,
    }
}

#[tokio::test]
async fn all_who_wait_for_a_fetch_that_fails_get_the_old_result_and_are_told_so() -> Result<()> {
    const CALLERS: usize = 20;
    let base = answers::dual();
    let stub = Stub::start(base).await;
    let rule = |tool: &str| format!("[[cache]]\ntool = {tool:?}\nttl = \"50ms\"\nstale_if_error = \"1h\"\n");
    let plan = Plan::over([stub.url()]).tables(&(rule("old") + &rule("slow")));
    let gateway = Gateway::start(REGATTA, plan).await;
    let modern = gateway.client().modern();
    let first = modern.call("slow", json!({"op": "x"})).await?;
    modern.call("old", json!({"op": "x"})).await?.result()?;
    let base = answers::dual();
    stub.behave(move |seen| fails(seen).unwrap_or_else(|| base(seen)));
    // It was kept after the other, so when it is past its time, the other is too.
    until_status(&modern, "old", "x", "stale").await;
    let slow_calls = || stub.seen_rpc("tools/call").iter().filter(|seen| seen.tool() == "slow").count();
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..CALLERS {
        let modern = gateway.client().modern();
        callers.spawn(async move { modern.call("slow", json!({"op": "x"})).await });
    }
    eventually("all wait", SOON, async || {
        (gateway.metric("regatta_inflight").await? == CALLERS as f64).then_some(())
    })
    .await;
    assert_eq!(slow_calls(), 2, "the one that was kept, and one for all who wait");
    while let Some(outcome) = callers.join_next().await {
        let outcome = outcome.expect("no panic")?;
        assert_eq!(status(&outcome), "stale", "{}", outcome.message);
        assert_eq!(outcome.text(), first.text());
    }
    assert_eq!(slow_calls(), 2);
    Ok(())
}

#[tokio::test]
async fn behind_stale_answers_of_two_gateways_one_request_fetches_anew_for_both() -> Result<()> {
    // Long enough for both to be asked often while it is under way, and shorter than the ttl of what it brings.
    const FETCH: Duration = Duration::from_millis(2500);
    let (base, fetches) = (answers::dual(), AtomicUsize::new(0));
    let stub = Stub::start(move |seen| match seen.tool() {
        "numbered" => match fetches.fetch_add(1, Ordering::Relaxed) {
            0 => Reply::tool_text(seen, "fetch 0"),
            number => Reply::tool_text(seen, &format!("fetch {number}")).after(FETCH),
        },
        _ => base(seen),
    })
    .await;
    let rules = "[[cache]]\ntool = \"own\"\nttl = \"1h\"\n\
                 [[cache]]\ntool = \"numbered\"\nttl = \"6s\"\nstale_while_revalidate = \"1h\"\n";
    let pair = Pair::start(Plan::over([stub.url()]).tables(rules)).await;
    wait_shared(&pair.one, &pair.two, &stub).await;
    let both = [&pair.one, &pair.two].map(|gateway| gateway.client().modern());
    for modern in &both {
        let kept = eventually("what one fetched is found at the other", SOON, async || {
            modern.call("numbered", json!({"op": "n"})).await.ok()
        });
        assert_eq!(kept.await.text(), "fetch 0");
    }
    let executions = || stub.journal().executions("n");
    assert_eq!(executions(), 1);
    for modern in &both {
        until_status(modern, "numbered", "n", "stale").await;
    }
    eventually("it is fetched anew", SOON, async || (executions() == 2).then_some(())).await;
    for _ in 0..10 {
        for modern in &both {
            let outcome = modern.call("numbered", json!({"op": "n"})).await?;
            assert_eq!((status(&outcome), outcome.text()), ("stale", "fetch 0"));
        }
    }
    assert_eq!(executions(), 2, "one for the fleet");
    for modern in &both {
        let anew = until_status(modern, "numbered", "n", "hit").await;
        assert_eq!(anew.text(), "fetch 1", "the same at both");
    }
    Ok(())
}
