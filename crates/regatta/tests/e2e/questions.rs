//! A server asks its client through the gateway: the answer reaches who asked, once, and never anybody else.

use crate::REGATTA;
use crate::fleet::{demos, receiver, urls};
use regatta_testkit::client::Session;
use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::answers;
use regatta_testkit::{Gateway, Reply, Result, Stub};
use serde_json::{Value, json};

/// A legacy stub whose tool `ask` asks under the id `q1`.
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
        _ => base(seen),
    })
    .await
}

fn accept(answer: &str) -> Value {
    json!({"action": "accept", "content": {"answer": answer}})
}

/// How many answers a stub received.
fn answers_at(stub: &Stub) -> usize {
    stub.seen()
        .iter()
        .filter(|seen| seen.rpc().is_empty() && !seen.json["result"]["action"].is_null())
        .count()
}

#[tokio::test]
async fn an_elicitation_and_a_sampling_are_answered_at_their_own_replica() -> Result<()> {
    let demos = demos(3, &["--eras", "legacy"]).await;
    let gateway =
        Gateway::start(REGATTA, Plan::over(urls(&demos)).on_server("balance = \"round-robin\"")).await;
    let mut asked = Vec::new();
    for number in 0..6 {
        let session = gateway.client().initialize().await?;
        let params = json!({"name": "ask", "arguments": {"question": number.to_string()}});
        let mut events = session.request("tools/call", params).await?.events();
        let question = events.until("elicitation/create").await?.json();
        assert_eq!(question["params"]["message"], number.to_string());
        asked.push((session, events, question["id"].clone(), number));
    }
    for (session, events, id, number) in asked {
        assert_eq!(session.answer(&id, accept(&format!("a{number}"))).await?.status, 202);
        let last = events.rest().await?.pop().expect("a response").json();
        assert_eq!(last["result"]["content"][0]["text"], format!("answer: a{number}"));
    }
    let session = gateway.client().initialize().await?;
    let params = json!({"name": "sample", "arguments": {"prompt": "p"}});
    let mut events = session.request("tools/call", params).await?.events();
    let question = events.until("sampling/createMessage").await?.json();
    let sampled = json!({"role": "assistant", "content": {"type": "text", "text": "s"}, "model": "m"});
    assert_eq!(session.answer(&question["id"], sampled).await?.status, 202);
    assert_eq!(
        events.rest().await?.pop().expect("a response").json()["result"]["content"][0]["text"],
        "model: s"
    );
    Ok(())
}

#[tokio::test]
async fn a_second_answer_is_taken_and_reaches_nobody() -> Result<()> {
    let stub = stub().await;
    let gateway = Gateway::start(REGATTA, Plan::over([stub.url()])).await;
    let session = gateway.client().initialize().await?;
    let params = json!({"name": "ask", "arguments": {"op": "asks"}});
    let mut events = session.request("tools/call", params).await?.events();
    let question = events.until("elicitation/create").await?.json();
    assert_eq!(session.answer(&question["id"], accept("first")).await?.status, 202);
    assert_eq!(session.answer(&question["id"], accept("second")).await?.status, 202);
    let last = events.rest().await?.pop().expect("a response").json();
    assert_eq!(last["result"]["content"][0]["text"], "\"first\"");
    assert_eq!(answers_at(&stub), 1);
    let answered = stub.seen().into_iter().find(|seen| !seen.json["result"]["action"].is_null());
    assert_eq!(answered.expect("an answer").id(), "q1", "under the server's own id");
    Ok(())
}

#[tokio::test]
async fn nobody_else_can_answer() -> Result<()> {
    let stub = stub().await;
    let gateway = Gateway::start(REGATTA, Plan::over([stub.url()])).await;
    let (session, other) = (gateway.client().initialize().await?, gateway.client().initialize().await?);
    let params = json!({"name": "ask", "arguments": {"op": "asks"}});
    let mut events = session.request("tools/call", params).await?.events();
    let question = events.until("elicitation/create").await?.json();
    assert_eq!(other.answer(&question["id"], accept("stolen")).await?.status, 202);
    assert_eq!(session.answer(&json!("q1"), accept("guessed")).await?.status, 202);
    assert_eq!(answers_at(&stub), 0);
    assert_eq!(session.answer(&question["id"], accept("own")).await?.status, 202);
    assert_eq!(
        events.rest().await?.pop().expect("a response").json()["result"]["content"][0]["text"],
        "\"own\""
    );
    Ok(())
}

