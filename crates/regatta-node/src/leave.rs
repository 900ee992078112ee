//! How a node leaves: not ready, `stopping` in the registry, what runs ends or hears the last word, everything that clients
//! may still ask for goes to the store, streams end with the id to go on from, off the registry, connections closed.
//!
//! The order is the promise: who is not served to the end here finds the rest at any other node.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::Shared as Many;
use rmcp::ServerHandler;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;

use crate::connections::Connections;
use crate::drain::Phase;
use crate::registry::{Registration, Status};
use crate::serve::Shared;

/// Two readings of the registry by gateways, with their defaults: then all know that this node is stopping.
const KNOWN_AFTER: Duration = Duration::from_secs(2);
/// How long the last writes to the store may take, and then the last bytes to who reads slowly.
const LAST_WRITES_MAX: Duration = Duration::from_secs(3);
const LAST_BYTES_MAX: Duration = Duration::from_secs(3);
/// How long those of streams may take that ended during the last writes.
const LAST_STREAMS_MAX: Duration = Duration::from_secs(1);

/// SIGTERM and SIGINT.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// They end the process no more from now on.
    pub(crate) fn listen() -> Result<Signals, String> {
        let of = |kind| signal(kind).map_err(|why| why.to_string());
        Ok(Signals { terminate: of(SignalKind::terminate())?, interrupt: of(SignalKind::interrupt())? })
    }

    /// The next of them.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Where others find the node.
pub(crate) struct Outside {
    pub(crate) registration: Option<Registration>,
    pub(crate) connections: Arc<Connections>,
    /// Takes connections.
    pub(crate) accepting: JoinHandle<()>,
}

/// Leaves, once `signals` asked for it. The next one is the deadline.
pub(crate) async fn leave<H: ServerHandler>(shared: &Shared<H>, outside: Outside, mut signals: Signals) {
    let Outside { registration, connections, accepting } = outside;
    let (drain, works) = (&shared.fleet.drain, &shared.places.works);
    shared.ready.store(false, Relaxed);
    drain.enter(Phase::Notice);
    let notice = if registration.is_some() { KNOWN_AFTER } else { Duration::ZERO };
    if let Some(registration) = &registration {
        registration.say(Status::Stopping);
    }
    let whole = notice + Duration::from_secs(shared.settings.drain_s);
    let patience = async move {
        tokio::select! {
            () = tokio::time::sleep(whole) => {}
            () = signals.next() => {}
        }
    };
    let patience = patience.boxed().shared();
    within(&patience, tokio::time::sleep(notice)).await;
    works.drain();
    drain.enter(Phase::Draining);
    within(&patience, works.old_done()).await;
    // Who comes now is refused before it has sent anything, and goes elsewhere.
    drain.enter(Phase::Closed);
    let _ = accepting.await;
    if within(&patience, works.all_done()).await == InTime::No {
        tracing::warn!(running = works.number(), "leaving although requests still run: they are told so");
        drain.enter(Phase::LastWords);
    }
    last_writes(shared).await;
    if let Some(registration) = registration
        && tokio::task::spawn_blocking(|| registration.leave()).await.is_err()
    {
        tracing::warn!("the node could not leave the registry");
    }
    drain.enter(Phase::Over);
    if tokio::time::timeout(LAST_BYTES_MAX, connections.all_closed()).await.is_err() {
        tracing::warn!(open = connections.number(), "connections are cut whose clients do not read");
    }
}

/// Writes down what clients may come back for. What is written already waits for nobody: who does not read, or does not send
/// what it began to, can keep a request from its end.
async fn last_writes<H: ServerHandler>(shared: &Shared<H>) {
    let works = &shared.places.works;
    let keep = async || {
        if shared.fleet.post.is_shared {
            shared.fleet.streams.keep_all().await;
        }
    };
    let all = async { futures_util::join!(works.all_done(), keep()) };
    if tokio::time::timeout(LAST_WRITES_MAX, all).await.is_err() {
        tracing::warn!(running = works.number(), "leaving although requests still run that nobody ends");
    }
    // Those that ended meanwhile.
    if tokio::time::timeout(LAST_STREAMS_MAX, keep()).await.is_err() {
        tracing::warn!("not all that clients may come back for could be written down");
    }
}

/// Whether something ended before the patience did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum InTime {
    Yes,
    No,
}

async fn within<P>(patience: &Many<P>, ends: impl Future<Output = ()>) -> InTime
where
    P: Future<Output = ()>,
{
    tokio::select! {
        biased;
        () = ends => InTime::Yes,
        () = patience.clone() => InTime::No,
    }
}
