//! One client connection: TLS if there is any, then hyper, until the client leaves, a bound is hit or the drain ends.
//!
//! A streamed answer that has to wait is not hyper's: `aside.rs` takes it out and `pour.rs` writes it; then hyper begins
//! anew for the next request. A panic of a handler ends this task only; `serve` counts it.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use regatta_policy::peers::{Preface, Proxies};
use regatta_policy::snapshot::Limits;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use super::arrival::{Arrival, Hush};
use super::aside::{After, Aside, Begun, Framing, sort};
use super::drain::DrainSignal;
use super::pour::{Poured, pour};
use super::preface;
use super::stall::Unstalled;
use super::stats::ListenerStats;
use crate::alarm::Alarm;
use crate::tcp::{bound_unsent, tune};

/// How long a TLS handshake may take.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a client may leave a write without any progress (RELIABILITY F36).
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// hyper's own number of header lines, for which it needs no allocation.
const HEADERS_WITHOUT_ALLOCATION: usize = 100;
/// hyper takes no smaller buffer.
const BUFFER_MIN: usize = 8192;

/// Who is at the other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Address and port, as the kernel says, or a trusted proxy before the first byte.
    pub address: SocketAddr,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// Whether a trusted proxy wrote the headers.
    pub proxied: bool,
    /// When it was accepted.
    pub since: Instant,
    /// The timer of the connection's task.
    pub(crate) alarm: Alarm,
}

/// An accepted connection with the bounds of its time.
pub(super) struct Line {
    pub stream: TcpStream,
    pub address: SocketAddr,
    pub limits: Arc<Limits>,
    pub proxies: Arc<Proxies>,
}

/// What every connection of one `serve` shares.
#[derive(Clone)]
pub(super) struct Shared<H> {
    pub handler: H,
    pub tls: Option<Arc<ArcSwap<ServerConfig>>>,
    pub drain: DrainSignal,
    pub stats: Arc<ListenerStats>,
}

/// Counts a connection as open while it lives, also through a panic.
pub(super) struct Open(Arc<ListenerStats>);

