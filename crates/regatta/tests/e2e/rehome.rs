//! Sessions that move: one move for all calls at once, again and again, with what was wished for and nothing else.

use crate::REGATTA;
use crate::fleet::{demos, home, is_resumed, receiver, urls};
use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::answers;
use regatta_testkit::{Gateway, Reply, Result, Seen, Stub, eventually};
use serde_json::json;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(9);

#[tokio::test]
async fn many_calls_of_one_session_move_it_once() -> Result<()> {
    let mut demos = demos(3, &["--eras", "legacy"]).await;
    let gateway = Gateway::start(REGATTA, Plan::over(urls(&demos))).await;
    let session = gateway.client().initialize().await?;
    let lost = home(&demos, &session).await?;
    demos[lost].process.kill();
    let calls: Vec<_> = (0..20)
        .map(|_| {
            let session = session.clone();
            tokio::spawn(async move { session.call("counter", json!({})).await })
        })
        .collect();
    let (mut counts, mut resumed) = (Vec::new(), 0);
    for call in calls {
        let outcome = call.await.expect("the call's task")?;
        resumed += usize::from(is_resumed(&outcome));
        counts.push(outcome.text().parse::<u64>().unwrap_or_else(|_| panic!("{}", outcome.message)));
    }
    counts.sort_unstable();
    assert_eq!(counts, (1..=20).collect::<Vec<_>>(), "all in one new session");
    assert_eq!(resumed, 1, "its client is told once");
    assert_eq!(gateway.metric("regatta_rehomed_total").await, Some(1.0));
    Ok(())
}

#[tokio::test]
async fn a_session_outlives_one_replica_after_the_other_and_the_gateway_in_between() -> Result<()> {
    let mut demos = demos(4, &["--eras", "legacy"]).await;
    let mut gateway = Gateway::start(REGATTA, Plan::over(urls(&demos))).await;
    let session = gateway.client().initialize().await?;
    for _ in 0..3 {
        let lost = home(&demos, &session).await?;
        demos[lost].process.kill();
        let moved = session.call("counter", json!({})).await?;
        assert!(is_resumed(&moved), "{}", moved.message);
        assert_eq!(moved.text(), "1");
        gateway.restart_after_kill().await;
        let next = session.call("counter", json!({})).await?;
        assert_eq!((next.text(), is_resumed(&next)), ("2", false));
    }
    Ok(())
}

#[tokio::test]
async fn the_new_home_hears_what_is_still_wished_for() -> Result<()> {
    let stubs = [Stub::start(answers::legacy()).await, Stub::start(answers::legacy()).await];
    let gateway = Gateway::start(REGATTA, Plan::over(stubs.each_ref().map(Stub::url))).await;
    let session = gateway.client().header("authorization", "Bearer mine").initialize().await?;
    for (method, params) in [
        ("resources/subscribe", json!({"uri": "a://kept"})),
        ("resources/subscribe", json!({"uri": "a://dropped"})),
        ("resources/unsubscribe", json!({"uri": "a://dropped"})),
        ("logging/setLevel", json!({"level": "error"})),
        ("logging/setLevel", json!({"level": "debug"})),
    ] {
        session.request(method, params).await?.outcome().await?.result()?;
    }
    session.call("work", json!({"op": "before"})).await?.result()?;
    let old = receiver(&stubs, "before").await;
    let (old, new) = (&stubs[old], &stubs[1 - old]);
    let home = old.seen_rpc("tools/call")[0].header("mcp-session-id").to_owned();
    old.die().await;
    session.call("work", json!({"op": "after"})).await?.result()?;

    let told = new.seen_rpc("tools/call")[0].header("mcp-session-id").to_owned();
    let in_session = |seen: &&std::sync::Arc<regatta_testkit::Seen>| seen.header("mcp-session-id") == told;
    let all = new.seen();
    let steps: Vec<_> =
        all.iter().filter(in_session).map(|seen| (seen.rpc(), &seen.json["params"])).collect();
    let methods: Vec<_> = steps.iter().map(|(method, _)| *method).collect();
    let expected = ["notifications/initialized", "logging/setLevel", "resources/subscribe", "tools/call"];
    assert_eq!(methods, expected);
    assert_eq!((&steps[1].1["level"], &steps[2].1["uri"]), (&json!("debug"), &json!("a://kept")));
    let opened = new.seen_rpc("initialize");
    let ours = opened.iter().find(|seen| seen.json["params"]["clientInfo"]["name"] == "regatta-testkit");
    let ours = ours.expect("the handshake is made in the client's name");
    assert_eq!(ours.json["params"]["capabilities"], json!({"elicitation": {}, "sampling": {}}));

    old.rise().await;
    eventually("what was left at the old replica is ended there", SOON, async || {
        let ends = old
            .seen()
            .into_iter()
            .find(|seen| seen.method == "DELETE" && seen.header("mcp-session-id") == home);
        ends.map(|end| assert_eq!(end.header("authorization"), "Bearer mine", "as who opened it"))
    })
    .await;
    session.call("work", json!({"op": "stays"})).await?.result()?;
    assert_eq!(new.journal().executions("stays"), 1, "it does not move back");
    Ok(())
}

