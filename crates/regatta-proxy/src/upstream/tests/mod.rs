//! Behaviour against scripted replicas on loopback: each script is told which connection it serves, from 0.

mod tls;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use regatta_policy::balance::Standing;
use regatta_policy::snapshot::{
    Affinity, Balance, CallBounds, Cursors, Duty, Endpoint, Eras, Health, Limits, Origins, Replica, Scheme,
    Server, SessionState, Snapshot, UpstreamResume,
};
use regatta_policy::{Micros, ReplicaId};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

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
    }
}

fn snapshot(replicas: Vec<Replica>) -> Snapshot {
    let server = Server {
        name: "shop".to_owned(),
        path: "/mcp".to_owned(),
        balance: Balance::LeastLoad,
        session_state: SessionState::Unknown,
        affinity: Affinity::None,
        cursors: Cursors::Shared,
        upstream_resume: UpstreamResume::Unsupported,
        repeatable_tools: Vec::new(),
        call: CallBounds::default(),
        replicas,
    };
    Snapshot {
        version: 1,
        servers: vec![Arc::new(server)],
        limits: Arc::new(Limits::default()),
        admission: Arc::new(Origins::default()),
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

fn request(upstream: &Upstream) -> Request<Full<Bytes>> {
    let mut request = Request::post("/").body(Full::from("[]")).expect("valid");
    *request.uri_mut() = upstream.target.clone();
    request
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
        Err(SendError::NotWritten { why, request }) => {
            assert_eq!(request.uri(), &upstream.target, "the request comes back");
            why
        }
        other => panic!("{other:?}"),
    }
}

fn connects_within(timeout: Duration) -> CallBounds {
    CallBounds { connect_timeout: timeout, ..CallBounds::default() }
}

#[tokio::test]
async fn requests_in_a_row_use_one_connection() {
    let server = Scripted::answering(OK).await;
    let upstream = alone(server.port);
    for _ in 0..10 {
        assert_eq!(call(&upstream).await, (StatusCode::OK, Bytes::from("{}")));
    }
    let status = upstream.status();
    assert_eq!((status.connects, status.reused, status.idle, status.in_flight), (1, 9, 1, 0));
}

#[tokio::test]
async fn answers_of_every_framing_give_the_connection_back() {
    const ANSWERS: [&[u8]; 4] = [
        b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n1\r\n}\r\n0\r\ncontent-length: 3\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
    ];
    let server = Scripted::start(|_, mut peer| async move {
        for answer in ANSWERS.iter().cycle() {
            if !peer.request().await {
                return;
            }
            peer.write(answer).await;
        }
    })
    .await;
    let upstream = alone(server.port);
    for round in 0..8 {
        let (status, body) = call(&upstream).await;
        let expected = if round % 4 == 0 { (StatusCode::ACCEPTED, "") } else { (StatusCode::OK, "{}") };
        assert_eq!((status, &body[..]), (expected.0, expected.1.as_bytes()), "answer {round}");
    }
    assert_eq!(upstream.status().connects, 1);
}

#[tokio::test]
async fn host_is_added_and_the_target_is_the_endpoints_path() {
    let server = Scripted::start(|_, mut peer| async move {
        let mut head = [0; 256];
        let read = peer.stream.read(&mut head).await.expect("a request");
        let head = String::from_utf8_lossy(&head[..read]).into_owned();
        let port = peer.stream.local_addr().expect("bound").port();
        assert!(head.starts_with("POST /mcp HTTP/1.1\r\n"), "{head}");
        assert!(head.contains(&format!("host: 127.0.0.1:{port}\r\n")), "{head}");
        peer.write(OK).await;
    })
    .await;
    call(&alone(server.port)).await;
}

