//! What breaks, and whether the replica may have seen the request by then.

use super::{
    AsyncWriteExt, BodyExt, CallBounds, Duration, Instant, NotWritten, OK, SOON, Scripted, StatusCode,
    TcpListener, TcpStream, Upstreams, Written, alone, call, connects_within, not_written, replica, send,
    snapshot, upstreams, written,
};

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
