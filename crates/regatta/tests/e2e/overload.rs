//! More than there is room for: refused at once, honestly, without touching a server; what must pass passes.

use crate::REGATTA;
use crate::fleet::{demos, executed, executions, urls};
use regatta_testkit::client::Session;
use regatta_testkit::client::{Outcome, RawConnection};
use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::answers;
use regatta_testkit::{Gateway, Reply, Result, Stub, eventually};
use serde_json::json;
use std::time::{Duration, Instant};

const AT_ONCE: Duration = Duration::from_millis(500);

/// A dual-era stub whose tool `hold` answers when the test says so.
async fn stub() -> Stub {
    let base = answers::dual();
    Stub::start(move |seen| match seen.tool() {
        "hold" => Reply::sse().comment("held").live(),
        _ => base(seen),
    })
    .await
}

/// A gateway with one place, taken by a call that ends with the stub or the returned answer.
async fn full(stub: &Stub, more: &str) -> Result<(Gateway, regatta_testkit::client::Answer)> {
    let plan = Plan::over([stub.url()]).on_gateway("inflight_max = 1").on_gateway(more);
    let gateway = Gateway::start(REGATTA, plan).await;
    let hold = json!({"name": "hold", "arguments": {"op": "first"}});
    let taken = gateway.client().modern().request("tools/call", hold).await?;
    Ok((gateway, taken))
}

fn is_shed(outcome: &Outcome, status: u16) {
    assert_eq!((outcome.status.as_u16(), outcome.code()), (status, -31002), "{}", outcome.message);
    assert_eq!(executed(outcome), "no");
    let seconds =
        outcome.headers.get("retry-after").and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    assert!(seconds.is_some_and(|seconds| seconds >= 1), "{:?}", outcome.headers);
}

#[tokio::test]
async fn what_finds_no_place_is_refused_at_once_and_reaches_no_server() -> Result<()> {
    let stub = stub().await;
    let plan = Plan::over([stub.url()]).on_gateway("inflight_max = 1\nqueue_max = 0");
    let gateway = Gateway::start(REGATTA, plan).await;
    let (session, modern) = (gateway.client().initialize().await?, gateway.client().modern());
    let old = Session::open(&gateway.client(), "2025-03-26", json!({})).await?;
    let hold = json!({"name": "hold", "arguments": {"op": "first"}});
    let taken = modern.request("tools/call", hold).await?;
    let began = Instant::now();
    is_shed(&modern.call("work", json!({"op": "second"})).await?, 503);
    is_shed(&session.call("work", json!({"op": "third"})).await?, 200);
    assert!(began.elapsed() < AT_ONCE, "refused after {:?}", began.elapsed());
    assert_eq!(executions(std::slice::from_ref(&stub), "second"), 0);
    assert_eq!(stub.seen_rpc("tools/call").len(), 1);
    assert_eq!(gateway.metric("regatta_shed_total").await, Some(2.0));
    let cancelled =
        json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}});
    assert_eq!(old.post(&json!([cancelled])).await?.status, 202, "nothing in it may be refused");
    drop(taken);
    let free = async || session.call("work", json!({"op": "later"})).await.ok()?.result().ok();
    eventually("the place is free again", Duration::from_secs(5), free).await;
    Ok(())
}

#[tokio::test]
async fn who_waits_gets_the_next_place_or_is_refused_after_the_longest_wait() -> Result<()> {
    let stub = stub().await;
    let (gateway, taken) = full(&stub, "queue_max = 1\nqueue_wait_max = \"600ms\"").await?;
    let modern = gateway.client().modern();
    let queued = |op: &'static str| {
        let modern = modern.clone();
        tokio::spawn(async move { modern.call("work", json!({"op": op})).await })
    };
    let (began, waits) = (Instant::now(), queued("waits"));
    gateway.metric_reaches("regatta_queued", 1.0).await;
    is_shed(&modern.call("work", json!({"op": "one too many"})).await?, 503);
    assert!(began.elapsed() < AT_ONCE, "refused after {:?}", began.elapsed());
    is_shed(&waits.await.expect("the call's task")?, 503);
    assert!(began.elapsed() >= Duration::from_millis(590), "it waited only {:?}", began.elapsed());

    let served = queued("served");
    gateway.metric_reaches("regatta_queued", 1.0).await;
    drop(taken);
    served.await.expect("the call's task")?.result()?;
    let ops = ["waits", "one too many", "served"];
    assert_eq!(ops.map(|op| stub.journal().executions(op)), [0, 0, 1]);
    Ok(())
}