#[tokio::test]
async fn a_body_dropped_before_its_end_closes_the_connection_at_once() {
    let (told, mut closed) = mpsc::channel(1);
    let server = Scripted::start(move |_, mut peer| {
        let told = told.clone();
        async move {
            peer.request().await;
            peer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n").await;
            told.send(peer.closes().await).await.expect("the test listens");
        }
    })
    .await;
    let upstream = alone(server.port);
    let mut answer = send(&upstream, &CallBounds::default()).await.expect("an answer");
    let frame = answer.body.frame().await.expect("a frame").expect("whole");
    assert_eq!(frame.into_data().expect("data"), "data: 1\n\n");
    assert_eq!((upstream.in_flight(), upstream.status().connections), (1, 1));
    drop(answer);
    assert_eq!((upstream.in_flight(), upstream.status().connections), (0, 0));
    assert_eq!(closed.recv().await, Some(true));
}

#[tokio::test]
async fn a_dropped_wait_for_the_head_closes_the_connection_at_once() {
    let (told, mut events) = mpsc::channel(2);
    let server = Scripted::start(move |_, mut peer| {
        let told = told.clone();
        async move {
            told.send(peer.request().await).await.expect("the test listens");
            told.send(peer.closes().await).await.expect("the test listens");
        }
    })
    .await;
    let upstream = alone(server.port);
    let bounds = CallBounds::default();
    tokio::select! {
        _ = send(&upstream, &bounds) => panic!("nobody answers"),
        arrived = events.recv() => assert_eq!(arrived, Some(true)),
    }
    assert_eq!((upstream.in_flight(), upstream.status().connections), (0, 0));
    assert_eq!(events.recv().await, Some(true));
}

#[tokio::test]
async fn a_connection_that_the_replica_closed_while_idle_is_not_used() {
    let server = Scripted::start(|_, mut peer| async move {
        peer.request().await;
        peer.write(OK).await;
    })
    .await;
    let (upstreams, upstream) = upstreams(&[server.port]);
    call(&upstream).await;
    while upstream.status().idle > 0 {
        upstreams.sweep();
        tokio::task::yield_now().await;
    }
    assert_eq!(call(&upstream).await.0, StatusCode::OK);
    assert_eq!(upstream.status().connects, 2);
}

#[tokio::test]
async fn a_kept_connection_that_closes_on_a_request_may_have_executed_it_and_is_not_repeated() {
    let server = Scripted::start(|_, mut peer| async move {
        peer.request().await;
        peer.write(OK).await;
        peer.request().await;
    })
    .await;
    let upstream = alone(server.port);
    call(&upstream).await;
    let why = written(&upstream).await;
    assert!(matches!(why, Written::Closed | Written::Reset), "{why:?}");
    assert_eq!((server.requests(), upstream.status().connects), (2, 1));
}

