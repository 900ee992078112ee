//! Behaviour of the listener, with real sockets on loopback and raw bytes from the client's side.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::Full;
use regatta_policy::snapshot::Limits;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

mod streams;

use super::stall::Unstalled;
use super::{
    Arrival, BodyError, DrainSignal, Drainer, Ended, Listener, ListenerBounds, ListenerStats, RequestBody,
    drain_signal, read_body, serve,
};

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
const SOON: Duration = Duration::from_secs(5);

type Handled = Pin<Box<dyn Future<Output = Response<Full<Bytes>>> + Send>>;

struct Served {
    address: SocketAddr,
    stats: Arc<ListenerStats>,
    drainer: Drainer,
    task: JoinHandle<Ended>,
}

impl Served {
    async fn ends(self) -> Ended {
        tokio::time::timeout(SOON, self.task).await.expect("ends soon").expect("no panic")
    }
}

fn bounds(limits: Arc<ArcSwap<Limits>>) -> ListenerBounds {
    ListenerBounds { limits, proxies: Arc::default() }
}

/// Serves `handler` on a port of the kernel's choice.
fn start<H, F, B>(limits: Limits, handler: H) -> Served
where
    H: Fn(Request<RequestBody>) -> F + Clone + Send + Sync + 'static,
    F: Future<Output = Response<B>> + Send + 'static,
    B: http_body::Body<Data = Bytes, Error = Infallible> + Unpin + Send + 'static,
{
    let listener = Listener::bind(&[SocketAddr::from(([127, 0, 0, 1], 0))]).expect("loopback");
    let address = listener.local_addr().expect("bound");
    let (drainer, drain): (Drainer, DrainSignal) = drain_signal();
    let stats = Arc::new(ListenerStats::default());
    let limits = Arc::new(ArcSwap::from_pointee(limits));
    let handler = move |arrival: Box<Arrival>| handler(Request::from_parts(arrival.head, arrival.body));
    let task = tokio::spawn(serve(listener, None, bounds(limits), handler, drain, Arc::clone(&stats)));
    Served { address, stats, drainer, task }
}

async fn hello(_: Request<RequestBody>) -> Response<Full<Bytes>> {
    Response::new(Full::from("hello"))
}

async fn connect(served: &Served) -> TcpStream {
    TcpStream::connect(served.address).await.expect("accepted")
}

/// What comes until `end` or the end of the connection.
async fn read_until(stream: &mut TcpStream, end: &[u8]) -> String {
    let mut read = Vec::new();
    let reading = async {
        while !read.ends_with(end) {
            match stream.read_u8().await {
                Ok(byte) => read.push(byte),
                Err(_) => break,
            }
        }
    };
    tokio::time::timeout(SOON, reading).await.expect("soon");
    String::from_utf8(read).expect("text")
}

async fn get(stream: &mut TcpStream) -> String {
    stream.write_all(GET).await.expect("open");
    read_until(stream, b"hello").await
}

/// Waits until the connection is closed by the other side; nothing may come before.
async fn closed(stream: &mut TcpStream) {
    let mut byte = [0];
    let read = tokio::time::timeout(SOON, stream.read(&mut byte)).await.expect("closed soon");
    assert!(matches!(read, Ok(0) | Err(_)), "{read:?} {byte:?}");
}