/// Nobody can tell by such a body whether it may be refused, so it waits as one that may: announced with its length
/// before it is read, else with what was read of it.
#[tokio::test]
async fn a_large_body_waits_in_the_queue_like_any_other() -> Result<()> {
    let stub = stub().await;
    let plan = Plan::over([stub.url()]).on_gateway("inflight_max = 1\nqueue_wait_max = \"20s\"");
    let gateway = Gateway::start(REGATTA, plan).await;
    let session = gateway.client().initialize().await?;
    let hold = json!({"name": "hold", "arguments": {"op": "first"}});
    let taken = gateway.client().modern().request("tools/call", hold).await?;
    let work = |op: &str| json!({"op": op, "pad": "x".repeat(300 << 10)});
    let announced = {
        let (session, work) = (session.clone(), work("announced"));
        tokio::spawn(async move { session.call("work", work).await })
    };
    let params = json!({"name": "work", "arguments": work("chunked")});
    let body = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": params}).to_string();
    let mut chunked = RawConnection::open(gateway.client().address()).await?;
    let head = format!(
        "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\naccept: application/json, \
         text/event-stream\r\nmcp-session-id: {}\r\ntransfer-encoding: chunked\r\n\r\n",
        session.id
    );
    chunked.write(format!("{head}{:x}\r\n{body}\r\n0\r\n\r\n", body.len())).await?;
    gateway.metric_reaches("regatta_queued", 2.0).await;
    drop(taken);
    announced.await.expect("the call's task")?.result()?;
    let answer = chunked.read_answer().await;
    assert_eq!(answer.status, 200, "{}", answer.head);
    assert!(String::from_utf8_lossy(&answer.body).contains("chunked"), "{:?}", answer.body);
    assert_eq!(["announced", "chunked"].map(|op| stub.journal().executions(op)), [1, 1]);
    Ok(())
}

#[tokio::test]
async fn discovery_notifications_answers_and_ends_are_never_refused() -> Result<()> {
    let demos = demos(1, &[]).await;
    let plan = Plan::over(urls(&demos)).on_gateway("inflight_max = 1\nqueue_max = 0");
    let gateway = Gateway::start(REGATTA, plan).await;
    let (asks, ends) = (gateway.client().initialize().await?, gateway.client().initialize().await?);
    let ask = json!({"name": "ask", "arguments": {"question": "?"}});
    let mut asked = asks.request("tools/call", ask).await?.events();
    let question = asked.until("elicitation/create").await?.json();
    gateway.metric_reaches("regatta_parked", 1.0).await;
    assert_eq!(
        ends.call("echo", json!({"text": "a parked call holds no place"})).await?.result()?["isError"],
        json!(null)
    );

    let modern = gateway.client().modern().with_meta("progressToken", json!("t"));
    let sleep = json!({"name": "sleep", "arguments": {"ms": 60_000}});
    let taken = modern.request("tools/call", sleep).await?;
    is_shed(&modern.call("echo", json!({"text": "x"})).await?, 503);
    let discovered = modern.request("server/discover", json!({})).await?.outcome().await?;
    assert_eq!(discovered.status, 200, "{}", discovered.message);
    discovered.result()?;
    assert_eq!(ends.notify("notifications/cancelled", json!({"requestId": 99})).await?.status, 202);
    let answer = json!({"action": "accept", "content": {"answer": "yes"}});
    assert_eq!(asks.answer(&question["id"], answer).await?.status, 202);
    let last = asked.rest().await?.pop().expect("a response").json();
    assert_eq!(last["result"]["content"][0]["text"], "answer: yes");
    assert!(ends.end().await?.is_success());
    drop(taken);
    Ok(())
}

