//! The accept loop: takes connections until the drain begins, then waits for the ones that are open.
//!
//! Over `connections_max` a connection is accepted and closed at once, and counted. To leave it in the backlog would
//! let the client believe that it is connected and wait in silence; closed, it knows and can turn to another gateway.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::Response;
use http_body::Body;
use regatta_policy::peers::Proxies;
use regatta_policy::snapshot::Limits;
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

use super::arrival::Arrival;
use super::connection::{Line, Open, Shared, run};
use super::drain::DrainSignal;
use super::socket::Listener;
use super::stats::ListenerStats;

/// How a `serve` ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Connections that were cut at the deadline of the drain.
    pub aborted: usize,
}

/// What holds for new connections, read anew for each.
#[derive(Clone, Debug)]
pub struct ListenerBounds {
    /// The bounds in force.
    pub limits: Arc<ArcSwap<Limits>>,
    /// The proxies that may say who their clients are.
    pub proxies: Arc<ArcSwap<Proxies>>,
}

/// Serves `listener` with `handler` until `drain` rings, then lets the requests in flight finish until its deadline.
///
/// A handler that answers with a stream has read the request's body to its end: what follows on the connection is taken
/// for the next request. `bounds` and `tls` are read anew for each connection. Spawn it on a multi-threaded runtime rather than to block on it: the
/// tasks that it spawns then start on a worker's own queue. Dropping it cuts all connections.
pub async fn serve<H, F, B>(
    mut listener: Listener,
    tls: Option<Arc<ArcSwap<ServerConfig>>>,
    bounds: ListenerBounds,
    handler: H,
    drain: DrainSignal,
    stats: Arc<ListenerStats>,
) -> Ended
where
    H: Fn(Box<Arrival>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let shared = Shared { handler, tls, drain: drain.clone(), stats: Arc::clone(&stats) };
    let mut tasks = JoinSet::new();
    let deadline = loop {
        tokio::select! {
            (stream, address) = listener.accept(|| ListenerStats::count(&stats.accept_errors)) => {
                admit(stream, address, &bounds, &shared, &mut tasks);
            }
            Some(ended) = tasks.join_next(), if !tasks.is_empty() => note(ended, &stats),
            deadline = drain.wait() => break deadline,
        }
    };
    // Closed before the wait: the kernel refuses new clients while the old ones finish.
    drop(listener);
    finish(tasks, deadline, &stats).await
}

fn admit<H, F, B>(
    stream: TcpStream,
    address: SocketAddr,
    bounds: &ListenerBounds,
    shared: &Shared<H>,
    tasks: &mut JoinSet<()>,
) where
    H: Fn(Box<Arrival>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: Body<Data = Bytes> + Unpin + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    ListenerStats::count(&shared.stats.accepted);
    let limits = bounds.limits.load_full();
    if shared.stats.open() >= limits.connections_max {
        ListenerStats::count(&shared.stats.refused);
        return;
    }
    let open = Open::new(&shared.stats);
    let line = Line { stream, address, limits, proxies: bounds.proxies.load_full() };
    tasks.spawn(run(line, shared.clone(), open));
}

async fn finish(mut tasks: JoinSet<()>, deadline: Instant, stats: &ListenerStats) -> Ended {
    let emptied = async {
        while let Some(ended) = tasks.join_next().await {
            note(ended, stats);
        }
    };
    let aborted = match tokio::time::timeout_at(deadline, emptied).await {
        Ok(()) => 0,
        Err(_) => tasks.len(),
    };
    stats.aborted.fetch_add(aborted as u64, std::sync::atomic::Ordering::Relaxed);
    tasks.shutdown().await;
    Ended { aborted }
}

/// A task that was cancelled is one that we cut ourselves; one that panicked is a bug of a handler.
fn note(ended: Result<(), JoinError>, stats: &ListenerStats) {
    if ended.is_err_and(|error| error.is_panic()) {
        ListenerStats::count(&stats.panics);
        tracing::error!("a handler panicked; its connection was closed");
    }
}
