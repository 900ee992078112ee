//! Replicas by the handful, and what a test asks of them; no test lives here.

use crate::REGATTA;
use regatta_testkit::client::{Modern, Outcome, Session};
use regatta_testkit::process::Demo;
use regatta_testkit::{Failure, Result, Stub};
use serde_json::{Value, json};

/// So many demo replicas with these arguments.
pub async fn demos(count: usize, arguments: &[&str]) -> Vec<Demo> {
    let mut demos = Vec::new();
    for _ in 0..count {
        demos.push(Demo::start(REGATTA, arguments).await);
    }
    demos
}

/// Where demo replicas are.
pub fn urls(demos: &[Demo]) -> Vec<String> {
    demos.iter().map(|demo| demo.url.clone()).collect()
}

/// Which of the demo replicas answered `whoami`.
pub fn who(demos: &[Demo], outcome: &Outcome) -> Result<usize> {
    let port = outcome.result()?["structuredContent"]["port"].clone();
    let found = demos.iter().position(|demo| json!(demo.port()) == port);
    found.ok_or_else(|| Failure(format!("no replica has port {port}")))
}

/// Which of the demo replicas holds this session.
pub async fn home(demos: &[Demo], session: &Session) -> Result<usize> {
    who(demos, &session.call("whoami", json!({})).await?)
}

/// Which of the demo replicas answers a modern request.
pub async fn visited(demos: &[Demo], modern: &Modern) -> Result<usize> {
    who(demos, &modern.call("whoami", json!({})).await?)
}

/// Which of the stubs received a `tools/call` with this op, waiting for it.
pub async fn receiver(stubs: &[Stub], op: &str) -> usize {
    let within = std::time::Duration::from_secs(10);
    regatta_testkit::eventually(&format!("{op} reaches a stub"), within, async || {
        let has = |stub: &Stub| stub.seen_rpc("tools/call").iter().any(|seen| seen.op() == op);
        stubs.iter().position(has)
    })
    .await
}

/// How often all stubs together executed this op.
pub fn executions(stubs: &[Stub], op: &str) -> usize {
    stubs.iter().map(|stub| stub.journal().executions(op)).sum()
}

/// Whether the result says that the session moved.
pub fn is_resumed(outcome: &Outcome) -> bool {
    outcome.message["result"]["_meta"]["io.regatta/sessionResumed"] == json!(true)
}

/// What a fault says about the execution: `data.executed`.
pub fn executed(outcome: &Outcome) -> &Value {
    &outcome.message["error"]["data"]["executed"]
}
