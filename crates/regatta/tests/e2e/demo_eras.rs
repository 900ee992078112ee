//! The demo server, spoken to directly: what it says in each era without a gateway before it.
//!
//! If one of these fails, no test through the gateway means anything.

use crate::REGATTA;
use regatta_testkit::client::Session;
use regatta_testkit::process::Demo;
use regatta_testkit::{Client, Result, eventually};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_legacy_session_counts_for_itself_and_ends() -> Result<()> {
    let demo = Demo::start(REGATTA, &[]).await;
    let client = Client::new(&demo.url);
    let (one, two) = (client.initialize().await?, client.initialize().await?);
    assert_eq!(one.version, "2025-11-25");
    assert_eq!(one.call("echo", json!({"text": "a\"é\n"})).await?.text(), "a\"é\n");
    assert_eq!(one.call("add", json!({"a": 2, "b": 0.5})).await?.text(), "2.5");
    for (session, expected) in [(&one, "1"), (&one, "2"), (&two, "1")] {
        assert_eq!(session.call("counter", json!({})).await?.text(), expected);
    }
    let who = one.call("whoami", json!({})).await?.result()?;
    assert_eq!(who["structuredContent"], json!({"pid": demo.process.pid(), "port": demo.port()}));
    assert_eq!(one.call("nothing", json!({})).await?.code(), -32602);
    assert_eq!(one.call("add", json!({"a": "2"})).await?.result()?["isError"], true);
    assert_eq!(one.request("nothing", json!({})).await?.status, 200, "404 would end the session");
    assert_eq!(one.end().await?, 204);
    assert_eq!(one.request("ping", json!({})).await?.status, 404);
    assert_eq!(two.request("ping", json!({})).await?.status, 200);
    Ok(())
}

#[tokio::test]
async fn a_legacy_sleep_reports_progress_and_can_be_resumed() -> Result<()> {
    let demo = Demo::start(REGATTA, &[]).await;
    let session = Client::new(&demo.url).initialize().await?;
    let answer = session.call_with_progress("sleep", json!({"ms": 450}), json!("token")).await?;
    let mut events = answer.events();
    let priming = events.next().await?.expect("a priming event");
    assert!(priming.id.is_some() && priming.json().is_null());
    let first = events.until("notifications/progress").await?;
    assert_eq!(first.json()["params"]["progressToken"], "token");
    drop(events);
    let last_seen = first.id.expect("an event id");
    let rest = session.resume(&last_seen).await?.events().rest().await?;
    let progress: Vec<_> =
        rest.iter().filter_map(|event| event.json()["params"]["progress"].as_u64()).collect();
    assert_eq!(progress, [200, 300, 400]);
    let last = rest.last().expect("a response").json();
    assert_eq!(last["result"]["content"][0]["text"], "slept 450 ms");
    assert_eq!(session.resume("999-1").await?.status, 400);
    Ok(())
}

#[tokio::test]
async fn a_legacy_call_is_cancelled_by_its_notification() -> Result<()> {
    let demo = Demo::start(REGATTA, &[]).await;
    let session = Client::new(&demo.url).initialize().await?;
    let params = json!({"name": "sleep", "arguments": {"ms": 600_000}, "_meta": {"progressToken": 1}});
    let request = json!({"jsonrpc": "2.0", "id": "mine", "method": "tools/call", "params": params});
    let mut events = session.post(&request).await?.events();
    events.until("notifications/progress").await?;
    session.notify("notifications/cancelled", json!({"requestId": "mine"})).await?;
    let rest = events.rest().await?;
    assert!(rest.iter().all(|event| event.json()["id"].is_null()), "no response after a cancellation");
    Ok(())
}

#[tokio::test]
async fn a_legacy_question_travels_on_the_stream_of_the_call() -> Result<()> {
    let demo = Demo::start(REGATTA, &[]).await;
    let session = Client::new(&demo.url).initialize().await?;
    let sampled = json!({"role": "assistant", "model": "m", "content": {"type": "text", "text": "blue"}});
    for (tool, arguments, method, reply, said) in [
        (
            "ask",
            json!({"question": "why?"}),
            "elicitation/create",
            json!({"action": "accept", "content": {"answer": "so"}}),
            "answer: so",
        ),
        ("sample", json!({"prompt": "sky?"}), "sampling/createMessage", sampled, "model: blue"),
    ] {
        let params = json!({"name": tool, "arguments": arguments});
        let mut events = session.request("tools/call", params).await?.events();
        let question = events.until(method).await?.json();
        assert_eq!(session.answer(&question["id"], reply).await?.status, 202);
        let response = events.next().await?.expect("the response").json();
        assert_eq!(response["result"]["content"][0]["text"], said);
    }
    Ok(())
}

