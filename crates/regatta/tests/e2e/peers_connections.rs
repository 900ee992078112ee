//! `connections_max` of a server: one bound for two gateways, whatever dies in between.

use crate::peers::{Pair, SOON};
use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::{Reply, answers};
use regatta_testkit::{Gateway, Result, Stub, eventually};
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::task::JoinSet;

/// A server that bears so many connections, and takes its time for calls.
async fn bounded(connections_max: usize) -> (Stub, Pair) {
    let others = answers::dual();
    let stub = Stub::start(move |seen| match seen.json["method"].as_str() {
        Some("tools/call") => Reply::tool_text(seen, "done").wait(Duration::from_millis(100)),
        _ => others(seen),
    })
    .await;
    let lines = format!("connections_max = {connections_max}\nconnect_timeout = \"20s\"");
    let pair = Pair::start(Plan::over([stub.url()]).on_server(&lines)).await;
    (stub, pair)
}

/// How late the server may note the end of a call, of a tenth of a second.
const LATE: Duration = Duration::from_millis(10);

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

/// The most connections on which a call of `op` was under way at one moment.
fn at_once(stub: &Stub, op: &str) -> usize {
    let calls: Vec<_> = stub.seen_rpc("tools/call").into_iter().filter(|call| call.op() == op).collect();
    let under_way = |moment| {
        let runs = calls.iter().filter(|call| call.at <= moment);
        // An end may be noted a moment after the gateway has it.
        let runs = runs.filter(|call| call.fate().answered.is_none_or(|end| moment + LATE < end));
        runs.map(|call| call.connection).collect::<BTreeSet<_>>().len()
    };
    calls.iter().map(|call| under_way(call.at)).max().unwrap_or(0)
}

#[tokio::test]
async fn a_server_never_has_more_connections_than_it_bears_and_all_of_them_are_used() -> Result<()> {
    let (stub, mut pair) = bounded(4).await;
    burst(&[&pair.one, &pair.two], "both", 40).await;
    let most = at_once(&stub, "both");
    assert!((3..=4).contains(&most), "{most} at once");
    for gateway in [&pair.one, &pair.two] {
        let allowed = gateway.metric("regatta_server_connections_allowed").await.unwrap_or_default();
        let taken = gateway.metric("regatta_server_connections").await.unwrap_or(f64::MAX);
        assert!(allowed <= 4.0 && taken <= 4.0, "{allowed} {taken}");
    }

    pair.one.process.kill();
    let mut round = 0;
    eventually("what the dead one held is the other's", SOON, async || {
        round += 1;
        let op = format!("alone-{round}");
        burst(&[&pair.two], &op, 16).await;
        let most = at_once(&stub, &op);
        assert!(most <= 4, "{most} at once");
        (most == 4).then_some(())
    })
    .await;

    pair.redis.process.kill();
    tokio::time::sleep(Duration::from_secs(6)).await;
    burst(&[&pair.two], "away", 16).await;
    let most = at_once(&stub, "away");
    assert!((1..=4).contains(&most), "{most} at once without a store");
    Ok(())
}

#[tokio::test]
async fn a_gateway_alone_holds_the_bound_by_itself() -> Result<()> {
    let stub = Stub::start(|seen| match seen.json["method"].as_str() {
        Some("tools/call") => Reply::tool_text(seen, "done").wait(Duration::from_millis(100)),
        _ => answers::dual()(seen),
    })
    .await;
    let plan = Plan::over([stub.url()]).on_server("connections_max = 3\nconnect_timeout = \"20s\"");
    let gateway = Gateway::start(crate::REGATTA, plan).await;
    burst(&[&gateway], "alone", 15).await;
    assert_eq!(at_once(&stub, "alone"), 3);
    Ok(())
}