impl Open {
    pub(super) fn new(stats: &Arc<ListenerStats>) -> Open {
        stats.open.fetch_add(1, Ordering::Relaxed);
        Open(Arc::clone(stats))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves one accepted connection to its end.
pub(super) async fn run<H, F, B>(line: Line, shared: Shared<H>, open: Open)
where
    H: Fn(Box<Arrival>) -> F,
    F: Future<Output = Response<B>>,
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let _open = open;
    let Line { mut stream, address, limits, proxies } = line;
    tune(&stream, limits.tcp_user_timeout);
    bound_unsent(&stream, limits.unread_max);
    let trusted = proxies.trusts(address.ip());
    let (tls, alarm) = (shared.tls.is_some(), Alarm::default());
    let mut peer = Peer { address, tls, proxied: trusted, since: Instant::now(), alarm };
    if trusted && proxies.preface == Preface::ProxyV2 {
        match tokio::time::timeout(limits.header_timeout, preface::read(&mut stream)).await {
            // Whoever passes bytes on does not write the headers in them.
            Ok(Ok(Some(client))) => (peer.address, peer.proxied) = (client, proxies.trusts(client.ip())),
            Ok(Ok(None)) => {}
            Ok(Err(_)) | Err(_) => return ListenerStats::count(&shared.stats.handshake_errors),
        }
    }
    let Some(tls) = &shared.tls else {
        return speak(stream, peer, &limits, &shared).await;
    };
    let handshake = TlsAcceptor::from(tls.load_full()).accept(stream);
    match tokio::time::timeout(HANDSHAKE_TIMEOUT, handshake).await {
        Ok(Ok(stream)) => speak(stream, peer, &limits, &shared).await,
        Ok(Err(_)) | Err(_) => ListenerStats::count(&shared.stats.handshake_errors),
    }
}

async fn speak<S, H, F, B>(stream: S, peer: Peer, limits: &Limits, shared: &Shared<H>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    H: Fn(Box<Arrival>) -> F,
    F: Future<Output = Response<B>>,
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut io = Unstalled::new(stream, WRITE_TIMEOUT, Arc::clone(&shared.stats));
    // On the heap: what hyper needs goes while a stream lasts.
    while let Talked::Streams(stream, mut begun) = Box::pin(talk(io, &peer, limits, shared)).await {
        io = stream;
        if shared.drain.begun() {
            begun.after = After::Close;
        }
        let after = begun.after;
        match pour(&mut io, *begun).await {
            Poured::Over => return,
            Poured::Whole if after == After::Close || shared.drain.begun() => {
                let _ = io.shutdown().await;
                return;
            }
            Poured::Whole => {}
        }
    }
}

/// How a connection's time with hyper ended.
enum Talked<S, B> {
    /// With the connection.
    Over,
    /// With an answer that lasts.
    Streams(Unstalled<S>, Box<Begun<B>>),
}

async fn talk<S, H, F, B>(io: Unstalled<S>, peer: &Peer, limits: &Limits, shared: &Shared<H>) -> Talked<S, B>
where
    S: AsyncRead + AsyncWrite + Unpin,
    H: Fn(Box<Arrival>) -> F,
    F: Future<Output = Response<B>>,
    B: Body<Data = Bytes> + Unpin + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let aside = Aside::new(io.mark());
    let hush = poll_fn(|cx| Poll::Ready(Hush::over(cx.waker()))).await;
    let service = service_fn(|request: Request<Incoming>| {
        let (framing, aside) = (Framing::of(&request), &aside);
        let arrival = Arrival::new(peer.clone(), request, &hush);
        // On the heap: hyper keeps room for this future as long as the connection lives, and most connections wait. The
        // handler is called where its future will stay: that is large, and moving it costs with every request.
        Box::pin(async move { sort((shared.handler)(arrival).await, framing, aside).await })
    });
    let mut connection = builder(limits, peer.alarm.clone()).serve_connection(TokioIo::new(io), service);
    let mut bell = pin!(shared.drain.bell());
    let mut listening = false;
    let mut told = false;
    let waker = Waker::from(Arc::clone(&hush));
    let ended = poll_fn(|cx| {
        if !listening {
            // Once is enough: a task's waker stays the same for its life.
            listening = true;
            let _ = bell.as_mut().poll(cx);
        }
        if !told && shared.drain.begun() {
            told = true;
            Pin::new(&mut connection).graceful_shutdown();
        }
        match Pin::new(&mut connection).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(ended) => Poll::Ready(Err(ended)),
            Poll::Pending => aside.take().map_or(Poll::Pending, |begun| Poll::Ready(Ok(begun))),
        }
    });
    match ended.await {
        Ok(begun) => {
            let parts = connection.into_parts();
            let mut io = parts.io.into_inner();
            if !parts.read_buf.is_empty() {
                io.put_ahead(Bytes::copy_from_slice(&parts.read_buf));
            }
            Talked::Streams(io, Box::new(begun))
        }
        Err(Ok(())) => Talked::Over,
        Err(Err(error)) => {
            tracing::trace!(%error, peer = %peer.address, "a client connection broke off");
            Talked::Over
        }
    }
}

fn builder(limits: &Limits, alarm: Alarm) -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(alarm)
        .header_read_timeout(limits.header_timeout)
        .max_header_size(limits.header_max)
        .max_buf_size(limits.header_max.max(BUFFER_MIN))
        .keep_alive(true)
        // A client that closed its sending side has left (F41): its call is cancelled or detached.
        .half_close(false);
    // hyper's `pipeline_flush` stays off: it holds back the events of a stream while the client has sent more.
    if limits.header_count_max != HEADERS_WITHOUT_ALLOCATION {
        builder.max_headers(limits.header_count_max);
    }
    builder
}
