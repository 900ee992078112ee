//! A replica is lost in the middle of a call: never a second execution of what may do harm, never silence.

use crate::REGATTA;
use crate::fleet::{executed, executions, is_resumed, receiver};
use regatta_testkit::client::Session;
use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::answers;
use regatta_testkit::{FaultProxy, Gateway, Mode, Reply, Result, Stub, eventually};
use serde_json::{Value, json};
use std::time::Duration;

/// Two dual-era stubs that never answer the first `hang` or `talk` of an op; `talk` says something before.
async fn stubs() -> [Stub; 2] {
    let start = async || {
        let base = answers::dual();
        Stub::start(move |seen| match seen.tool() {
            "hang" => Reply::hang(),
            "talk" => Reply::sse()
                .event(&json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {"level": "info", "data": 1}}))
                .hold(),
            _ => base(seen),
        })
        .await
    };
    [start().await, start().await]
}

fn urls(stubs: &[Stub]) -> Vec<String> {
    stubs.iter().map(Stub::url).collect()
}

#[tokio::test]
async fn a_legacy_call_is_told_that_its_outcome_is_unknown_and_is_not_executed_again() -> Result<()> {
    for (tool, is_sse) in [("hang", false), ("talk", true)] {
        let stubs = stubs().await;
        let gateway = Gateway::start(REGATTA, Plan::over(urls(&stubs))).await;
        let session = gateway.client().initialize().await?;
        let call = tokio::spawn({
            let session = session.clone();
            async move { session.call(tool, json!({"op": "lost"})).await }
        });
        let at = receiver(&stubs, "lost").await;
        stubs[at].die().await;
        let outcome = call.await.expect("the call's task")?;
        assert_eq!((outcome.status.as_u16(), outcome.code()), (200, -31001), "{}", outcome.message);
        assert_eq!(executed(&outcome), "unknown");
        assert_eq!(!outcome.events.is_empty(), is_sse, "{tool}: the last event, or JSON");
        assert_eq!(executions(&stubs, "lost"), 1);
        let next = session.call("work", json!({"op": "next"})).await?;
        next.result()?;
        assert!(is_resumed(&next), "{}", next.message);
        assert_eq!((executions(&stubs, "lost"), executions(&stubs, "next")), (1, 1));
    }
    Ok(())
}

#[tokio::test]
async fn a_modern_call_is_told_so_too() -> Result<()> {
    for tool in ["hang", "talk"] {
        let stubs = stubs().await;
        let gateway = Gateway::start(REGATTA, Plan::over(urls(&stubs))).await;
        let modern = gateway.client().modern();
        let call = tokio::spawn(async move { modern.call(tool, json!({"op": "lost"})).await });
        let at = receiver(&stubs, "lost").await;
        stubs[at].die().await;
        let outcome = call.await.expect("the call's task")?;
        assert_eq!((outcome.status.as_u16(), outcome.code()), (200, -31001), "{}", outcome.message);
        assert_eq!(executed(&outcome), "unknown");
        assert_eq!(executions(&stubs, "lost"), 1);
    }
    Ok(())
}

#[tokio::test]
async fn a_repeatable_tool_is_tried_once_more_elsewhere_before_anything_was_said() -> Result<()> {
    let stubs = stubs().await;
    let plan = Plan::over(urls(&stubs)).on_server("repeatable_tools = [\"ha*\", \"talk\"]");
    let gateway = Gateway::start(REGATTA, plan).await;
    let session = gateway.client().initialize().await?;
    let call = tokio::spawn({
        let session = session.clone();
        async move { session.call("hang", json!({"op": "twice"})).await }
    });
    let at = receiver(&stubs, "twice").await;
    stubs[1 - at].behave(answers::dual());
    stubs[at].die().await;
    let outcome = call.await.expect("the call's task")?;
    outcome.result()?;
    assert!(is_resumed(&outcome), "{}", outcome.message);
    assert_eq!(stubs.each_ref().map(|stub| stub.journal().executions("twice")), [1, 1]);
    assert_eq!(gateway.metric("regatta_retries_total").await, Some(1.0));
    Ok(())
}

