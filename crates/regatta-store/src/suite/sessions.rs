//! Records and tombstones: compare-and-set, meeting, forgetting, burying.

use std::sync::Arc;

use bytes::Bytes;

use super::Names;
use crate::{Buried, Cas, Etag, Grave, Met, Store, Uuid16, Versioned, Warm};

impl Names {
    fn record(&self, case: u8, number: u32, value: &[u8]) -> Versioned {
        Versioned { etag: Etag(self.bytes(case, number)), value: Bytes::copy_from_slice(value) }
    }
}

pub(super) async fn run(store: &dyn Store, names: &Names, day: u32) {
    a_session_has_no_record_at_first(store, names).await;
    a_record_is_read_as_it_was_written(store, names).await;
    one_of_several_first_writers_wins(store, names).await;
    a_write_against_an_old_etag_loses(store, names).await;
    the_same_write_again_is_done(store, names).await;
    a_write_that_expects_a_record_loses_without_one(store, names).await;
    a_forgotten_record_is_gone(store, names).await;
    records_do_not_mix(store, names).await;
    what_is_buried_stays_buried(store, names, day).await;
    a_session_is_met_with_its_record_and_its_grave(store, names, day).await;
    what_was_written_here_is_known_here(store, names).await;
    many_records_come_back(store, names).await;
}

async fn present(store: &dyn Store, session: &Uuid16) -> Option<Arc<Versioned>> {
    let read = store.read(session).await.expect("a record can be read");
    match store.warm(session) {
        Warm::Ask => {}
        Warm::None => assert_eq!(read, None, "warm says there is no record, and there is one"),
        Warm::Some(warm) => assert_eq!(Some(warm), read, "warm and read differ with nobody writing"),
    }
    read
}

async fn set(store: &dyn Store, session: &Uuid16, expected: Option<Etag>, next: Versioned) -> Cas {
    store.compare_and_set(session, expected, next).await.expect("a record can be written")
}

async fn a_session_has_no_record_at_first(store: &dyn Store, names: &Names) {
    assert_eq!(present(store, &names.session(1)).await, None);
    store.touch(&names.session(1));
    assert_eq!(present(store, &names.session(1)).await, None, "a touch makes no record");
}

async fn a_record_is_read_as_it_was_written(store: &dyn Store, names: &Names) {
    let session = names.session(2);
    let mut expected = None;
    for (number, value) in [&b""[..], &[0], &[0xff; 4096], b"\r\n\0"].into_iter().enumerate() {
        let record = names.record(2, number as u32, value);
        assert_eq!(set(store, &session, expected, record.clone()).await, Cas::Done);
        assert_eq!(present(store, &session).await.as_deref(), Some(&record));
        expected = Some(record.etag);
    }
}

async fn one_of_several_first_writers_wins(store: &dyn Store, names: &Names) {
    let session = names.session(3);
    let (first, second) = (names.record(3, 1, b"first"), names.record(3, 2, b"second"));
    assert_eq!(set(store, &session, None, first.clone()).await, Cas::Done);
    assert_eq!(set(store, &session, None, second).await, Cas::Lost(Some(Arc::new(first.clone()))));
    assert_eq!(present(store, &session).await.as_deref(), Some(&first));
}

async fn a_write_against_an_old_etag_loses(store: &dyn Store, names: &Names) {
    let session = names.session(4);
    let [one, two, three] = [1, 2, 3].map(|number| names.record(4, number, &[number as u8]));
    assert_eq!(set(store, &session, None, one.clone()).await, Cas::Done);
    assert_eq!(set(store, &session, Some(one.etag), two.clone()).await, Cas::Done);
    assert_eq!(set(store, &session, Some(one.etag), three).await, Cas::Lost(Some(Arc::new(two.clone()))));
    assert_eq!(present(store, &session).await.as_deref(), Some(&two));
}

async fn the_same_write_again_is_done(store: &dyn Store, names: &Names) {
    let session = names.session(5);
    let (one, two) = (names.record(5, 1, b"1"), names.record(5, 2, b"2"));
    assert_eq!(set(store, &session, None, one.clone()).await, Cas::Done);
    assert_eq!(set(store, &session, None, one.clone()).await, Cas::Done);
    assert_eq!(set(store, &session, Some(one.etag), two.clone()).await, Cas::Done);
    assert_eq!(set(store, &session, Some(one.etag), two.clone()).await, Cas::Done);
    assert_eq!(present(store, &session).await.as_deref(), Some(&two));
}

