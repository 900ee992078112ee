//! What bytes mean, however they are split.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};

use super::request::RequestHead;
use super::{Broken, HeadReader, Lasts};
use crate::content::Kind;

/// How the reading of one answer ended.
#[derive(Debug, PartialEq, Eq)]
enum Ended {
    /// The head was refused.
    Refused(Broken),
    /// The connection ended in the head.
    NoHead,
    /// All came.
    Whole,
    /// The connection ended in the body.
    Cut,
    /// The body was malformed.
    Malformed,
}

/// One answer, read from `pieces` and then the end of the connection: its status, its body, whether the connection lasts.
fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Ended, u16, Vec<u8>, Lasts) {
    let mut pieces = pieces.into_iter();
    let mut heads = HeadReader::default();
    let mut received = loop {
        let Some(piece) = pieces.next() else { return (Ended::NoHead, 0, Vec::new(), Lasts::UntilEnd) };
        match heads.feed(piece) {
            Ok(None) => {}
            Ok(Some(received)) => break received,
            Err(broken) => return (Ended::Refused(broken), 0, Vec::new(), Lasts::UntilEnd),
        }
    };
    let mut body = received.ahead.to_vec();
    for mut piece in pieces {
        body.extend_from_slice(&received.reader.take(&mut piece));
        if received.reader.has_ended() && !piece.is_empty() {
            received.lasts = Lasts::UntilEnd;
        }
    }
    let ended = match () {
        () if received.reader.is_malformed() => Ended::Malformed,
        () if received.reader.close() => Ended::Whole,
        () => Ended::Cut,
    };
    (ended, received.head.status.as_u16(), body, received.lasts)
}

fn answer(rest: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{rest}").into_bytes()
}

/// Answers of every framing, with what they are when they come whole.
fn answers() -> Vec<(Vec<u8>, &'static str, Lasts)> {
    vec![
        (answer("content-length: 5\r\n\r\nhello"), "hello", Lasts::ForMore),
        (answer("Content-Length: 5\r\ncontent-length: 5\r\n\r\nhello"), "hello", Lasts::ForMore),
        (answer("content-length: 0\r\n\r\n"), "", Lasts::ForMore),
        (answer("transfer-encoding: chunked\r\n\r\n2\r\nhe\r\n003\r\nllo\r\n0\r\n\r\n"), "hello", Lasts::ForMore),
        (
            answer("Transfer-Encoding: Chunked\r\n\r\nA;x=\"1\"\r\n0123456789\r\n0 \t;y\r\nx: 1\r\ny: 2\r\n\r\n"),
            "0123456789",
            Lasts::ForMore,
        ),
        (answer("connection: Keep-Alive, CLOSE\r\ncontent-length: 2\r\n\r\n{}"), "{}", Lasts::UntilEnd),
        (b"HTTP/1.1 204 No Content\r\ncontent-length: 9\r\n\r\n".to_vec(), "", Lasts::ForMore),
        (b"HTTP/1.1 304 Not Modified\r\n\r\n".to_vec(), "", Lasts::ForMore),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}".to_vec(), "{}", Lasts::UntilEnd),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n1".to_vec(),
            "1",
            Lasts::ForMore,
        ),
    ]
}

#[test]
fn an_answer_is_the_same_wherever_it_is_split_and_cut_nowhere_but_at_its_end() {
    for (bytes, body, lasts) in answers() {
        let (ended, status, ..) = read([&bytes[..]]);
        assert_eq!(ended, Ended::Whole);
        for at in 0..bytes.len() {
            let (head, tail) = bytes.split_at(at);
            let whole = (Ended::Whole, status, body.as_bytes().to_vec(), lasts);
            let shown = bytes.escape_ascii();
            assert_eq!(read([head, tail]), whole, "{shown} split at {at}");
            let (ended, _, begun, _) = read([head]);
            assert!(ended == Ended::NoHead || ended == Ended::Cut, "{shown} cut at {at}: {ended:?}");
            assert!(body.as_bytes().starts_with(&begun));
        }
        assert_eq!(read(bytes.chunks(1)), (Ended::Whole, status, body.as_bytes().to_vec(), lasts));
    }
}

#[test]
fn a_body_without_a_length_ends_with_its_connection() {
    let (ended, _, body, lasts) = read([&answer("content-type: a/b\r\n\r\nhel")[..], b"lo"]);
    assert_eq!((ended, &body[..]), (Ended::Whole, &b"hello"[..]));
    // It lasts as far as its peer says; that it has ended is seen by who reads the end.
    assert_eq!(lasts, Lasts::ForMore);
}

#[test]
fn bytes_after_an_answer_make_its_connection_unfit() {
    for (bytes, body, _) in answers() {
        let surplus = [&bytes[..], b"HTTP/1.1 200 OK\r\n"].concat();
        for at in 0..surplus.len() {
            let (head, tail) = surplus.split_at(at);
            let (ended, _, found, lasts) = read([head, tail]);
            assert_eq!((ended, &found[..], lasts), (Ended::Whole, body.as_bytes(), Lasts::UntilEnd));
        }
    }
}

