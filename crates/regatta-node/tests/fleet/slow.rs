//! Clients that do not read what they asked for: they hold no connection for ever.

use std::time::Duration;

use http::StatusCode;
use regatta_testkit::eventually;
use regatta_testkit::process::free_port;
use serde_json::json;
use tokio::io::AsyncReadExt as _;

use crate::{Running, unread};

const SOON: Duration = Duration::from_secs(30);
/// More than fits into the buffers of a connection that nobody reads.
const LARGE: usize = 16 << 20;

async fn tells(node: &Running, row: &str) {
    eventually(row, SOON, async || node.get("/metrics").await?.contains(&format!("{row}\n")).then_some(()))
        .await;
}

#[tokio::test]
async fn who_leaves_an_answer_unread_loses_its_connection_and_a_stream_without_news_stays() {
    let more = [("REGATTA_NODE_REQUEST_BYTES_MAX", "67108864"), ("REGATTA_NODE_WRITE_TIMEOUT_S", "1")];
    let node = Running::start("minimal", free_port(), &more).await;
    let session = node.client().initialize().await.unwrap();
    let idle = session.listen().await.unwrap();
    assert_eq!(idle.status, StatusCode::OK);
    let call = json!({"name": "echo", "arguments": {"text": "x".repeat(LARGE)}});
    let message = json!({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": call});
    let headers = [("mcp-session-id", &*session.id), ("mcp-protocol-version", &*session.version)];
    let mut socket = unread(&node, &headers, &message).await;
    tells(&node, "regatta_node_stalled_total 1").await;
    tells(&node, "regatta_node_in_flight 0").await;
    let mut answer = Vec::new();
    // Its end, or a reset.
    let _ = socket.read_to_end(&mut answer).await;
    assert!(answer.starts_with(b"HTTP/1.0 200") && answer.len() < LARGE, "{} bytes", answer.len());
    // It had nothing to read for longer than that.
    tells(&node, "regatta_node_standing_streams 1").await;
}
