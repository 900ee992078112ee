//! The load generator behind `regatta bench`: closed and open loops, standing streams, sessions opened and left, streams of
//! events, sessions in use while something dies.
//!
//! Every answer is checked (id and content), every run is bounded in time and count, and a latency in the open loop counts from
//! the *intended* send time, so that a stalled server cannot hide its queue (RELIABILITY D). One thread of its own, but for the
//! open loop. Never retries: what fails is counted.

mod answer;
mod args;
mod closed;
mod conn;
mod dice;
mod message;
mod open;
mod report;
mod sessions;
mod streams;
mod tally;
mod target;

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

pub use args::Args;
pub use report::{Latency, Report};
pub use target::{NoTarget, Target};
use tokio::task::LocalSet;

/// What is done with the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Each connection sends its next call when it has the answer to the last.
    Closed,
    /// Calls arrive by a seeded Poisson process, whether or not the last was answered.
    Open,
    /// Standing streams are opened and held.
    IdleStreams,
    /// Sessions are opened and left.
    OpenSessions,
    /// Calls whose answers are long streams of events.
    SseEvents,
    /// Sessions on connections of their own, each calling with a pause between; each call is recorded.
    Sessions,
}

impl Kind {
    fn wants_progress(self) -> bool {
        self == Kind::SseEvents
    }
}

/// Which protocol era the load speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Era {
    /// 2025-11-25, in sessions if the server gives them.
    Legacy,
    /// 2026-07-28.
    Modern,
}

/// Which kind of answer counts as right.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Expected {
    /// Either.
    Any,
    /// `application/json` only.
    Json,
    /// `text/event-stream` only.
    Sse,
}

/// One run, with everything decided.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What is done.
    pub kind: Kind,
    /// The era that is spoken.
    pub era: Era,
    /// The kind of answers that counts as right.
    pub expected: Expected,
    /// The tool that is called; it must echo its argument `text`.
    pub tool: String,
    /// Makes the texts, and so the operation ids, of this run unlike those of any other.
    pub tag: String,
    /// Connections (closed, open, sse-events), streams (idle-streams) or sessions (sessions) at once.
    pub connections: usize,
    /// Stop after so many calls or sessions; without it `seconds` alone is the bound.
    pub count: Option<u64>,
    /// How long calls are sent, after the warm-up.
    pub seconds: Duration,
    /// Answers before this are checked, but do not count in the latencies.
    pub warm_up: Duration,
    /// Arrivals a second in the open loop.
    pub rate: f64,
    /// Seed of the arrivals.
    pub seed: u64,
    /// Bytes of the text that is echoed, or of one event's text.
    pub text_bytes: usize,
    /// How many different texts are sent; none: a new one with each call.
    pub texts: Option<u64>,
    /// Events in one stream.
    pub events: u64,
    /// The upstream's pause between two events of one stream; zero: as fast as it can.
    pub event_every: Duration,
    /// The pause between two calls of one session.
    pub pause: Duration,
    /// Where each call of `sessions` is written, as one JSON line.
    pub record: Option<PathBuf>,
}

/// A run may take so much longer than planned before it is given up.
const GRACE: Duration = Duration::from_secs(60);

/// Runs the plan and blocks until it is done. Not for use inside an asynchronous runtime: it starts its own.
pub fn run(plan: Plan, target: &Target) -> io::Result<Report> {
    match plan.kind {
        Kind::Closed => alone(&plan.clone(), closed::run(plan, target.clone())),
        Kind::Open => open::run(plan, target),
        Kind::IdleStreams => alone(&plan.clone(), streams::hold(plan, target.clone())),
        Kind::OpenSessions => alone(&plan.clone(), sessions::open_and_leave(plan, target.clone())),
        Kind::SseEvents => alone(&plan.clone(), streams::events(plan, target.clone())),
        Kind::Sessions => alone(&plan.clone(), sessions::in_use(plan, target.clone())),
    }
}

fn alone(plan: &Plan, work: impl Future<Output = io::Result<Report>>) -> io::Result<Report> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let bound = plan.warm_up + plan.seconds + GRACE;
    runtime.block_on(LocalSet::new().run_until(async {
        tokio::time::timeout(bound, work)
            .await
            .unwrap_or_else(|_| Err(io::Error::other("the run did not end in time")))
    }))
}

/// Starts `plan.connections` of the same task on this thread and waits for all of them.
async fn crowd<F, Fut>(size: usize, task: F)
where
    F: Fn(usize) -> Fut + 'static,
    Fut: Future<Output = ()> + 'static,
{
    let task = Rc::new(task);
    let handles: Vec<_> = (0..size)
        .map(|index| {
            let task = Rc::clone(&task);
            tokio::task::spawn_local(async move { task(index).await })
        })
        .collect();
    for handle in handles {
        // A panic in a task is a bug of the instrument: the missing answers show it.
        let _ = handle.await;
    }
}
