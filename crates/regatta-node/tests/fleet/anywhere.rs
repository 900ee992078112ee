//! Questions, streams, cancellations and news of a legacy session, each taken up at another node than the one before.

use std::time::Duration;

use http::StatusCode;
use regatta_testkit::client::{Answer, Events, Session};
use regatta_testkit::eventually;
use regatta_testkit::process::free_port;
use regatta_testkit::redis::Server;
use serde_json::{Value, json};

use crate::{Running, response, text};

const WATCHED: &str = "test://watched-resource";

struct Nodes {
    nodes: Vec<Running>,
    _redis: Server,
}

impl Nodes {
    async fn start(number: usize) -> Nodes {
        let redis = Server::start(&[]).await;
        let mut nodes = Vec::new();
        for _ in 0..number {
            let url = redis.url();
            nodes.push(Running::start("everything", free_port(), &[("REGATTA_NODE_STORE_URL", &url)]).await);
        }
        Nodes { nodes, _redis: redis }
    }

    /// One session, as each node is asked for it.
    async fn session(&self) -> Vec<Session> {
        let can = json!({"elicitation": {}, "sampling": {}});
        let begun = Session::open(&self.nodes[0].client(), "2025-11-25", can).await.unwrap();
        self.nodes.iter().map(|node| begun.through(&node.client())).collect()
    }
}

async fn ask(session: &Session) -> Events {
    let call = json!({"name": "test_elicitation", "arguments": {"message": "who?"}});
    session.request("tools/call", call).await.unwrap().events()
}

async fn question(events: &mut Events) -> (Value, String) {
    let event = events.until("elicitation/create").await.unwrap();
    (event.json()["id"].clone(), event.id.expect("every event has an id"))
}

fn filled_in() -> Value {
    json!({"action": "accept", "content": {"username": "ann", "email": "a@example"}})
}

async fn accepted(answer: Answer) {
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    answer.bytes().await.unwrap();
}

#[tokio::test]
async fn a_question_of_one_node_is_answered_at_another_and_only_by_who_was_asked() {
    let nodes = Nodes::start(2).await;
    let (session, stranger) = (nodes.session().await, nodes.session().await);
    let mut events = ask(&session[0]).await;
    let (id, _) = question(&mut events).await;
    for stranger in &stranger {
        let foreign = json!({"action": "accept", "content": {"username": "eve", "email": "e@example"}});
        accepted(stranger.answer(&id, foreign).await.unwrap()).await;
    }
    accepted(session[1].answer(&id, filled_in()).await.unwrap()).await;
    let told = response(events).await;
    assert!(text(&told["result"]).contains("ann"), "{told}");
    // Whoever comes late is heard, and changes nothing.
    accepted(session[0].answer(&id, filled_in()).await.unwrap()).await;
}

#[tokio::test]
async fn a_call_outlives_its_connection_and_its_rest_is_read_at_any_node() {
    let nodes = Nodes::start(3).await;
    let session = nodes.session().await;
    let mut events = ask(&session[0]).await;
    let (id, last) = question(&mut events).await;
    // Gone for good, as seen from the client.
    drop(events);
    let resumed = session[1].resume(&last).await.unwrap();
    assert_eq!(resumed.status, StatusCode::OK);
    accepted(session[2].answer(&id, filled_in()).await.unwrap()).await;
    let told = response(resumed.events()).await;
    assert!(text(&told["result"]).contains("ann"), "{told}");
    // Once more, from the beginning: the question and the result are there still.
    let stranger = nodes.session().await;
    let foreign = stranger[1].resume(&last).await.unwrap();
    assert_eq!(foreign.status, StatusCode::BAD_REQUEST, "another session's event id opens nothing");
}

#[tokio::test]
async fn a_stream_moves_to_the_node_where_its_client_asks_for_it_though_it_is_open_at_another() {
    let nodes = Nodes::start(2).await;
    let session = nodes.session().await;
    let mut events = ask(&session[0]).await;
    let (id, last) = question(&mut events).await;
    let resumed = session[1].resume(&last).await.unwrap();
    accepted(session[1].answer(&id, filled_in()).await.unwrap()).await;
    let told = response(resumed.events()).await;
    assert!(text(&told["result"]).contains("ann"), "{told}");
    let rest = events.rest().await.unwrap();
    assert!(rest.is_empty(), "each message goes out on one stream: {rest:?}");
}

