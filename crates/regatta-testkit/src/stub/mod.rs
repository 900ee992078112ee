//! The stub: an upstream MCP server that misbehaves exactly as told.
//!
//! It reads and writes HTTP/1.1 by hand on a real port, so that it can break every rule. A closure decides on each
//! request; everything received is kept, and every execution of a tool is written to an append-only journal.
//!
//! ```ignore
//! let base = answers::legacy();
//! let stub = Stub::start(move |seen| match seen.rpc() {
//!     "tools/call" => Reply::json(&json!({"jsonrpc": "2.0", "id": 99, "result": {}})), // nobody's id
//!     _ => base(seen),
//! }).await;
//! ```

pub mod answers;
mod carriers;
mod connection;
mod journal;
mod reply;
mod seen;

pub use journal::{Entry, Journal};
pub use reply::Reply;
pub use seen::{Fate, Seen};

use crate::eventually;
use crate::process::free_port;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::{broadcast, watch};
use tokio::task::{JoinHandle, JoinSet};

/// What a request is answered with.
pub type Behaviour = dyn Fn(&Seen) -> Reply + Send + Sync;

/// What is done with a new connection, before a byte is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnConnect {
    /// Requests are read and answered.
    Serve,
    /// RST at once.
    Reset,
    /// FIN at once.
    Close,
    /// Nothing is ever read.
    Ignore,
}

/// What connections share.
pub(crate) struct Shared {
    behaviour: RwLock<Arc<Behaviour>>,
    on_connect: watch::Sender<OnConnect>,
    /// All requests, and a wake-up for who waits for one.
    seen: Mutex<Vec<Arc<Seen>>>,
    arrived: watch::Sender<usize>,
    journal: Journal,
    /// Bytes for every reply that is `live()`.
    live: broadcast::Sender<reply::Live>,
    connections: AtomicU64,
    pub(crate) carriers: carriers::Carriers,
}

/// A running stub. Dropping it closes everything.
pub struct Stub {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Stub {
    /// Listens on a port of the system's choice.
    pub async fn start(behaviour: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let shared = Arc::new(Shared {
            behaviour: RwLock::new(Arc::new(behaviour)),
            on_connect: watch::Sender::new(OnConnect::Serve),
            seen: Mutex::default(),
            arrived: watch::Sender::new(0),
            journal: Journal::default(),
            live: broadcast::Sender::new(4096),
            connections: AtomicU64::new(0),
            carriers: carriers::Carriers::default(),
        });
        // A port that no outgoing connection is lent, so that `rise` finds it free.
        let listener = listen(SocketAddr::from(([127, 0, 0, 1], free_port())));
        let address = listener.local_addr().expect("a bound socket has an address");
        let task = tokio::spawn(accept(listener, shared.clone()));
        Stub { address, shared, task: Mutex::new(Some(task)) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:PORT/mcp`.
    pub fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }

    /// Another behaviour from the next request on.
    pub fn behave(&self, behaviour: impl Fn(&Seen) -> Reply + Send + Sync + 'static) {
        *self.shared.behaviour.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(behaviour);
    }

    /// What happens to connections from the next one on.
    pub fn on_connect(&self, what: OnConnect) {
        self.shared.on_connect.send_replace(what);
    }

    /// Dies: nobody listens, all connections are reset. What was seen stays.
    pub async fn die(&self) {
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            task.abort();
            let _ = task.await;
        }
    }

    /// Listens again on the same port after `die`.
    pub async fn rise(&self) {
        self.die().await;
        // The kernel may take a moment to let go of what the old listener had not accepted yet.
        let taken = "the port is free again";
        let listener = eventually(taken, PORT_WAIT, async || try_listen(self.address).ok()).await;
        let task = tokio::spawn(accept(listener, self.shared.clone()));
        *self.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(task);
    }

    /// All requests so far, oldest first.
    pub fn seen(&self) -> Vec<Arc<Seen>> {
        self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// All requests so far with this JSON-RPC method.
    pub fn seen_rpc(&self, method: &str) -> Vec<Arc<Seen>> {
        self.seen().into_iter().filter(|seen| seen.rpc() == method).collect()
    }

    /// The `n`th request (from 1) with this JSON-RPC method, waiting for it. Panics when it does not come.
    pub async fn wait_for(&self, method: &str, n: usize) -> Arc<Seen> {
        let what = format!("request {n} of {method} reaches the stub");
        eventually(&what, Duration::from_secs(20), async || self.seen_rpc(method).get(n - 1).cloned()).await
    }

    /// Who ran what, how often.
    pub fn journal(&self) -> &Journal {
        &self.shared.journal
    }

    /// Connections accepted so far.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }

    /// From now on counts how many connections that calls came on are open at one moment, by what the kernel knows.
    pub fn count_open(&self) {
        self.shared.carriers.begin();
    }

    /// The most of them since this was asked for last.
    pub fn most_open(&self) -> usize {
        self.shared.carriers.most()
    }

    /// Sends an event to every reply that is `live()` now.
    pub fn say(&self, message: &serde_json::Value) {
        self.say_raw(&format!("data: {message}\n\n"));
    }

    /// Sends bytes to every reply that is `live()` now.
    pub fn say_raw(&self, text: &str) {
        let _ = self.shared.live.send(reply::Live::Bytes(text.to_owned().into()));
    }

    /// Replies that are `live()` go on behind it.
    pub fn end_live(&self) {
        let _ = self.shared.live.send(reply::Live::End);
    }

    /// How many replies are `live()` now.
    pub fn live_count(&self) -> usize {
        self.shared.live.receiver_count()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
    }
}

impl std::fmt::Debug for Stub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stub").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Shared {
    pub(crate) fn decide(&self, seen: &Seen) -> Reply {
        let behaviour = self.behaviour.read().unwrap_or_else(PoisonError::into_inner).clone();
        behaviour(seen)
    }

    pub(crate) fn note(&self, seen: Arc<Seen>) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(seen);
        self.arrived.send_modify(|count| *count += 1);
    }

    /// The client's POSTed response to a request of ours, waiting for it.
    pub(crate) async fn answer_to(&self, id: &serde_json::Value) -> Arc<Seen> {
        let mut arrived = self.arrived.subscribe();
        loop {
            arrived.borrow_and_update();
            let found = {
                let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.iter().find(|seen| seen.is_response_to(id)).cloned()
            };
            match found {
                Some(found) => return found,
                // The sender lives as long as `self`.
                None => drop(arrived.changed().await),
            }
        }
    }
}

fn listen(address: SocketAddr) -> TcpListener {
    try_listen(address).unwrap_or_else(|error| panic!("cannot listen on {address}: {error}"))
}

fn try_listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(4096)
}

/// How long a port is waited for that was ours a moment ago.
const PORT_WAIT: Duration = Duration::from_secs(10);

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((socket, _)) = accepted else { continue };
                let number = shared.connections.fetch_add(1, Ordering::Relaxed) + 1;
                let what = *shared.on_connect.borrow();
                connections.spawn(connection::run(socket, number, what, shared.clone()));
            }
            Some(_) = connections.join_next() => {}
        }
    }
}
