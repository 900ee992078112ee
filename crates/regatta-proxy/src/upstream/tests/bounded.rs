//! A bound of the connections to all replicas of a server: who gets what is freed, and what counts.

use super::*;
use regatta_store::{Allowance, Alone, BudgetHolder, BudgetName, BudgetShare, Holding};
use tokio::task::JoinHandle;

/// A server with a replica at each of `ports` that bears so many connections, the replicas in that order.
fn bounded(ports: &[u16], connections: u32) -> (Upstreams, Vec<Arc<Upstream>>) {
    let upstreams = Upstreams::new(Instant::now());
    upstreams.apply(&bounded_snapshot(ports));
    upstreams.budget("shop").expect("in the config").set(Allowance::always(connections));
    let replicas = ports.iter().map(|port| upstreams.get(replica(*port).id).expect("applied")).collect();
    (upstreams, replicas)
}

fn bounded_snapshot(ports: &[u16]) -> Snapshot {
    let replicas = ports.iter().map(|port| replica(*port)).collect();
    Snapshot {
        servers: vec![Arc::new(Server { connections_max: Some(9), ..server(replicas) })],
        ..snapshot(Vec::new())
    }
}

/// A call that has begun to wait for a connection; gives what it was answered.
async fn waits(upstream: &Arc<Upstream>, connections_per_replica_max: usize) -> JoinHandle<Bytes> {
    let bounds = CallBounds { connections_per_replica_max, ..connects_within(4 * SOON) };
    let (before, upstream) = (upstream.in_flight(), Arc::clone(upstream));
    let waiting = Arc::clone(&upstream);
    let call = tokio::spawn(async move {
        let sent = waiting.send(waiting.lease(), request(&waiting), &bounds).await.expect("an answer");
        sent.body.collect().await.expect("whole").to_bytes()
    });
    while upstream.in_flight() == before {
        tokio::task::yield_now().await;
    }
    tokio::task::yield_now().await;
    assert!(!call.is_finished());
    call
}

async fn soon(call: JoinHandle<Bytes>) {
    let answer = tokio::time::timeout(SOON, call).await.expect("soon").expect("no panic");
    assert_eq!(answer, "{}");
}

#[tokio::test]
async fn a_replica_that_is_always_asked_for_lets_the_others_have_their_turn() {
    let go = Arc::new(Notify::new());
    let (asked, other) = (Scripted::halting(Arc::clone(&go)).await, Scripted::answering(OK).await);
    let (_upstreams, replicas) = bounded(&[asked.port, other.port], 1);
    let busy = send(&replicas[0], &CallBounds::default()).await.expect("an answer");
    let first = waits(&replicas[1], 9).await;
    let second = waits(&replicas[0], 9).await;
    let third = waits(&replicas[1], 9).await;
    go.notify_one();
    busy.body.collect().await.expect("whole");
    soon(first).await;
    go.notify_one();
    soon(second).await;
    soon(third).await;
}

#[tokio::test]
async fn what_is_freed_is_not_offered_to_who_cannot_use_it() {
    let go = Arc::new(Notify::new());
    let full = Scripted::halting(Arc::new(Notify::new())).await;
    let (ends, other) = (Scripted::halting(Arc::clone(&go)).await, Scripted::answering(OK).await);
    let (upstreams, replicas) = bounded(&[full.port, ends.port, other.port], 2);
    let _stays = send(&replicas[0], &CallBounds::default()).await.expect("an answer");
    let busy = send(&replicas[1], &CallBounds::default()).await.expect("an answer");
    let cannot = waits(&replicas[0], 1).await;
    let can = waits(&replicas[2], 9).await;
    let budget = upstreams.budget("shop").expect("in the config");
    assert_eq!(budget.used().waiting, 1, "one connection more to the server is no use for the other");
    go.notify_one();
    busy.body.collect().await.expect("whole");
    soon(can).await;
    assert!(!cannot.is_finished());
}

#[tokio::test]
async fn a_server_that_leaves_and_returns_finds_its_connections_counted() {
    let go = Arc::new(Notify::new());
    let server = Scripted::halting(Arc::clone(&go)).await;
    let (upstreams, replicas) = bounded(&[server.port], 1);
    let busy = send(&replicas[0], &CallBounds::default()).await.expect("an answer");
    let nothing = Snapshot { servers: Vec::new(), ..snapshot(Vec::new()) };
    upstreams.apply(&nothing);
    upstreams.apply(&bounded_snapshot(&[server.port]));
    let again = upstreams.get(replica(server.port).id).expect("returned");
    let at_once = connects_within(Duration::from_millis(20));
    assert_eq!(not_written(&again, &at_once).await, NotWritten::ConnectionsMax);
    let call = waits(&again, 9).await;
    go.notify_one();
    busy.body.collect().await.expect("whole");
    go.notify_one();
    soon(call).await;
    upstreams.apply(&nothing);
    assert!(upstreams.budget("shop").is_none(), "nothing is left of it");
}

#[tokio::test]
async fn nothing_is_opened_after_the_end_of_the_lease() {
    let server = Scripted::answering(OK).await;
    let (upstreams, replicas) = bounded(&[server.port], 1);
    let budget = upstreams.budget("shop").expect("in the config");
    let alone = Alone { stranger: 1, most: 1 };
    let mut holding =
        Holding::new(BudgetName([0; 16]), BudgetHolder([0; 16]), Duration::from_secs(60), alone);
    let now = Instant::now();
    budget.set(holding.granted(BudgetShare { units: 1, holders: 1 }, now));
    call(&replicas[0]).await;
    budget.set(holding.granted(BudgetShare { units: 1, holders: 1 }, now - Duration::from_secs(60)));
    assert_eq!(replicas[0].status().connections, 0, "what was idle is closed");
    let at_once = connects_within(Duration::from_millis(20));
    assert_eq!(not_written(&replicas[0], &at_once).await, NotWritten::ConnectionsMax);
    budget.set(holding.refused(1));
    call(&replicas[0]).await;
}
