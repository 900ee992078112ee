//! Behaviour against scripted replicas on loopback: each script is told which connection it serves, from 0.

mod bounded;
mod disorder;
mod exchange;
mod failures;
mod standing;
mod tls;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body_util::BodyExt;
use regatta_policy::balance::Standing;
use regatta_policy::snapshot::{
    Affinity, Balance, Breaker, CallBounds, Concurrency, Cursors, Duty, Endpoint, Eras, Health, Leases,
    Limits, Origins, Replica, Scheme, Server, SessionState, Snapshot, UpstreamResume,
};
use regatta_policy::{Micros, ReplicaId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};

use super::codec::Outgoing;
use super::{NotWritten, SendError, Upstream, UpstreamAnswer, Upstreams, Written};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
const SOON: Duration = Duration::from_secs(5);

/// A listening replica; `requests` counts what reached it whole.
struct Scripted {
    port: u16,
    requests: Arc<AtomicUsize>,
}

/// One connection at a scripted replica.
struct Peer {
    stream: TcpStream,
    requests: Arc<AtomicUsize>,
}

impl Scripted {
    async fn start<F>(script: impl Fn(usize, Peer) -> F + Send + 'static) -> Scripted
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let port = listener.local_addr().expect("bound").port();
        let requests = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&requests);
        tokio::spawn(async move {
            for number in 0.. {
                let (stream, _) = listener.accept().await.expect("accept");
                tokio::spawn(script(number, Peer { stream, requests: Arc::clone(&counter) }));
            }
        });
        Scripted { port, requests }
    }

    /// Answers every request with `bytes`, for ever.
    async fn answering(bytes: &'static [u8]) -> Scripted {
        Scripted::start(move |_, mut peer| async move {
            while peer.request().await {
                peer.write(bytes).await;
            }
        })
        .await
    }

    /// Answers every request with half an answer, and with the rest when `go` rings.
    async fn halting(go: Arc<Notify>) -> Scripted {
        Scripted::start(move |_, mut peer| {
            let go = Arc::clone(&go);
            async move {
                while peer.request().await {
                    let (half, rest) = OK.split_at(OK.len() - 1);
                    peer.write(half).await;
                    go.notified().await;
                    peer.write(rest).await;
                }
            }
        })
        .await
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

impl Peer {
    /// Reads one request with a body of two bytes; false at the end of the connection.
    async fn request(&mut self) -> bool {
        let mut read = Vec::new();
        while !read.ends_with(b"\r\n\r\n[]") {
            match self.stream.read_u8().await {
                Ok(byte) => read.push(byte),
                Err(_) => return false,
            }
        }
        self.requests.fetch_add(1, Ordering::SeqCst);
        true
    }

    async fn write(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("the gateway reads");
    }

    /// Whether the other side closes, in one way or the other.
    async fn closes(&mut self) -> bool {
        let mut byte = [0];
        let read = tokio::time::timeout(SOON, self.stream.read(&mut byte)).await;
        matches!(read, Ok(Ok(0) | Err(_)))
    }
}

fn replica(port: u16) -> Replica {
    let url = format!("http://127.0.0.1:{port}/mcp");
    Replica {
        id: ReplicaId::of("shop", &url),
        endpoint: Endpoint {
            url,
            scheme: Scheme::Http,
            host: "127.0.0.1".to_owned(),
            port,
            path: "/mcp".to_owned(),
        },
        health: Health::Unknown,
        eras: Eras::Unknown,
        duty: Duty::Serving,
        load: None,
        journal: [].into(),
    }
}

/// A server with nothing special.
pub(crate) fn server(replicas: Vec<Replica>) -> Server {
    Server {
        name: "shop".to_owned(),
        path: "/mcp".to_owned(),
        balance: Balance::LeastLoad,
        session_state: SessionState::Unknown,
        affinity: Affinity::None,
        cursors: Cursors::Shared,
        upstream_resume: UpstreamResume::Unsupported,
        repeatable_tools: Vec::new(),
        cache: Vec::new(),
        lists: regatta_policy::cache::Lists::NONE,
        concurrency: Concurrency::default(),
        connections_max: None,
        breaker: Breaker::On,
        classes: Vec::new(),
        call: CallBounds::default(),
        credential: None,
        replicas,
        leases: Leases::Unleased,
        catalogue: None,
        definitions: Arc::default(),
    }
}

fn snapshot(replicas: Vec<Replica>) -> Snapshot {
    Snapshot {
        version: 1,
        servers: vec![Arc::new(server(replicas))],
        limits: Arc::new(Limits::default()),
        admission: Arc::new(Origins::default()),
        quotas: Arc::default(),
        access: None,
        proxies: Arc::default(),
    }
}

/// One server with a replica at each of `ports`, and the first of them.
fn upstreams(ports: &[u16]) -> (Upstreams, Arc<Upstream>) {
    let upstreams = Upstreams::new(Instant::now());
    upstreams.apply(&snapshot(ports.iter().map(|port| replica(*port)).collect()));
    let first = upstreams.get(replica(ports[0]).id).expect("applied");
    (upstreams, first)
}

fn alone(port: u16) -> Arc<Upstream> {
    upstreams(&[port]).1
}

fn request(upstream: &Upstream) -> Outgoing {
    upstream.request(&Method::POST).finish(Bytes::from_static(b"[]"))
}

async fn send(upstream: &Arc<Upstream>, bounds: &CallBounds) -> Result<UpstreamAnswer, SendError> {
    let sent = upstream.send(upstream.lease(), request(upstream), bounds);
    tokio::time::timeout(SOON, sent).await.expect("an answer or an error, soon")
}

/// Sends with the default bounds and reads all of the answer.
async fn call(upstream: &Arc<Upstream>) -> (StatusCode, Bytes) {
    let answer = send(upstream, &CallBounds::default()).await.expect("an answer");
    let body = answer.body.collect().await.expect("a whole body").to_bytes();
    (answer.head.status, body)
}

async fn written(upstream: &Arc<Upstream>) -> Written {
    match send(upstream, &CallBounds::default()).await {
        Err(SendError::Written { why }) => why,
        other => panic!("{other:?}"),
    }
}

async fn not_written(upstream: &Arc<Upstream>, bounds: &CallBounds) -> NotWritten {
    match send(upstream, bounds).await {
        Err(SendError::NotWritten { why }) => why,
        other => panic!("{other:?}"),
    }
}

fn connects_within(timeout: Duration) -> CallBounds {
    CallBounds { connect_timeout: timeout, ..CallBounds::default() }
}