#[tokio::test]
async fn the_legacy_standing_stream_tells_of_changes_and_is_one() -> Result<()> {
    let demo = Demo::start(REGATTA, &[]).await;
    let session = Client::new(&demo.url).initialize().await?;
    let mut events = session.listen().await?.events();
    assert_eq!(session.listen().await?.status, 409);
    assert_eq!(session.call("toggle_tool", json!({"name": "extra"})).await?.text(), "extra added");
    events.until("notifications/tools/list_changed").await?;
    assert_eq!(session.call("extra", json!({})).await?.text(), "extra was added by toggle_tool");
    session
        .request("resources/subscribe", json!({"uri": "demo://clock"}))
        .await?
        .outcome()
        .await?
        .result()?;
    let updated = events.until("notifications/resources/updated").await?.json();
    assert_eq!(updated["params"]["uri"], "demo://clock");
    drop(events);
    let again = async || session.listen().await.ok().filter(|answer| answer.status == 200);
    eventually("the stream can be opened again", SOON, again).await;
    Ok(())
}

#[tokio::test]
async fn a_batch_is_answered_in_its_version_only() -> Result<()> {
    let demo = Demo::start(REGATTA, &[]).await;
    let client = Client::new(&demo.url);
    let batch = json!([
        {"jsonrpc": "2.0", "id": 1, "method": "ping"},
        {"jsonrpc": "2.0", "method": "notifications/roots/list_changed"},
        {"jsonrpc": "2.0", "id": "b", "method": "tools/call", "params": {"name": "echo", "arguments": {"text": "x"}}},
        {"jsonrpc": "2.0", "id": 3, "method": "initialize", "params": {}},
    ]);
    let old = Session::open(&client, "2025-03-26", json!({})).await?;
    let answers = old.post(&batch).await?.json().await?;
    let ids: Vec<_> = answers.as_array().into_iter().flatten().map(|answer| &answer["id"]).collect();
    assert_eq!(ids, [&json!(1), &json!("b"), &json!(3)]);
    assert_eq!(answers[1]["result"]["content"][0]["text"], "x");
    assert_eq!(answers[2]["error"]["code"], -32601, "initialize is never part of a batch");
    assert_eq!(client.initialize().await?.post(&batch).await?.status, 400);
    Ok(())
}

#[tokio::test]
async fn a_modern_request_stands_alone() -> Result<()> {
    let demo = Demo::start(REGATTA, &[]).await;
    let modern = Client::new(&demo.url).modern();
    let discovered = modern.request("server/discover", json!({})).await?.outcome().await?.result()?;
    assert_eq!(discovered["supportedVersions"], json!(["2026-07-28"]));
    assert_eq!(discovered["resultType"], "complete");
    assert!(discovered["ttlMs"].is_u64() && discovered["cacheScope"].is_string());
    assert_eq!(modern.call("echo", json!({"text": "hi"})).await?.text(), "hi");
    assert_eq!(modern.call("counter", json!({})).await?.text(), "1");
    assert_eq!(modern.call("counter", json!({})).await?.text(), "2");
    let unknown = modern.request("ping", json!({})).await?.outcome().await?;
    assert_eq!((unknown.status.as_u16(), unknown.code()), (404, -32601));
    let answer = modern.clone().with_meta("progressToken", json!(7));
    let params = json!({"name": "sleep", "arguments": {"ms": 250}});
    let outcome = answer.request("tools/call", params).await?.outcome().await?;
    assert_eq!(outcome.events.len(), 3);
    assert!(outcome.events.iter().all(|event| event.id.is_none()), "no resume in this era");
    let logged = modern.clone().with_meta("io.modelcontextprotocol/logLevel", json!("info"));
    let outcome = logged.call("log", json!({"level": "error", "text": "x"})).await?;
    assert_eq!(outcome.events[0].method(), "notifications/message");
    assert!(modern.call("log", json!({"level": "error", "text": "x"})).await?.events.is_empty());
    Ok(())
}