async fn until(met: impl Fn() -> bool) {
    let met = async {
        while !met() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(SOON, met).await.expect("soon");
}

#[tokio::test]
async fn several_addresses_are_served_and_requests_share_a_connection() {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = Listener::bind(&[any, any]).expect("loopback");
    let addresses = listener.local_addresses();
    let (drainer, drain) = drain_signal();
    let stats = Arc::new(ListenerStats::default());
    let limits = Arc::new(ArcSwap::from_pointee(Limits::default()));
    let handler = |arrival: Box<Arrival>| async move {
        assert!(!arrival.peer.tls && arrival.peer.address.ip().is_loopback());
        hello(Request::from_parts(arrival.head, arrival.body)).await
    };
    let task = tokio::spawn(serve(listener, None, bounds(limits), handler, drain, Arc::clone(&stats)));
    for address in addresses {
        let mut stream = TcpStream::connect(address).await.expect("accepted");
        for _ in 0..3 {
            assert!(get(&mut stream).await.starts_with("HTTP/1.1 200 OK\r\n"));
        }
    }
    assert_eq!(stats.accepted.load(Ordering::Relaxed), 2);
    until(|| stats.open() == 0).await;
    drainer.drain(SOON);
    assert_eq!(task.await.expect("no panic"), Ended { aborted: 0 });
}

#[test]
fn an_address_that_is_taken_is_named() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let _entered = runtime.enter();
    let first = Listener::bind(&[SocketAddr::from(([127, 0, 0, 1], 0))]).expect("loopback");
    let address = first.local_addr().expect("bound");
    let error = Listener::bind(&[address]).expect_err("taken");
    assert_eq!(error.kind(), std::io::ErrorKind::AddrInUse);
    assert!(error.to_string().contains(&address.to_string()), "{error}");
}

#[tokio::test]
async fn a_drain_finishes_what_is_in_flight_and_closes_what_is_idle() {
    let (arrived, mut arrivals) = mpsc::channel(1);
    let (release, released) = tokio::sync::watch::channel(false);
    let served = start(Limits::default(), move |request| {
        let (arrived, mut released) = (arrived.clone(), released.clone());
        async move {
            if request.uri().path() == "/slow" {
                arrived.send(()).await.expect("the test listens");
                released.wait_for(|released| *released).await.expect("the test lives");
            }
            hello(request).await
        }
    });
    let (mut idle, mut fresh, mut busy) =
        (connect(&served).await, connect(&served).await, connect(&served).await);
    get(&mut idle).await;
    busy.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("open");
    arrivals.recv().await.expect("in flight");
    served.drainer.drain(SOON);
    closed(&mut idle).await;
    closed(&mut fresh).await;
    assert!(TcpStream::connect(served.address).await.is_err(), "no new clients");
    assert!(!served.task.is_finished());
    release.send(true).expect("the handler lives");
    let answer = read_until(&mut busy, b"hello").await;
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    closed(&mut busy).await;
    assert_eq!(served.ends().await, Ended { aborted: 0 });
}

#[tokio::test]
async fn a_drain_cuts_what_is_left_at_its_deadline() {
    let served = start(Limits::default(), |_| std::future::pending::<Response<Full<Bytes>>>());
    let mut busy = connect(&served).await;
    busy.write_all(GET).await.expect("open");
    until(|| served.stats.open() == 1).await;
    served.drainer.drain(Duration::from_millis(50));
    closed(&mut busy).await;
    let stats = Arc::clone(&served.stats);
    assert_eq!(served.ends().await, Ended { aborted: 1 });
    assert_eq!((stats.open(), stats.aborted.load(Ordering::Relaxed)), (0, 1));
}

