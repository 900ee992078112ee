//! `connections_max` of a server: one bound for two gateways, whatever dies in between.

use crate::peers::{Pair, SOON, on_store};
use regatta_testkit::gateway::Plan;
use regatta_testkit::redis::Server;
use regatta_testkit::stub::{Reply, answers};
use regatta_testkit::{Gateway, Result, Stub, eventually};
use serde_json::json;
use std::time::Duration;
use tokio::task::JoinSet;

/// A server that takes its time for calls, and the plan of a gateway that knows how many connections it bears.
async fn bounded(connections_max: usize) -> (Stub, Plan) {
    let others = answers::dual();
    let stub = Stub::start(move |seen| match seen.json["method"].as_str() {
        Some("tools/call") => Reply::tool_text(seen, "done").wait(Duration::from_millis(100)),
        _ => others(seen),
    })
    .await;
    stub.count_open();
    let lines = format!("connections_max = {connections_max}\nconnect_timeout = \"20s\"");
    let plan = Plan::over([stub.url()]).on_server(&lines);
    (stub, plan)
}

/// Sends so many calls at once in turn to these gateways; all must be answered.
async fn burst(gateways: &[&Gateway], op: &str, count: usize) {
    let mut calls = JoinSet::new();
    for at in 0..count {
        let (session, op) = (gateways[at % gateways.len()].client().modern(), op.to_owned());
        calls.spawn(async move { session.call("work", json!({"op": op})).await.map(|told| told.status) });
    }
    for status in calls.join_all().await {
        assert_eq!(status.expect("an answer"), 200);
    }
}

#[tokio::test]
async fn a_server_never_has_more_connections_than_it_bears_and_all_of_them_are_used() -> Result<()> {
    let (stub, plan) = bounded(4).await;
    let mut pair = Pair::start(plan).await;
    burst(&[&pair.one, &pair.two], "both", 40).await;
    let most = stub.most_open();
    assert!((3..=4).contains(&most), "{most} at once");
    for gateway in [&pair.one, &pair.two] {
        let allowed = gateway.metric("regatta_server_connections_allowed").await.unwrap_or_default();
        let taken = gateway.metric("regatta_server_connections").await.unwrap_or(f64::MAX);
        assert!(allowed <= 4.0 && taken <= 4.0, "{allowed} {taken}");
    }

    pair.one.process.kill();
    eventually("what the dead one held is the other's", SOON, async || {
        burst(&[&pair.two], "alone", 16).await;
        let most = stub.most_open();
        assert!(most <= 4, "{most} at once");
        (most == 4).then_some(())
    })
    .await;

    pair.redis.process.kill();
    tokio::time::sleep(Duration::from_secs(6)).await;
    burst(&[&pair.two], "away", 16).await;
    let most = stub.most_open();
    assert!((1..=4).contains(&most), "{most} at once without a store");
    Ok(())
}

/// What `gateway` may have now.
async fn allowed(gateway: &Gateway) -> f64 {
    gateway.metric("regatta_server_connections_allowed").await.unwrap_or_default()
}

#[tokio::test]
async fn a_gateway_that_is_always_busy_makes_room_for_one_that_comes() -> Result<()> {
    let (stub, plan) = bounded(4).await;
    let pair = Pair::start(plan).await;
    let mut busy = JoinSet::new();
    for _ in 0..8 {
        let session = pair.one.client().modern();
        busy.spawn(async move {
            loop {
                let told = session.call("work", json!({"op": "old"})).await;
                assert_eq!(told.expect("an answer").status, 200);
            }
        });
    }
    eventually("one gateway has all but what the other keeps for its first request", SOON, async || {
        (allowed(&pair.one).await >= 3.0 && stub.most_open() == 3).then_some(())
    })
    .await;
    eventually("each has its half", SOON, async || {
        burst(&[&pair.two], "new", 8).await;
        assert!(stub.most_open() <= 4);
        (allowed(&pair.two).await >= 2.0 && allowed(&pair.one).await <= 2.0).then_some(())
    })
    .await;
    busy.abort_all();
    while let Some(ended) = busy.join_next().await {
        assert!(ended.is_err_and(|why| why.is_cancelled()), "no call of the old one failed");
    }
    Ok(())
}

#[tokio::test]
async fn a_gateway_that_never_reached_the_store_takes_one_connection_and_its_part_later() -> Result<()> {
    let (stub, plan) = bounded(4).await;
    let mut redis = Server::start(&[]).await;
    redis.process.kill();
    let gateway = Gateway::start(crate::REGATTA, on_store(plan, &redis.url())).await;
    burst(&[&gateway], "stranger", 6).await;
    assert_eq!(stub.most_open(), 1);
    redis.restart().await;
    eventually("alone on its store, it has all", SOON, async || {
        burst(&[&gateway], "known", 16).await;
        (stub.most_open() == 4).then_some(())
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn a_gateway_alone_holds_the_bound_by_itself() -> Result<()> {
    let (stub, plan) = bounded(3).await;
    let gateway = Gateway::start(crate::REGATTA, plan).await;
    burst(&[&gateway], "alone", 15).await;
    assert_eq!(stub.most_open(), 3);
    Ok(())
}