#[tokio::test]
async fn a_modern_request_is_checked_against_its_headers() -> Result<()> {
    let demo = Demo::start(REGATTA, &[]).await;
    let client = Client::new(&demo.url);
    let (headers, message) =
        client.modern().build(&json!(1), "tools/call", json!({"name": "whoami", "arguments": {}}));
    let send = async |change: (&str, &str), message: &Value| -> Result<(u16, i64)> {
        let mut headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
        headers.push(change);
        let outcome = client.post(&headers, message).await?.outcome().await?;
        Ok((outcome.status.as_u16(), outcome.code()))
    };
    assert_eq!(send(("x-nothing", "1"), &message).await?, (200, 0));
    assert_eq!(send(("mcp-name", "=?base64?d2hvYW1p?="), &message).await?, (200, 0));
    assert_eq!(send(("mcp-name", "echo"), &message).await?, (400, -32020));
    assert_eq!(send(("mcp-method", ""), &message).await?, (400, -32020));
    assert_eq!(send(("mcp-protocol-version", "2026-08-01"), &message).await?, (400, -32020));
    let mut bare = message.clone();
    bare["params"]["_meta"] = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28"});
    assert_eq!(send(("x-nothing", "1"), &bare).await?, (400, -32602));
    let mut future = message.clone();
    future["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!("2027-01-01");
    assert_eq!(send(("mcp-protocol-version", "2027-01-01"), &future).await?, (400, -32022));
    Ok(())
}

#[tokio::test]
async fn a_modern_question_is_answered_at_its_maker_only() -> Result<()> {
    let (demo, other) = (Demo::start(REGATTA, &[]).await, Demo::start(REGATTA, &[]).await);
    let (modern, other) = (Client::new(&demo.url).modern(), Client::new(&other.url).modern());
    let question = json!({"question": "why?"});
    let asked = modern.call("ask", question.clone()).await?.result()?;
    assert_eq!(asked["resultType"], "input_required");
    assert_eq!(asked["inputRequests"]["question"]["method"], "elicitation/create");
    let answers = json!({"question": {"action": "accept", "content": {"answer": "so"}}, "surplus": 1});
    let done = modern.retry("ask", question.clone(), &asked, answers.clone()).await?;
    assert_eq!(done.text(), "answer: so");
    assert_eq!(other.retry("ask", question.clone(), &asked, answers).await?.code(), -32602);
    let again = modern.retry("ask", question.clone(), &asked, json!({})).await?.result()?;
    assert_eq!(again["resultType"], "input_required", "a missing answer is asked for again");
    let mut silent = modern.clone();
    silent.meta["io.modelcontextprotocol/clientCapabilities"] = json!({});
    let refused = silent.call("ask", question).await?;
    assert_eq!((refused.status.as_u16(), refused.code()), (400, -32021));
    Ok(())
}

#[tokio::test]
async fn a_modern_listen_acknowledges_first_and_ends_with_its_result() -> Result<()> {
    let demo = Demo::start(REGATTA, &[]).await;
    let modern = Client::new(&demo.url).modern();
    let filter = json!({
        "toolsListChanged": true,
        "promptsListChanged": true,
        "resourceSubscriptions": ["demo://clock", "demo://none"],
    });
    let mut events = modern.listen(filter).await?.events();
    let first = events.next().await?.expect("an event").json();
    assert_eq!(first["method"], "notifications/subscriptions/acknowledged");
    let honoured = json!({"toolsListChanged": true, "resourceSubscriptions": ["demo://clock"]});
    assert_eq!(first["params"]["notifications"], honoured);
    let key = "io.modelcontextprotocol/subscriptionId";
    let updated = events.until("notifications/resources/updated").await?.json();
    assert_eq!(updated["params"]["_meta"][key], first["params"]["_meta"][key]);
    modern.call("toggle_tool", json!({"name": "extra"})).await?;
    events.until("notifications/tools/list_changed").await?;
    demo.process.terminate();
    let last = events.rest().await?.pop().expect("a result").json();
    assert_eq!(last["result"]["_meta"][key], first["params"]["_meta"][key]);
    Ok(())
}

#[tokio::test]
async fn one_era_alone_refuses_the_other() -> Result<()> {
    let legacy = Demo::start(REGATTA, &["--eras", "legacy"]).await;
    let refused = Client::new(&legacy.url).modern().request("server/discover", json!({})).await?;
    assert_eq!(refused.status, 400);
    Client::new(&legacy.url).initialize().await?;
    let modern = Demo::start(REGATTA, &["--eras", "modern"]).await;
    assert!(Client::new(&modern.url).initialize().await.is_err());
    let get = Client::new(&modern.url).send(http::Method::GET, &[], "").await?;
    assert_eq!((get.status.as_u16(), get.header("allow")), (405, "POST"));
    Ok(())
}

#[tokio::test]
async fn ends_with_the_stdin_of_who_started_it() {
    let mut demo = Demo::start(REGATTA, &[]).await;
    demo.process.close_stdin();
    assert!(demo.process.exit_within(SOON).await.success());
}
