//! A legacy stream is cut and resumed: the rest comes once and in order, and only to whom it belongs.

use crate::REGATTA;
use crate::fleet::{demos, receiver, urls};
use regatta_testkit::client::{Events, RawConnection, Session};
use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::answers;
use regatta_testkit::{Client, Gateway, Reply, Result, Stub, eventually};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(8);

async fn gateway() -> (Vec<regatta_testkit::process::Demo>, Gateway) {
    let demos = demos(1, &["--eras", "legacy"]).await;
    let gateway = Gateway::start(REGATTA, Plan::over(urls(&demos))).await;
    (demos, gateway)
}

async fn sleep(session: &Session, ms: u64) -> Result<Events> {
    Ok(session.call_with_progress("sleep", json!({"ms": ms}), json!("t")).await?.events())
}

/// The progress of an event, or its result's text.
fn said(message: &Value) -> String {
    match message["params"]["progress"].as_u64() {
        Some(progress) => progress.to_string(),
        None => message["result"]["content"][0]["text"].as_str().unwrap_or_default().to_owned(),
    }
}

#[tokio::test]
async fn the_rest_of_a_cut_stream_comes_once_and_in_order() -> Result<()> {
    let (_demos, gateway) = gateway().await;
    let session = gateway.client().initialize().await?;
    let mut events = sleep(&session, 950).await?;
    let (mut heard, mut ids) = (Vec::new(), Vec::new());
    let mut last_id = String::new();
    // Cut twice: while events still come, and when the call has ended meanwhile.
    for take in [2, 3] {
        for _ in 0..take {
            let event = events.until("notifications/progress").await?;
            heard.push(said(&event.json()));
            last_id = event.id.expect("every event has an id");
            ids.push(last_id.clone());
        }
        drop(events);
        events = session.resume(&last_id).await?.events();
    }
    drop(events);
    eventually("the call has ended without us", SOON, async || {
        (gateway.metric("regatta_detached").await? == 0.0).then_some(())
    })
    .await;
    for event in session.resume(&last_id).await?.events().rest().await? {
        heard.push(said(&event.json()));
        ids.push(event.id.expect("every event has an id"));
    }
    let mut expected: Vec<_> = (1..=9).map(|step| (step * 100).to_string()).collect();
    expected.push("slept 950 ms".to_owned());
    assert_eq!(heard, expected);
    let count = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), count, "an id was given out twice");
    Ok(())
}

#[tokio::test]
async fn the_priming_event_alone_is_enough_to_fetch_everything() -> Result<()> {
    let (_demos, gateway) = gateway().await;
    let session = gateway.client().initialize().await?;
    let mut events = sleep(&session, 250).await?;
    let priming = events.next().await?.expect("a priming event");
    assert!(priming.json().is_null());
    drop(events);
    let rest = session.resume(&priming.id.expect("an id")).await?.outcome().await?;
    assert_eq!(rest.text(), "slept 250 ms");
    assert_eq!(rest.events.len(), 3);
    Ok(())
}

#[tokio::test]
async fn nobody_else_gets_a_stream() -> Result<()> {
    let (_demos, gateway) = gateway().await;
    let mine = gateway.client().header("authorization", "Bearer mine");
    let (session, other) = (mine.initialize().await?, mine.initialize().await?);
    let mut events = sleep(&session, 60_000).await?;
    let id = events.until("notifications/progress").await?.id.expect("an id");
    drop(events);
    let foreign = other.resume(&id).await?;
    assert_eq!(foreign.status, 400, "an id of another session");
    assert_eq!(session.resume("made-up").await?.status, 400);
    let thief = session.through(&gateway.client().header("authorization", "Bearer thief"));
    let stolen = thief.resume(&id).await?;
    if stolen.is_sse() {
        let said = stolen.events().rest().await?;
        let errors = said.iter().filter(|event| event.json()["error"]["code"] == json!(-31001));
        assert_eq!(errors.count(), said.len(), "nothing of the call: {said:?}");
    } else {
        assert!(stolen.status.is_client_error(), "{}", stolen.status);
    }
    let next = session.resume(&id).await?.events().until("notifications/progress").await?;
    assert_ne!(next.id, Some(id), "the owner goes on");
    Ok(())
}

