//! A server asks its client at one gateway, and the client answers at another: once, and the call goes on.

use crate::peers::{Pair, SOON};
use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::answers;
use regatta_testkit::{Reply, Result, Stub, eventually};
use serde_json::{Value, json};

async fn stub() -> Stub {
    let base = answers::legacy();
    Stub::start(move |seen| match seen.tool() {
        "ask" => {
            let id = seen.id().clone();
            let params = json!({"message": "?", "requestedSchema": {"type": "object", "properties": {}}});
            Reply::sse().ask(&json!("q1"), "elicitation/create", params, move |answer| {
                let text = answer["result"]["content"]["answer"].to_string();
                json!({"jsonrpc": "2.0", "id": id, "result": {"content": [{"type": "text", "text": text}]}})
            })
        }
        "hang" => {
            Reply::sse().ask(&json!("q2"), "elicitation/create", json!({"message": "?"}), |_| json!({}))
        }
        _ => base(seen),
    })
    .await
}

fn accept(answer: &str) -> Value {
    json!({"action": "accept", "content": {"answer": answer}})
}

fn answers_at(stub: &Stub) -> usize {
    let is_answer =
        |seen: &regatta_testkit::Seen| seen.rpc().is_empty() && !seen.json["result"]["action"].is_null();
    stub.seen().iter().filter(|seen| is_answer(seen)).count()
}

#[tokio::test]
async fn an_answer_at_the_other_gateway_reaches_the_call_once() -> Result<()> {
    let stub = stub().await;
    let pair = Pair::start(Plan::over([stub.url()])).await;
    let [one, two] = pair.session().await?;
    let mut events =
        one.request("tools/call", json!({"name": "ask", "arguments": {"op": "a"}})).await?.events();
    let question = events.until("elicitation/create").await?.json();
    pair.one.metric_reaches("regatta_parked", 1.0).await;
    assert_eq!(two.answer(&question["id"], accept("there")).await?.status, 202);
    assert_eq!(one.answer(&question["id"], accept("here too")).await?.status, 202);
    assert_eq!(two.answer(&question["id"], accept("there again")).await?.status, 202);
    let last = events.rest().await?.pop().expect("a response").json();
    assert_eq!(last["result"]["content"][0]["text"], "\"there\"");
    assert_eq!(answers_at(&stub), 1);
    let answered = stub.seen().into_iter().find(|seen| !seen.json["result"]["action"].is_null());
    assert_eq!(answered.expect("an answer").id(), "q1", "under the server's own id");
    eventually("nobody waits any more", SOON, async || {
        (pair.one.metric("regatta_parked").await? == 0.0).then_some(())
    })
    .await;
    Ok(())
}

#[tokio::test]
async fn a_cancellation_at_the_other_gateway_reaches_the_server_and_the_call_does_not_wait_for_a_person()
-> Result<()> {
    let stub = stub().await;
    let plan = Plan::over([stub.url()]).on_server("request_timeout = \"1s\"");
    let pair = Pair::start(plan).await;
    let [one, two] = pair.session().await?;
    let mut events = one.request("tools/call", json!({"name": "hang", "arguments": {}})).await?.events();
    events.until("elicitation/create").await?;
    pair.one.metric_reaches("regatta_parked", 1.0).await;
    let called = stub.seen_rpc("tools/call").remove(0);
    let cancel = json!({"requestId": called.id(), "reason": "r"});
    assert_eq!(two.notify("notifications/cancelled", cancel).await?.status, 202);
    let told = stub.wait_for("notifications/cancelled", 1).await;
    assert_eq!(told.header("mcp-session-id"), called.header("mcp-session-id"));
    let last = events.rest().await?.pop().expect("an end").json();
    assert_eq!(last["error"]["code"], -31001, "its clocks run again: {last}");
    Ok(())
}
