//! Data of tools: read as written, one of two writers wins, bounded, refused after the end, over by itself.

use std::time::Duration;

use bytes::Bytes;

use super::{Names, eventually};
use crate::data::SPACE_VALUES_MAX;
use crate::{Datum, Etag, SpaceName, Store, StoreError, Written};

const LIFE: Duration = Duration::from_secs(60);

pub(super) async fn run(store: &dyn Store, names: &Names) {
    what_was_written_is_read_and_the_wrong_version_is_refused(store, names).await;
    a_space_has_room_for_so_much(store, names).await;
    an_ended_space_takes_no_writes(store, names).await;
    a_space_is_over_by_itself(store, names).await;
}

pub(super) fn datum(names: &Names, number: u32, bytes: &'static [u8]) -> Datum {
    Datum { version: Etag(names.bytes(70, number)), bytes: Bytes::from_static(bytes) }
}

async fn write(store: &dyn Store, space: &SpaceName, expected: Option<&Datum>, next: &Datum) -> Written {
    let expected = expected.map(|datum| datum.version);
    let written = store.write_datum(space, "cart", expected, Some(next.clone()), LIFE).await;
    written.expect("a value can be written")
}

async fn what_was_written_is_read_and_the_wrong_version_is_refused(store: &dyn Store, names: &Names) {
    let (space, other) = (SpaceName(names.bytes(71, 1)), SpaceName(names.bytes(71, 2)));
    let (first, second) = (datum(names, 1, b"\x00\xffone"), datum(names, 2, b""));
    assert_eq!(store.datum(&space, "cart", LIFE).await, Ok(None));
    assert_eq!(write(store, &space, None, &first).await, Written::Done);
    assert_eq!(
        write(store, &space, None, &first).await,
        Written::Done,
        "the same write again changes nothing"
    );
    assert_eq!(store.datum(&space, "cart", LIFE).await, Ok(Some(first.clone())));
    assert_eq!(store.datum(&space, "other", LIFE).await, Ok(None));
    assert_eq!(store.datum(&other, "cart", LIFE).await, Ok(None));
    assert_eq!(write(store, &space, None, &second).await, Written::Lost(Some(first.clone())));
    assert_eq!(write(store, &space, Some(&first), &second).await, Written::Done);
    assert_eq!(
        write(store, &space, Some(&first), &datum(names, 3, b"x")).await,
        Written::Lost(Some(second.clone()))
    );
    assert_eq!(write(store, &other, Some(&first), &second).await, Written::Lost(None));
    let removed = store.write_datum(&space, "cart", Some(second.version), None, LIFE).await;
    assert_eq!(removed, Ok(Written::Done));
    assert_eq!(store.datum(&space, "cart", LIFE).await, Ok(None));
}

async fn a_space_has_room_for_so_much(store: &dyn Store, names: &Names) {
    let space = SpaceName(names.bytes(71, 3));
    let write = async |name: &str, number: u32, length: usize| {
        let next = Datum { version: Etag(names.bytes(72, number)), bytes: Bytes::from(vec![b'x'; length]) };
        store.write_datum(&space, name, None, Some(next), LIFE).await
    };
    assert_eq!(write("large", 1, 300 << 10).await, Err(StoreError::Full("bytes of a space")));
    assert_eq!(write("half", 2, 200 << 10).await, Ok(Written::Done));
    assert_eq!(write("rest", 3, 100 << 10).await, Err(StoreError::Full("bytes of a space")));
    let held = store.datum(&space, "half", LIFE).await.expect("it can be read").expect("it is there");
    let small = Datum { version: Etag(names.bytes(72, 4)), bytes: Bytes::from_static(b"small") };
    let written = store.write_datum(&space, "half", Some(held.version), Some(small), LIFE).await;
    assert_eq!(written, Ok(Written::Done), "a smaller value gives room back");
    assert_eq!(write("rest", 5, 100 << 10).await, Ok(Written::Done));
    for number in 2..SPACE_VALUES_MAX as u32 {
        assert_eq!(write(&format!("value {number}"), 100 + number, 1).await, Ok(Written::Done));
    }
    assert_eq!(write("one more", 6, 1).await, Err(StoreError::Full("values of a space")));
}

async fn an_ended_space_takes_no_writes(store: &dyn Store, names: &Names) {
    let space = SpaceName(names.bytes(71, 4));
    let first = datum(names, 10, b"one");
    assert_eq!(write(store, &space, None, &first).await, Written::Done);
    store.end_space(&space, LIFE).await.expect("a space can be ended");
    assert_eq!(store.datum(&space, "cart", LIFE).await, Ok(None));
    assert_eq!(write(store, &space, Some(&first), &datum(names, 11, b"two")).await, Written::Ended);
    assert_eq!(write(store, &space, None, &datum(names, 12, b"two")).await, Written::Ended);
}

async fn a_space_is_over_by_itself(store: &dyn Store, names: &Names) {
    let space = SpaceName(names.bytes(71, 5));
    let brief = Duration::from_millis(50);
    let written = store.write_datum(&space, "cart", None, Some(datum(names, 20, b"one")), brief).await;
    assert_eq!(written, Ok(Written::Done));
    let gone = async || {
        // Not by reading, which begins its life anew.
        tokio::time::sleep(brief * 2).await;
        store.datum(&space, "cart", brief).await.ok()?.is_none().then_some(())
    };
    eventually("a space of 50 ms is over", gone).await;
}