async fn a_write_that_expects_a_record_loses_without_one(store: &dyn Store, names: &Names) {
    let session = names.session(6);
    let (old, next) = (names.record(6, 1, b"1"), names.record(6, 2, b"2"));
    assert_eq!(set(store, &session, Some(old.etag), next).await, Cas::Lost(None));
    assert_eq!(present(store, &session).await, None);
}

async fn a_forgotten_record_is_gone(store: &dyn Store, names: &Names) {
    let session = names.session(7);
    store.forget(&session).await.expect("forgetting nothing is fine");
    assert_eq!(set(store, &session, None, names.record(7, 1, b"1")).await, Cas::Done);
    store.forget(&session).await.expect("a record can be forgotten");
    assert_eq!(present(store, &session).await, None);
    assert_eq!(set(store, &session, None, names.record(7, 2, b"2")).await, Cas::Done);
}

async fn records_do_not_mix(store: &dyn Store, names: &Names) {
    let (one, other) = (names.session(8), names.session(9));
    assert_eq!(set(store, &one, None, names.record(8, 1, b"one")).await, Cas::Done);
    assert_eq!(set(store, &other, None, names.record(9, 1, b"other")).await, Cas::Done);
    store.forget(&one).await.expect("a record can be forgotten");
    assert_eq!(present(store, &other).await.as_deref(), Some(&names.record(9, 1, b"other")));
}

async fn what_is_buried_stays_buried(store: &dyn Store, names: &Names, day: u32) {
    let (digest, other) = (names.bytes(10, 1), names.bytes(10, 2));
    assert_ne!(store.buried(day, &digest), Buried::Yes);
    assert_eq!(store.may_bury(day, digest).await, Ok(()));
    assert_eq!(store.is_buried(day, digest).await, Ok(false), "to ask leaves nothing");
    for _ in 0..2 {
        store.bury(day, digest).await.expect("a token can be buried, and again");
        assert_ne!(
            store.buried(day, &digest),
            Buried::No,
            "buried is never denied by the gateway that buried"
        );
        assert_eq!(store.is_buried(day, digest).await, Ok(true));
        assert_eq!(store.may_bury(day, digest).await, Ok(()), "and again");
        assert_eq!(store.is_buried(day, digest).await, Ok(true));
    }
    store.tend();
    assert_eq!(store.is_buried(day, digest).await, Ok(true), "housekeeping leaves a living day alone");
    assert_eq!(store.is_buried(day, other).await, Ok(false));
    assert_eq!(store.is_buried(day - 1, digest).await, Ok(false));
}

async fn a_session_is_met_with_its_record_and_its_grave(store: &dyn Store, names: &Names, day: u32) {
    let (session, digest) = (names.session(12), names.bytes(12, 1));
    let met = |record, grave| Ok(Met { record, grave });
    assert_eq!(store.meet(&session, day, digest).await, met(None, Grave::None));
    let record = names.record(12, 1, b"met");
    assert_eq!(set(store, &session, None, record.clone()).await, Cas::Done);
    let record = Arc::new(record);
    assert_eq!(store.meet(&session, day, digest).await, met(Some(record.clone()), Grave::None));
    store.bury(day, digest).await.expect("a token can be buried");
    assert_eq!(store.meet(&session, day, digest).await, met(Some(record), Grave::Dug));
    assert_ne!(store.buried(day, &digest), Buried::No);
}

async fn what_was_written_here_is_known_here(store: &dyn Store, names: &Names) {
    let (session, record) = (names.session(13), names.record(13, 1, b"mine"));
    assert_eq!(set(store, &session, None, record.clone()).await, Cas::Done);
    assert_eq!(store.last_known(&session), Warm::Some(Arc::new(record)));
    store.forget(&session).await.expect("a record can be forgotten");
    assert_eq!(store.last_known(&session), Warm::None);
}

async fn many_records_come_back(store: &dyn Store, names: &Names) {
    let session = |number| Uuid16(names.bytes(11, number));
    let value = |number: u32| vec![number as u8; number as usize % 300];
    for number in 0..2000 {
        assert_eq!(
            set(store, &session(number), None, names.record(11, number, &value(number))).await,
            Cas::Done
        );
    }
    for number in 0..2000 {
        let record = present(store, &session(number)).await.expect("what was written is there");
        assert_eq!(*record, names.record(11, number, &value(number)));
        store.forget(&session(number)).await.expect("a record can be forgotten");
    }
}
