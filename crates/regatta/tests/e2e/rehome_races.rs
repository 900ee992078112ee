//! What happens to a session while it is being moved: between the handshake at its new home and the record that says so,
//! nothing may be lost and nothing may be left behind (SESSIONS 3 and 4).

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use regatta_testkit::gateway::Plan;
use regatta_testkit::redis::Server;
use regatta_testkit::stub::answers;
use regatta_testkit::{FaultProxy, Gateway, Mode, Reply, Result, Stub, eventually};
use serde_json::json;

use crate::REGATTA;
use crate::failover_load::linked;
use crate::fleet::receiver;
use crate::forgetful::{Forgetful, forget, seat};
use crate::peers::{Pair, SOON, on_store};

/// Longer than what happens meanwhile takes.
const HANDSHAKE_MS: u64 = 2_000;

/// The upstream session that was opened last.
fn opened_last(stub: &Stub) -> String {
    let told = stub.seen_rpc("notifications/initialized").pop().expect("a handshake");
    told.header("mcp-session-id").to_owned()
}

/// Until the server was told that this upstream session is over.
async fn ended(stub: &Stub, session: &str) {
    eventually("the upstream session that nobody lives in is ended", SOON, async || {
        let all = stub.seen();
        let is_end = |seen: &regatta_testkit::Seen| {
            seen.method == "DELETE" && seen.header("mcp-session-id") == session
        };
        all.iter().any(|seen| is_end(seen)).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_session_that_is_ended_while_it_moves_leaves_no_new_home_behind() -> Result<()> {
    let server = Forgetful::start().await;
    let pair = Pair::start(Plan::over([server.stub.url()])).await;
    let [one, two] = pair.session().await?;
    forget(&one).await?;
    server.handshakes_take(HANDSHAKE_MS);
    let begun = server.handshakes() + 1;
    let call = tokio::spawn(async move { one.call("work", json!({"op": "late"})).await });
    eventually("it shakes hands", SOON, async || (server.handshakes() >= begun).then_some(())).await;
    assert!(two.end().await?.is_success());
    let outcome = call.await.expect("the call's task")?;
    // On a stream that was opened while it took long.
    assert_eq!(outcome.code(), -32001, "{}", outcome.message);
    assert_eq!(server.stub.journal().executions("late"), 0);
    ended(&server.stub, &opened_last(&server.stub)).await;
    Ok(())
}

#[tokio::test]
async fn a_move_that_cannot_be_written_down_leaves_no_new_home_behind() -> Result<()> {
    let server = Forgetful::start().await;
    let pair = Pair::start(Plan::over([server.stub.url()])).await;
    let [one, _] = pair.session().await?;
    forget(&one).await?;
    assert_eq!(pair.redis.say(&["CONFIG", "SET", "maxmemory", "1"]), "OK");
    let refused = one.call("work", json!({"op": "early"})).await?;
    assert!(refused.result().is_err(), "{}", refused.message);
    assert_eq!(server.stub.journal().executions("early"), 0);
    ended(&server.stub, &opened_last(&server.stub)).await;
    assert_eq!(pair.redis.say(&["CONFIG", "SET", "maxmemory", "0"]), "OK");
    let moved = eventually("it moves once there is room", SOON, async || {
        let outcome = one.call("work", json!({})).await.ok()?;
        outcome.result().is_ok().then_some(outcome)
    })
    .await;
    assert_eq!(seat(&moved), Some(opened_last(&server.stub)));
    Ok(())
}

/// A server that can be made to refuse a session's calls as unknown while it takes all else that it says.
async fn half_forgetful() -> Stub {
    let (base, forgotten) = (answers::legacy(), Arc::new(Mutex::new(HashSet::<String>::new())));
    Stub::start(move |seen| {
        let session = seen.header("mcp-session-id");
        let mut forgotten = forgotten.lock().unwrap_or_else(PoisonError::into_inner);
        match (seen.rpc(), seen.tool()) {
            ("tools/call", _) if forgotten.contains(session) => Reply::text(404, "text/plain", "forgotten"),
            ("tools/call", "forget") => {
                forgotten.insert(session.to_owned());
                base(seen)
            }
            // Handshakes take long once there is something to move.
            ("initialize", _) if !forgotten.is_empty() => {
                base(seen).after(Duration::from_millis(HANDSHAKE_MS))
            }
            _ => base(seen),
        }
    })
    .await
}

#[tokio::test]
async fn what_the_old_home_was_told_while_the_session_moved_is_told_to_the_new_one() -> Result<()> {
    let stub = half_forgetful().await;
    let gateway = Gateway::start(REGATTA, Plan::over([stub.url()])).await;
    let session = gateway.client().initialize().await?;
    let handshakes = || {
        let all = stub.seen_rpc("initialize");
        all.iter().filter(|seen| seen.json["params"]["clientInfo"]["name"] == "regatta-testkit").count()
    };
    let begun = handshakes() + 1;
    forget(&session).await?;
    let moving = session.clone();
    let call = tokio::spawn(async move { moving.call("work", json!({"op": "moved"})).await });
    eventually("it shakes hands", SOON, async || (handshakes() >= begun).then_some(())).await;
    for (method, params) in
        [("logging/setLevel", json!({"level": "error"})), ("resources/subscribe", json!({"uri": "a://late"}))]
    {
        session.request(method, params).await?.outcome().await?.result()?;
    }
    call.await.expect("the call's task")?.result()?;
    let home = opened_last(&stub);
    for method in ["logging/setLevel", "resources/subscribe"] {
        let told = stub.seen_rpc(method);
        let homes: Vec<_> = told.iter().map(|seen| seen.header("mcp-session-id")).collect();
        assert_eq!(homes.len(), 2, "{method}: {homes:?}");
        assert_eq!(homes[1], home, "{method} is said again where the session lives now");
    }
    Ok(())
}

/// The upstream sessions in which a standing stream was opened, in order.
fn listened(stub: &Stub) -> Vec<String> {
    let all = stub.seen();
    let gets = all.iter().filter(|seen| seen.method == "GET");
    gets.map(|seen| seen.header("mcp-session-id").to_owned()).collect()
}

/// Until the last standing stream hangs where the session lives now, and the others are closed.
async fn follows(stub: &Stub) {
    eventually("the standing stream follows the session", SOON, async || {
        let is_there = listened(stub).last() == Some(&opened_last(stub));
        (is_there && stub.live_count() == 1).then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_standing_stream_leaves_a_home_that_is_well_and_not_the_sessions_any_more() -> Result<()> {
    let stub = half_forgetful().await;
    let gateway = Gateway::start(REGATTA, Plan::over([stub.url()])).await;
    let session = gateway.client().initialize().await?;
    let mut standing = session.listen().await?.events();
    eventually("it hangs there", SOON, async || (stub.live_count() == 1).then_some(())).await;
    forget(&session).await?;
    session.call("work", json!({})).await?.result()?;
    follows(&stub).await;
    standing.until("notifications/message").await?;
    stub.say(&json!({"jsonrpc": "2.0", "method": "notifications/resources/list_changed"}));
    standing.until("notifications/resources/list_changed").await?;
    assert_eq!(listened(&stub).len(), 2, "opened once at each home");
    Ok(())
}

#[tokio::test]
async fn a_standing_stream_follows_a_session_that_another_gateway_moved() -> Result<()> {
    let stub = half_forgetful().await;
    let pair = Pair::start(Plan::over([stub.url()])).await;
    let [one, two] = pair.session().await?;
    let mut standing = one.listen().await?.events();
    eventually("it hangs there", SOON, async || (stub.live_count() == 1).then_some(())).await;
    forget(&two).await?;
    two.call("work", json!({})).await?.result()?;
    follows(&stub).await;
    standing.until("notifications/message").await?;
    Ok(())
}

#[tokio::test]
async fn a_standing_stream_ends_with_its_session_though_nobody_heard_of_the_end() -> Result<()> {
    let stub = Stub::start(answers::legacy()).await;
    let redis = Server::start(&[]).await;
    let way = FaultProxy::start(redis.address().parse().expect("an address")).await;
    let plan = |url: &str| on_store(Plan::over([stub.url()]), url);
    let one = Gateway::start(REGATTA, plan(&format!("redis://{}", way.address()))).await;
    let two = Gateway::start(REGATTA, plan(&redis.url())).await;
    for gateway in [&one, &two] {
        linked(gateway).await;
    }
    let session = one.client().initialize().await?;
    let standing = session.listen().await?.events();
    way.set(Mode::Refuse);
    eventually("its store is away", SOON, async || {
        one.admin("/ready").await?.1.contains("the store is away").then_some(())
    })
    .await;
    assert!(session.through(&two.client()).end().await?.is_success());
    way.set(Mode::Pass);
    let rest = tokio::time::timeout(SOON, standing.rest()).await;
    assert!(rest.is_ok_and(|rest| rest.is_ok()), "it ends, and in order");
    Ok(())
}

/// A server with the tool `work` and one more, whose handshakes with clients take as long as it is told.
async fn specialist(tool: &'static str, handshake_ms: Arc<AtomicU64>) -> Stub {
    let base = answers::legacy();
    Stub::start(move |seen| match (seen.rpc(), seen.tool()) {
        ("initialize", _) if seen.json["params"]["clientInfo"]["name"] == "regatta-testkit" => {
            base(seen).after(Duration::from_millis(handshake_ms.load(Ordering::Relaxed)))
        }
        ("tools/list", _) if !seen.header("mcp-session-id").is_empty() => {
            let tools = ["work", tool].map(|name| json!({"name": name, "inputSchema": {"type": "object"}}));
            Reply::result(seen, json!({"tools": tools}))
        }
        ("tools/call", name) if name != "work" && name != tool => Reply::error(seen, -32602, "Unknown tool"),
        _ => base(seen),
    })
    .await
}

#[tokio::test]
async fn a_session_that_is_ended_while_it_gets_a_second_home_leaves_none_behind() -> Result<()> {
    let handshake_ms = Arc::new(AtomicU64::new(0));
    let stubs =
        [specialist("one", handshake_ms.clone()).await, specialist("two", handshake_ms.clone()).await];
    let plan = Plan::over(stubs.each_ref().map(Stub::url)).on_server("tools = \"probe\"");
    let pair = Pair::start(plan).await;
    let [one, two] = pair.session().await?;
    eventually("it is known who has which tools", SOON, async || {
        let list = one.request("tools/list", json!({})).await.ok()?.outcome().await.ok()?.result().ok()?;
        (list["tools"].as_array()?.len() == 3).then_some(())
    })
    .await;
    one.call("work", json!({"op": "home"})).await?.result()?;
    let home = receiver(&stubs, "home").await;
    let (tool, other) = (["two", "one"][home], &stubs[1 - home]);
    handshake_ms.store(HANDSHAKE_MS, Ordering::Relaxed);
    let handshakes = || {
        let all = other.seen_rpc("initialize");
        all.iter().filter(|seen| seen.json["params"]["clientInfo"]["name"] == "regatta-testkit").count()
    };
    let begun = handshakes() + 1;
    let call = tokio::spawn(async move { one.call(tool, json!({"op": "late"})).await });
    eventually("it shakes hands", SOON, async || (handshakes() >= begun).then_some(())).await;
    assert!(two.end().await?.is_success());
    let outcome = call.await.expect("the call's task")?;
    assert_eq!(outcome.code(), -32001, "{}", outcome.message);
    assert_eq!(other.journal().executions("late"), 0);
    ended(other, &opened_last(other)).await;
    Ok(())
}