#[tokio::test]
async fn nothing_is_repeated_once_the_server_has_said_something() -> Result<()> {
    let stubs = stubs().await;
    let plan = Plan::over(urls(&stubs)).on_server("repeatable_tools = [\"talk\"]");
    let gateway = Gateway::start(REGATTA, plan).await;
    let session = gateway.client().initialize().await?;
    let answer = session.request("tools/call", json!({"name": "talk", "arguments": {"op": "said"}})).await?;
    let mut events = answer.events();
    events.until("notifications/message").await?;
    stubs[receiver(&stubs, "said").await].die().await;
    let last = events.rest().await?.pop().expect("a last word").json();
    assert_eq!(last["error"]["code"], -31001);
    assert_eq!(executions(&stubs, "said"), 1);
    Ok(())
}

#[tokio::test]
async fn what_was_never_written_goes_elsewhere_always() -> Result<()> {
    let stubs = stubs().await;
    let proxy = FaultProxy::before(&stubs[0].url()).await;
    let plan = Plan::over([proxy.url(), stubs[1].url()]).on_server("balance = \"round-robin\"");
    let gateway = Gateway::start(REGATTA, plan).await;
    let client = gateway.client();
    let mut sessions = Vec::new();
    for _ in 0..4 {
        sessions.push(client.initialize().await?);
    }
    proxy.set(Mode::Refuse);
    let modern = client.modern();
    for number in 0..20 {
        let op = format!("op-{number}");
        modern.call("work", json!({"op": op})).await?.result()?;
        assert_eq!(executions(&stubs, &op), 1);
    }
    for (number, session) in sessions.iter().enumerate() {
        let op = format!("legacy-{number}");
        session.call("work", json!({"op": op})).await?.result()?;
        assert_eq!(executions(&stubs, &op), 1);
    }
    Ok(())
}

/// 2025-03-26 basic/transports, *Sending Messages* 6: each request of a batch has its response.
#[tokio::test]
async fn each_request_of_a_lost_batch_is_told_and_what_was_answered_is_not_told_again() -> Result<()> {
    for is_begun in [false, true] {
        let base = answers::legacy();
        let stub = Stub::start(move |seen| match (seen.json.is_array(), is_begun) {
            (true, true) => Reply::sse().event(&json!({"jsonrpc": "2.0", "id": 12, "result": {}})).hold(),
            (true, false) => Reply::hang(),
            (false, _) => base(seen),
        })
        .await;
        let gateway = Gateway::start(REGATTA, Plan::over([stub.url()])).await;
        let session = Session::open(&gateway.client(), "2025-03-26", json!({})).await?;
        let call = |id: u64| json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": "work", "arguments": {}}});
        let sent = tokio::spawn({
            let (session, batch) = (session.clone(), json!([call(12), call(13)]));
            async move { session.post(&batch).await }
        });
        let is_there = async || stub.seen().iter().any(|seen| seen.json.is_array()).then_some(());
        eventually("the batch arrives", Duration::from_secs(4), is_there).await;
        let told: Vec<Value> = if is_begun {
            let mut events = sent.await.expect("the batch's task")?.events();
            let first = events.next().await?.expect("the first response");
            stub.die().await;
            let rest = events.rest().await?;
            [first].iter().chain(&rest).map(|event| event.json()).collect()
        } else {
            stub.die().await;
            let answer = sent.await.expect("the batch's task")?;
            assert_eq!(answer.status, 200);
            answer.json().await?.as_array().expect("an array").clone()
        };
        let shown: Vec<_> =
            told.iter().map(|one| (one["id"].as_u64(), one["error"]["code"].as_i64())).collect();
        let first = if is_begun { None } else { Some(-31001) };
        assert_eq!(shown, [(Some(12), first), (Some(13), Some(-31001))]);
    }
    Ok(())
}
