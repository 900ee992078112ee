//! What is learned of a replica, and what a snapshot changes of it.

use super::{
    Arc, BodyExt, CallBounds, Duration, Instant, Micros, NotWritten, Notify, OK, Scheme, Scripted, Standing,
    StatusCode, Upstream, Upstreams, alone, call, connects_within, not_written, replica, send, snapshot,
    upstreams, written,
};

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
    let go = Arc::new(Notify::new());
    let (stays, leaves) = (Scripted::answering(OK).await, Scripted::halting(Arc::clone(&go)).await);
    let (upstreams, first) = upstreams(&[stays.port, leaves.port]);
    let second = upstreams.get(replica(leaves.port).id).expect("applied");
    call(&first).await;
    go.notify_one();
    call(&second).await;
    let busy = send(&second, &CallBounds::default()).await.expect("an answer");
    upstreams.apply(&snapshot(vec![replica(stays.port)]));
    assert!(Arc::ptr_eq(&first, &upstreams.get(first.id).expect("stays")));
    assert_eq!(first.status().idle, 1);
    assert!(upstreams.get(second.id).is_none());
    assert_eq!(second.status().connections, 1, "the busy one ends its work");
    go.notify_one();
    busy.body.collect().await.expect("whole");
    assert_eq!(second.status().connections, 0);
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
        let opening = String::from_utf8_lossy(&upstream.opening);
        assert_eq!(opening, format!(" /mcp HTTP/1.1\r\nhost: {expected}\r\n"));
        let candidate = upstream.candidate(&replica, Micros(0));
        assert_eq!((candidate.in_flight, candidate.ewma_us, candidate.standing), (0, 0, Standing::Good));
    }
}
