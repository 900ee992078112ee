//! Spilled streams: every event once, in order, and a gap that is said.

use bytes::Bytes;

use super::Names;
use crate::{Course, Recalled, SpilledEvent, Store, StreamName};

/// More events than any backend's bounds in a test allow.
const MANY: u64 = 1500;

pub(super) async fn run(store: &dyn Store, names: &Names) {
    nothing_is_known_of_a_stream_that_was_not_spilled(store, names).await;
    events_come_back_once_and_in_order(store, names).await;
    an_end_is_remembered(store, names).await;
    a_gap_drops_what_was_before(store, names).await;
    the_oldest_events_go_when_there_are_too_many(store, names).await;
    streams_do_not_mix(store, names).await;
}

fn stream(names: &Names, case: u8, number: u64) -> StreamName {
    StreamName { session: names.session(case), number }
}

fn event(sequence: u64) -> SpilledEvent {
    SpilledEvent { sequence, bytes: Bytes::from(format!("event {sequence}\r\n\0\u{ff}")) }
}

async fn spill(store: &dyn Store, stream: StreamName, sequences: std::ops::Range<u64>, course: Course) {
    store.spill(stream, sequences.map(event).collect(), course).await.expect("events can be spilled");
}

async fn recall(store: &dyn Store, stream: StreamName, from: u64, events_max: usize) -> Recalled {
    let recalled = store.recall(stream, from, events_max).await.expect("a stream can be recalled");
    recalled.expect("it is known")
}

fn held(events: std::ops::Range<u64>, first: u64, next: u64, course: Course) -> Recalled {
    Recalled { events: events.map(event).collect(), first, next, course }
}

async fn nothing_is_known_of_a_stream_that_was_not_spilled(store: &dyn Store, names: &Names) {
    assert_eq!(store.recall(stream(names, 20, 0), 0, 10).await, Ok(None));
    store.discard(stream(names, 20, 0)).await.expect("nothing can be discarded");
}

async fn events_come_back_once_and_in_order(store: &dyn Store, names: &Names) {
    let stream = stream(names, 21, u64::MAX);
    spill(store, stream, 7..10, Course::Open).await;
    spill(store, stream, 7..10, Course::Open).await;
    spill(store, stream, 9..12, Course::Open).await;
    spill(store, stream, 8..8, Course::Open).await;
    assert_eq!(recall(store, stream, 0, 100).await, held(7..12, 7, 12, Course::Open));
    assert_eq!(recall(store, stream, 10, 100).await, held(10..12, 7, 12, Course::Open));
    assert_eq!(recall(store, stream, 8, 2).await, held(8..10, 7, 12, Course::Open));
    assert_eq!(recall(store, stream, 12, 2).await, held(12..12, 7, 12, Course::Open));
    assert_eq!(recall(store, stream, 99, 2).await, held(12..12, 7, 12, Course::Open));
    store.discard(stream).await.expect("a stream can be discarded");
    assert_eq!(store.recall(stream, 0, 10).await, Ok(None));
}

async fn an_end_is_remembered(store: &dyn Store, names: &Names) {
    let stream = stream(names, 22, 1);
    spill(store, stream, 0..2, Course::Ended).await;
    spill(store, stream, 0..2, Course::Open).await;
    assert_eq!(recall(store, stream, 0, 10).await, held(0..2, 0, 2, Course::Ended));
    let empty = self::stream(names, 22, 2);
    spill(store, empty, 0..0, Course::Ended).await;
    assert_eq!(recall(store, empty, 0, 10).await, held(0..0, 0, 0, Course::Ended));
}

async fn a_gap_drops_what_was_before(store: &dyn Store, names: &Names) {
    let stream = stream(names, 23, 1);
    spill(store, stream, 0..3, Course::Open).await;
    spill(store, stream, 5..7, Course::Open).await;
    assert_eq!(recall(store, stream, 0, 10).await, held(5..7, 5, 7, Course::Open));
}

async fn the_oldest_events_go_when_there_are_too_many(store: &dyn Store, names: &Names) {
    let stream = stream(names, 24, 1);
    for batch in 0..MANY / 100 {
        spill(store, stream, batch * 100..(batch + 1) * 100, Course::Open).await;
    }
    let recalled = recall(store, stream, 0, MANY as usize).await;
    assert!(recalled.first > 0 && recalled.first < MANY, "a stream is bounded, and not to nothing");
    assert_eq!(recalled, held(recalled.first..MANY, recalled.first, MANY, Course::Open));
    store.discard(stream).await.expect("a stream can be discarded");
}

async fn streams_do_not_mix(store: &dyn Store, names: &Names) {
    let (one, other) = (stream(names, 25, 1), stream(names, 25, 2));
    spill(store, one, 0..1, Course::Open).await;
    spill(store, other, 4..6, Course::Ended).await;
    assert_eq!(recall(store, one, 0, 10).await, held(0..1, 0, 1, Course::Open));
    assert_eq!(recall(store, other, 0, 10).await, held(4..6, 4, 6, Course::Ended));
}
