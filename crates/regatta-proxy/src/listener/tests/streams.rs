//! Answers whose length nobody knows: written by hyper when all of them is there, else by the connection itself.

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::*;

const SECOND: &[u8] = b"GET /second HTTP/1.1\r\nhost: x\r\n\r\n";

/// A body of frames that come when the test says so; an error cuts it.
struct Fed(UnboundedReceiver<Result<Bytes, &'static str>>, Option<oneshot::Sender<()>>);

impl http_body::Body for Fed {
    type Data = Bytes;
    type Error = &'static str;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, &'static str>>> {
        self.0.poll_recv(cx).map(|frame| frame.map(|frame| frame.map(Frame::data)))
    }
}

impl Drop for Fed {
    fn drop(&mut self) {
        _ = self.1.take().map(|left| left.send(()));
    }
}

type Feeder = UnboundedSender<Result<Bytes, &'static str>>;

/// Each request is answered with a stream that the test feeds; its receiver says when the body was dropped.
fn feeding() -> (Served, mpsc::UnboundedReceiver<(Feeder, oneshot::Receiver<()>)>) {
    let (announce, requests) = unbounded_channel();
    let listener = Listener::bind(&[SocketAddr::from(([127, 0, 0, 1], 0))]).expect("loopback");
    let address = listener.local_addr().expect("bound");
    let (drainer, drain) = drain_signal();
    let stats = Arc::new(ListenerStats::default());
    let limits = Arc::new(ArcSwap::from_pointee(Limits::default()));
    let handler = move |_: Box<Arrival>| {
        let ((feeder, frames), (left, has_left)) = (unbounded_channel(), oneshot::channel());
        announce.send((feeder, has_left)).expect("the test listens");
        async { Response::new(Fed(frames, Some(left))) }
    };
    let task = tokio::spawn(serve(listener, None, super::bounds(limits), handler, drain, Arc::clone(&stats)));
    (Served { address, stats, drainer, task }, requests)
}

fn say(feeder: &Feeder, text: &'static str) {
    feeder.send(Ok(Bytes::from_static(text.as_bytes()))).expect("the body is there");
}

/// Whether this is the head of a stream that the connection writes.
fn chunked(head: &str) -> bool {
    head.starts_with("HTTP/1.1 200 OK\r\n")
        && head.contains("\r\ntransfer-encoding: chunked\r\n")
        && head.contains("\r\ndate: ")
        && !head.contains("content-length")
}

#[tokio::test]
async fn pieces_go_out_as_chunks_when_they_come_and_the_connection_serves_on() {
    let (served, mut requests) = feeding();
    let mut stream = connect(&served).await;
    for request in [GET, SECOND] {
        stream.write_all(request).await.expect("open");
        let (feeder, _) = requests.recv().await.expect("a request");
        say(&feeder, "one");
        let head = read_until(&mut stream, b"3\r\none\r\n").await;
        assert!(chunked(&head), "{head}");
        say(&feeder, "two and more");
        assert_eq!(read_until(&mut stream, b"more\r\n").await, "c\r\ntwo and more\r\n");
        let long: &'static str = "x".repeat(100_000).leak();
        say(&feeder, long);
        say(&feeder, "!");
        let rest = read_until(&mut stream, b"!\r\n").await;
        assert!(rest.starts_with("186a0\r\nxxx") && rest.ends_with("xxx\r\n1\r\n!\r\n"), "{}", rest.len());
        drop(feeder);
        assert_eq!(read_until(&mut stream, b"0\r\n\r\n").await, "0\r\n\r\n");
    }
    assert_eq!(served.stats.accepted.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_stream_that_has_ended_already_has_a_length() {
    let served = start(Limits::default(), |_| async {
        Response::new(Frames(vec![Bytes::from_static(b"last"), Bytes::from_static(b"first ")]))
    });
    let mut stream = connect(&served).await;
    for _ in 0..2 {
        stream.write_all(GET).await.expect("open");
        let answer = read_until(&mut stream, b"last").await;
        assert!(
            answer.contains("\r\ncontent-length: 10\r\n") && answer.ends_with("\r\n\r\nfirst last"),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_request_that_came_during_a_stream_is_answered_after_it() {
    let (served, mut requests) = feeding();
    let mut stream = connect(&served).await;
    stream.write_all(&[GET, SECOND].concat()).await.expect("open");
    let (first, _) = requests.recv().await.expect("a request");
    read_until(&mut stream, b"\r\n\r\n").await;
    // A third one comes while hyper is away.
    stream.write_all(SECOND).await.expect("open");
    say(&first, "a");
    drop(first);
    read_until(&mut stream, b"0\r\n\r\n").await;
    for _ in 0..2 {
        let (next, _) = requests.recv().await.expect("another request");
        let head = read_until(&mut stream, b"\r\n\r\n").await;
        assert!(chunked(&head), "{head}");
        say(&next, "b");
        drop(next);
        assert_eq!(read_until(&mut stream, b"0\r\n\r\n").await, "1\r\nb\r\n0\r\n\r\n");
    }
}

#[tokio::test]
async fn a_client_that_leaves_drops_the_body() {
    let (served, mut requests) = feeding();
    let mut stream = connect(&served).await;
    stream.write_all(GET).await.expect("open");
    let (feeder, left) = requests.recv().await.expect("a request");
    say(&feeder, "one");
    read_until(&mut stream, b"one\r\n").await;
    drop(stream);
    tokio::time::timeout(SOON, left).await.expect("soon").expect("dropped");
    until(|| served.stats.open() == 0).await;
}

#[tokio::test]
async fn a_body_that_breaks_off_is_cut_without_an_end() {
    let (served, mut requests) = feeding();
    let mut stream = connect(&served).await;
    stream.write_all(GET).await.expect("open");
    let (feeder, _) = requests.recv().await.expect("a request");
    say(&feeder, "half");
    read_until(&mut stream, b"half\r\n").await;
    feeder.send(Err("broken")).expect("the body is there");
    closed(&mut stream).await;
}

#[tokio::test]
async fn the_connection_is_closed_after_a_stream_if_the_client_says_so_or_a_drain_began() {
    for says_close in [true, false] {
        let (served, mut requests) = feeding();
        let mut stream = connect(&served).await;
        let close = if says_close { "connection: keep-alive, Close\r\n" } else { "" };
        stream.write_all(format!("GET / HTTP/1.1\r\nhost: x\r\n{close}\r\n").as_bytes()).await.expect("open");
        let (feeder, _) = requests.recv().await.expect("a request");
        let head = read_until(&mut stream, b"\r\n\r\n").await;
        assert_eq!(head.contains("\r\nconnection: close\r\n"), says_close, "{head}");
        if !says_close {
            served.drainer.drain(SOON);
        }
        say(&feeder, "last");
        drop(feeder);
        assert_eq!(read_until(&mut stream, b"0\r\n\r\n").await, "4\r\nlast\r\n0\r\n\r\n");
        closed(&mut stream).await;
        served.drainer.drain(SOON);
        assert_eq!(served.ends().await, Ended { aborted: 0 });
    }
}

#[tokio::test]
async fn without_chunks_the_end_of_the_connection_ends_the_stream() {
    let (served, mut requests) = feeding();
    let mut stream = connect(&served).await;
    stream.write_all(b"GET / HTTP/1.0\r\nhost: x\r\n\r\n").await.expect("open");
    let (feeder, _) = requests.recv().await.expect("a request");
    say(&feeder, "all of it");
    let answer = read_until(&mut stream, b"of it").await;
    assert!(!answer.contains("chunked") && answer.ends_with("\r\n\r\nall of it"), "{answer}");
    drop(feeder);
    closed(&mut stream).await;
}