#[tokio::test]
async fn bytes_that_nobody_asked_for_end_a_kept_connection() {
    let server = Scripted::start(|_, mut peer| async move {
        while peer.request().await {
            peer.write(OK).await;
            peer.write(OK).await;
        }
    })
    .await;
    let upstream = alone(server.port);
    for _ in 0..3 {
        call(&upstream).await;
        // The surplus answer must never be taken for the answer to the next request.
        let (upstream, connects) = (&upstream, upstream.status().connects);
        let gone = async {
            while upstream.status().idle > 0 {
                upstream.pool.sweep(upstream.common.now());
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(SOON, gone).await.expect("discarded");
        assert_eq!(upstream.status().connects, connects);
    }
}

#[tokio::test]
async fn connection_close_is_obeyed() {
    let server = Scripted::start(|_, mut peer| async move {
        peer.request().await;
        peer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}").await;
        assert!(peer.closes().await);
    })
    .await;
    let upstream = alone(server.port);
    for _ in 0..3 {
        call(&upstream).await;
        assert_eq!(upstream.status().connections, 0);
    }
}

#[tokio::test]
async fn what_breaks_after_the_write_is_told_apart() {
    let cases: [(&'static [u8], &[Written]); 5] = [
        (b"", &[Written::Closed, Written::Reset]),
        (b"HTTP/1.1 200 OK\r\ncontent-le", &[Written::Closed, Written::Reset, Written::Malformed]),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", &[Written::Malformed]),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 1, 2\r\n\r\n", &[Written::Malformed]),
        (
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
            &[Written::Malformed],
        ),
    ];
    for (bytes, expected) in cases {
        let server = Scripted::start(move |_, mut peer| async move {
            peer.request().await;
            peer.write(bytes).await;
        })
        .await;
        let upstream = alone(server.port);
        let why = written(&upstream).await;
        assert!(expected.contains(&why), "{why:?} for {}", bytes.escape_ascii());
        assert_eq!((server.requests(), upstream.in_flight(), upstream.status().connections), (1, 0, 0));
    }
}

#[tokio::test]
async fn a_head_over_its_bound_is_refused() {
    for (lines, length) in [(1, 80 << 10), (101, 1)] {
        let server = Scripted::start(move |_, mut peer| async move {
            peer.request().await;
            let line = format!("x: {}\r\n", "y".repeat(length)).repeat(lines);
            let head = format!("HTTP/1.1 200 OK\r\n{line}\r\n");
            let _ = peer.stream.write_all(head.as_bytes()).await;
            peer.closes().await;
        })
        .await;
        assert_eq!(written(&alone(server.port)).await, Written::HeadTooLarge);
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_lost() {
    let cases: [(&'static [u8], Written); 3] = [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{}", Written::Closed),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n", Written::Closed),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\nzz\r\n", Written::Malformed),
    ];
    for (bytes, expected) in cases {
        let server = Scripted::start(move |_, mut peer| async move {
            peer.request().await;
            peer.write(bytes).await;
        })
        .await;
        let upstream = alone(server.port);
        let answer = send(&upstream, &CallBounds::default()).await.expect("a head");
        let lost = answer.body.collect().await.expect_err("half a body");
        assert_eq!(lost.why, expected, "{}", bytes.escape_ascii());
        assert_eq!((upstream.in_flight(), upstream.status().connections), (0, 0));
    }
}

#[tokio::test]
async fn refused_unreachable_and_silent_are_told_apart() {
    let free = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        listener.local_addr().expect("bound").port()
    };
    assert_eq!(not_written(&alone(free), &CallBounds::default()).await, NotWritten::Refused);

    let mut nowhere = replica(free);
    nowhere.endpoint.host = "255.255.255.255".to_owned();
    let upstreams = Upstreams::new(Instant::now());
    upstreams.apply(&snapshot(vec![nowhere.clone()]));
    let upstream = upstreams.get(nowhere.id).expect("applied");
    assert_eq!(not_written(&upstream, &CallBounds::default()).await, NotWritten::Unreachable);
}

#[tokio::test]
async fn a_replica_that_accepts_no_connection_times_out() {
    let listener =
        socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    listener.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("loopback");
    listener.listen(0).expect("a backlog of nothing");
    let address = listener.local_addr().expect("bound").as_socket().expect("ip");
    let fill = Duration::from_millis(100);
    let mut filling = Vec::new();
    while let Ok(Ok(stream)) = tokio::time::timeout(fill, TcpStream::connect(address)).await {
        filling.push(stream);
    }
    let upstream = alone(address.port());
    assert_eq!(not_written(&upstream, &connects_within(fill)).await, NotWritten::ConnectTimedOut);
}

#[tokio::test]
async fn a_request_over_connections_max_waits_and_takes_the_connection_that_is_freed() {
    let server = Scripted::answering(OK).await;
    let upstream = alone(server.port);
    let bounds = CallBounds { connections_per_replica_max: 1, ..connects_within(SOON) };
    let first = send(&upstream, &bounds).await.expect("an answer");
    let second = tokio::spawn({
        let (upstream, bounds) = (Arc::clone(&upstream), bounds.clone());
        async move { send(&upstream, &bounds).await }
    });
    while upstream.in_flight() < 2 {
        tokio::task::yield_now().await;
    }
    assert!(!second.is_finished());
    first.body.collect().await.expect("whole");
    let second = second.await.expect("no panic").expect("an answer");
    second.body.collect().await.expect("whole");
    let status = upstream.status();
    assert_eq!((status.connects, status.reused, status.connections), (1, 1, 1));
}

#[tokio::test]
async fn a_request_over_connections_max_gives_up_and_nothing_is_held_against_the_replica() {
    const STREAM: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: 1\n\n";
    let server = Scripted::answering(STREAM).await;
    let (upstreams, upstream) = upstreams(&[server.port, 1]);
    let bounds = CallBounds { connections_per_replica_max: 1, ..connects_within(Duration::from_millis(5)) };
    let _held = send(&upstream, &bounds).await.expect("an answer");
    for _ in 0..6 {
        assert_eq!(not_written(&upstream, &bounds).await, NotWritten::ConnectionsMax);
    }
    assert_eq!((server.requests(), upstream.status().ejected_for), (1, None));
    drop(upstreams);
}

#[tokio::test]
async fn five_failures_in_a_row_eject_and_the_cap_spares_the_other() {
    let broken = Scripted::answering(b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n").await;
    let closing = Scripted::start(|_, mut peer| async move {
        peer.request().await;
    })
    .await;
    let (upstreams, first) = upstreams(&[broken.port, closing.port]);
    let second = upstreams.get(replica(closing.port).id).expect("applied");
    for _ in 0..5 {
        assert_eq!(first.status().ejected_for, None);
        call(&first).await;
    }
    for _ in 0..5 {
        written(&second).await;
    }
    let standing =
        |upstream: &Upstream, port| upstream.candidate(&replica(port), upstream.common.now()).standing;
    assert_eq!(standing(&first, broken.port), Standing::Ejected);
    assert_eq!(standing(&second, closing.port), Standing::Good, "the last one is never ejected");
    assert!(first.status().ejected_for.is_some_and(|left| left > Duration::from_secs(25)));

    let later = first.common.now().after(Duration::from_secs(31));
    assert_eq!(first.candidate(&replica(broken.port), later).standing, Standing::Good, "a probe is due");
    first.begin(later);
    assert_eq!(first.candidate(&replica(broken.port), later).standing, Standing::Ejected, "and under way");
}

#[tokio::test]
async fn an_overloaded_replica_is_not_ejected() {
    let full = Scripted::answering(b"HTTP/1.1 503 Full\r\ncontent-length: 0\r\n\r\n").await;
    let (_upstreams, upstream) = upstreams(&[full.port, 1]);
    for _ in 0..10 {
        assert_eq!(call(&upstream).await.0, StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(upstream.status().ejected_for, None);
}

#[tokio::test]
async fn only_whole_plain_answers_are_latencies() {
    let server = Scripted::start(|_, mut peer| async move {
        for answer in [
            &b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n"[..],
            b"HTTP/1.1 200 OK\r\ncontent-type: Text/Event-Stream; x=y\r\ncontent-length: 9\r\n\r\ndata: 1\n\n",
            OK,
        ] {
            peer.request().await;
            peer.write(answer).await;
        }
        peer.closes().await;
    })
    .await;
    let upstream = alone(server.port);
    for _ in 0..2 {
        call(&upstream).await;
        assert_eq!(upstream.status().latency, None);
    }
    call(&upstream).await;
    assert!(upstream.status().latency.is_some());
}

#[tokio::test]
async fn a_new_snapshot_keeps_who_stays_and_closes_who_left() {
    let (stays, leaves) = (Scripted::answering(OK).await, Scripted::answering(OK).await);
    let (upstreams, first) = upstreams(&[stays.port, leaves.port]);
    let second = upstreams.get(replica(leaves.port).id).expect("applied");
    call(&first).await;
    call(&second).await;
    let busy = send(&second, &CallBounds::default()).await.expect("an answer");
    upstreams.apply(&snapshot(vec![replica(stays.port)]));
    assert!(Arc::ptr_eq(&first, &upstreams.get(first.id).expect("stays")));
    assert_eq!(first.status().idle, 1);
    assert!(upstreams.get(second.id).is_none());
    assert_eq!(second.status().connections, 1, "the busy one ends its work");
    busy.body.collect().await.expect("whole");
    assert_eq!(second.status().connections, 0);
}

#[tokio::test]
async fn idle_connections_are_closed_before_the_replica_would() {
    let server = Scripted::answering(OK).await;
    let upstream = alone(server.port);
    call(&upstream).await;
    let now = upstream.common.now();
    upstream.pool.sweep(now.after(Duration::from_secs(3)));
    assert_eq!(upstream.status().idle, 1);
    upstream.pool.sweep(now.after(super::pool::IDLE_TIMEOUT + Duration::from_secs(1)));
    assert_eq!(upstream.status().connections, 0);
}

#[tokio::test]
async fn a_large_request_and_a_large_answer_pass_whole() {
    const SIZE: usize = 3 << 20;
    let server = Scripted::start(|_, mut peer| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(peer.stream.read_u8().await.expect("a head"));
        }
        peer.stream.read_exact(&mut vec![0; SIZE]).await.expect("a large request");
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {SIZE}\r\n\r\n");
        peer.write(head.as_bytes()).await;
        peer.write(&vec![b'y'; SIZE]).await;
        peer.closes().await;
    })
    .await;
    let upstream = alone(server.port);
    let mut large = request(&upstream);
    *large.body_mut() = Full::from(vec![b'x'; SIZE]);
    let answer = upstream.send(upstream.lease(), large, &CallBounds::default()).await.expect("an answer");
    let body = answer.body.collect().await.expect("whole").to_bytes();
    assert!(body.len() == SIZE && body.iter().all(|byte| *byte == b'y'));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_share_few_connections_without_loss() {
    const BODY: &[u8] =
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\n[1,\r\n2\r\n2]\r\n0\r\n\r\n";
    let server = Scripted::start(|_, mut peer| async move {
        for number in 0.. {
            if !peer.request().await {
                return;
            }
            peer.write(if number % 2 == 0 { OK } else { BODY }).await;
        }
    })
    .await;
    let upstream = alone(server.port);
    let bounds = CallBounds { connections_per_replica_max: 8, ..connects_within(Duration::from_secs(60)) };
    let callers = (0..64).map(|_| {
        let (upstream, bounds) = (Arc::clone(&upstream), bounds.clone());
        tokio::spawn(async move {
            for _ in 0..50 {
                let answer = upstream.send(upstream.lease(), request(&upstream), &bounds).await.expect("one");
                let body = answer.body.collect().await.expect("whole").to_bytes();
                assert!(&body[..] == b"{}" || &body[..] == b"[1,2]");
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.expect("no panic");
    }
    let status = upstream.status();
    assert!(status.connects <= 8, "{status:?}");
    assert_eq!((server.requests(), status.in_flight, status.idle), (3200, 0, status.connections));
}

#[test]
fn an_unused_replica_has_a_host_for_every_kind_of_endpoint() {
    for (scheme, host, port, expected) in [
        (Scheme::Http, "shop.internal", 80, "shop.internal"),
        (Scheme::Https, "shop.internal", 443, "shop.internal"),
        (Scheme::Https, "shop.internal", 80, "shop.internal:80"),
        (Scheme::Http, "::1", 3001, "[::1]:3001"),
    ] {
        let mut replica = replica(port);
        (replica.endpoint.scheme, replica.endpoint.host) = (scheme, host.to_owned());
        let upstreams = Upstreams::new(Instant::now());
        upstreams.apply(&snapshot(vec![replica.clone()]));
        let upstream = upstreams.get(replica.id).expect("applied");
        assert_eq!(upstream.authority, expected);
        let candidate = upstream.candidate(&replica, Micros(0));
        assert_eq!((candidate.in_flight, candidate.ewma_us, candidate.standing), (0, 0, Standing::Good));
    }
}