#[tokio::test]
async fn a_session_that_its_replica_forgot_moves_though_the_replica_is_well() -> Result<()> {
    let stub = Stub::start(answers::legacy()).await;
    let gateway = Gateway::start(REGATTA, Plan::over([stub.url()])).await;
    let session = gateway.client().initialize().await?;
    session.call("work", json!({"op": "before"})).await?.result()?;
    stub.behave(answers::legacy());
    let after = session.call("work", json!({"op": "after"})).await?;
    assert!(is_resumed(&after), "{}", after.message);
    assert_eq!(stub.journal().executions("after"), 1);
    Ok(())
}

#[tokio::test]
async fn what_the_server_refused_is_not_wished_for_again() -> Result<()> {
    let refusing = || {
        let base = answers::legacy();
        move |seen: &regatta_testkit::Seen| match seen.rpc() {
            "resources/subscribe" | "logging/setLevel" => regatta_testkit::Reply::error(seen, -32002, "no"),
            _ => base(seen),
        }
    };
    let stubs = [Stub::start(refusing()).await, Stub::start(refusing()).await];
    let gateway = Gateway::start(REGATTA, Plan::over(stubs.each_ref().map(Stub::url))).await;
    let session = gateway.client().initialize().await?;
    let subscribe =
        session.request("resources/subscribe", json!({"uri": "a://none"})).await?.outcome().await?;
    let level = session.request("logging/setLevel", json!({"level": "error"})).await?.outcome().await?;
    assert_eq!((subscribe.code(), level.code()), (-32002, -32002));
    session.call("work", json!({"op": "before"})).await?.result()?;
    let old = receiver(&stubs, "before").await;
    stubs[old].die().await;
    session.call("work", json!({"op": "after"})).await?.result()?;
    let new = &stubs[1 - old];
    assert_eq!(new.seen_rpc("resources/subscribe").len() + new.seen_rpc("logging/setLevel").len(), 0);
    Ok(())
}

#[tokio::test]
async fn the_first_result_says_that_the_session_moved_whatever_came_before_it() -> Result<()> {
    let mut demos = demos(2, &["--eras", "legacy"]).await;
    let gateway = Gateway::start(REGATTA, Plan::over(urls(&demos))).await;
    let session = gateway.client().initialize().await?;
    let lost = home(&demos, &session).await?;
    demos[lost].process.kill();
    let failed = session.call("no such tool", json!({})).await?;
    assert_eq!(failed.code(), -32602, "an error carries no news: {}", failed.message);
    assert!(is_resumed(&session.call("whoami", json!({})).await?));
    assert!(!is_resumed(&session.call("whoami", json!({})).await?));
    Ok(())
}

#[tokio::test]
async fn what_the_server_refused_in_an_event_is_not_wished_for_again() -> Result<()> {
    let refusing = || {
        let base = answers::legacy();
        move |seen: &Seen| {
            let no = json!({"jsonrpc": "2.0", "id": seen.id(), "error": {"code": -32002, "message": "no"}});
            let said =
                json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info"}});
            match (seen.rpc(), seen.json["params"]["uri"].as_str()) {
                ("resources/subscribe", Some("a://alone")) => Reply::sse().event(&no),
                ("resources/subscribe", _) => Reply::sse().event(&said).event(&no),
                _ => base(seen),
            }
        }
    };
    let stubs = [Stub::start(refusing()).await, Stub::start(refusing()).await];
    let gateway = Gateway::start(REGATTA, Plan::over(stubs.each_ref().map(Stub::url))).await;
    let session = gateway.client().initialize().await?;
    for uri in ["a://alone", "a://told"] {
        let refused = session.request("resources/subscribe", json!({"uri": uri})).await?.outcome().await?;
        assert_eq!(refused.code(), -32002, "{}", refused.message);
    }
    session.call("work", json!({"op": "before"})).await?.result()?;
    let old = receiver(&stubs, "before").await;
    stubs[old].die().await;
    session.call("work", json!({"op": "after"})).await?.result()?;
    assert_eq!(stubs[1 - old].seen_rpc("resources/subscribe").len(), 0);
    Ok(())
}

