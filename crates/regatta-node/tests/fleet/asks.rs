//! Tools that must not run twice and that ask their client: in the legacy era while they run, in the modern one in rounds,
//! at nodes directly and behind a gateway.

use http::StatusCode;
use regatta_testkit::client::{Events, Modern, Outcome, Session};
use regatta_testkit::eventually;
use serde_json::{Value, json};

use crate::gateway::{SOON, Town};
use crate::shop::Shop;
use crate::{Running, response};

/// What `-31001` means: docs/errors.md.
const UNKNOWN: i64 = -31001;

fn checkout(id: u64, number: &str, pause_ms: u64) -> Value {
    let arguments = json!({"number": number, "pause_ms": pause_ms});
    let params = json!({"name": "checkout", "arguments": arguments, "_meta": {"progressToken": "p"}});
    json!({"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params})
}

fn address() -> Value {
    json!({"action": "accept", "content": {"address": "Quay 1"}})
}

/// The question of a call that waits, with its id; what came before it was the call's progress.
async fn question(events: &mut Events) -> Value {
    events.until("notifications/progress").await.unwrap();
    events.until("elicitation/create").await.unwrap().json()["id"].clone()
}

async fn answer(session: &Session, id: &Value) {
    let answer = session.answer(id, address()).await.unwrap();
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    answer.bytes().await.unwrap();
}

/// Returns when a call waits at this node for another's result: until then, that call runs.
async fn has_joined(node: &Running) {
    eventually("the repeat waits", SOON, async || {
        let told = node.get("/metrics").await?;
        told.contains("regatta_node_journal_joined_total 1").then_some(())
    })
    .await;
}

async fn told(session: &Session, message: &Value) -> Outcome {
    session.post(message).await.unwrap().outcome().await.unwrap()
}

/// Sends a call that asks, and answers its question by way of `other`; the call's response.
async fn asks(session: &Session, other: &Session, message: &Value) -> Value {
    let mut events = session.post(message).await.unwrap().events();
    let id = question(&mut events).await;
    answer(other, &id).await;
    let told = response(events).await;
    assert_eq!(told["result"]["content"][0]["text"], "order A goes to Quay 1", "{told}");
    told
}

#[tokio::test]
async fn a_legacy_call_asks_its_client_and_who_was_told_its_result_is_told_it_again_when_its_node_is_dead() {
    let mut shop = Shop::open(2).await;
    let here = shop.nodes[0].client().initialize().await.unwrap();
    let there = here.through(&shop.nodes[1].client());
    let message = checkout(1, "A", 0);
    let first = asks(&here, &there, &message).await;
    shop.nodes[0].process.kill();
    let again = told(&there, &message).await;
    assert_eq!(again.message["result"], first["result"], "{}", again.message);
    assert_eq!(shop.orders(), ["draft-A", "A"]);
}

#[tokio::test]
async fn a_legacy_call_asks_its_client_through_a_gateway_and_its_result_is_told_again() {
    let town = Town::of(2, &[], "").await;
    let session = town.front.client().initialize().await.unwrap();
    let message = checkout(1, "A", 0);
    let first = asks(&session, &session, &message).await;
    let again = told(&session, &message).await;
    assert_eq!(again.message["result"], first["result"], "{}", again.message);
    assert_eq!(town.orders(), ["draft-A", "A"]);
}

#[tokio::test]
async fn who_repeats_a_legacy_call_that_asks_waits_for_its_result() {
    let shop = Shop::open(2).await;
    let here = shop.nodes[0].client().initialize().await.unwrap();
    let there = here.through(&shop.nodes[1].client());
    let message = checkout(1, "A", 0);
    let mut events = here.post(&message).await.unwrap().events();
    let id = question(&mut events).await;
    let (joins, again) = (there.clone(), message.clone());
    let joining = tokio::spawn(async move { told(&joins, &again).await });
    has_joined(&shop.nodes[1]).await;
    answer(&there, &id).await;
    let first = response(events).await;
    assert_eq!(joining.await.unwrap().message["result"], first["result"]);
    assert_eq!(shop.orders(), ["draft-A", "A"]);
}

#[tokio::test]
async fn who_repeats_a_call_that_asks_for_long_is_told_that_it_runs_and_later_its_result() {
    let shop = Shop::open_with(1, &[("REGATTA_NODE_REQUEST_TIMEOUT_MS", "1000")]).await;
    let session = shop.nodes[0].client().initialize().await.unwrap();
    let message = checkout(1, "A", 0);
    let mut events = session.post(&message).await.unwrap().events();
    let id = question(&mut events).await;
    let early = told(&session, &message).await;
    assert_eq!(early.code(), UNKNOWN);
    assert!(early.message["error"]["message"].as_str().unwrap().contains("runs still"), "{}", early.message);
    answer(&session, &id).await;
    let first = response(events).await;
    assert_eq!(told(&session, &message).await.message["result"], first["result"], "{first}");
    assert_eq!(shop.orders(), ["draft-A", "A"]);
}

#[tokio::test]
async fn the_outcome_of_a_legacy_call_that_was_taken_back_while_it_asked_is_unknown() {
    let shop = Shop::open(1).await;
    let session = shop.nodes[0].client().initialize().await.unwrap();
    let message = checkout(1, "A", 0);
    let mut events = session.post(&message).await.unwrap().events();
    question(&mut events).await;
    let cancelled = session.notify("notifications/cancelled", json!({"requestId": 1})).await.unwrap();
    assert_eq!(cancelled.status, StatusCode::ACCEPTED);
    let rest = events.rest().await.unwrap();
    assert!(rest.iter().all(|event| event.json().get("result").is_none()), "{rest:?}");
    assert_eq!(told(&session, &message).await.code(), UNKNOWN);
    assert_eq!(shop.orders(), ["draft-A"]);
}

#[tokio::test]
async fn a_legacy_call_that_asks_runs_on_when_its_client_is_gone_and_its_result_is_kept() {
    let shop = Shop::open(2).await;
    let here = shop.nodes[0].client().initialize().await.unwrap();
    let there = here.through(&shop.nodes[1].client());
    let message = checkout(1, "A", 0);
    let mut events = here.post(&message).await.unwrap().events();
    events.until("notifications/progress").await.unwrap();
    let asked = events.until("elicitation/create").await.unwrap();
    drop(events);
    let resumed = there.resume(&asked.id.clone().expect("every event has an id")).await.unwrap().events();
    answer(&there, &asked.json()["id"]).await;
    let first = response(resumed).await;
    assert_eq!(told(&there, &message).await.message["result"], first["result"], "{first}");
    assert_eq!(shop.orders(), ["draft-A", "A"]);
}

#[tokio::test]
async fn who_comes_back_for_a_result_that_was_lost_with_its_node_gets_it_from_the_journal() {
    let mut shop = Shop::open(2).await;
    let here = shop.nodes[0].client().initialize().await.unwrap();
    let there = here.through(&shop.nodes[1].client());
    let mut events = here.post(&checkout(1, "A", 0)).await.unwrap().events();
    let asked = events.until("elicitation/create").await.unwrap();
    answer(&there, &asked.json()["id"]).await;
    let first = response(events).await;
    shop.nodes[0].process.kill();
    // As if nothing had come behind the question.
    let resumed = there.resume(&asked.id.unwrap()).await.unwrap().events();
    assert_eq!(response(resumed).await, first);
    assert_eq!(shop.orders(), ["draft-A", "A"]);
}

#[tokio::test]
async fn the_outcome_of_a_legacy_call_whose_node_died_while_it_asked_is_unknown_and_it_is_not_run_again() {
    let mut shop = Shop::open(2).await;
    let here = shop.nodes[0].client().initialize().await.unwrap();
    let there = here.through(&shop.nodes[1].client());
    let message = checkout(1, "A", 0);
    let mut events = here.post(&message).await.unwrap().events();
    question(&mut events).await;
    shop.nodes[0].process.kill();
    for _ in 0..2 {
        let told = told(&there, &message).await;
        assert_eq!(told.code(), UNKNOWN, "{}", told.message);
    }
    assert_eq!(shop.orders(), ["draft-A"]);
}

fn keyed(client: &regatta_testkit::Client) -> Modern {
    client.modern().with_meta("io.regatta/idempotencyKey", json!("my order"))
}

async fn begin(modern: &Modern, number: &str) -> Value {
    modern.call("checkout", json!({"number": number})).await.unwrap().result().unwrap()
}

async fn next(modern: &Modern, asked: &Value, arguments: Value) -> Outcome {
    modern.retry("checkout", arguments, asked, json!({"address": address()})).await.unwrap()
}

/// Each round runs once, whoever sends it again: `one` and `other` are two ways to the same nodes.
async fn rounds(one: &Modern, other: &Modern, orders: impl Fn() -> Vec<String>) {
    let asked = begin(one, "A").await;
    assert_eq!(asked["resultType"], "input_required", "{asked}");
    assert_eq!(begin(other, "A").await["inputRequests"], asked["inputRequests"]);
    assert_eq!(orders(), ["draft-A"], "the first round runs once");
    for modern in [one, other, one] {
        let told = next(modern, &asked, json!({"number": "A"})).await;
        assert_eq!(told.text(), "order A goes to Quay 1", "{}", told.message);
    }
    assert_eq!(begin(other, "A").await["resultType"], "input_required", "what the first round was told");
    assert_eq!(orders(), ["draft-A", "A"]);
}

#[tokio::test]
async fn each_round_of_a_modern_call_under_a_key_runs_once() {
    let shop = Shop::open(2).await;
    let [one, other] = [0, 1].map(|at| keyed(&shop.nodes[at].client()));
    rounds(&one, &other, || shop.orders()).await;
    // The state that the first round was told is as good as ever: nothing was made anew.
    assert_eq!(begin(&one, "A").await, begin(&other, "A").await);
}

#[tokio::test]
async fn each_round_of_a_modern_call_under_a_key_runs_once_behind_a_gateway() {
    let town = Town::of(2, &[], "").await;
    let modern = keyed(&town.front.client());
    rounds(&modern, &modern, || town.orders()).await;
}

#[tokio::test]
async fn a_round_whose_node_died_in_it_is_unknown_and_not_run_again() {
    let mut shop = Shop::open(2).await;
    let [one, other] = [0, 1].map(|at| keyed(&shop.nodes[at].client()));
    let slow = json!({"number": "A", "pause_ms": 4000});
    let asked = one.call("checkout", slow.clone()).await.unwrap().result().unwrap();
    let (dying, state, arguments) = (one.clone(), asked.clone(), slow.clone());
    tokio::spawn(async move {
        dying.retry("checkout", arguments, &state, json!({"address": address()})).await.is_ok()
    });
    eventually("it is placed", SOON, async || shop.orders().contains(&"A".to_owned()).then_some(())).await;
    shop.nodes[0].process.kill();
    for _ in 0..2 {
        let told = next(&other, &asked, slow.clone()).await;
        assert_eq!(told.code(), UNKNOWN, "{}", told.message);
    }
    assert_eq!(shop.orders(), ["draft-A", "A"]);
}

#[tokio::test]
async fn the_progress_of_a_modern_call_comes_while_it_runs_and_a_repeat_gets_its_result() {
    let shop = Shop::open_with(2, &[("REGATTA_NODE_REQUEST_TIMEOUT_MS", "20000")]).await;
    let [one, other] =
        [0, 1].map(|at| keyed(&shop.nodes[at].client()).with_meta("progressToken", json!("p")));
    let arguments = json!({"number": "A", "pause_ms": 4000});
    let asked = one.call("checkout", arguments.clone()).await.unwrap().result().unwrap();
    let round = json!({"name": "checkout", "arguments": arguments, "requestState": asked["requestState"],
        "inputResponses": {"address": address()}});
    let mut events = one.request("tools/call", round).await.unwrap().events();
    events.until("notifications/progress").await.unwrap();
    let joining = tokio::spawn(async move { next(&other, &asked, arguments).await });
    has_joined(&shop.nodes[1]).await;
    let first = response(events).await;
    assert_eq!(first["result"]["content"][0]["text"], "order A goes to Quay 1", "{first}");
    assert_eq!(joining.await.unwrap().message["result"], first["result"]);
    assert_eq!(shop.orders(), ["draft-A", "A"]);
}

/// Which node ran the only call so far.
async fn maker(town: &Town) -> usize {
    town.told_by("a node counted the call", "regatta_node_tool_seconds_count{tool=\"checkout\"} 1").await
}

#[tokio::test]
async fn a_round_that_its_sleeping_node_did_not_begin_is_run_elsewhere_and_not_again_when_it_wakes() {
    let town = Town::of(2, &[], "").await;
    let modern = keyed(&town.front.client());
    let asked = begin(&modern, "A").await;
    let home = maker(&town).await;
    town.nodes[home].process.stop();
    let told = next(&modern, &asked, json!({"number": "A"})).await;
    assert_eq!(told.text(), "order A goes to Quay 1", "{}", told.message);
    town.nodes[home].process.go_on();
    town.nodes[home].wait_ready().await;
    let again = next(&modern, &asked, json!({"number": "A"})).await;
    assert_eq!(again.message["result"], told.message["result"]);
    assert_eq!(town.orders(), ["draft-A", "A"]);
}

#[tokio::test]
async fn the_other_nodes_are_asked_for_a_round_whose_node_died_in_it() {
    let mut town = Town::of(2, &[], "").await;
    let modern = keyed(&town.front.client());
    let slow = json!({"number": "A", "pause_ms": 4000});
    let asked = modern.call("checkout", slow.clone()).await.unwrap().result().unwrap();
    let home = maker(&town).await;
    let (dying, state, arguments) = (modern.clone(), asked.clone(), slow.clone());
    let sending = tokio::spawn(async move { next(&dying, &state, arguments).await });
    eventually("it is placed", SOON, async || town.orders().contains(&"A".to_owned()).then_some(())).await;
    town.nodes[home].process.kill();
    assert_eq!(sending.await.unwrap().code(), UNKNOWN);
    let told = town.nodes[1 - home].get("/metrics").await.unwrap();
    assert!(told.contains("regatta_node_journal_unknown_total 1"), "it was asked: {told}");
    assert_eq!(next(&modern, &asked, slow).await.code(), UNKNOWN);
    assert_eq!(town.orders(), ["draft-A", "A"]);
}
