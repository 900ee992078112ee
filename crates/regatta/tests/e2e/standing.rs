//! What a client sends behind the GET of its standing stream reaches the server behind it, too: a server drops the question
//! that it would ask on a stream which is not open yet, and the call that waits for its answer has no end.

use crate::REGATTA;
use regatta_testkit::client::{Answer, RawConnection, Session};
use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::{Seen, answers};
use regatta_testkit::{Gateway, Reply, Result, Stub, eventually};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinHandle;

const SOON: Duration = Duration::from_secs(8);
/// GETs and calls that come at once.
const ROUNDS: usize = 20;

/// A server that does `to_get` to the answer of a GET.
async fn stub(to_get: impl Fn(Reply) -> Reply + Send + Sync + 'static) -> Stub {
    let base = answers::legacy();
    Stub::start(move |seen| match seen.method.as_str() {
        "GET" => to_get(base(seen)),
        _ => base(seen),
    })
    .await
}

/// Asks for the standing stream, in a task; the server has seen the GET, and may not have answered it.
async fn listen(session: &Session, stub: &Stub) -> (JoinHandle<Result<Answer>>, Arc<Seen>) {
    let listener = session.clone();
    let listening = tokio::spawn(async move { listener.listen().await });
    let find = async || stub.seen().into_iter().find(|seen| seen.method == "GET");
    (listening, eventually("the GET reaches the server", SOON, find).await)
}

#[tokio::test]
async fn a_call_goes_up_when_the_server_has_opened_the_stream_that_was_asked_for_before() -> Result<()> {
    let pause = Duration::from_millis(100);
    let stub = stub(move |reply| reply.after(pause)).await;
    let gateway = Gateway::start(REGATTA, Plan::over([stub.url()])).await;
    let session = gateway.client().initialize().await?;
    let (listening, asked) = listen(&session, &stub).await;
    session.call("echo", json!({"op": "after"})).await?.result()?;
    let called = stub.wait_for("tools/call", 1).await;
    let ahead = called.at - asked.at;
    assert!(ahead >= pause, "the call came {ahead:?} after the GET, and its question would be lost");
    assert_eq!(listening.await.expect("the task of the GET")?.status, 200);
    Ok(())
}

#[tokio::test]
async fn a_server_that_does_not_answer_the_get_is_called_all_the_same() -> Result<()> {
    let stub = stub(|_| Reply::hang()).await;
    let plan = Plan::over([stub.url()]).on_server("prime_after = \"20s\"");
    let gateway = Gateway::start(REGATTA, plan).await;
    let session = gateway.client().initialize().await?;
    let (listening, _) = listen(&session, &stub).await;
    session.call("echo", json!({"op": "called"})).await?.result()?;
    listening.abort();
    Ok(())
}

/// A request as it stands on the wire.
fn wire(session: &Session, method: &str, body: &str) -> String {
    format!(
        "{method} /mcp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\naccept: application/json, \
         text/event-stream\r\nmcp-session-id: {}\r\nmcp-protocol-version: {}\r\ncontent-length: {}\r\n\r\n{body}",
        session.id,
        session.version,
        body.len()
    )
}

/// A call of `echo`, as JSON text.
fn call(operation: &str) -> String {
    let params = json!({"name": "echo", "arguments": {"op": operation}});
    json!({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params}).to_string()
}

#[tokio::test]
async fn a_call_that_waits_for_the_stream_goes_up_though_its_client_leaves() -> Result<()> {
    let stub = stub(|reply| reply.after(Duration::from_millis(200))).await;
    let gateway = Gateway::start(REGATTA, Plan::over([stub.url()])).await;
    let session = gateway.client().initialize().await?;
    let (listening, _) = listen(&session, &stub).await;
    let mut calling = RawConnection::open(gateway.client().address()).await?;
    calling.write(wire(&session, "POST", &call("left"))).await?;
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(calling);
    stub.wait_for("tools/call", 1).await;
    assert_eq!(listening.await.expect("the task of the GET")?.status, 200);
    Ok(())
}

#[tokio::test]
async fn a_call_that_waits_for_the_stream_takes_no_place_at_its_server() -> Result<()> {
    let stub = stub(|reply| reply.after(Duration::from_millis(200))).await;
    let plan =
        Plan::over([stub.url()]).on_server("concurrency = \"static\"\ninflight_max = 1\nqueue_max = 0");
    let gateway = Gateway::start(REGATTA, plan).await;
    let (session, other) = (gateway.client().initialize().await?, gateway.client().initialize().await?);
    let (listening, _) = listen(&session, &stub).await;
    let mut waiting = RawConnection::open(gateway.client().address()).await?;
    waiting.write(wire(&session, "POST", &call("waits"))).await?;
    tokio::time::sleep(Duration::from_millis(50)).await;
    // Where the one place is taken, this is refused.
    other.call("echo", json!({"op": "passes"})).await?.result()?;
    assert!(stub.seen_rpc("tools/call").len() == 1, "the other call did not wait");
    assert_eq!(waiting.read_answer().await.status, 200);
    assert_eq!(listening.await.expect("the task of the GET")?.status, 200);
    Ok(())
}

#[tokio::test]
async fn of_a_get_and_a_call_that_come_at_once_the_get_mostly_goes_first() -> Result<()> {
    let stub = stub(|reply| reply).await;
    // One thread, so that its queue alone says what goes first.
    let gateway = Gateway::start(REGATTA, Plan::over([stub.url()]).on_gateway("worker_threads = 1")).await;
    let address = gateway.client().address();
    for _ in 0..ROUNDS {
        let session = gateway.client().initialize().await?;
        let (mut listening, mut calling) =
            (RawConnection::open(address).await?, RawConnection::open(address).await?);
        let message = |id: u64, method: &str| json!({"jsonrpc": "2.0", "id": id, "method": method, "params": {"name": "echo"}});
        // Used before, as the connections of a client's pool are: else the call's would have to be accepted first.
        for connection in [&mut listening, &mut calling] {
            connection.write(wire(&session, "POST", &message(1, "ping").to_string())).await?;
            assert_eq!(connection.read_answer().await.status, 200);
        }
        listening.write(wire(&session, "GET", "")).await?;
        calling.write(wire(&session, "POST", &message(2, "tools/call").to_string())).await?;
        assert_eq!(calling.read_answer().await.status, 200);
    }
    let (mut listening, mut overtook) = (std::collections::HashSet::new(), 0);
    for seen in stub.seen() {
        let session = seen.header("mcp-session-id").to_owned();
        match seen.rpc() {
            "tools/call" => overtook += usize::from(!listening.contains(&session)),
            _ if seen.method == "GET" => _ = listening.insert(session),
            _ => {}
        }
    }
    // Nearly all did before, and one now and then still does: nobody can wait for a GET that has not been read.
    assert!(overtook < ROUNDS / 4, "{overtook} of {ROUNDS} calls overtook the GET before them");
    Ok(())
}
