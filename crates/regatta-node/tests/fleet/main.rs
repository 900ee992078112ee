//! Nodes as real processes on a real Redis: any of them serves any session, and the death of one costs none.

mod anywhere;
mod asks;
mod batches;
mod budget;
mod drain;
mod front;
mod gateway;
mod kills;
mod sharded;
mod shop;
mod slow;
mod trips;

use std::process::Command;
use std::time::Duration;

use http::StatusCode;
use regatta_testkit::client::Events;
use regatta_testkit::gateway::Plan;
use regatta_testkit::process::free_port;
use regatta_testkit::redis::Server;

use regatta_testkit::{Client, Gateway, Process, eventually};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

/// What was built beside this test, which is in `deps`.
fn built(name: &str) -> String {
    let path = std::env::current_exe().expect("the test knows its own path");
    let beside = path.ancestors().nth(2).expect("it is in a folder");
    beside.join(name).to_str().expect("a plain path").to_owned()
}

struct Running {
    process: Process,
    port: u16,
}

impl Running {
    async fn start(example: &str, port: u16, more: &[(&str, &str)]) -> Running {
        let mut command = Command::new(built(&format!("examples/{example}")));
        command.env("REGATTA_NODE_ADDRESS", format!("127.0.0.1:{port}"));
        command.envs(more.iter().copied());
        let running = Running { process: Process::spawn(&mut command), port };
        running.wait_ready().await;
        running
    }

    async fn with_store(port: u16, redis: &Server) -> Running {
        let url = redis.url();
        Running::start("mirror", port, &[("REGATTA_NODE_STORE_URL", &url)]).await
    }

    fn client(&self) -> Client {
        Client::new(&format!("http://127.0.0.1:{}/mcp", self.port))
    }

    async fn status(&self, path: &str) -> Option<StatusCode> {
        let client = Client::new(&format!("http://127.0.0.1:{}{path}", self.port));
        client.send(http::Method::GET, &[], "").await.ok().map(|answer| answer.status)
    }

    async fn get(&self, path: &str) -> Option<String> {
        let client = Client::new(&format!("http://127.0.0.1:{}{path}", self.port));
        let answer = client.send(http::Method::GET, &[], "").await.ok()?;
        Some(String::from_utf8_lossy(&answer.bytes().await.ok()?).into_owned())
    }

    /// Until so many requests run.
    async fn running(&self, number: usize) {
        let expected = format!("regatta_node_in_flight {number}\n");
        eventually("so many requests run", Duration::from_secs(10), async || {
            self.get("/metrics").await?.contains(&expected).then_some(())
        })
        .await;
    }

