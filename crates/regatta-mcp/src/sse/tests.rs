//! What the framer does with whole, cut, broken and hostile streams.

use bytes::Bytes;

use super::{Event, Framer, TooLarge};
use crate::testing::Dice;

/// The four facts of an event.
type Facts = (Option<String>, Option<String>, Option<String>, Option<u64>);

fn frame(chunks: &[&[u8]]) -> (Vec<Event>, Option<Bytes>) {
    let mut framer = Framer::new(1 << 20);
    let mut events = Vec::new();
    for chunk in chunks {
        framer.push(Bytes::copy_from_slice(chunk));
        while let Some(event) = framer.next().expect("within the bound") {
            events.push(event);
        }
    }
    let left = framer.finish();
    (events, left)
}

fn text(bytes: &Option<Bytes>) -> Option<String> {
    bytes.as_ref().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

fn facts(events: &[Event]) -> Vec<Facts> {
    let loud = events.iter().filter(|event| !event.is_quiet());
    loud.map(|event| (text(&event.data), text(&event.id), text(&event.event), event.retry_ms)).collect()
}

/// The specification's algorithm, on a whole stream, as plainly as can be.
fn reference(stream: &[u8]) -> Vec<Facts> {
    let stream = String::from_utf8_lossy(stream).replace("\r\n", "\n").replace('\r', "\n");
    let stream = stream.strip_prefix('\u{feff}').unwrap_or(&stream);
    let Some(end) = stream.rfind('\n') else { return Vec::new() };
    let mut all = Vec::new();
    let mut now: Facts = (None, None, None, None);
    for line in stream[..end].split('\n') {
        let (name, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value).to_owned();
        match name {
            "" if line.is_empty() => {
                let event = std::mem::take(&mut now);
                if event != (None, None, None, None) {
                    all.push(event);
                }
            }
            "data" => now.0 = Some(now.0.map_or(value.clone(), |data| format!("{data}\n{value}"))),
            "id" if !value.contains('\0') => now.1 = Some(value),
            "event" => now.2 = Some(value),
            "retry" if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) => {
                now.3 = Some(value.parse::<u64>().unwrap_or(u64::MAX).clamp(1_000, 3_600_000));
            }
            _ => {}
        }
    }
    all
}

fn one(stream: &str) -> Event {
    let (events, left) = frame(&[stream.as_bytes()]);
    assert_eq!(left, None);
    assert_eq!(events.len(), 1, "{events:?}");
    events.into_iter().next().unwrap_or_default()
}

#[test]
fn reads_every_field() {
    let event = one("id: 7\nevent: message\nretry: 5000\ndata: {\"a\":\ndata: 1}\nother: x\nnothing\n\n");
    assert_eq!(text(&event.data).as_deref(), Some("{\"a\":\n1}"));
    assert_eq!(text(&event.id).as_deref(), Some("7"));
    assert_eq!(text(&event.event).as_deref(), Some("message"));
    assert_eq!(event.retry_ms, Some(5000));
}

#[test]
fn only_one_blank_belongs_to_the_syntax() {
    assert_eq!(text(&one("data:  x\n\n").data).as_deref(), Some(" x"));
    assert_eq!(text(&one("data:x\n\n").data).as_deref(), Some("x"));
    assert_eq!(text(&one("data\n\n").data).as_deref(), Some(""));
}

#[test]
fn i125_an_id_with_nul_is_ignored_and_retry_is_clamped() {
    assert_eq!(one("id: a\0b\ndata: x\n\n").id, None);
    assert_eq!(text(&one("id\ndata: x\n\n").id).as_deref(), Some(""));
    assert_eq!(one("retry: 0\n\n").retry_ms, Some(1_000));
    assert_eq!(one("retry: 99999999999999999999999\n\n").retry_ms, Some(3_600_000));
    for bad in ["retry: 1e3\ndata\n\n", "retry:\ndata\n\n", "retry: -1\ndata\n\n"] {
        assert_eq!(one(bad).retry_ms, None, "{bad}");
    }
}

#[test]
fn a_byte_order_mark_counts_only_at_the_start() {
    let (events, _) = frame(&[b"\xef", b"\xbb", b"\xbfdata: x\n\n\xef\xbb\xbfdata: y\n\n"]);
    assert_eq!(events[0].raw, "data: x\n\n");
    assert_eq!(facts(&events), [(Some("x".into()), None, None, None)]);
    let (events, _) = frame(&[b"\xef\xbb", b"data: x\n\n"]);
    assert!(facts(&events).is_empty());
}

#[test]
fn an_event_ends_at_once_also_on_a_carriage_return() {
    let mut framer = Framer::new(100);
    framer.push(Bytes::from_static(b"data: x\r\n\r"));
    assert_eq!(
        framer.next().map(|event| event.map(|event| event.raw)),
        Ok(Some(Bytes::from("data: x\r\n\r")))
    );
    framer.push(Bytes::from_static(b"\n"));
    assert_eq!(framer.next(), Ok(None));
    assert_eq!(framer.finish(), None);
}

