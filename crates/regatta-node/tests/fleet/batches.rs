//! Batches of 2025-03-26: each message as if it came alone, one after another, directly and through a gateway.

use std::time::Duration;

use http::StatusCode;
use regatta_testkit::client::{Answer, Session};
use regatta_testkit::eventually;
use regatta_testkit::process::free_port;
use regatta_testkit::redis::Server;
use regatta_testkit::sse::Event;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::gateway::{ANN, AUTH, BOB, Town};
use crate::shop::orders;
use crate::{Running, text};

const SOON: Duration = Duration::from_secs(30);

fn call(id: impl Into<Value>, tool: &str, arguments: Value) -> Value {
    let id: Value = id.into();
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": {"name": tool, "arguments": arguments}})
}

fn order(id: u64, number: &str, pause_ms: u64) -> Value {
    call(id, "order", json!({"number": number, "pause_ms": pause_ms, "keep": true}))
}

async fn old(node: &Running) -> Session {
    let session = Session::open(&node.client(), "2025-03-26", json!({"sampling": {}})).await.unwrap();
    assert_eq!(session.version, "2025-03-26");
    session
}

/// The messages of a stream, none of which may have an id of an event.
fn messages(events: Vec<Event>) -> Vec<Value> {
    assert!(events.iter().all(|event| event.id.is_none()), "nothing of it can be resumed: {events:?}");
    events.iter().map(Event::json).collect()
}

async fn told(answer: Answer) -> Vec<Value> {
    assert!(answer.status == StatusCode::OK && answer.is_sse(), "{}", answer.status);
    messages(answer.events().rest().await.unwrap())
}

fn ids(told: &[Value]) -> Vec<&Value> {
    told.iter().filter(|message| message["method"].is_null()).map(|message| &message["id"]).collect()
}

#[tokio::test]
async fn what_the_calls_of_a_batch_say_and_ask_comes_before_their_responses() {
    let redis = Server::start(&[]).await;
    let (url, mut nodes) = (redis.url(), Vec::new());
    for _ in 0..2 {
        nodes.push(Running::start("everything", free_port(), &[("REGATTA_NODE_STORE_URL", &url)]).await);
    }
    let session = old(&nodes[0]).await;
    let progress =
        json!({"name": "test_tool_with_progress", "arguments": {}, "_meta": {"progressToken": "p"}});
    let batch = json!([
        {"jsonrpc": "2.0", "id": "first", "method": "ping"},
        {"jsonrpc": "2.0", "method": "notifications/roots/list_changed"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": progress},
        call(3, "test_sampling", json!({"prompt": "who?"})),
        {"jsonrpc": "2.0", "id": 4, "method": "no/such"},
    ]);
    let answer = session.post(&batch).await.unwrap();
    assert!(answer.is_sse());
    let (mut stream, mut heard) = (answer.events(), Vec::new());
    while heard.last().is_none_or(|event: &Event| event.method() != "sampling/createMessage") {
        heard.push(stream.next().await.unwrap().expect("it asks before it ends"));
    }
    // The answer comes as a batch too, and to another node.
    let said = json!({"role": "assistant", "content": {"type": "text", "text": "ann"}, "model": "m"});
    let answer = json!([{"jsonrpc": "2.0", "id": heard.last().unwrap().json()["id"], "result": said}]);
    let taken = session.through(&nodes[1].client()).post(&answer).await.unwrap();
    assert_eq!((taken.status, taken.bytes().await.unwrap().len()), (StatusCode::ACCEPTED, 0));
    heard.extend(stream.rest().await.unwrap());
    let told = messages(heard);
    assert_eq!(ids(&told), [&json!("first"), &json!(2), &json!(3), &json!(4)], "{told:?}");
    let told_of = |method: &str| told.iter().filter(|message| message["method"] == method).count();
    assert!(told_of("notifications/progress") > 0 && told_of("sampling/createMessage") == 1, "{told:?}");
    assert!(text(&told[told.len() - 2]["result"]).contains("ann"), "{told:?}");
    assert_eq!(told[told.len() - 1]["error"]["code"], -32601);
}

#[tokio::test]
async fn only_sessions_of_the_oldest_version_have_batches_and_only_sound_ones_are_taken() {
    let node = Running::start("mirror", free_port(), &[]).await;
    let (session, ping) = (old(&node).await, json!({"jsonrpc": "2.0", "id": 1, "method": "ping"}));
    let noted = json!({"jsonrpc": "2.0", "method": "notifications/roots/list_changed"});
    let taken = session.post(&json!([noted, noted])).await.unwrap();
    assert_eq!((taken.status, taken.bytes().await.unwrap().len()), (StatusCode::ACCEPTED, 0));

    let initialize = json!({"jsonrpc": "2.0", "id": 2, "method": "initialize", "params": {}});
    let many = Value::Array(vec![ping.clone(); 257]);
    let refused = async |answer: Answer, what: &str| {
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{what}");
        let told = answer.json().await.unwrap();
        assert_eq!((&told["id"], &told["error"]["code"]), (&Value::Null, &json!(-32600)), "{what}: {told}");
    };
    for (batch, what) in [
        (json!([]), "empty"),
        (json!([ping, initialize]), "initialize"),
        (many, "too many"),
        (json!([ping, 7]), "no message"),
    ] {
        refused(session.post(&batch).await.unwrap(), what).await;
    }
    let newer = node.client().initialize().await.unwrap();
    refused(newer.post(&json!([ping])).await.unwrap(), "a newer session").await;
    refused(node.client().post(&[], &json!([ping])).await.unwrap(), "no session").await;
    let modern = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "ping")];
    refused(node.client().post(&modern, &json!([ping])).await.unwrap(), "modern").await;
    // Nothing of what was refused was taken for a message with positional members.
    refused(newer.post(&json!([1, "ping"])).await.unwrap(), "no array of messages").await;
}

