//! What happens to a session while it is being moved: between the handshake at its new home and the record that says so,
//! nothing may be lost and nothing may be left behind (SESSIONS 3 and 4).

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::answers;
use regatta_testkit::{Gateway, Reply, Result, Stub, eventually};
use serde_json::json;

use crate::REGATTA;
use crate::forgetful::{Forgetful, forget, seat};
use crate::peers::{Pair, SOON};

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