#[tokio::test]
async fn an_answer_to_a_replica_that_is_gone_never_answers_a_new_question() -> Result<()> {
    let stubs = [stub().await, stub().await];
    let gateway = Gateway::start(REGATTA, Plan::over(stubs.each_ref().map(Stub::url))).await;
    let session = gateway.client().initialize().await?;
    let ask = async |op: &str| {
        let params = json!({"name": "ask", "arguments": {"op": op}});
        let mut events = session.request("tools/call", params).await?.events();
        let id = events.until("elicitation/create").await?.json()["id"].clone();
        Ok::<_, regatta_testkit::Failure>((events, id))
    };
    let (old_events, old) = ask("old").await?;
    let at = receiver(&stubs, "old").await;
    stubs[at].die().await;
    assert_eq!(old_events.rest().await?.pop().expect("a last word").json()["error"]["code"], -31001);
    let (events, new) = ask("new").await?;
    assert_ne!(old, new);
    assert_eq!(session.answer(&old, accept("stale")).await?.status, 202);
    assert_eq!(answers_at(&stubs[1 - at]), 0, "a stale approval");
    assert_eq!(session.answer(&new, accept("fresh")).await?.status, 202);
    let last = events.rest().await?.pop().expect("a response").json();
    assert_eq!(last["result"]["content"][0]["text"], "\"fresh\"");
    Ok(())
}

/// Official clients end their session when an answer or a notification is refused (RELIABILITY 3.4): right after its
/// server was killed, what can reach nobody is taken all the same, and the session goes on.
#[tokio::test]
async fn an_answer_and_a_notification_right_after_a_kill_are_taken_and_the_session_goes_on() -> Result<()> {
    let mut demos = demos(2, &["--eras", "legacy"]).await;
    let gateway = Gateway::start(REGATTA, Plan::over(urls(&demos))).await;
    let session = gateway.client().initialize().await?;
    let home = crate::fleet::home(&demos, &session).await?;
    let params = json!({"name": "ask", "arguments": {"question": "?"}});
    let mut events = session.request("tools/call", params).await?.events();
    let question = events.until("elicitation/create").await?.json();
    demos[home].process.kill();
    assert_eq!(session.answer(&question["id"], accept("too late")).await?.status, 202);
    let changed = json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"});
    assert_eq!(session.post(&changed).await?.status, 202);
    // It is taken back, unless the answer came before anybody saw the server die.
    let mut rest: Vec<_> = events.rest().await?.iter().map(|event| event.json()).collect();
    let last = rest.pop().expect("a last word");
    assert_eq!(last["error"]["code"], -31001, "{last}");
    let taken_back = rest.iter().filter(|message| message["method"] == "notifications/cancelled");
    assert!(taken_back.into_iter().all(|said| said["params"]["requestId"] == question["id"]), "{rest:?}");
    let moved = session.call("whoami", json!({})).await?;
    assert_eq!(moved.result()?["structuredContent"]["port"], json!(demos[1 - home].port()));
    Ok(())
}

#[tokio::test]
async fn a_question_of_a_home_that_is_gone_is_withdrawn_on_the_standing_stream() -> Result<()> {
    let stubs = [stub().await, stub().await];
    let gateway = Gateway::start(REGATTA, Plan::over(stubs.each_ref().map(Stub::url))).await;
    let session = gateway.client().initialize().await?;
    session.call("echo", json!({"op": "here"})).await?;
    let home = receiver(&stubs, "here").await;
    let mut standing = session.listen().await?.events();
    stubs[home]
        .say(&json!({"jsonrpc": "2.0", "id": 7, "method": "elicitation/create", "params": {"message": "?"}}));
    let question = standing.until("elicitation/create").await?.json();
    stubs[home].die().await;
    let withdrawn = standing.until("notifications/cancelled").await?.json();
    assert_eq!(withdrawn["params"]["requestId"], question["id"]);
    assert_eq!(session.answer(&question["id"], accept("too late")).await?.status, 202);
    assert_eq!(stubs.iter().map(answers_at).sum::<usize>(), 0);
    Ok(())
}

