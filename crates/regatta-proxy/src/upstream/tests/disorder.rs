//! Answers that come before their request has gone out, and requests that cannot go out.

use super::{
    Arc, AsyncReadExt, BodyExt, Bytes, CallBounds, Method, SOON, Scripted, SendError, StatusCode, Upstream,
    UpstreamAnswer, Written, alone,
};

/// More than socket buffers on both sides hold.
const LARGE: usize = 32 << 20;

async fn send_large(upstream: &Arc<Upstream>) -> Result<UpstreamAnswer, SendError> {
    let large = upstream.request(&Method::POST).finish(Bytes::from(vec![b'x'; LARGE]));
    let bounds = CallBounds::default();
    let sent = upstream.send(upstream.lease(), large, &bounds);
    tokio::time::timeout(SOON, sent).await.expect("an answer or an error, soon")
}

#[tokio::test]
async fn an_answer_that_comes_early_is_an_answer_and_its_connection_ends_with_it() {
    let server = Scripted::start(|_, mut peer| async move {
        peer.stream.read_exact(&mut [0; 100]).await.expect("a beginning");
        peer.write(b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\n\r\n{}").await;
        let mut rest = vec![0; 1 << 20];
        while peer.stream.read(&mut rest).await.is_ok_and(|read| read > 0) {}
    })
    .await;
    let upstream = alone(server.port);
    for connects in 1..=2 {
        let answer = send_large(&upstream).await.expect("an answer");
        assert_eq!(answer.head.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(answer.body.collect().await.expect("whole").to_bytes(), "{}");
        let status = upstream.status();
        assert_eq!((status.connects, status.connections, status.in_flight), (connects, 0, 0));
    }
}

#[tokio::test]
async fn a_request_goes_on_out_while_its_early_answer_is_read() {
    let server = Scripted::start(|_, mut peer| async move {
        peer.stream.read_exact(&mut [0; 100]).await.expect("a beginning");
        peer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{").await;
        let mut read = 100;
        let mut some = vec![0; 1 << 20];
        while read < LARGE {
            match peer.stream.read(&mut some).await {
                Ok(0) | Err(_) => return,
                Ok(more) => read += more,
            }
        }
        peer.write(b"}").await;
        peer.closes().await;
    })
    .await;
    let upstream = alone(server.port);
    let answer = send_large(&upstream).await.expect("an answer");
    let whole = tokio::time::timeout(SOON, answer.body.collect()).await.expect("not stuck");
    assert_eq!(whole.expect("whole").to_bytes(), "{}");
    assert_eq!(upstream.status().connections, 0);
}

#[tokio::test]
async fn a_request_that_went_out_in_part_counts_as_written() {
    let server = Scripted::start(|_, mut peer| async move {
        peer.stream.read_exact(&mut [0; 100]).await.expect("a beginning");
    })
    .await;
    let upstream = alone(server.port);
    match send_large(&upstream).await {
        Err(SendError::Written { why: Written::Reset | Written::Closed }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!((upstream.in_flight(), upstream.status().connections), (0, 0));
}

#[tokio::test]
async fn an_answer_followed_by_garbage_is_whole_and_its_connection_is_not_used_again() {
    let server =
        Scripted::answering(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}HTTP/1.1 200 OK\r\n").await;
    let upstream = alone(server.port);
    for connects in 1..=3 {
        assert_eq!(super::call(&upstream).await, (StatusCode::OK, Bytes::from("{}")));
        let status = upstream.status();
        assert_eq!((status.connects, status.connections), (connects, 0));
    }
}
