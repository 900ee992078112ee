//! The load under which a store fails over, and what a gateway that knows nothing finds of it; no test lives here.
//!
//! Sessions begin, move and end all the time: each move is a record in the store, each end a tombstone. A few sessions
//! live through everything and change the gateway with every call. What was committed, and when, is kept for the judge.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use regatta_testkit::client::{Client, Session};
use regatta_testkit::gateway::Plan;
use regatta_testkit::{Failure, Gateway, Result, eventually};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::REGATTA;
use crate::forgetful::{Forgetful, forget, seat};
use crate::peers::{SOON, on_store};

/// What Redis may lose of what it had answered for: the last so many seconds before the fault.
pub const COMMITTED_BEFORE: Duration = Duration::from_secs(2);
/// Sessions that live through all faults.
const LASTING: usize = 6;
/// What the load does at least before a fault, and after the store is back.
const PART: usize = 12;

/// Two gateways under load.
pub struct Load {
    pub gateways: [Gateway; 2],
    server: Forgetful,
    plan: Plan,
    seen: Arc<Seen>,
    running: Vec<JoinHandle<Result<()>>>,
    lasting: Vec<(Session, String)>,
}

/// What the load came to since the last judgement.
#[derive(Default)]
struct Seen {
    /// Sessions that moved, where to, and when that was answered for.
    moved: Mutex<Vec<(Session, String, Instant)>>,
    /// Sessions that ended.
    ended: Mutex<Vec<(Session, Instant)>>,
    modern: AtomicUsize,
    modern_failed: AtomicUsize,
    /// Ends that had to wait for the store.
    refused: AtomicUsize,
}

impl Seen {
    fn moved(&self) -> MutexGuard<'_, Vec<(Session, String, Instant)>> {
        self.moved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ended(&self) -> MutexGuard<'_, Vec<(Session, Instant)>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Load {
    /// Two gateways on this store, and their load.
    pub async fn begin(url: &str) -> Result<Load> {
        let server = Forgetful::start().await;
        let plan = Plan::over([server.stub.url()]).on_gateway("initialize_per_minute_max = 1000000");
        let plan = on_store(plan, url);
        let gateways =
            [Gateway::start(REGATTA, plan.clone()).await, Gateway::start(REGATTA, plan.clone()).await];
        for gateway in &gateways {
            linked(gateway).await;
        }
        let clients = gateways.each_ref().map(Gateway::client);
        let mut lasting = Vec::new();
        for number in 0..LASTING {
            let session = clients[number % 2].initialize().await?;
            let seat = move_it(&session).await?;
            lasting.push((session, seat));
        }
        let seen = Arc::new(Seen::default());
        let mut running = Vec::new();
        for client in &clients {
            running.push(tokio::spawn(churn(client.clone(), seen.clone())));
            running.push(tokio::spawn(call_modern(client.clone(), seen.clone())));
        }
        running.push(tokio::spawn(call_lasting(clients, lasting.clone())));
        let load = Load { gateways, server, plan, seen, running, lasting };
        load.goes_on().await;
        Ok(load)
    }

    /// Until sessions have moved and ended at both gateways from now on.
    pub async fn goes_on(&self) {
        let count = || self.seen.ended().len();
        let before = count();
        eventually("the load goes on", SOON * 2, async || (count() >= before + PART).then_some(())).await;
    }

    /// What is left of the load before and under a fault that began at `fault`, as a gateway sees it that knows nothing
    /// but the store. Prints what was lost.
    pub async fn judge(&mut self, what: &str, fault: Instant) -> Result<Judged> {
        for gateway in &self.gateways {
            linked(gateway).await;
            eventually("what was kept is published", SOON, async || {
                (gateway.metric("regatta_store_unpublished_records").await? == 0.0).then_some(())
            })
            .await;
        }
        self.goes_on().await;
        let worker = self.running.iter().position(JoinHandle::is_finished);
        if let Some(at) = worker {
            self.running.remove(at).await.expect("the load's task")?;
            return Err(Failure("the load ended by itself".to_owned()));
        }
        let fresh = Gateway::start(REGATTA, self.plan.clone()).await;
        linked(&fresh).await;
        let (moved, ended) =
            (std::mem::take(&mut *self.seen.moved()), std::mem::take(&mut *self.seen.ended()));
        let gap = longest_gap(ended.iter().map(|(_, at)| *at));
        let lost_moves = lost_moves(&fresh, &moved, fault).await?;
        let lost_ends = lost_ends(&fresh, &ended, fault).await?;
        for (session, seated) in &self.lasting {
            let outcome = session.through(&fresh.client()).call("work", json!({"op": "judge"})).await?;
            assert_eq!(seat(&outcome).as_ref(), Some(seated), "{what}: {}", outcome.message);
        }
        let [modern, failed, refused] = [&self.seen.modern, &self.seen.modern_failed, &self.seen.refused]
            .map(|count| count.swap(0, Ordering::Relaxed));
        println!(
            "{what}: {} moves, {} lost; {} ends, {} lost, {refused} refused, longest time without one {gap:?}; \
             {modern} modern calls, {failed} failed",
            moved.len(),
            lost_moves.all,
            ended.len(),
            lost_ends.all,
        );
        assert_eq!((lost_moves.early, lost_ends.early), (0, 0), "{what}: committed long before");
        assert!(failed * 100 <= modern, "{what}: {failed} of {modern} modern calls failed");
        Ok(Judged { lost_moves: lost_moves.all, lost_ends: lost_ends.all, refused, failed })
    }