#[tokio::test]
async fn a_question_on_the_standing_stream_is_answered_and_its_cancellation_names_it() -> Result<()> {
    let stub = stub().await;
    let gateway = Gateway::start(REGATTA, Plan::over([stub.url()])).await;
    let session = gateway.client().initialize().await?;
    let mut standing = session.listen().await?.events();
    let ask = |id: Value| json!({"jsonrpc": "2.0", "id": id, "method": "elicitation/create", "params": {"message": "?"}});
    stub.say(&ask(json!(7)));
    let question = standing.until("elicitation/create").await?.json();
    assert_eq!(session.answer(&question["id"], accept("seven")).await?.status, 202);
    let answered = stub.seen().into_iter().find(|seen| !seen.json["result"]["action"].is_null());
    assert_eq!(answered.expect("an answer").id(), 7, "a number, as the server asked");

    stub.say(&ask(json!("7")));
    let question = standing.until("elicitation/create").await?.json();
    stub.say(&json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": "7"}}));
    let cancelled = standing.until("notifications/cancelled").await?.json();
    assert_eq!(cancelled["params"]["requestId"], question["id"]);
    Ok(())
}

#[tokio::test]
async fn a_question_whose_server_dies_is_taken_back_before_its_call_ends() -> Result<()> {
    let stub = stub().await;
    let gateway = Gateway::start(REGATTA, Plan::over([stub.url()])).await;
    let session = gateway.client().initialize().await?;
    let params = json!({"name": "ask", "arguments": {"op": "asks"}});
    let mut events = session.request("tools/call", params).await?.events();
    let question = events.until("elicitation/create").await?.json();
    stub.die().await;
    let cancelled = events.until("notifications/cancelled").await?.json();
    assert_eq!(cancelled["params"]["requestId"], question["id"], "under the id that the client knows");
    let last = events.rest().await?.pop().expect("a last word").json();
    assert_eq!(last["error"]["code"], -31001, "{last}");
    Ok(())
}

#[tokio::test]
async fn a_person_may_think_longer_than_request_timeout() -> Result<()> {
    let stub = stub().await;
    let plan = Plan::over([stub.url()]).on_server("request_timeout = \"300ms\"\nrequest_max = \"600ms\"");
    let gateway = Gateway::start(REGATTA, plan).await;
    let session = gateway.client().initialize().await?;
    let params = json!({"name": "ask", "arguments": {"op": "asks"}});
    let mut events = session.request("tools/call", params).await?.events();
    let question = events.until("elicitation/create").await?.json();
    let early = events.next_within(std::time::Duration::from_millis(1200)).await;
    assert!(early.is_err(), "the clocks stand still meanwhile: {early:?}");
    assert_eq!(session.answer(&question["id"], accept("late")).await?.status, 202);
    let last = events.rest().await?.pop().expect("a response").json();
    assert_eq!(last["result"]["content"][0]["text"], "\"late\"", "{last}");
    Ok(())
}

/// 2025-03-26 has batches, and an answer may come in one.
#[tokio::test]
async fn an_answer_in_a_batch_reaches_who_asked_and_the_rest_goes_on_as_a_batch() -> Result<()> {
    let demos = demos(2, &["--eras", "legacy"]).await;
    let gateway = Gateway::start(REGATTA, Plan::over(urls(&demos))).await;
    let session = Session::open(&gateway.client(), "2025-03-26", json!({"sampling": {}})).await?;
    let params = json!({"name": "sample", "arguments": {"prompt": "p"}});
    let mut events = session.request("tools/call", params).await?.events();
    let question = events.until("sampling/createMessage").await?.json();
    let said = json!({"role": "assistant", "content": {"type": "text", "text": "in a batch"}, "model": "m"});
    let answer = json!({"jsonrpc": "2.0", "id": question["id"], "result": said});
    let ping = |id: u64| json!({"jsonrpc": "2.0", "id": id, "method": "ping"});
    let batch = session.post(&json!([ping(71), answer, ping(72)])).await?;
    assert_eq!(batch.status, 200);
    let responses = batch.json().await?;
    assert_eq!((&responses[0]["id"], &responses[1]["id"]), (&json!(71), &json!(72)), "{responses}");
    let last = events.rest().await?.pop().expect("a response").json();
    assert!(last["result"].to_string().contains("in a batch"), "{last}");
    assert_eq!(session.post(&json!([answer])).await?.status, 202, "nobody asks any more");
    Ok(())
}
