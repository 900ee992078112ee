//! Answers of every framing, and of none: where they end, whatever the network makes of them.

mod checks;

use checks::{Ended, read};
use regatta_proxy::upstream::codec::{Broken, Lasts};

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
        (b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(), "", Lasts::ForMore),
        (b"HTTP/1.1 204 No Content\r\ncontent-length: 9\r\n\r\n".to_vec(), "", Lasts::UntilEnd),
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