#[test]
fn a_whole_event_is_not_copied() {
    let chunk = Bytes::from_static(b"data: one\n\nid: 1\ndata: two\n\n");
    let mut framer = Framer::new(100);
    framer.push(chunk.clone());
    let mut found = Vec::new();
    while let Ok(Some(event)) = framer.next() {
        found.extend(event.data);
    }
    assert_eq!(found, ["one", "two"]);
    assert_eq!(found[0].as_ptr(), chunk[6..].as_ptr());
}

#[test]
fn comments_between_events_are_reported_in_one_piece() {
    let (events, left) = frame(&[b":\r\n", b": a\n\n:b\n\n", b"\n:c\ndata: x\n\n"]);
    let raws: Vec<&[u8]> = events.iter().map(|event| &event.raw[..]).collect();
    assert_eq!(raws, [&b":\r\n"[..], b": a\n\n:b\n\n", b"\n:c\n", b"data: x\n\n"]);
    assert!(events[..3].iter().all(Event::is_quiet));
    assert_eq!(left, None);
}

#[test]
fn comments_without_end_are_neither_held_nor_refused() {
    let mut framer = Framer::new(8192);
    framer.push(Bytes::from(b":\n".repeat(100_000)));
    let mut bytes = 0;
    while let Some(event) = framer.next().expect("comments are not an event") {
        bytes += event.raw.len();
    }
    assert_eq!(bytes, 200_000);
}

#[test]
fn i124_an_event_beyond_the_bound_ends_the_stream() {
    for chunk in [
        "data: 0123456789\n\n",
        "0123456789012345678",
        ":01234567890123456789\n",
        "data: 1\ndata: 2\ndata: 3\n",
    ] {
        let mut framer = Framer::new(17);
        framer.push(Bytes::from(chunk));
        assert_eq!(framer.next(), Err(TooLarge { event_max: 17 }), "{chunk}");
        assert_eq!(framer.next(), Err(TooLarge { event_max: 17 }), "{chunk}");
    }
    let mut framer = Framer::new(18);
    framer.push(Bytes::from("data: 0123456789\n\n"));
    assert!(framer.next().is_ok_and(|event| event.is_some()));
    let mut framer = Framer::new(17);
    for _ in 0..17 {
        framer.push(Bytes::from("x"));
        assert_eq!(framer.next(), Ok(None));
    }
    framer.push(Bytes::from("x"));
    assert!(framer.next().is_err());
}

#[test]
fn what_never_ended_is_left_over() {
    let (events, left) = frame(&[b"data: x\n\ndata: y\n", b"da"]);
    assert_eq!(events.len(), 1);
    assert_eq!(left, Some(Bytes::from("data: y\nda")));
}

#[test]
fn any_cut_of_any_stream_gives_the_same_events() {
    const WORDS: [&str; 20] = [
        "data", "data: ", "id: ", "id", "event: e", "retry: ", "12", ":", ": c", " ", "\n", "\n", "\n\n",
        "\r", "\r\n", "\r\n\r\n", "\u{feff}", "\0", "é", "x",
    ];
    for seed in 0..3000 {
        let mut dice = Dice::new(seed);
        let mut stream = Vec::new();
        for _ in 0..dice.below(40) {
            stream.extend_from_slice(WORDS[dice.below(WORDS.len())].as_bytes());
        }
        let mut chunks = Vec::new();
        let mut rest = &stream[..];
        while !rest.is_empty() {
            let (chunk, more) = rest.split_at(1 + dice.below(rest.len().min(9)));
            chunks.push(chunk);
            rest = more;
        }
        let (whole, _) = frame(&[&stream]);
        let (cut, left) = frame(&chunks);
        assert_eq!(facts(&whole), reference(&stream), "seed {seed}: {:?}", String::from_utf8_lossy(&stream));
        assert_eq!(facts(&cut), facts(&whole), "seed {seed}: {:?}", String::from_utf8_lossy(&stream));
        let mut raws: Vec<u8> = cut.iter().flat_map(|event| event.raw.to_vec()).collect();
        raws.extend_from_slice(left.as_deref().unwrap_or_default());
        let sent = stream.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&stream);
        assert_eq!(
            raws.strip_suffix(b"\n").unwrap_or(&raws),
            sent.strip_suffix(b"\n").unwrap_or(sent),
            "seed {seed}"
        );
    }
}

#[test]
fn a_chunk_is_let_go_once_it_was_looked_at() {
    let mut framer = Framer::new(1000);
    let buffer = Bytes::from(b"data: whole\n\ndata: be".to_vec());
    framer.push(buffer.clone());
    assert_eq!(framer.next().unwrap().unwrap().data.unwrap(), "whole");
    assert_eq!(framer.next(), Ok(None));
    assert!(buffer.is_unique(), "a stream that waits keeps no buffer alive");
    framer.push(Bytes::from_static(b"gun\n\n"));
    assert_eq!(framer.next().unwrap().unwrap().data.unwrap(), "begun");
}
