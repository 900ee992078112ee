//! Requests that are answered, and what becomes of their connections.

use super::{
    Arc, AsyncReadExt, BodyExt, Bytes, CallBounds, Duration, Method, Notify, OK, SOON, Scripted, StatusCode,
    alone, call, connects_within, mpsc, request, send,
};

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
async fn a_body_let_end_gives_the_connection_back_however_late_its_end_comes() {
    const HEAD: &[u8] =
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let (told, mut wanted) = mpsc::channel(1);
    let told = Arc::new(tokio::sync::Mutex::new((told, 0)));
    let server = Scripted::start(move |_, mut peer| {
        let told = told.clone();
        async move {
            while peer.request().await {
                let mut told = told.lock().await;
                told.1 += 1;
                peer.write(HEAD).await;
                // Odd answers end with their event, even ones when the event has been read.
                let (tail, later): (&[u8], &[u8]) =
                    if told.1 % 2 == 1 { (b"0\r\n\r\n", b"") } else { (b"", b"0\r\n\r\n") };
                peer.write(&[b"9\r\ndata: 1\n\n\r\n", tail].concat()).await;
                let (go, gone) = tokio::sync::oneshot::channel::<()>();
                told.0.send(go).await.expect("the test listens");
                let _ = gone.await;
                peer.write(later).await;
            }
        }
    })
    .await;
    let upstream = alone(server.port);
    for _ in 0..4 {
        let mut answer = send(&upstream, &CallBounds::default()).await.expect("an answer");
        answer.body.frame().await.expect("an event").expect("not broken");
        answer.body.let_end();
        drop(wanted.recv().await);
        while upstream.status().in_flight > 0 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(upstream.status().connects, 1);
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
async fn a_request_over_connections_max_waits_and_takes_the_connection_that_is_freed() {
    let go = Arc::new(Notify::new());
    let server = Scripted::halting(Arc::clone(&go)).await;
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
    go.notify_one();
    first.body.collect().await.expect("whole");
    go.notify_one();
    let second = second.await.expect("no panic").expect("an answer");
    second.body.collect().await.expect("whole");
    let status = upstream.status();
    assert_eq!((status.connects, status.reused, status.connections), (1, 1, 1));
}

#[tokio::test]
async fn idle_connections_are_closed_before_the_replica_would() {
    let server = Scripted::answering(OK).await;
    let upstream = alone(server.port);
    call(&upstream).await;
    let now = upstream.common.now();
    upstream.pool.sweep(now.after(Duration::from_secs(3)));
    assert_eq!(upstream.status().idle, 1);
    upstream.pool.sweep(now.after(super::super::pool::IDLE_TIMEOUT + Duration::from_secs(1)));
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
    let large = upstream.request(&Method::POST).finish(Bytes::from(vec![b'x'; SIZE]));
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
