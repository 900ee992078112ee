//! Gateways and replicas that die, stop and come back while both gateways are in use (RELIABILITY F1 to F9, F13).

use crate::fleet::{demos, executions, home, is_resumed, urls};
use crate::peers::{Heard, Pair, SOON, sleep};
use regatta_testkit::client::Session;
use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::answers;
use regatta_testkit::{Client, Reply, Result, Stub, eventually};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// A call at the first of two gateways that takes it; whoever refuses must say that nothing was executed.
async fn call_at(clients: &[Client; 2], first: usize, session: &Session, op: &str) -> Value {
    for turn in 0..400 {
        let through = session.through(&clients[(first + turn) % 2]);
        let outcome = match through.call("work", json!({"op": op})).await {
            Ok(outcome) => outcome,
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        assert_ne!(outcome.status, 404, "{op}: {}", outcome.message);
        if outcome.message["error"]["data"]["executed"] != "no" {
            return outcome.message;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("nobody took {op}");
}

#[tokio::test]
async fn a_gateway_and_a_replica_killed_under_load_lose_no_session_and_repeat_no_call() -> Result<()> {
    let stubs = [
        Stub::start(answers::legacy()).await,
        Stub::start(answers::legacy()).await,
        Stub::start(answers::legacy()).await,
    ];
    let plan = Plan::over(stubs.each_ref().map(Stub::url)).on_server("balance = \"round-robin\"");
    let mut pair = Pair::start(plan).await;
    let clients = [pair.one.client(), pair.two.client()];
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut loops = Vec::new();
    for number in 0..20 {
        let session = clients[number % 2].initialize().await?;
        let (clients, stop, done) = (clients.clone(), stop.clone(), done.clone());
        loops.push(tokio::spawn(async move {
            let mut unknown = Vec::new();
            for turn in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let op = format!("{number}-{turn}");
                // A call that was on its way through the killed gateway got no answer at all: like any client we do not
                // know, so we ask under a new name.
                let message = call_at(&clients, number + turn, &session, &op).await;
                match message["error"]["code"].as_i64() {
                    None => assert!(message["result"].is_object(), "{message}"),
                    Some(code) => {
                        assert_eq!(code, -31001, "{message}");
                        unknown.push(op);
                    }
                }
                done.fetch_add(1, Ordering::Relaxed);
            }
            unknown
        }));
    }
    let reaches = async |count: usize| {
        eventually("the load goes on", SOON * 2, async || {
            (done.load(Ordering::Relaxed) >= count).then_some(())
        })
        .await;
    };
    reaches(200).await;
    stubs[0].die().await;
    let seen = done.load(Ordering::Relaxed);
    reaches(seen + 200).await;
    pair.one.process.kill();
    let seen = done.load(Ordering::Relaxed);
    reaches(seen + 200).await;
    stop.store(true, Ordering::Relaxed);
    for running in loops {
        running.await.expect("every session lives on");
    }
    Ok(())
}

#[tokio::test]
async fn a_call_in_a_killed_gateway_is_executed_once_whatever_its_client_does() -> Result<()> {
    let base = answers::legacy();
    let stub = Stub::start(move |seen| match seen.tool() {
        "late" => Reply::tool_text(seen, "late").after(Duration::from_millis(1500)),
        _ => base(seen),
    })
    .await;
    let plan = Plan::over([stub.url()]).on_server("prime_after = \"100ms\"");
    let mut pair = Pair::start(plan).await;
    let [one, two] = pair.session().await?;
    let params = json!({"name": "late", "arguments": {"op": "once"}});
    let mut events = one.request("tools/call", params).await?.events();
    let id = events.next().await?.expect("a priming event").id.expect("an id");
    pair.one.process.kill();
    let last = two.resume(&id).await?.events().rest().await?.pop().expect("a last word").json();
    assert_eq!(last["error"]["code"], -31001, "{last}");
    assert_eq!(executions(std::slice::from_ref(&stub), "once"), 1);
    Ok(())
}

#[tokio::test]
async fn a_gateway_that_was_stopped_does_not_act_on_what_it_knew_before() -> Result<()> {
    let mut demos = demos(2, &["--eras", "legacy"]).await;
    let pair = Pair::start(Plan::over(urls(&demos))).await;
    let [one, two] = pair.session().await?;
    assert_eq!(one.call("counter", json!({})).await?.text(), "1");
    let mut heard = Heard::default();
    let mut events = sleep(&one, 60_000).await?.events();
    heard.note(&events.until("notifications/progress").await?);
    pair.one.process.stop();
    drop(events);
    // Its lease runs out, and the other one says what can be said.
    let last = two.resume(heard.last_id()).await?.events().rest().await?.pop().expect("a last word").json();
    assert_eq!(last["error"]["code"], -31001, "{last}");
    let at = home(&demos, &two).await?;
    demos[at].process.kill();
    assert!(is_resumed(&two.call("counter", json!({})).await?));
    pair.one.process.go_on();
    let next = one.call("counter", json!({})).await?;
    assert_eq!(next.text(), "2", "at the new home: {}", next.message);
    assert_eq!(two.call("counter", json!({})).await?.text(), "3");
    Ok(())
}

#[tokio::test]
async fn a_gateway_that_wakes_forwards_no_modern_call_whose_client_has_left() -> Result<()> {
    let stub = Stub::start(answers::dual()).await;
    let pair = Pair::start(Plan::over([stub.url()])).await;
    let modern = pair.one.client().modern();
    modern.call("work", json!({"op": "warm"})).await?.result()?;
    pair.one.process.stop();
    // Their patience is what makes the stop long enough to be one.
    const LATE: usize = 30;
    for number in 0..LATE {
        let call = modern.call("work", json!({"op": format!("late-{number}")}));
        let patience = Duration::from_millis(100);
        assert!(tokio::time::timeout(patience, call).await.is_err(), "nobody answers");
    }
    pair.one.process.go_on();
    pair.one.client().modern().call("work", json!({"op": "after"})).await?.result()?;
    eventually("nothing is under way", SOON, async || {
        (pair.one.metric("regatta_inflight").await? == 0.0).then_some(())
    })
    .await;
    let late = (0..LATE).filter(|number| stub.journal().executions(&format!("late-{number}")) > 0).count();
    assert_eq!(late, 0, "of {LATE} calls that nobody waits for were forwarded");
    Ok(())
}

#[tokio::test]
async fn a_replica_that_was_stopped_and_wakes_gets_nothing_of_its_old_sessions_but_their_end() -> Result<()> {
    let demos = demos(2, &["--eras", "legacy"]).await;
    let plan = Plan::over(urls(&demos)).on_server("request_timeout = \"1s\"\ngone_after = \"1s\"");
    let pair = Pair::start(plan).await;
    let [one, two] = pair.session().await?;
    assert_eq!(one.call("counter", json!({})).await?.text(), "1");
    let at = home(&demos, &one).await?;
    demos[at].process.stop();
    let moved = eventually("the session moves", SOON, async || {
        let outcome = two.call("counter", json!({})).await.ok()?;
        is_resumed(&outcome).then_some(outcome)
    })
    .await;
    assert_eq!(moved.text(), "1");
    // Gateways hear of each other's moves in a moment, not at once.
    eventually("the other gateway has heard of it", SOON, async || {
        (home(&demos, &one).await.ok()? != at).then_some(())
    })
    .await;
    demos[at].process.go_on();
    for count in 2..=12 {
        let session = if count % 2 == 0 { &one } else { &two };
        let next = session.call("counter", json!({})).await?;
        assert_eq!(next.text(), count.to_string(), "one home: {}", next.message);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

#[tokio::test]
async fn a_rolling_restart_fails_no_request_and_loses_no_running_call() -> Result<()> {
    let stub = Stub::start(answers::legacy()).await;
    let demos = demos(1, &["--eras", "legacy"]).await;
    let mut pair =
        Pair::start(Plan::over([stub.url()]).server("slow", urls(&demos), "path = \"/slow\"")).await;
    let clients = [pair.one.client(), pair.two.client()];
    let slow = Client::new(&pair.one.url().replace("/mcp", "/slow")).initialize().await?;
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut loops = Vec::new();
    for number in 0..8 {
        let session = clients[number % 2].initialize().await?;
        let (clients, stop, done) = (clients.clone(), stop.clone(), done.clone());
        loops.push(tokio::spawn(async move {
            for turn in 0.. {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let message = call_at(&clients, number + turn, &session, &format!("{number}-{turn}")).await;
                assert!(message["result"].is_object(), "{message}");
                done.fetch_add(1, Ordering::Relaxed);
            }
        }));
    }
    let running = tokio::spawn(sleep(&slow, 1500).await?.outcome());
    for turn in 0..2 {
        let seen = done.load(Ordering::Relaxed);
        eventually("the load goes on", SOON, async || {
            (done.load(Ordering::Relaxed) >= seen + 50).then_some(())
        })
        .await;
        let gateway = if turn == 0 { &mut pair.one } else { &mut pair.two };
        gateway.process.terminate();
        assert!(gateway.process.exit_within(SOON * 2).await.success());
        gateway.restart_after_kill().await;
    }
    assert_eq!(running.await.expect("the call's task")?.text(), "slept 1500 ms");
    stop.store(true, Ordering::Relaxed);
    for running in loops {
        running.await.expect("no request failed");
    }
    Ok(())
}