#[tokio::test]
async fn each_call_of_a_batch_has_a_time_of_its_own() {
    let node = Running::start("mirror", free_port(), &[("REGATTA_NODE_REQUEST_TIMEOUT_MS", "300")]).await;
    let session = old(&node).await;
    let batch = json!([call(1, "slow", json!({})), call(2, "client", json!({})), call(3, "slow", json!({}))]);
    let told = told(session.post(&batch).await.unwrap()).await;
    assert_eq!(ids(&told), [&json!(1), &json!(2), &json!(3)]);
    let codes: Vec<_> = told.iter().map(|message| &message["error"]["code"]).collect();
    assert_eq!(codes, [&json!(-31001), &Value::Null, &json!(-31001)], "{told:?}");
    assert_eq!(text(&told[1]["result"]), "regatta-testkit");
}

#[tokio::test]
async fn a_batch_through_the_gateway_runs_each_call_once_however_often_it_is_sent() {
    let town = Town::of(2, &[], "").await;
    let session = Session::open(&town.front.client(), "2025-03-26", json!({})).await.unwrap();
    let batch = json!([
        call("a", "add", json!({"item": "rope"})),
        order(1, "first", 0),
        order(2, "second", 0),
        call("c", "cart", json!({})),
    ]);
    let mut before = None;
    for _ in 0..2 {
        let told = told(session.post(&batch).await.unwrap()).await;
        assert_eq!(ids(&told), [&json!("a"), &json!(1), &json!(2), &json!("c")]);
        assert!(told.iter().all(|message| text(&message["result"]) == "rope"), "{told:?}");
        assert!(before.replace(told.clone()).is_none_or(|before| before == told));
    }
    assert_eq!(town.orders(), ["first", "second"]);
}

#[tokio::test]
async fn a_key_of_a_batch_is_each_calls_own_and_a_batch_goes_on_without_its_client() {
    let town = Town::of(2, &[], "").await;
    let client = town.nodes[0].client().header("idempotency-key", "mine");
    let session = old(&town.nodes[0]).await.through(&client);
    let equal = |pause_ms| json!([order(1, "equal", pause_ms), order(2, "equal", pause_ms)]);
    let stream = session.post(&equal(500)).await.unwrap();
    eventually("the first is placed", SOON, async || (town.orders() == ["equal"]).then_some(())).await;
    // Its client is gone, as far as the node can see.
    drop(stream);
    eventually("both are placed", SOON, async || (town.orders().len() == 2).then_some(())).await;
    let other = session.through(&town.nodes[1].client().header("idempotency-key", "mine"));
    let told = told(other.post(&equal(500)).await.unwrap()).await;
    assert!(told.iter().all(|message| message["result"].is_object()), "{told:?}");
    assert_eq!((ids(&told), town.orders().len()), (vec![&json!(1), &json!(2)], 2));
}

