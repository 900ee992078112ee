//! What Redis does to its clients, seen through whole gateways: it is full, evicts, kills connections, shuts a user out
//! (RELIABILITY F57 to F63).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use regatta_testkit::gateway::Plan;
use regatta_testkit::redis::Server;
use regatta_testkit::stub::answers;
use regatta_testkit::{Gateway, Reply, Result, Stub, eventually};
use serde_json::json;

use crate::REGATTA;
use crate::failover_load::linked;
use crate::fleet::{demos, urls};
use crate::forgetful::{Forgetful, forget, seat};
use crate::peers::{Heard, Pair, SOON, on_store, sleep};

async fn over(server: &Forgetful) -> Pair {
    Pair::start(Plan::over([server.stub.url()])).await
}

fn assert_calm(gateway: &Gateway) {
    assert!(!gateway.log().contains("panicked"), "{}", gateway.log());
}

#[tokio::test]
async fn f57_with_the_store_full_sessions_go_on_and_begin_and_what_must_be_written_is_refused() -> Result<()>
{
    let server = Forgetful::start().await;
    let pair = over(&server).await;
    let [known, there] = pair.session().await?;
    forget(&known).await?;
    let home = seat(&known.call("work", json!({})).await?);
    assert_eq!(pair.redis.say(&["CONFIG", "SET", "maxmemory", "1"]), "OK");
    // The other gateway meets the session only now: what is written is read on.
    assert_eq!(seat(&there.call("work", json!({})).await?), home);
    let fresh = pair.one.client().initialize().await?;
    fresh.call("work", json!({})).await?.result()?;
    pair.two.client().modern().call("work", json!({})).await?.result()?;
    forget(&fresh).await?;
    let moved = fresh.call("work", json!({})).await?;
    assert!(moved.status == 200 || moved.status == 503, "{}", moved.status);
    assert_eq!(known.end().await?, 503, "an end that cannot be written down is none");
    assert_eq!(seat(&known.call("work", json!({})).await?), home, "and nothing was done upstream");
    assert_eq!(pair.redis.say(&["CONFIG", "SET", "maxmemory", "0"]), "OK");
    for session in [&fresh, &known] {
        eventually("what was refused works again", SOON, async || {
            let outcome = session.call("work", json!({})).await.ok()?;
            assert_ne!(outcome.status, 404, "{}", outcome.message);
            outcome.result().ok()
        })
        .await;
    }
    assert!(known.end().await?.is_success());
    [&pair.one, &pair.two].into_iter().for_each(assert_calm);
    Ok(())
}