#[tokio::test]
async fn new_sessions_have_a_rate() -> Result<()> {
    let demos = demos(1, &["--eras", "legacy"]).await;
    let plan = Plan::over(urls(&demos)).on_gateway("initialize_per_minute_max = 2");
    let gateway = Gateway::start(REGATTA, plan).await;
    let session = gateway.client().initialize().await?;
    gateway.client().initialize().await?;
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}});
    let message = json!({"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params});
    let limited = gateway.client().post(&[], &message).await?.outcome().await?;
    assert_eq!((limited.status.as_u16(), limited.code()), (429, -31003), "{}", limited.message);
    assert_eq!(executed(&limited), "no");
    assert!(limited.headers.contains_key("retry-after"));
    session.call("whoami", json!({})).await?.result()?;
    gateway.client().header("authorization", "Bearer somebody-else").initialize().await?;
    Ok(())
}

#[tokio::test]
async fn a_caller_has_only_so_many_streams() -> Result<()> {
    let demos = demos(1, &[]).await;
    let plan = Plan::over(urls(&demos)).on_gateway("streams_per_principal_max = 2");
    let gateway = Gateway::start(REGATTA, plan).await;
    let (one, two) = (gateway.client().initialize().await?, gateway.client().initialize().await?);
    let standing = one.listen().await?;
    let listen = gateway.client().modern().listen(json!({"toolsListChanged": true})).await?;
    assert_eq!((standing.status.as_u16(), listen.status.as_u16()), (200, 200));
    let refused = two.listen().await?;
    assert_eq!((refused.status.as_u16(), refused.header("retry-after")), (429, "1"));
    let refused =
        gateway.client().modern().listen(json!({"toolsListChanged": true})).await?.outcome().await?;
    assert_eq!((refused.status.as_u16(), refused.code()), (429, -31003));
    let other = gateway.client().header("authorization", "Bearer somebody-else").initialize().await?;
    assert_eq!(other.listen().await?.status, 200, "another caller's quota is its own");
    drop(standing);
    let again = async || (two.listen().await.ok()?.status == 200).then_some(());
    eventually("a place is given back with its stream", Duration::from_secs(5), again).await;
    Ok(())
}

/// L8: four places at a server and twenty in line, for two hundred at once.
#[tokio::test]
async fn two_hundred_at_once_find_four_places_and_twenty_in_line_and_the_rest_is_refused_at_once()
-> Result<()> {
    let stub = stub().await;
    let server = "concurrency = \"static\"\ninflight_max = 4\nqueue_max = 20\nqueue_wait_max = \"30s\"";
    let gateway = Gateway::start(REGATTA, Plan::over([stub.url()]).on_server(server)).await;
    let hold = json!({"name": "hold", "arguments": {"op": "first"}});
    let mut taken = Vec::new();
    for _ in 0..4 {
        taken.push(gateway.client().modern().request("tools/call", hold.clone()).await?);
    }
    let mut calls = tokio::task::JoinSet::new();
    for at in 0..200 {
        let modern = gateway.client().modern();
        calls.spawn(async move { modern.call("work", json!({"op": format!("op-{at}")})).await });
    }
    // Nothing has been let go of so far: whoever is answered is refused.
    for _ in 0..180 {
        let refused = calls.join_next().await.expect("a call").expect("the call's task")?;
        is_shed(&refused, 503);
    }
    assert_eq!(gateway.metric("regatta_server_queued").await, Some(20.0));
    assert_eq!(gateway.metric("regatta_server_inflight").await, Some(4.0));
    drop(taken);
    for served in calls.join_all().await {
        served?.result()?;
    }
    let ran: usize = (0..200).map(|at| stub.journal().executions(&format!("op-{at}"))).sum();
    assert_eq!(ran, 20, "what was refused reached no server");
    Ok(())
}

/// I28: however much is written ahead on one connection, it takes one place.
#[tokio::test]
async fn what_is_pipelined_takes_one_place_at_a_time() -> Result<()> {
    let stub = stub().await;
    let plan = Plan::over([stub.url()]).on_gateway("inflight_max = 1\nqueue_max = 0");
    let gateway = Gateway::start(REGATTA, plan).await;
    let mut connection = RawConnection::open(gateway.client().address()).await?;
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let session = gateway.client().initialize().await?;
    let one = format!(
        "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\naccept: application/json, \
         text/event-stream\r\nmcp-session-id: {}\r\ncontent-length: {}\r\n\r\n{body}",
        session.id,
        body.len()
    );
    connection.write(one.repeat(100)).await?;
    for _ in 0..100 {
        let told = connection.read_answer().await;
        let message: serde_json::Value = serde_json::from_slice(&told.body).unwrap_or_default();
        assert_eq!((told.status, &message["result"]), (200, &json!({})), "{}", told.head);
    }
    Ok(())
}