#[tokio::test]
async fn a_call_that_is_taken_back_before_its_turn_is_not_run() {
    let town = Town::of(2, &[], "").await;
    let session = old(&town.nodes[0]).await;
    let batch = json!([order(1, "first", 1500), order(2, "second", 0), order(3, "third", 0)]);
    let stream = session.post(&batch).await.unwrap();
    eventually("the first is placed", SOON, async || (town.orders() == ["first"]).then_some(())).await;
    let other = session.through(&town.nodes[1].client());
    let taken = other.notify("notifications/cancelled", json!({"requestId": 2})).await.unwrap();
    assert_eq!(taken.status, StatusCode::ACCEPTED);
    let told = told(stream).await;
    assert_eq!(
        (ids(&told), town.orders()),
        (vec![&json!(1), &json!(3)], vec!["first".into(), "third".into()])
    );
}

#[tokio::test]
async fn calls_that_are_taken_back_before_their_turn_are_not_even_begun_where_nothing_is_waited_for() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("orders");
    let node = Running::start("shop", free_port(), &[("SHOP_ORDERS", file.to_str().unwrap())]).await;
    let session = old(&node).await;
    let batch = (1..=16).map(|id| order(id, &format!("order-{id}"), 3000)).collect();
    let stream = session.post(&Value::Array(batch)).await.unwrap();
    eventually("the first is placed", SOON, async || (orders(&file) == ["order-1"]).then_some(())).await;
    let taken = (2..=16).map(
        |id| json!({"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": id}}),
    );
    let taken = session.post(&Value::Array(taken.collect())).await.unwrap();
    assert_eq!(taken.status, StatusCode::ACCEPTED);
    let told = told(stream).await;
    assert_eq!((ids(&told), orders(&file)), (vec![&json!(1)], vec!["order-1".to_owned()]));
}

#[tokio::test]
async fn a_node_that_leaves_runs_no_more_of_a_batch_and_says_so() {
    let town = Town::of(1, &[], "").await;
    let batch = json!([order(1, "first", 1000), order(2, "second", 0)]);
    let stream = old(&town.nodes[0]).await.post(&batch).await.unwrap();
    eventually("the first is placed", SOON, async || (town.orders() == ["first"]).then_some(())).await;
    town.nodes[0].process.terminate();
    let told = told(stream).await;
    assert_eq!(ids(&told), [&json!(1), &json!(2)], "{told:?}");
    assert!(told[0]["result"].is_object(), "{told:?}");
    assert_eq!(
        (&told[1]["error"]["code"], &told[1]["error"]["data"]["executed"]),
        (&json!(-31006), &json!("no"))
    );
    assert_eq!(town.orders(), ["first"]);
}

#[tokio::test]
async fn equal_keys_of_batches_of_two_callers_name_two_calls() {
    // The node shares no secret with the gateway: to it all callers look alike.
    let town = Town::of(1, &[], AUTH).await;
    for key in [ANN, BOB] {
        let client = town.front.client().header("authorization", &format!("Bearer {key}"));
        let client = client.header("idempotency-key", "mine");
        let session = Session::open(&client, "2025-03-26", json!({})).await.unwrap();
        for _ in 0..2 {
            let told = told(session.post(&json!([order(1, "equal", 0)])).await.unwrap()).await;
            assert!(told[0]["result"].is_object(), "{told:?}");
        }
    }
    assert_eq!(town.orders(), ["equal", "equal"]);
}

#[tokio::test]
async fn who_reads_too_slowly_holds_no_place_and_is_told_of_each_call_that_it_missed() {
    // More than fits into the buffers of a connection that nobody reads.
    let (calls, large) = (48, "x".repeat(512 << 10));
    let more = [("REGATTA_NODE_REQUEST_BYTES_MAX", "67108864"), ("REGATTA_NODE_REQUEST_TIMEOUT_MS", "3000")];
    let node = Running::start("minimal", free_port(), &more).await;
    let batch = (0..calls).map(|id| call(id, "echo", json!({"text": large}))).collect();
    let unread = old(&node).await.post(&Value::Array(batch)).await.unwrap();
    eventually("the batch gives its place back", SOON, async || {
        let metrics = node.get("/metrics").await?;
        metrics.contains("regatta_node_in_flight 0").then_some(())
    })
    .await;
    let told = told(unread).await;
    let expected: Vec<Value> = (0..calls).map(Value::from).collect();
    assert_eq!(ids(&told), expected.iter().collect::<Vec<_>>());
    assert_eq!(text(&told[0]["result"]).len(), large.len());
    let last = &told[told.len() - 1]["error"];
    assert_eq!((&last["code"], &last["data"]["executed"]), (&json!(-31001), &json!("unknown")));
}
