//! More than a server can take: whoever asks most waits most, what can wait does, and a server is not buried.

use crate::REGATTA;
use regatta_testkit::client::Outcome;
use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::answers;
use regatta_testkit::{Client, Gateway, Issuer, Reply, Result, Stub, eventually};
use serde_json::json;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;

/// A stub whose tool `hold` answers when the connection is dropped, and `fails` while it is told to.
async fn stub(fails: &Arc<AtomicBool>) -> Stub {
    let (base, fails) = (answers::dual(), fails.clone());
    Stub::start(move |seen| match seen.tool() {
        "hold" => Reply::sse().comment("held").live(),
        "work" | "report" if fails.load(Ordering::Relaxed) => Reply::status(500),
        _ => base(seen),
    })
    .await
}

fn caller(gateway: &Gateway, name: &str) -> Client {
    gateway.client().header("authorization", &format!("Bearer {name}"))
}

fn call(client: Client, tool: &'static str) -> JoinHandle<Result<Outcome>> {
    tokio::spawn(async move { client.modern().call(tool, json!({"op": tool})).await })
}

async fn code(running: JoinHandle<Result<Outcome>>) -> i64 {
    let outcome = running.await.expect("the call's task").expect("an answer");
    if outcome.result().is_ok() { 0 } else { outcome.code() }
}

#[tokio::test]
async fn in_a_full_queue_who_has_most_makes_room_for_who_has_less() -> Result<()> {
    let stub = stub(&Arc::default()).await;
    let server = "concurrency = \"static\"\ninflight_max = 1\nqueue_max = 3\nqueue_wait_max = \"30s\"";
    let gateway = Gateway::start(REGATTA, Plan::over([stub.url()]).on_server(server)).await;
    let hold = json!({"name": "hold", "arguments": {}});
    let taken = gateway.client().modern().request("tools/call", hold).await?;
    let mut greedy = Vec::new();
    for queued in 1..=3 {
        greedy.push(call(caller(&gateway, "greedy"), "work"));
        gateway.metric_reaches("regatta_server_queued", f64::from(queued)).await;
    }
    assert_eq!(code(call(caller(&gateway, "greedy"), "work")).await, -31002, "no room for more of the same");
    let modest = call(caller(&gateway, "modest"), "work");
    let last = greedy.pop().expect("three wait");
    assert_eq!(code(last).await, -31002, "it made room");
    drop(taken);
    assert_eq!(code(modest).await, 0);
    for running in greedy {
        assert_eq!(code(running).await, 0, "who was not pushed out is served");
    }
    Ok(())
}

#[tokio::test]
async fn background_goes_last_and_a_class_has_a_bound_of_its_own() -> Result<()> {
    let stub = stub(&Arc::default()).await;
    let server = "concurrency = \"static\"\ninflight_max = 1\nqueue_max = 1\nqueue_wait_max = \"30s\"\n\
                  [[server.class]]\ntool = \"report\"\npriority = \"background\"\n\
                  [[server.class]]\nname = \"holds\"\ntool = \"hold*\"\ninflight_max = 1";
    let gateway = Gateway::start(REGATTA, Plan::over([stub.url()]).on_server(server)).await;
    let hold = json!({"name": "hold", "arguments": {}});
    let taken = gateway.client().modern().request("tools/call", hold).await?;
    let report = call(caller(&gateway, "one"), "report");
    gateway.metric_reaches("regatta_server_queued", 1.0).await;
    let work = call(caller(&gateway, "one"), "work");
    assert_eq!(code(report).await, -31002, "background makes room for interactive");
    let held = call(caller(&gateway, "two"), "hold-too");
    assert_eq!(
        gateway.metric("regatta_server_queued").await,
        Some(1.0),
        "it waits for its class, not for the server"
    );
    drop(taken);
    assert_eq!(code(work).await, 0);
    assert_eq!(code(held).await, 0);
    Ok(())
}

#[tokio::test]
async fn a_server_whose_every_replica_fails_is_refused_at_once_and_tried_by_one_request() -> Result<()> {
    let fails = Arc::new(AtomicBool::new(true));
    let stubs = [stub(&fails).await, stub(&fails).await];
    let gateway = Gateway::start(REGATTA, Plan::over(stubs.iter().map(Stub::url))).await;
    let modern = gateway.client().modern();
    let refused = async || {
        let outcome = modern.call("work", json!({"op": "x"})).await.ok()?;
        (outcome.code() == -31004).then_some(())
    };
    eventually("the server is shut", Duration::from_secs(20), refused).await;
    let seen = || stubs.iter().map(|stub| stub.seen_rpc("tools/call").len()).sum::<usize>();
    let before = seen();
    for _ in 0..200 {
        let code = modern.call("work", json!({"op": "x"})).await?.code();
        assert_ne!(code, 0);
    }
    // Two probes in the first second, later fewer; 200 refusals take few seconds.
    assert!(seen() - before <= 10, "{} reached a server that is shut", seen() - before);
    assert!(gateway.metric("regatta_shut_total").await >= Some(150.0));
    fails.store(false, Ordering::Relaxed);
    let served = async || modern.call("work", json!({"op": "x"})).await.ok()?.result().ok();
    eventually("the server is tried and open again", Duration::from_secs(40), served).await;
    for _ in 0..20 {
        modern.call("work", json!({"op": "x"})).await?.result()?;
    }
    Ok(())
}

#[tokio::test]
async fn who_was_given_three_shares_gets_three_turns_to_one() -> Result<()> {
    let (issuer, stub) = (Issuer::start().await, stub(&Arc::default()).await);
    let server = "concurrency = \"static\"\ninflight_max = 1\nqueue_max = 100\nqueue_wait_max = \"1m\"";
    let plan = Plan::over([stub.url()]).on_server(server).tables(&issuer.tables("weight_claim = \"share\""));
    let gateway = Gateway::start(REGATTA, plan).await;
    let of = |name: &str, share: u64| {
        let bearer = issuer.bearer_of(&issuer.token(name).claim("share", share));
        gateway.client().header("authorization", &bearer)
    };
    let hold = json!({"name": "hold", "arguments": {}});
    let taken = of("somebody", 1).modern().request("tools/call", hold).await?;
    let mut calls = Vec::new();
    for (queued, (name, share)) in [("light", 1); 8].into_iter().chain([("heavy", 3); 8]).enumerate() {
        let client = of(name, share);
        calls.push(tokio::spawn(async move { client.modern().call("work", json!({"op": name})).await }));
        gateway.metric_reaches("regatta_server_queued", (queued + 1) as f64).await;
    }
    drop(taken);
    for call in calls {
        assert_eq!(code(call).await, 0);
    }
    let ran: Vec<String> = stub.journal().entries().into_iter().map(|entry| entry.op).collect();
    let ran: Vec<&String> = ran.iter().filter(|op| ["heavy", "light"].contains(&op.as_str())).collect();
    let heavy = ran.iter().take(8).filter(|op| **op == "heavy").count();
    assert_eq!((ran.len(), heavy), (16, 6), "{ran:?}");
    Ok(())
}