    /// Ends the load.
    pub fn end(self) {
        self.running.iter().for_each(JoinHandle::abort);
        drop(self.server);
    }
}

/// What a fault cost, whenever it was committed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Judged {
    pub lost_moves: usize,
    pub lost_ends: usize,
    /// Ends that had to wait for the store.
    pub refused: usize,
    /// Modern calls without a result.
    pub failed: usize,
}

/// What was lost, and how much of it had been committed long before the fault.
#[derive(Default)]
struct Lost {
    all: usize,
    early: usize,
}

impl Lost {
    fn note(&mut self, committed: Instant, fault: Instant) {
        self.all += 1;
        self.early += usize::from(committed + COMMITTED_BEFORE < fault);
    }
}

/// Moves that a gateway does not find in the store: it moves the session once more. Never a 404.
async fn lost_moves(fresh: &Gateway, moved: &[(Session, String, Instant)], fault: Instant) -> Result<Lost> {
    let (client, mut lost) = (fresh.client(), Lost::default());
    for (session, seated, committed) in moved {
        let outcome = session.through(&client).call("work", json!({"op": "judge"})).await?;
        assert_ne!(outcome.status, 404, "a live session: {}", outcome.message);
        outcome.result()?;
        if seat(&outcome).as_ref() != Some(seated) {
            lost.note(*committed, fault);
        }
    }
    Ok(lost)
}

/// Ends that a gateway does not find in the store: the session is alive again.
async fn lost_ends(fresh: &Gateway, ended: &[(Session, Instant)], fault: Instant) -> Result<Lost> {
    let (client, mut lost) = (fresh.client(), Lost::default());
    for (session, committed) in ended {
        let answer = session.through(&client).request("ping", json!({})).await?;
        if answer.status != 404 {
            lost.note(*committed, fault);
        }
    }
    Ok(lost)
}

fn longest_gap(times: impl Iterator<Item = Instant>) -> Duration {
    let times: Vec<Instant> = times.collect();
    times.windows(2).map(|pair| pair[1].saturating_duration_since(pair[0])).max().unwrap_or_default()
}

/// Until a gateway says that its store is there.
pub async fn linked(gateway: &Gateway) {
    eventually("the store is linked", SOON * 2, async || {
        let (_, text) = gateway.admin("/ready").await?;
        text.contains("\"degraded\": false").then_some(())
    })
    .await;
}

/// Makes the server forget a session; gives where the next call was executed.
async fn move_it(session: &Session) -> Result<String> {
    forget(session).await?;
    let outcome = session.call("work", json!({"op": "moves"})).await?;
    assert_ne!(outcome.status, 404, "{}", outcome.message);
    outcome.result()?;
    seat(&outcome).ok_or_else(|| Failure(format!("no seat in {}", outcome.message)))
}

/// Sessions that begin and move at one gateway; every second one ends.
async fn churn(client: Client, seen: Arc<Seen>) -> Result<()> {
    for turn in 0.. {
        let session = client.initialize().await?;
        let seat = move_it(&session).await?;
        if turn % 2 == 0 {
            seen.moved().push((session, seat, Instant::now()));
        } else {
            match session.end().await?.as_u16() {
                503 => drop(seen.refused.fetch_add(1, Ordering::Relaxed)),
                status => {
                    assert_eq!(status, 200);
                    seen.ended().push((session, Instant::now()));
                }
            }
        }
        // The load's shape: some tens of writes a second.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

async fn call_modern(client: Client, seen: Arc<Seen>) -> Result<()> {
    let modern = client.modern();
    loop {
        let outcome = modern.call("work", json!({"op": "modern"})).await;
        seen.modern.fetch_add(1, Ordering::Relaxed);
        if outcome.and_then(|outcome| outcome.result()).is_err() {
            seen.modern_failed.fetch_add(1, Ordering::Relaxed);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Sessions that move no more: each call at the other gateway, and always executed at the same place.
async fn call_lasting(clients: [Client; 2], lasting: Vec<(Session, String)>) -> Result<()> {
    for turn in 0.. {
        for (number, (session, seated)) in lasting.iter().enumerate() {
            let through = session.through(&clients[(turn + number) % 2]);
            let outcome = through.call("work", json!({"op": "lasts"})).await?;
            assert_eq!(seat(&outcome).as_ref(), Some(seated), "{}", outcome.message);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    Ok(())
}