#[tokio::test]
async fn connections_over_the_bound_are_closed_at_once_and_counted() {
    let served = start(Limits { connections_max: 2, ..Limits::default() }, hello);
    let (mut first, mut second) = (connect(&served).await, connect(&served).await);
    get(&mut first).await;
    get(&mut second).await;
    for _ in 0..3 {
        closed(&mut connect(&served).await).await;
    }
    assert_eq!(served.stats.refused.load(Ordering::Relaxed), 3);
    assert!(get(&mut first).await.starts_with("HTTP/1.1 200 OK"), "the others go on");
    drop(first);
    until(|| served.stats.open() == 1).await;
    assert!(get(&mut connect(&served).await).await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn slow_silent_and_idle_connections_are_closed_after_the_header_timeout() {
    let limits = Limits { header_timeout: Duration::from_millis(100), ..Limits::default() };
    let served = start(limits, hello);
    let (mut silent, mut slow, mut idle) =
        (connect(&served).await, connect(&served).await, connect(&served).await);
    slow.write_all(b"GET / HTT").await.expect("open");
    get(&mut idle).await;
    closed(&mut silent).await;
    closed(&mut slow).await;
    closed(&mut idle).await;
    until(|| served.stats.open() == 0).await;
}

#[tokio::test]
async fn heads_over_their_bounds_are_refused() {
    let served = start(Limits::default(), hello);
    let lines = "x: y\r\n".repeat(101);
    for head in [
        format!("GET / HTTP/1.1\r\nhost: x\r\n{lines}\r\n"),
        format!("GET / HTTP/1.1\r\nhost: x\r\ny: {}\r\n\r\n", "z".repeat(70 << 10)),
    ] {
        let mut stream = connect(&served).await;
        stream.write_all(head.as_bytes()).await.expect("open");
        assert!(read_until(&mut stream, b"\r\n").await.starts_with("HTTP/1.1 431 "));
    }
}

#[tokio::test]
async fn a_panic_costs_its_own_connection_and_is_counted() {
    let served = start(Limits::default(), |request: Request<RequestBody>| async move {
        assert!(request.uri().path() == "/", "a handler's bug");
        hello(request).await
    });
    let (mut good, mut bad) = (connect(&served).await, connect(&served).await);
    get(&mut good).await;
    bad.write_all(b"GET /bug HTTP/1.1\r\nhost: x\r\n\r\n").await.expect("open");
    closed(&mut bad).await;
    until(|| served.stats.panics.load(Ordering::Relaxed) == 1 && served.stats.open() == 1).await;
    assert!(get(&mut good).await.starts_with("HTTP/1.1 200 OK"));
}

#[tokio::test]
async fn a_client_that_leaves_drops_its_handler() {
    let (dropped, was_dropped) = oneshot::channel::<Infallible>();
    let dropped = Arc::new(std::sync::Mutex::new(Some(dropped)));
    let served = start(Limits::default(), move |_| {
        let held = dropped.lock().expect("no panic").take();
        async move {
            std::future::pending::<()>().await;
            drop(held);
            Response::new(Full::<Bytes>::default())
        }
    });
    for half in [true, false] {
        let mut stream = connect(&served).await;
        stream.write_all(GET).await.expect("open");
        if half {
            until(|| served.stats.open() == 1).await;
            stream.shutdown().await.expect("half-closed");
            closed(&mut stream).await;
        }
    }
    assert!(tokio::time::timeout(SOON, was_dropped).await.expect("soon").is_err());
    until(|| served.stats.open() == 0).await;
}

/// A handler that answers with what `read_body` said.
fn echo(max: usize, timeout: Duration) -> impl Fn(Request<RequestBody>) -> Handled + Clone + Send + Sync {
    move |request| {
        Box::pin(async move {
            let (status, text) = match read_body(request.into_body(), max, timeout).await {
                Ok(body) => (StatusCode::OK, body),
                Err(error) => (StatusCode::BAD_REQUEST, Bytes::from(format!("{error:?}"))),
            };
            let mut answer = Response::new(Full::from([&text[..], b"~"].concat()));
            *answer.status_mut() = status;
            answer
        })
    }
}

#[tokio::test]
async fn bodies_are_read_whole_within_their_bound() {
    let served = start(Limits::default(), echo(10, SOON));
    let cases = [
        ("content-length: 0\r\n\r\n", "200 OK", "\r\n\r\n~"),
        ("content-length: 10\r\n\r\n0123456789", "200 OK", "\r\n\r\n0123456789~"),
        ("transfer-encoding: chunked\r\n\r\n5\r\n01234\r\n5\r\n56789\r\n0\r\n\r\n", "200 OK", "0123456789~"),
        ("content-length: 11\r\n\r\n0123456789x", "400", "TooLarge~"),
        ("content-length: 99999999\r\nexpect: 100-continue\r\n\r\n", "400", "TooLarge~"),
        ("transfer-encoding: chunked\r\n\r\n5\r\n01234\r\n6\r\n56789x\r\n0\r\n\r\n", "400", "TooLarge~"),
        ("transfer-encoding: chunked\r\n\r\nb\r\n0123456789x\r\n0\r\n\r\n", "400", "TooLarge~"),
        ("transfer-encoding: chunked\r\n\r\n5\r\n01234\r\nzz\r\n", "400", "Broken~"),
    ];
    for (rest, status, body) in cases {
        let mut stream = connect(&served).await;
        stream.write_all(format!("POST / HTTP/1.1\r\nhost: x\r\n{rest}").as_bytes()).await.expect("open");
        let answer = read_until(&mut stream, b"~").await;
        // An `Expect` that is refused sees no 100 first.
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{rest}: {answer}");
        assert!(answer.ends_with(body), "{rest}: {answer}");
    }
}

#[tokio::test]
async fn an_expected_body_is_asked_for() {
    let served = start(Limits::default(), echo(10, SOON));
    let mut stream = connect(&served).await;
    let head = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n";
    stream.write_all(head).await.expect("open");
    assert_eq!(read_until(&mut stream, b"\r\n\r\n").await, "HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"[]").await.expect("open");
    assert!(read_until(&mut stream, b"~").await.ends_with("[]~"));
}

#[tokio::test]
async fn a_slow_body_is_given_up() {
    let served = start(Limits::default(), echo(10, Duration::from_millis(100)));
    let mut stream = connect(&served).await;
    stream.write_all(b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n1").await.expect("open");
    assert!(read_until(&mut stream, b"~").await.ends_with("TimedOut~"));
    closed(&mut stream).await;
}

#[tokio::test]
async fn a_body_in_one_frame_is_not_copied() {
    let sent = Bytes::from(vec![7; 1000]);
    let read = read_body(Full::new(sent.clone()), 1000, SOON).await.expect("short enough");
    assert_eq!(read.as_ptr(), sent.as_ptr());
    let body = Frames(vec![Bytes::new(), sent.clone(), Bytes::new()]);
    assert_eq!(read_body(body, 1000, SOON).await.map(|body| body.len()), Ok(1000));
    let body = Frames(vec![sent.clone(), sent]);
    assert_eq!(read_body(body, 1999, SOON).await, Err(BodyError::TooLarge));
}

#[tokio::test]
async fn little_is_written_ahead_of_a_client_that_does_not_read() {
    let written = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&written);
    let served = start(Limits { unread_max: 64 << 10, ..Limits::default() }, move |_| {
        let body = Endless(Arc::clone(&counter));
        async { Response::new(body) }
    });
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.set_recv_buffer_size(8 << 10).expect("a small buffer");
    let mut stream = socket.connect(served.address).await.expect("accepted");
    stream.write_all(GET).await.expect("open");
    let mut before = 0;
    while before == 0 || before != written.load(Ordering::Relaxed) {
        before = written.load(Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(before < 512 << 10, "{before} bytes");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_cut() {
    let (client, server) = tokio::io::duplex(16);
    let stats = Arc::new(ListenerStats::default());
    let mut server = Unstalled::new(server, Duration::from_millis(50), Arc::clone(&stats));
    let error =
        tokio::time::timeout(SOON, server.write_all(&[0; 64])).await.expect("cut").expect_err("stalled");
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    assert_eq!(stats.stalled.load(Ordering::Relaxed), 1);
    drop(client);
}

#[tokio::test]
async fn a_client_that_reads_slowly_is_not_cut() {
    let (mut client, server) = tokio::io::duplex(16);
    let stats = Arc::new(ListenerStats::default());
    let mut server = Unstalled::new(server, Duration::from_millis(200), Arc::clone(&stats));
    let writing = tokio::spawn(async move { server.write_all(&[0; 160]).await });
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_millis(40)).await;
        client.read_exact(&mut [0; 16]).await.expect("bytes");
    }
    writing.await.expect("no panic").expect("all written, in longer than the patience");
}

/// A body of frames that are all there.
struct Frames(Vec<Bytes>);

impl http_body::Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop().map(Frame::data).map(Ok))
    }
}

/// A body without end, which counts the bytes that were taken from it.
struct Endless(Arc<AtomicUsize>);

impl http_body::Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        const FRAME: &[u8] = &[b'x'; 16 << 10];
        self.0.fetch_add(FRAME.len(), Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(FRAME)))))
    }
}
