//! What a legacy call costs the store: nothing at a node that knows its session, one look at a node that does not.

use regatta_testkit::process::free_port;
use regatta_testkit::redis::Server;
use serde_json::json;

use crate::Running;

/// Calls of each kind; many, so that what a node does by itself meanwhile (heartbeats, keys, leases) is little beside them.
const CALLS: u64 = 400;

fn commands(redis: &Server) -> u64 {
    redis.calls().values().sum()
}

#[tokio::test]
async fn a_call_of_a_known_session_asks_the_store_nothing_and_of_another_once() {
    let redis = Server::start(&[]).await;
    let calm = [("REGATTA_NODE_HEARTBEAT_MS", "5000")];
    let url = redis.url();
    let told = [calm[0], ("REGATTA_NODE_STORE_URL", url.as_str())];
    let first = Running::start("mirror", free_port(), &told).await;
    let second = Running::start("mirror", free_port(), &told).await;
    let mut sessions = Vec::new();
    for _ in 0..CALLS {
        sessions.push(first.client().initialize().await.unwrap().through(&second.client()));
    }
    let before = commands(&redis);
    for session in &sessions {
        session.call("client", json!({})).await.unwrap().result().unwrap();
    }
    let met = commands(&redis) - before;
    // The record and the tombstone are asked for together: two commands, one way there and back.
    assert!(
        (CALLS..=CALLS * 5 / 2).contains(&met),
        "{met} commands for {CALLS} sessions met for the first time"
    );
    let before = commands(&redis);
    for session in &sessions {
        session.call("client", json!({})).await.unwrap().result().unwrap();
    }
    let known = commands(&redis) - before;
    assert!(known < CALLS / 4, "{known} commands for {CALLS} calls of known sessions");
}