#[tokio::test]
async fn a_level_is_kept_though_its_client_left_before_the_answer() -> Result<()> {
    for form in ["json", "events"] {
        let late = || {
            let base = answers::legacy();
            move |seen: &Seen| match seen.rpc() {
                "logging/setLevel" => {
                    let result = json!({"jsonrpc": "2.0", "id": seen.id(), "result": {}});
                    let reply =
                        if form == "json" { Reply::json(&result) } else { Reply::sse().event(&result) };
                    reply.after(Duration::from_secs(2))
                }
                _ => base(seen),
            }
        };
        let stubs = [Stub::start(late()).await, Stub::start(late()).await];
        let plan = Plan::over(stubs.each_ref().map(Stub::url)).on_server("prime_after = \"20s\"");
        let gateway = Gateway::start(REGATTA, plan).await;
        let session = gateway.client().initialize().await?;
        session.call("work", json!({"op": "before"})).await?.result()?;
        let old = receiver(&stubs, "before").await;
        let leaves = {
            let session = session.clone();
            let level = json!({"level": "error"});
            tokio::spawn(async move { session.request("logging/setLevel", level).await })
        };
        stubs[old].wait_for("logging/setLevel", 1).await;
        leaves.abort();
        gateway.metric_reaches("regatta_detached", 1.0).await;
        eventually("the call has ended without its client", SOON, async || {
            (gateway.metric("regatta_detached").await? == 0.0).then_some(())
        })
        .await;
        stubs[old].die().await;
        session.call("work", json!({"op": "after"})).await?.result()?;
        let told = stubs[1 - old].seen_rpc("logging/setLevel");
        let levels: Vec<_> = told.iter().map(|seen| &seen.json["params"]["level"]).collect();
        assert_eq!(levels, ["error"], "{form}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_is_back_gets_new_work_when_what_left_it_was_ended() -> Result<()> {
    const SESSIONS: usize = 40;
    let slow_to_end = || {
        let base = answers::dual();
        move |seen: &Seen| match seen.method.as_str() {
            "DELETE" => base(seen).after(Duration::from_millis(40)),
            _ => base(seen),
        }
    };
    let stubs = [Stub::start(slow_to_end()).await, Stub::start(slow_to_end()).await];
    let plan = Plan::over(stubs.each_ref().map(Stub::url)).on_server("balance = \"round-robin\"");
    let gateway = Gateway::start(REGATTA, plan.on_gateway("initialize_per_minute_max = 1000000")).await;
    let mut sessions = Vec::new();
    for number in 0..SESSIONS {
        let session = gateway.client().initialize().await?;
        session.call("work", json!({"op": number.to_string()})).await?.result()?;
        sessions.push(session);
    }
    let (lost, ops) = (&stubs[0], stubs[0].seen_rpc("tools/call"));
    let left: Vec<_> = ops.iter().map(|seen| seen.header("mcp-session-id").to_owned()).collect();
    assert!(left.len() > SESSIONS / 4, "half of them, about: {}", left.len());
    lost.die().await;
    gateway.metric_reaches("regatta_replica_healthy", 1.0).await;
    eventually("probes miss it", SOON, async || {
        (gateway.metric("regatta_replica_healthy").await? == 1.0).then_some(())
    })
    .await;
    for session in &sessions {
        session.call("work", json!({"op": "moves"})).await?.result()?;
    }
    let calls: Vec<_> = (0..4)
        .map(|_| {
            let modern = gateway.client().modern();
            tokio::spawn(async move {
                while modern.call("work", json!({"op": "new"})).await.and_then(|call| call.result()).is_ok() {
                }
            })
        })
        .collect();
    let before = lost.seen().len();
    lost.rise().await;
    let executed = || lost.journal().executions("new");
    eventually("it gets new work", SOON, async || (executed() > 0).then_some(())).await;
    let seen = lost.seen().split_off(before);
    let first = seen.iter().position(|seen| seen.rpc() == "tools/call").expect("new work");
    let ended: Vec<_> = seen[..first]
        .iter()
        .filter(|seen| seen.method == "DELETE")
        .map(|seen| seen.header("mcp-session-id"))
        .collect();
    let missing = left.iter().filter(|session| !ended.contains(&session.as_str())).count();
    assert_eq!(missing, 0, "of {} sessions were not ended before", left.len());
    calls.iter().for_each(tokio::task::JoinHandle::abort);
    Ok(())
}
