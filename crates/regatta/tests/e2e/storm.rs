//! Replicas die and come back, one after the other, under load: every call has one answer, and it is true.
//!
//! The invariants V1 to V4 and V11 of RELIABILITY A.0, by the journals of the replicas.

use crate::REGATTA;
use crate::fleet::executed;
use regatta_testkit::client::Outcome;
use regatta_testkit::gateway::Plan;
use regatta_testkit::stub::answers;
use regatta_testkit::{Client, Gateway, Result, Stub, eventually};
use serde_json::json;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::task::JoinHandle;

/// What became of an op.
struct Told {
    op: String,
    outcome: Outcome,
}

/// A client of one era that calls until it is over; each call has an op of its own.
fn client(client: Client, number: usize, over: Arc<AtomicBool>) -> JoinHandle<Result<Vec<Told>>> {
    tokio::spawn(async move {
        let session = match number % 2 {
            0 => Some(client.initialize().await?),
            _ => None,
        };
        let modern = client.modern();
        let mut told = Vec::new();
        while !over.load(Ordering::Relaxed) {
            let op = format!("{number}/{}", told.len());
            let arguments = json!({"op": op});
            let outcome = match &session {
                Some(session) => session.call("work", arguments).await?,
                None => modern.call("work", arguments).await?,
            };
            told.push(Told { op, outcome });
        }
        Ok(told)
    })
}

/// Whether what the client was told fits how often its op was executed; counts what was lost.
fn check(executions: &HashMap<String, usize>, Told { op, outcome }: &Told) -> usize {
    let runs = executions.get(op).copied().unwrap_or(0);
    if outcome.result().is_ok() {
        let said: serde_json::Value = serde_json::from_str(outcome.text()).expect("what a stub echoes");
        assert_eq!(said["op"], *op, "an answer went to the wrong asker");
        assert_eq!(runs, 1, "{op} was answered");
        return 0;
    }
    match executed(outcome).as_str() {
        Some("no") => assert_eq!(runs, 0, "{op} was refused: {}", outcome.message),
        Some("unknown") => assert!(runs <= 1, "{op} ran {runs} times"),
        _ => panic!("{op}: {} {}", outcome.status, outcome.message),
    }
    1
}

#[tokio::test]
async fn what_clients_are_told_is_what_happened() -> Result<()> {
    let stubs = [
        Stub::start(answers::dual()).await,
        Stub::start(answers::dual()).await,
        Stub::start(answers::dual()).await,
    ];
    let gateway = Gateway::start(REGATTA, Plan::over(stubs.each_ref().map(Stub::url))).await;
    let over = Arc::<AtomicBool>::default();
    let clients: Vec<_> = (0..16)
        .map(|number| {
            let principal = format!("Bearer {number}");
            client(gateway.client().header("authorization", &principal), number, over.clone())
        })
        .collect();
    for round in 0..9 {
        let stub = &stubs[round % 3];
        let busy = async || {
            let now = stub.journal().entries().len();
            eventually("the replica works", Duration::from_secs(9), async || {
                (stub.journal().entries().len() > now + 20).then_some(())
            })
            .await;
        };
        if round < 3 {
            busy().await;
        }
        stub.die().await;
        // Every other time it comes back as a new process would: without its sessions.
        if round % 2 == 0 {
            stub.behave(answers::dual());
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        stub.rise().await;
    }
    over.store(true, Ordering::Relaxed);
    let mut told = Vec::new();
    for client in clients {
        told.extend(client.await.expect("a client's task")?);
    }
    let mut executions = HashMap::new();
    for entry in stubs.iter().flat_map(|stub| stub.journal().entries()) {
        *executions.entry(entry.op).or_insert(0) += 1;
    }
    let (calls, lost) = (told.len(), told.iter().map(|told| check(&executions, told)).sum::<usize>());
    assert!(calls > 500, "{calls} calls say little");
    assert!(lost * 20 < calls, "{lost} of {calls} calls were lost");
    Ok(())
}