#[tokio::test]
async fn a_second_standing_stream_is_a_conflict_and_the_first_can_be_taken_up_again() -> Result<()> {
    let (_demos, gateway) = gateway().await;
    let session = gateway.client().initialize().await?;
    let mut first = session.listen().await?.events();
    let priming = first.next().await?.expect("a priming event").id.expect("an id");
    assert_eq!(session.listen().await?.status, 409);
    drop(first);
    eventually("nobody reads it", SOON, async || {
        (gateway.metric("regatta_detached").await? == 1.0).then_some(())
    })
    .await;
    session.call("toggle_tool", json!({"name": "while-away"})).await?.result()?;
    let mut again = session.resume(&priming).await?.events();
    again.until("notifications/tools/list_changed").await?;
    Ok(())
}

#[tokio::test]
async fn a_client_that_half_closes_gets_its_answer_or_can_fetch_it() -> Result<()> {
    let (_demos, gateway) = gateway().await;
    let session = gateway.client().initialize().await?;
    let mut raw = RawConnection::open(Client::new(&gateway.url()).address()).await?;
    let params = json!({"name": "sleep", "arguments": {"ms": 450}, "_meta": {"progressToken": "t"}});
    let body = json!({"jsonrpc": "2.0", "id": "half", "method": "tools/call", "params": params}).to_string();
    raw.write(format!(
        "POST /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\naccept: application/json, \
         text/event-stream\r\nmcp-session-id: {}\r\nmcp-protocol-version: 2025-11-25\r\ncontent-length: {}\r\n\r\n{body}",
        session.id,
        body.len()
    ))
    .await?;
    let head = raw.read_until("\"progress\"").await?;
    raw.half_close().await?;
    let id = head.split("id: ").nth(1).and_then(|rest| rest.split(['\r', '\n']).next()).expect("an id");
    let rest = session.resume(id).await?.outcome().await?;
    assert_eq!((rest.text(), &rest.message["id"]), ("slept 450 ms", &json!("half")));
    Ok(())
}

#[tokio::test]
async fn of_many_standing_streams_at_once_one_is_opened() -> Result<()> {
    // The stub gives as many as it is asked for, so that only the gateway says no.
    let stub = Stub::start(answers::legacy()).await;
    let gateway = Gateway::start(REGATTA, Plan::over([stub.url()])).await;
    for _ in 0..5 {
        let session = gateway.client().initialize().await?;
        let gets: Vec<_> = (0..8)
            .map(|_| {
                let session = session.clone();
                tokio::spawn(async move { session.listen().await })
            })
            .collect();
        let mut answers = Vec::new();
        for get in gets {
            answers.push(get.await.expect("the task of a GET")?);
        }
        let mut statuses: Vec<_> = answers.iter().map(|answer| answer.status.as_u16()).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 409, 409, 409, 409, 409, 409, 409]);
    }
    Ok(())
}

/// A server whose tool `polled` says only a cursor, and its result to who asks from there; handshakes take so long.
async fn polled(handshake: Duration) -> Stub {
    let base = answers::legacy();
    let id = std::sync::Mutex::new(Value::Null);
    Stub::start(move |seen| {
        let mut id = id.lock().expect("nobody panics");
        match (seen.rpc(), seen.tool(), seen.header("last-event-id")) {
            ("initialize", _, _) => base(seen).after(handshake),
            (_, "polled", _) => {
                *id = seen.id().clone();
                Reply::sse().body("id: cursor-1\nretry: 50\ndata: \n\n")
            }
            (_, _, "cursor-1") => {
                let result = json!({"content": [{"type": "text", "text": "at last"}]});
                Reply::sse().event_id("cursor-2", &json!({"jsonrpc": "2.0", "id": *id, "result": result}))
            }
            _ => base(seen),
        }
    })
    .await
}

#[tokio::test]
async fn a_stream_that_its_server_pauses_goes_on_from_the_servers_own_cursor() -> Result<()> {
    let stub = polled(Duration::ZERO).await;
    let gateway = Gateway::start(REGATTA, Plan::over([stub.url()])).await;
    let session = gateway.client().initialize().await?;
    let answer = session.request("tools/call", json!({"name": "polled", "arguments": {}})).await?;
    let told = answer.events().rest().await?;
    assert!(told.iter().any(|event| event.retry_ms == Some(1000)), "a second at least: {told:?}");
    let last_id = told.iter().rev().find_map(|event| event.id.clone()).expect("an id to resume from");
    assert!(!last_id.contains("cursor"), "ids are the gateway's own");
    let rest = session.resume(&last_id).await?.outcome().await?;
    assert_eq!(rest.text(), "at last", "{}", rest.message);
    Ok(())
}

