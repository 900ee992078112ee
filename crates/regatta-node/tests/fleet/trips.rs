//! What a legacy call costs the store: nothing at a node that knows its session, one look at a node that does not.

use regatta_testkit::process::free_port;
use regatta_testkit::redis::Server;
use serde_json::json;

use crate::Running;

/// Calls of each kind; many, so that what a node does by itself meanwhile (heartbeats, keys, leases) is little beside them.
const CALLS: u64 = 400;

/// Commands, and how often the store read something from its clients: a round trip is one reading, whatever it carries.
fn work(redis: &Server) -> (u64, u64) {
    let readings = redis.info("total_reads_processed").and_then(|told| told.trim().parse().ok());
    (redis.calls().values().sum(), readings.expect("Redis counts its readings"))
}

/// What was done since `before`.
fn since(redis: &Server, before: (u64, u64)) -> (u64, u64) {
    let now = work(redis);
    (now.0 - before.0, now.1 - before.1)
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
    let before = work(&redis);
    for session in &sessions {
        session.call("client", json!({})).await.unwrap().result().unwrap();
    }
    let (met, readings) = since(&redis, before);
    // The record and the tombstone are asked for together: two commands, one way there and back.
    assert!(
        (CALLS..=CALLS * 5 / 2).contains(&met),
        "{met} commands for {CALLS} sessions met for the first time"
    );
    assert!(readings < CALLS * 5 / 4, "{readings} round trips for {CALLS} calls");
    let before = work(&redis);
    for session in &sessions {
        session.call("client", json!({})).await.unwrap().result().unwrap();
    }
    let (known, readings) = since(&redis, before);
    assert!(known < CALLS / 4, "{known} commands for {CALLS} calls of known sessions");
    assert!(readings < CALLS / 4, "{readings} round trips for {CALLS} calls of known sessions");
}