    async fn wait_ready(&self) {
        let end = tokio::time::Instant::now() + Duration::from_secs(30);
        while self.status("/ready").await != Some(StatusCode::OK) {
            let told = self.process.stderr().join("\n");
            assert!(tokio::time::Instant::now() < end, "the node is not ready: {told}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Sends a message over a connection that nobody reads so far: HTTP/1.0, so that the answer's body is not framed.
async fn unread(node: &Running, headers: &[(&str, &str)], message: &Value) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(4096).expect("a small buffer");
    let mut socket = socket.connect(([127, 0, 0, 1], node.port).into()).await.expect("the node is there");
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let body = message.to_string();
    let head = format!(
        "POST /mcp HTTP/1.0\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         accept: application/json, text/event-stream\r\n{headers}content-length: {}\r\n\r\n{body}",
        body.len()
    );
    socket.write_all(head.as_bytes()).await.expect("the node listens");
    socket
}

/// The response that a stream comes to.
async fn response(mut events: Events) -> Value {
    while let Some(event) = events.next().await.unwrap() {
        let message = event.json();
        if message["result"].is_object() || message["error"].is_object() {
            return message;
        }
    }
    panic!("the stream ended without a response");
}

fn text(result: &Value) -> &str {
    result["content"][0]["text"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn any_node_serves_any_session_and_the_death_of_one_ends_none() {
    let redis = Server::start(&[]).await;
    let mut first = Running::with_store(free_port(), &redis).await;
    let second = Running::with_store(free_port(), &redis).await;
    let here = first.client().initialize().await.unwrap();
    let there = here.through(&second.client());
    for session in [&here, &there, &here, &there] {
        assert_eq!(
            text(&session.call("client", json!({})).await.unwrap().result().unwrap()),
            "regatta-testkit"
        );
    }
    here.request("logging/setLevel", json!({"level": "error"}))
        .await
        .unwrap()
        .outcome()
        .await
        .unwrap()
        .result()
        .unwrap();
    first.process.kill();
    assert_eq!(text(&there.call("level", json!({})).await.unwrap().result().unwrap()), "error");
    assert_eq!(
        there.request("ping", json!({})).await.unwrap().outcome().await.unwrap().result().unwrap(),
        json!({})
    );
}

#[tokio::test]
async fn a_session_that_ended_at_one_node_is_over_at_all() {
    let redis = Server::start(&[]).await;
    let first = Running::with_store(free_port(), &redis).await;
    let second = Running::with_store(free_port(), &redis).await;
    let here = first.client().initialize().await.unwrap();
    let there = here.through(&second.client());
    there.call("client", json!({})).await.unwrap().result().unwrap();
    assert_eq!(here.end().await.unwrap(), StatusCode::NO_CONTENT);
    assert_eq!(here.request("ping", json!({})).await.unwrap().status, StatusCode::NOT_FOUND);
    // The other one knew the session: it hears of the end by a notice.
    let end = tokio::time::Instant::now() + Duration::from_secs(10);
    while there.request("ping", json!({})).await.unwrap().status != StatusCode::NOT_FOUND {
        assert!(tokio::time::Instant::now() < end, "the other node never heard that the session is over");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn progress_comes_as_events_and_a_handler_without_an_end_is_given_up() {
    let node = Running::start("mirror", free_port(), &[("REGATTA_NODE_REQUEST_TIMEOUT_MS", "1000")]).await;
    let session = node.client().initialize().await.unwrap();
    let answer = session.call_with_progress("progress", json!({}), json!("p")).await.unwrap();
    assert!(answer.is_sse());
    let outcome = answer.outcome().await.unwrap();
    // An id to come back with, the progress, the result.
    assert_eq!(outcome.events.len(), 3);
    assert_eq!(text(&outcome.result().unwrap()), "done");
    let slow = session.call("slow", json!({})).await.unwrap();
    assert_eq!(slow.message["error"]["code"], json!(-31001));
    assert_eq!(node.client().modern().call("progress", json!({})).await.unwrap().status, StatusCode::OK);
}

#[tokio::test]
async fn a_modern_client_that_does_not_read_holds_its_place_no_longer_than_its_call_may_take() {
    let few = [
        ("REGATTA_NODE_CONCURRENT_MAX", "1"),
        ("REGATTA_NODE_QUEUE_MAX", "0"),
        ("REGATTA_NODE_REQUEST_TIMEOUT_MS", "4000"),
    ];
    let node = Running::start("mirror", free_port(), &few).await;
    let meta = json!({"progressToken": "p", "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {}});
    // More than fits into the buffers of a connection that nobody reads.
    let params = json!({"name": "steps", "arguments": {"number": 2000, "bytes": 20_000}, "_meta": meta});
    let message = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    let headers =
        [("mcp-protocol-version", "2026-07-28"), ("mcp-method", "tools/call"), ("mcp-name", "steps")];
    let mut socket = unread(&node, &headers, &message).await;
    node.running(1).await;
    node.running(0).await;
    assert_eq!(node.client().modern().call("client", json!({})).await.unwrap().status, StatusCode::OK);
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert_eq!(answer.matches("-31001").count(), 1, "it is told that nobody knows what became of its call");
}

#[tokio::test]
async fn refuses_what_is_too_large_too_much_or_foreign() {
    let few = [("REGATTA_NODE_CONCURRENT_MAX", "1"), ("REGATTA_NODE_QUEUE_MAX", "0")];
    let node = Running::start("mirror", free_port(), &few).await;
    let session = node.client().initialize().await.unwrap();
    let slow = tokio::spawn({
        let session = session.clone();
        async move { session.call("slow", json!({})).await }
    });
    let metrics = Client::new(&format!("http://127.0.0.1:{}/metrics", node.port));
    eventually("the only place is taken", Duration::from_secs(4), async || {
        let answer = metrics.send(http::Method::GET, &[], "").await.ok()?;
        let text = answer.bytes().await.ok()?;
        String::from_utf8_lossy(&text).contains("regatta_node_in_flight 1").then_some(())
    })
    .await;
    let refused = session.request("ping", json!({})).await.unwrap();
    assert_eq!((refused.status, refused.header("retry-after")), (StatusCode::SERVICE_UNAVAILABLE, "1"));
    // Nothing of it was read, so that its id is not known.
    let told = refused.outcome().await.unwrap().message;
    assert_eq!((&told["id"], &told["error"]["code"]), (&Value::Null, &json!(-31002)));
    assert_eq!(told["error"]["data"], json!({"executed": "no"}));
    slow.await.unwrap().unwrap();
    let large = json!({"text": "x".repeat(2 << 20)});
    assert_eq!(session.request("tools/call", large).await.unwrap().status, StatusCode::PAYLOAD_TOO_LARGE);
    let mut foreign = session.clone();
    foreign.id = "made-up".to_owned();
    assert_eq!(foreign.request("ping", json!({})).await.unwrap().status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn nonsense_is_refused_at_the_start_a_line_for_each_complaint() {
    let mut command = Command::new(built("examples/minimal"));
    command.env("REGATTA_NODE_CONCURRENT_MAX", "0").env("REGATTA_NODE_REGISTRY_SECRET", "short");
    let mut process = Process::spawn(&mut command);
    assert!(!process.exit_within(Duration::from_secs(20)).await.success());
    let told = process.stderr();
    for complaint in ["concurrent_max is 0", "registry_secret is shorter", "registry_secret is set"] {
        assert_eq!(told.iter().filter(|line| line.contains(complaint)).count(), 1, "{told:?}");
    }
    assert_eq!(told.len(), 3, "{told:?}");
}

#[tokio::test]
async fn a_mistyped_setting_of_the_environment_is_told_and_what_kubernetes_puts_there_is_not() {
    let more = [("REGATTA_NODE_STREAM_MAX", "0"), ("REGATTA_NODE_PORT", "tcp://10.0.0.1:3000")];
    let node = Running::start("mirror", free_port(), &more).await;
    let warned = || {
        let lines = node.process.stderr();
        lines.into_iter().filter(|line| line.contains("in the environment")).collect::<Vec<_>>()
    };
    let told = eventually("it is told", Duration::from_secs(10), async || {
        Some(warned()).filter(|told| !told.is_empty())
    })
    .await;
    assert!(told.len() == 1 && told[0].contains("REGATTA_NODE_STREAMS_MAX is one"), "{told:?}");
}

#[tokio::test]
async fn what_was_read_is_refused_under_its_id() {
    let node = Running::start("mirror", free_port(), &[("REGATTA_NODE_STREAMS_MAX", "0")]).await;
    let listens = json!({"notifications": {"toolsListChanged": true}});
    let refused =
        node.client().modern().request_as(&json!("s"), "subscriptions/listen", listens).await.unwrap();
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    let told = refused.outcome().await.unwrap().message;
    assert_eq!((&told["id"], &told["error"]["code"]), (&json!("s"), &json!(-31002)));
    let session = node.client().initialize().await.unwrap();
    let odd = json!({"jsonrpc": "2.0", "id": 7, "method": "ping", "params": 7});
    let refused = session.post(&odd).await.unwrap();
    assert_eq!(refused.status, StatusCode::BAD_REQUEST);
    let told = refused.outcome().await.unwrap().message;
    assert_eq!((&told["id"], &told["error"]["code"]), (&json!(7), &json!(-32602)));
}

#[tokio::test]
async fn registers_again_after_a_wipe_and_leaves_when_it_stops() {
    let redis = Server::start(&[]).await;
    let mut node = Running::with_store(free_port(), &redis).await;
    let key = format!("mcp:node:127.0.0.1:{}", node.port);
    let status = || redis.say(&["HGET", &key, "status"]);
    wait_for("running", status).await;
    redis.say(&["FLUSHALL"]);
    wait_for("running", status).await;
    node.process.terminate();
    wait_for("stopping", status).await;
    wait_for("", status).await;
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    while node.process.exited().is_none() {
        assert!(tokio::time::Instant::now() < end, "the node does not end");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_wiped_store_ends_no_session_not_even_at_a_node_that_starts_after_it() {
    let redis = Server::start(&[]).await;
    let first = Running::with_store(free_port(), &redis).await;
    let here = first.client().initialize().await.unwrap();
    redis.say(&["FLUSHALL"]);
    let second = Running::with_store(free_port(), &redis).await;
    let there = here.through(&second.client());
    eventually("the newcomer has the fleet's keys", Duration::from_secs(20), async || {
        let answer = there.request("ping", json!({})).await.ok()?;
        (answer.status == StatusCode::OK).then_some(())
    })
    .await;
    assert_eq!(here.request("ping", json!({})).await.unwrap().status, StatusCode::OK);
    let late = second.client().initialize().await.unwrap();
    assert_eq!(
        late.through(&first.client()).request("ping", json!({})).await.unwrap().status,
        StatusCode::OK
    );
}

#[tokio::test]
async fn a_session_belongs_to_who_began_it_and_pages_of_others_get_nowhere() {
    let node = Running::start("mirror", free_port(), &[]).await;
    let ann = node.client().header("authorization", "Bearer ann").initialize().await.unwrap();
    let bob = ann.through(&node.client().header("authorization", "Bearer bob"));
    assert_eq!(ann.request("ping", json!({})).await.unwrap().status, StatusCode::OK);
    assert_eq!(bob.request("ping", json!({})).await.unwrap().status, StatusCode::NOT_FOUND);
    assert_eq!(bob.end().await.unwrap(), StatusCode::NOT_FOUND);
    let page =
        ann.through(&node.client().header("authorization", "Bearer ann").header("origin", "http://evil"));
    assert_eq!(page.request("ping", json!({})).await.unwrap().status, StatusCode::FORBIDDEN);
    let blind =
        ann.through(&node.client().header("authorization", "Bearer ann").header("accept", "text/html"));
    assert_eq!(blind.request("ping", json!({})).await.unwrap().status, StatusCode::NOT_ACCEPTABLE);
}

#[tokio::test]
async fn a_gateway_with_a_secret_takes_a_node_that_signs_and_no_other() {
    let redis = Server::start(&[]).await;
    let secret = "a secret of the fleet";
    let url = redis.url();
    let store = format!(
        "[store]\nurl = {url:?}\nregistry_poll = \"100ms\"\nregistry_lease = \"1200ms\"\nregistry_secret = {secret:?}\n"
    );
    let none: [String; 0] = [];
    let plan = Plan::default().server("mirror", none, "registry = true\n").tables(&store);
    let gateway = Gateway::start(&built("regatta"), plan).await;
    let store = ("REGATTA_NODE_STORE_URL", url.as_str());
    let _unsigned = Running::start("mirror", free_port(), &[store]).await;
    gateway.metric_reaches("regatta_registry_refused_total", 1.0).await;
    let signing = [store, ("REGATTA_NODE_REGISTRY_SECRET", secret)];
    let _signed = Running::start("mirror", free_port(), &signing).await;
    gateway.metric_reaches("regatta_replica_serving", 1.0).await;
    let session = gateway.client().initialize().await.unwrap();
    let told = session.call("client", json!({})).await.unwrap().result().unwrap();
    assert_eq!(text(&told), "regatta-testkit");
}

async fn wait_for(expected: &str, now: impl Fn() -> String) {
    let end = tokio::time::Instant::now() + Duration::from_secs(20);
    while now().trim() != expected {
        assert!(tokio::time::Instant::now() < end, "never {expected:?}, but {:?}", now());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
