//! Calls that are under way when their gateway dies, and calls that their replica dies of (RELIABILITY F2, F12).

use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::answers;
use regatta_testkit::{Reply, Result, Stub, eventually};
use serde_json::json;
use std::sync::Arc;
use tokio::sync::mpsc;

use crate::fleet::executions;
use crate::peers::{Pair, SOON};

#[tokio::test]
async fn a_modern_call_in_a_killed_gateway_is_cancelled_at_its_replica_and_can_be_made_again_elsewhere()
-> Result<()> {
    let base = answers::dual();
    let stub = Stub::start(move |seen| match seen.op().as_str() {
        "cut" => Reply::sse().comment("begun").hold(),
        _ => base(seen),
    })
    .await;
    let mut pair = Pair::start(Plan::over([stub.url()])).await;
    let modern = pair.one.client().modern();
    let cut = tokio::spawn(async move { modern.call("work", json!({"op": "cut"})).await });
    let called = stub.wait_for("tools/call", 1).await;
    pair.one.process.kill();
    assert!(cut.await.expect("the call's task").is_err(), "no answer is made up");
    eventually("its replica sees that nobody waits", SOON, async || called.fate().left).await;
    let again = pair.two.client().modern().call("work", json!({"op": "again"})).await?;
    again.result()?;
    let stubs = std::slice::from_ref(&stub);
    assert_eq!((executions(stubs, "cut"), executions(stubs, "again")), (1, 1));
    Ok(())
}

/// A replica that dies of the op `pill`: it says which one it is, and is killed before it answers.
async fn mortal(number: usize, dying: &mpsc::UnboundedSender<usize>) -> Stub {
    let (base, dying) = (answers::dual(), dying.clone());
    Stub::start(move |seen| match seen.op().starts_with("pill") {
        true => {
            let _ = dying.send(number);
            Reply::hang()
        }
        false => base(seen),
    })
    .await
}

#[tokio::test]
async fn a_call_that_its_replica_dies_of_takes_no_second_replica_with_it_and_disturbs_nobody() -> Result<()> {
    let (dying, mut deaths) = mpsc::unbounded_channel();
    let mut stubs = Vec::new();
    for number in 0..4 {
        stubs.push(mortal(number, &dying).await);
    }
    let stubs = Arc::new(stubs);
    let plan = Plan::over(stubs.iter().map(Stub::url)).on_server("balance = \"round-robin\"");
    let pair = Pair::start(plan).await;
    let mut others = Vec::new();
    for number in 0..8 {
        let session = [&pair.one, &pair.two][number % 2].client().initialize().await?;
        others.push(session);
    }
    let killed = {
        let stubs = stubs.clone();
        tokio::spawn(async move {
            let mut killed = Vec::new();
            while let Some(number) = deaths.recv().await {
                stubs[number].die().await;
                killed.push(number);
                if killed.len() == 2 {
                    break;
                }
            }
            killed
        })
    };
    let legacy = pair.one.client().initialize().await?.call("work", json!({"op": "pill-legacy"})).await?;
    let modern = pair.two.client().modern().call("work", json!({"op": "pill-modern"})).await?;
    for outcome in [&legacy, &modern] {
        assert_eq!((outcome.status.as_u16(), outcome.code()), (200, -31001), "{}", outcome.message);
    }
    for (number, session) in others.iter().enumerate() {
        for gateway in [&pair.one, &pair.two] {
            let op = format!("other-{number}-{}", gateway.url());
            session.through(&gateway.client()).call("work", json!({"op": op})).await?.result()?;
            assert_eq!(executions(&stubs, &op), 1);
        }
    }
    assert_eq!(killed.await.expect("the killer's task").len(), 2, "one for each pill");
    let swallowed = |op: &str| {
        stubs.iter().flat_map(|stub| stub.seen_rpc("tools/call")).filter(|seen| seen.op() == op).count()
    };
    assert_eq!((swallowed("pill-legacy"), swallowed("pill-modern")), (1, 1), "and never tried elsewhere");
    Ok(())
}