#[tokio::test]
async fn a_call_that_moved_after_its_stream_began_is_resumed_where_it_was_answered() -> Result<()> {
    // The client has its stream, and an id, before anybody knows where the call will be answered.
    let takes = Duration::from_millis(1500);
    let stubs = [polled(takes).await, polled(takes).await];
    let plan = Plan::over(stubs.each_ref().map(Stub::url)).on_server("prime_after = \"100ms\"");
    let gateway = Gateway::start(REGATTA, plan).await;
    let session = gateway.client().initialize().await?;
    session.call("work", json!({"op": "before"})).await?.result()?;
    stubs[receiver(&stubs, "before").await].die().await;
    let answer = session.request("tools/call", json!({"name": "polled", "arguments": {}})).await?;
    let told = answer.events().rest().await?;
    let last_id = told.iter().rev().find_map(|event| event.id.clone()).expect("an id to resume from");
    let rest = session.resume(&last_id).await?.outcome().await?;
    assert_eq!(rest.text(), "at last", "{}", rest.message);
    Ok(())
}

/// A server that sends the head of an answer in JSON, and its body when the test says so.
async fn trailing() -> (Stub, impl Fn(&Value) -> String) {
    let text = |id: &Value| {
        let result = json!({"content": [{"type": "text", "text": "whole"}]});
        json!({"jsonrpc": "2.0", "id": id, "result": result}).to_string()
    };
    let base = answers::legacy();
    let stub = Stub::start(move |seen| match seen.rpc() {
        "tools/call" => {
            let (first, rest) = (" ".repeat(4), text(seen.id()).len());
            let length = (first.len() + rest).to_string();
            Reply::text(200, "application/json", &first).header("content-length", &length).live()
        }
        _ => base(seen),
    })
    .await;
    (stub, text)
}

#[tokio::test]
async fn an_answer_whose_body_trails_its_head_is_waited_for_in_a_stream_that_can_be_resumed() -> Result<()> {
    let (stub, text) = trailing().await;
    let plan = Plan::over([stub.url()]).on_server("prime_after = \"100ms\"");
    let gateway = Gateway::start(REGATTA, plan).await;
    let session = gateway.client().initialize().await?;
    let call = json!({"name": "work", "arguments": {"op": "trails"}});
    let mut events = session.request("tools/call", call).await?.events();
    let priming = events.next().await?.expect("a priming event").id.expect("an id");
    drop(events);
    gateway.metric_reaches("regatta_detached", 1.0).await;
    stub.say_raw(&text(stub.wait_for("tools/call", 1).await.id()));
    stub.end_live();
    assert_eq!(session.resume(&priming).await?.outcome().await?.text(), "whole");
    assert_eq!(stub.journal().executions("trails"), 1);
    Ok(())
}

#[tokio::test]
async fn a_call_is_not_cut_when_its_client_leaves_between_the_head_and_the_body_of_the_answer() -> Result<()>
{
    let (stub, text) = trailing().await;
    let plan = Plan::over([stub.url()]).on_server("prime_after = \"20s\"");
    let gateway = Gateway::start(REGATTA, plan).await;
    let session = gateway.client().initialize().await?;
    let leaves = {
        let (session, call) = (session.clone(), json!({"name": "work", "arguments": {"op": "trails"}}));
        tokio::spawn(async move { session.request("tools/call", call).await })
    };
    let seen = stub.wait_for("tools/call", 1).await;
    eventually("the head is on its way", SOON, async || (stub.live_count() == 1).then_some(())).await;
    gateway.metric_reaches("regatta_inflight", 1.0).await;
    leaves.abort();
    gateway.metric_reaches("regatta_detached", 1.0).await;
    stub.say_raw(&text(seen.id()));
    stub.end_live();
    eventually("the server could say it all", SOON, async || seen.fate().answered).await;
    assert_eq!(seen.fate().left, None);
    Ok(())
}