#[tokio::test]
async fn the_outcome_of_a_call_whose_node_died_is_told_under_its_id() {
    let mut nodes = Nodes::start(2).await;
    let session = nodes.session().await;
    let call = json!({"jsonrpc": "2.0", "id": "mine", "method": "tools/call",
        "params": {"name": "test_elicitation", "arguments": {"message": "who?"}}});
    let mut events = session[0].post(&call).await.unwrap().events();
    let (_, last) = question(&mut events).await;
    nodes.nodes[0].process.kill();
    let told = response(session[1].resume(&last).await.unwrap().events()).await;
    assert_eq!((&told["id"], &told["error"]["code"]), (&json!("mine"), &json!(-31001)), "{told}");
}

#[tokio::test]
async fn a_cancellation_finds_its_call_at_another_node_and_no_response_follows() {
    let nodes = Nodes::start(2).await;
    let session = nodes.session().await;
    let call = json!({"jsonrpc": "2.0", "id": 77, "method": "tools/call",
        "params": {"name": "test_elicitation", "arguments": {"message": "who?"}}});
    let mut events = session[0].post(&call).await.unwrap().events();
    question(&mut events).await;
    let other = json!({"requestId": "77"});
    accepted(session[1].notify("notifications/cancelled", other).await.unwrap()).await;
    accepted(session[1].notify("notifications/cancelled", json!({"requestId": 77})).await.unwrap()).await;
    let rest = events.rest().await.unwrap();
    let responses = rest.iter().filter(|event| event.json().get("id").is_some() && event.method().is_empty());
    assert_eq!(responses.count(), 0, "{rest:?}");
}

#[tokio::test]
async fn news_reach_the_newest_standing_stream_of_who_subscribed_wherever_they_come_from() {
    let nodes = Nodes::start(3).await;
    let (session, other) = (nodes.session().await, nodes.session().await);
    let subscribed = session[0].request("resources/subscribe", json!({"uri": WATCHED})).await.unwrap();
    subscribed.outcome().await.unwrap().result().unwrap();
    let older = session[1].listen().await.unwrap().events();
    let mut stream = session[2].listen().await.unwrap().events();
    let mut unasked = other[1].listen().await.unwrap().events();
    let rest = older.rest().await.unwrap();
    assert!(rest.iter().all(|event| event.method().is_empty()), "the older one ends: {rest:?}");
    let primed = stream.next().await.unwrap().unwrap();
    assert!(primed.id.is_some() && primed.json().is_null());
    session[0].call("test_trigger_resource_change", json!({})).await.unwrap().result().unwrap();
    session[0].call("test_trigger_tool_change", json!({})).await.unwrap().result().unwrap();
    let heard = stream.until("notifications/resources/updated").await.unwrap();
    assert_eq!(heard.json()["params"]["uri"], WATCHED);
    let mut passed = Vec::new();
    while passed.last().map(String::as_str) != Some("notifications/tools/list_changed") {
        passed.push(unasked.next().await.unwrap().unwrap().method());
    }
    assert!(!passed.iter().any(|method| method.ends_with("updated")), "{passed:?}");

    // Away while something may have changed: it is told so on its return.
    drop(stream);
    let mut back = session[1].resume(&heard.id.unwrap()).await.unwrap().events();
    back.until("notifications/resources/updated").await.unwrap();
}

#[tokio::test]
async fn a_log_level_that_was_set_at_one_node_is_kept_by_all() {
    let nodes = Nodes::start(2).await;
    let session = nodes.session().await;
    let lines = async |at: usize| {
        let outcome = session[at].call("test_tool_with_logging", json!({})).await.unwrap();
        outcome.events.iter().filter(|event| event.method() == "notifications/message").count()
    };
    assert_eq!(lines(1).await, 3);
    let level = session[0].request("logging/setLevel", json!({"level": "warning"})).await.unwrap();
    level.outcome().await.unwrap().result().unwrap();
    eventually("the other node has heard of the level", Duration::from_secs(10), async || {
        (lines(1).await == 0).then_some(())
    })
    .await;
}