#[tokio::test]
async fn f58_a_store_that_evicts_is_warned_of_and_an_evicted_session_moves_once_more() -> Result<()> {
    let server = Forgetful::start().await;
    let redis = Server::start(&["--maxmemory-policy", "allkeys-lru"]).await;
    let plan = on_store(Plan::over([server.stub.url()]), &redis.url());
    let warned = async |gateway: &Gateway| {
        let said = async || gateway.log().contains("set maxmemory-policy noeviction").then_some(());
        eventually("it warns of the policy", SOON, said).await;
    };
    let one = Gateway::start(REGATTA, plan.clone()).await;
    warned(&one).await;
    let session = one.client().initialize().await?;
    forget(&session).await?;
    session.call("work", json!({})).await?.result()?;
    let records = redis.say(&["KEYS", "mcp:session:*"]);
    assert_eq!(redis.say(&["DEL", &records]), "1", "evicted");
    let two = Gateway::start(REGATTA, plan).await;
    warned(&two).await;
    let there = session.through(&two.client()).call("work", json!({})).await?;
    assert!(crate::fleet::is_resumed(&there), "{}", there.message);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f59_connections_killed_again_and_again_cost_no_call_an_error() -> Result<()> {
    let server = Forgetful::start().await;
    let pair = over(&server).await;
    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut running = Vec::new();
    for client in [pair.one.client(), pair.two.client()] {
        let (stop, calls) = (stop.clone(), calls.clone());
        running.push(tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let session = client.initialize().await?;
                forget(&session).await?;
                session.call("work", json!({})).await?.result()?;
                client.modern().call("work", json!({})).await?.result()?;
                calls.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, regatta_testkit::Failure>(())
        }));
    }
    for turn in 0..8 {
        let before = calls.load(Ordering::Relaxed);
        pair.redis.say(&["CLIENT", "KILL", "TYPE", "normal"]);
        eventually("calls go on", SOON, async || {
            let failed = running.iter().any(tokio::task::JoinHandle::is_finished);
            (failed || calls.load(Ordering::Relaxed) >= before + 10).then_some(())
        })
        .await;
        println!("killed {} times, {} turns", turn + 1, calls.load(Ordering::Relaxed));
    }
    stop.store(true, Ordering::Relaxed);
    for running in running {
        running.await.expect("the load's task")?;
    }
    eventually("its connections are as many as before", SOON, async || {
        (pair.redis.clients() <= 4).then_some(())
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn f60_notices_and_letters_are_cut_off_and_no_end_and_no_event_is_missed() -> Result<()> {
    let demos = demos(1, &["--eras", "legacy"]).await;
    let pair = Pair::start(Plan::over(urls(&demos))).await;
    let [one, two] = pair.session().await?;
    two.request("ping", json!({})).await?.outcome().await?.result()?;
    let mut heard = Heard::default();
    let mut events = sleep(&one, 1950).await?.events();
    let sessions = [two.clone(), one.clone()];
    for turn in 0..5 {
        heard.note(&events.until("notifications/progress").await?);
        pair.redis.say(&["CLIENT", "KILL", "TYPE", "pubsub"]);
        drop(events);
        events = sessions[turn % 2].resume(heard.last_id()).await?.events();
        assert_eq!(events.status, 200);
    }
    for event in events.rest().await? {
        heard.note(&event);
    }
    heard.assert_slept(1950);
    pair.redis.say(&["CLIENT", "KILL", "TYPE", "pubsub"]);
    assert!(one.end().await?.is_success());
    eventually("the end is known at the other gateway", SOON, async || {
        let answer = two.request("ping", json!({})).await.ok()?;
        (answer.status == 404).then_some(())
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn f61_a_user_who_is_shut_out_or_has_another_password_costs_no_call_and_says_no_secret() -> Result<()> {
    let server = Forgetful::start().await;
    let redis = Server::start(&[]).await;
    let rules = ["on", ">hidden-word", "~mcp:*", "&mcp:*", "+@all"];
    let user = |rules: &[&str]| {
        let said = redis.say(&[&["ACL", "SETUSER", "regatta"], rules].concat());
        assert_eq!(said, "OK");
    };
    user(&rules);
    let plan = |password| {
        let url = format!("redis://regatta:{password}@{}", redis.address());
        on_store(Plan::over([server.stub.url()]), &url)
    };
    let mut gateway = Gateway::start(REGATTA, plan("hidden-word")).await;
    linked(&gateway).await;
    let session = gateway.client().initialize().await?;
    session.call("work", json!({})).await?.result()?;
    let shut_out = async |gateway: &Gateway| {
        redis.say(&["CLIENT", "KILL", "USER", "regatta"]);
        eventually("it is degraded, and says why", SOON, async || {
            let (status, text) = gateway.admin("/ready").await?;
            assert_eq!(status, 200, "{text}");
            text.contains("the store is away").then_some(())
        })
        .await;
    };
    user(&["off"]);
    shut_out(&gateway).await;
    session.call("work", json!({})).await?.result()?;
    gateway.client().modern().call("work", json!({})).await?.result()?;
    gateway.client().initialize().await?.call("work", json!({})).await?.result()?;
    user(&["on"]);
    linked(&gateway).await;
    user(&["resetpass", ">other-word"]);
    shut_out(&gateway).await;
    session.call("work", json!({})).await?.result()?;
    gateway.rewrite(plan("other-word"));
    gateway.process.hang_up();
    linked(&gateway).await;
    assert!(session.end().await?.is_success());
    let said = gateway.all_it_said().await;
    assert!(!said.contains("hidden-word") && !said.contains("other-word"), "{said}");
    assert!(!said.contains("change at a restart only"), "{said}");
    Ok(())
}

/// Bytes and events of one spilled stream at most (`regatta_store::redis::Limits`).
const SPILL_BYTES_MAX: usize = 4 << 20;
const SPILL_EVENTS_MAX: usize = 1000;

/// A stub whose tool `talk` says so many events of 1 KiB, and its result when its client is long gone.
async fn talker(events: usize) -> Stub {
    let base = answers::legacy();
    Stub::start(move |seen| match seen.tool() {
        "talk" => {
            let reply = (0..events).fold(Reply::sse(), |reply, _| reply.huge_event(1024));
            reply.event_result(seen, json!({"content": [{"type": "text", "text": "said"}]}))
        }
        _ => base(seen),
    })
    .await
}

#[tokio::test]
async fn f62_a_stream_larger_than_the_store_takes_is_bounded_there_and_slows_nobody() -> Result<()> {
    let stub = talker(3000).await;
    let plan = Plan::over([stub.url()]).on_gateway("ring_bytes_max = \"8MiB\"");
    let pair = Pair::start(plan).await;
    pair.redis.say(&["CONFIG", "SET", "slowlog-log-slower-than", "10000"]);
    let mut cut = Vec::new();
    for _ in 0..4 {
        let [one, two] = pair.session().await?;
        let mut events = one.request("tools/call", json!({"name": "talk", "arguments": {}})).await?.events();
        let id = events.until("notifications/message").await?.id.expect("an id");
        drop(events);
        cut.push((two, id));
    }
    pair.one.metric_reaches("regatta_spilled_events_total", 4.0 * 3000.0).await;
    let keys = pair.redis.say(&["KEYS", "mcp:events:*"]);
    assert_eq!(keys.lines().count(), 4);
    for key in keys.lines() {
        // Its events, and four numbers about them.
        let fields: usize = pair.redis.say(&["HLEN", key]).parse().expect("a number");
        assert!((1..=SPILL_EVENTS_MAX + 4).contains(&fields), "{fields}");
        let bytes: usize = pair.redis.say(&["HGET", key, "bytes"]).parse().expect("a number");
        assert!(bytes <= SPILL_BYTES_MAX, "{bytes}");
    }
    let slow = pair.redis.say(&["SLOWLOG", "GET", "10"]);
    println!("slower than 10 ms: {slow:?}; {}", pair.redis.say(&["INFO", "commandstats"]));
    for (session, id) in cut {
        let last = session.resume(&id).await?.events().rest().await?.pop().expect("a last word").json();
        // What the store could not hold is missing at the other gateway: said, not passed over.
        assert_eq!(last["error"]["code"], -31001, "{last}");
    }
    let mean = pair.redis.info("cmdstat_evalsha").expect("scripts ran");
    let mean = mean.split(',').find_map(|part| part.strip_prefix("usec_per_call=")?.parse::<f64>().ok());
    assert!(mean.expect("a mean") < 10_000.0, "{mean:?} µs for a script");
    Ok(())
}

#[tokio::test]
async fn f63_gateways_killed_while_they_write_leave_no_key_without_an_end() -> Result<()> {
    let server = Forgetful::start().await;
    let mut pair = over(&server).await;
    for _ in 0..3 {
        let client = pair.one.client();
        let writing = tokio::spawn(async move {
            // Until the gateway is no more. Every second session is left as it is.
            for turn in 0.. {
                let Ok(session) = client.initialize().await else { return };
                if forget(&session).await.is_err() || session.call("work", json!({})).await.is_err() {
                    return;
                }
                if turn % 2 == 0 && session.end().await.is_err() {
                    return;
                }
            }
        });
        pair.one.metric_reaches("regatta_rehomed_total", 20.0).await;
        pair.one.process.kill();
        writing.await.expect("the load's task");
        pair.one.restart_after_kill().await;
        linked(&pair.one).await;
    }
    let keys = pair.redis.say(&["KEYS", "*"]);
    let endless = keys.lines().filter(|key| pair.redis.say(&["PTTL", key]) == "-1");
    let endless: Vec<_> = endless.filter(|key| *key != "mcp:keys").collect();
    assert_eq!(endless, Vec::<&str>::new(), "of {} keys", keys.lines().count());
    assert!(keys.contains("mcp:session:") && keys.contains("mcp:ended:"), "{keys}");
    Ok(())
}
