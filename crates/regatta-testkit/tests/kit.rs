//! The kit against itself: the client reads what the stub says, and the stub sees what the client does.

use regatta_testkit::client::{RawConnection, raw};
use regatta_testkit::stub::{OnConnect, answers};
use regatta_testkit::{Client, FaultProxy, Mode, Reply, Stub, eventually};
use serde_json::json;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_legacy_session_round_trip_is_seen_and_journalled() {
    let stub = Stub::start(answers::legacy()).await;
    let session = Client::new(&stub.url()).initialize().await.expect("a session");
    let outcome = session.call("work", json!({"op": "a"})).await.expect("an answer");
    assert!(outcome.text().contains(r#""op":"a""#), "{}", outcome.text());
    assert_eq!(stub.journal().executions("a"), 1);
    assert_eq!(stub.wait_for("tools/call", 1).await.header("mcp-session-id"), session.id);
    assert_eq!(stub.connections(), 1, "the connection is kept");
    assert_eq!(session.end().await, Ok(http::StatusCode::OK));
    let gone = session.request("ping", json!({})).await.expect("an answer");
    assert_eq!(gone.status, 404);
}

#[tokio::test]
async fn a_modern_round_trip_and_a_live_listen() {
    let stub = Stub::start(answers::dual()).await;
    let modern = Client::new(&stub.url()).modern();
    let outcome = modern.call("work", json!({"op": "m"})).await.expect("an answer");
    assert_eq!(outcome.message["result"]["resultType"], "complete");
    let answer = modern.listen(json!({"toolsListChanged": true})).await.expect("a stream");
    let mut events = answer.events();
    events.until("notifications/subscriptions/acknowledged").await.expect("acknowledged first");
    stub.say(&json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"}));
    events.until("notifications/tools/list_changed").await.expect("what the test said");
    stub.end_live();
    assert_eq!(events.next().await, Ok(None));
}

#[tokio::test]
async fn a_question_on_the_stream_waits_for_its_answer() {
    let base = answers::legacy();
    let stub = Stub::start(move |seen| match seen.rpc() {
        "tools/call" => {
            let id = seen.id().clone();
            Reply::sse().priming("s-0").ask(&json!("q1"), "elicitation/create", json!({}), move |answer| {
                let text = answer["result"]["content"]["answer"].as_str().unwrap_or_default();
                json!({"jsonrpc": "2.0", "id": id, "result": {"content": [{"type": "text", "text": text}]}})
            })
        }
        _ => base(seen),
    })
    .await;
    let session = Client::new(&stub.url()).initialize().await.expect("a session");
    let request = json!({"name": "work", "arguments": {}});
    let mut events = session.request("tools/call", request).await.expect("a stream").events();
    assert_eq!(events.next().await.expect("an event").expect("priming").id.as_deref(), Some("s-0"));
    let question = events.until("elicitation/create").await.expect("the question").json();
    let answer = json!({"action": "accept", "content": {"answer": "42"}});
    assert_eq!(session.answer(&question["id"], answer).await.expect("taken").status, 202);
    let last = events.next().await.expect("an event").expect("the response").json();
    assert_eq!(last["result"]["content"][0]["text"], "42");
}

#[tokio::test]
async fn misbehaves_as_told() {
    let stub = Stub::start(|seen| match seen.tool() {
        "reset" => Reply::reset(),
        "cut" => Reply::result(seen, json!({"long": "x".repeat(100)})).cut_after(10),
        "lines" => Reply::json_lines(&[json!({"jsonrpc": "2.0", "method": "n"}), json!({"id": 1})]),
        "gap" => {
            Reply::sse().event_id("1", &json!(1)).wait(Duration::from_millis(30)).event_id("2", &json!(2))
        }
        _ => Reply::login_page(),
    })
    .await;
    let client = Client::new(&stub.url());
    let call = async |tool: &str| {
        let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool}});
        client.post(&[], &message).await
    };
    assert!(call("reset").await.is_err());
    assert!(call("cut").await.expect("a head").bytes().await.is_err());
    let lines = call("lines").await.expect("a head").bytes().await.expect("a body");
    assert_eq!(lines.iter().filter(|byte| **byte == b'\n').count(), 2);
    let events = call("gap").await.expect("a head").events().rest().await.expect("an end in order");
    assert_eq!(events.iter().map(|event| event.id.as_deref()).collect::<Vec<_>>(), [Some("1"), Some("2")]);
    assert_eq!(call("login").await.expect("a head").header("content-type"), "text/html");
    stub.on_connect(OnConnect::Reset);
    assert!(client.fresh().post(&[], &json!({})).await.is_err());
}

#[tokio::test]
async fn notices_a_client_that_leaves() {
    let stub = Stub::start(|_| Reply::sse().comment("open").hold()).await;
    let client = Client::new(&stub.url());
    let answer = client.post(&[], &json!({"jsonrpc": "2.0", "id": 1, "method": "x"})).await.expect("a head");
    let seen = stub.wait_for("x", 1).await;
    assert!(seen.fate().left.is_none());
    drop(answer);
    eventually("the stub notices", SOON, async || seen.fate().left).await;
}

#[tokio::test]
async fn dies_and_rises_on_the_same_port() {
    let stub = Stub::start(answers::sessionless()).await;
    let client = Client::new(&stub.url());
    let ping = json!({"jsonrpc": "2.0", "id": 1, "method": "ping"});
    client.post(&[], &ping).await.expect("alive").bytes().await.expect("a body");
    stub.die().await;
    assert!(client.post(&[], &ping).await.is_err());
    stub.rise().await;
    assert_eq!(client.post(&[], &ping).await.expect("alive again").status, 200);
}

#[tokio::test]
async fn the_proxy_drops_a_reply_after_the_execution() {
    let stub = Stub::start(answers::modern()).await;
    let proxy = FaultProxy::before(&stub.url()).await;
    let modern = Client::new(&proxy.url()).modern();
    modern.call("work", json!({"op": "first"})).await.expect("passes");
    proxy.set(Mode::DropReply);
    assert!(modern.call("work", json!({"op": "lost"})).await.is_err());
    assert_eq!(stub.journal().executions("lost"), 1);
}

#[tokio::test]
async fn raw_bytes_go_as_they_are() {
    let stub = Stub::start(|seen| Reply::text(200, "text/plain", seen.header("x")).close()).await;
    let answer = raw(stub.address(), "GET /any HTTP/1.1\r\nx: y z\r\n\r\n").await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("y z"), "{answer}");
    let mut connection = RawConnection::open(stub.address()).await.expect("connects");
    connection.write("GET / HTTP/1.1\r\nx: 1\r\n\r\n").await.expect("goes");
    connection.half_close().await.expect("half-closes");
    connection.read_until("200").await.expect("an answer all the same");
}