#[test]
fn framings_that_two_readers_could_read_in_two_ways_are_refused() {
    for head in [
        "content-length: 5\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n",
        "transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: gzip\r\n\r\n",
        "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "transfer-encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
        "content-length: 5\r\ncontent-length: 6\r\n\r\nhello",
        "content-length: 5, 5\r\n\r\nhello",
        "content-length: +5\r\n\r\nhello",
        "content-length: -1\r\n\r\n",
        "content-length: 0x5\r\n\r\nhello",
        "content-length: \r\n\r\nhello",
        "content-length: 18446744073709551616\r\n\r\n",
        "content-length : 5\r\n\r\nhello",
        " content-length: 5\r\n\r\nhello",
        "x: 1\r\n content-length: 5\r\n\r\nhello",
        "x: 1\0\r\ncontent-length: 5\r\n\r\nhello",
    ] {
        assert_eq!(read([&answer(head)[..]]).0, Ended::Refused(Broken::Malformed), "{head:?}");
    }
    for bytes in [
        &b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n"[..],
        b"HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 099 Low\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\0",
    ] {
        assert_eq!(read([bytes]).0, Ended::Refused(Broken::Malformed), "{}", bytes.escape_ascii());
    }
}

#[test]
fn chunks_are_read_strictly_and_what_came_before_the_fault_is_kept() {
    let long = "x".repeat(5 << 10);
    for rest in [
        "zz\r\n".to_owned(),
        "\r\n".to_owned(),
        ";x\r\n".to_owned(),
        "-1\r\n".to_owned(),
        "0x1\r\na\r\n".to_owned(),
        " 1\r\na\r\n".to_owned(),
        "1\na\r\n".to_owned(),
        "1\r\nab\r\n".to_owned(),
        "1\r\na\n0\r\n\r\n".to_owned(),
        "1\r\na\rx".to_owned(),
        "1 2\r\n".to_owned(),
        "11111111111111111\r\n".to_owned(),
        format!("1;{long}\r\na\r\n"),
        "1;a\nb\r\n".to_owned(),
        "0\r\nx: 1\n\r\n".to_owned(),
        "0\r\nx: 1\r\r\n".to_owned(),
        format!("0\r\n{}\r\n", "x: 1234567890\r\n".repeat(2 << 10)),
    ] {
        let bytes = answer(&format!("transfer-encoding: chunked\r\n\r\n2\r\n{{}}\r\n{rest}"));
        for pieces in [bytes.chunks(bytes.len()), bytes.chunks(1), bytes.chunks(7)] {
            let (ended, _, body, _) = read(pieces);
            assert_eq!(ended, Ended::Malformed, "{rest:.40?}");
            assert!(body.starts_with(b"{}"), "{rest:.40?}");
        }
    }
}

#[test]
fn a_head_has_a_bound_however_it_comes() {
    let endless = answer(&format!("x: {}", "y".repeat(70 << 10)));
    let lines = answer(&format!("{}\r\n", "x: 1\r\n".repeat(101)));
    let interim = b"HTTP/1.1 103 Early Hints\r\n\r\n".repeat(4000);
    for (bytes, sizes) in
        [(&endless, &[1000, 70 << 10][..]), (&lines, &[100 << 10, 100]), (&interim, &[29, 1 << 20])]
    {
        for size in sizes {
            assert_eq!(read(bytes.chunks(*size)).0, Ended::Refused(Broken::TooLarge), "{size}");
        }
    }
    let hundred = answer(&format!("{}content-length: 0\r\n\r\n", "x: 1\r\n".repeat(99)));
    assert_eq!(read([&hundred[..]]).0, Ended::Whole);
}

#[test]
fn the_kind_of_a_body_is_read_from_its_first_type_and_coding() {
    for (head, kind) in [
        ("content-type: Application/JSON; charset=utf-8\r\n", Kind::Json),
        ("content-type: text/event-stream\r\n", Kind::Events),
        ("content-type: text/event-stream\r\ncontent-encoding: gzip\r\n", Kind::Foreign),
        ("content-encoding: identity\r\ncontent-type: application/json\r\n", Kind::Json),
        ("content-type: text/html\r\ncontent-type: application/json\r\n", Kind::Foreign),
        ("", Kind::None),
    ] {
        let bytes = answer(&format!("{head}content-length: 0\r\n\r\n"));
        let received = HeadReader::default().feed(&bytes).expect("an answer").expect("whole");
        assert_eq!(received.head.kind, kind, "{head}");
    }
}

#[test]
fn a_request_is_written_with_our_length_and_in_the_parts_the_connection_takes() {
    let body = Bytes::from(vec![b'x'; 10_000]);
    let mut head = RequestHead::new(&Method::POST, b" /mcp HTTP/1.1\r\nhost: a\r\n");
    head.header(&HeaderName::from_static("x"), &HeaderValue::from_static("1"));
    let mut request = head.finish(body.clone());
    let whole = request.to_string();
    let expected = "POST /mcp HTTP/1.1\r\nhost: a\r\nx: 1\r\ncontent-length: 10000\r\n\r\n";
    assert!(whole.starts_with(expected) && whole.len() == expected.len() + body.len());
    assert!(request.is_untouched());
    for taken in 1.. {
        request.took(7.min(request.to_string().len()));
        assert!(!request.is_untouched());
        assert_eq!(request.to_string(), whole[whole.len().min(7 * taken)..]);
        if request.is_out() {
            break;
        }
    }
    let empty = |method| RequestHead::new(&method, b"\r\n").finish(Bytes::new()).to_string();
    assert_eq!(empty(Method::POST), "POST\r\ncontent-length: 0\r\n\r\n");
    assert_eq!(empty(Method::DELETE), "DELETE\r\n\r\n");
}
