//! The conformance suite: what every backend must do. A backend's tests call `run` with a fresh store.
//!
//! It panics with a sentence where a backend falls short. It needs no runtime of its own and leaves nothing that a
//! store shared with others would mind: all names in it are handed in as a seed.

use std::sync::Arc;

use bytes::Bytes;

use crate::{Buried, Cas, Etag, Store, StoredKey, Uuid16, Versioned, Warm};

/// Runs the whole suite. `seed` makes names that no other run uses; `day` is an issue day that is alive.
pub async fn run(store: &dyn Store, seed: u64, day: u32) {
    let names = Names { seed };
    a_session_has_no_record_at_first(store, &names).await;
    a_record_is_read_as_it_was_written(store, &names).await;
    one_of_several_first_writers_wins(store, &names).await;
    a_write_against_an_old_etag_loses(store, &names).await;
    the_same_write_again_is_done(store, &names).await;
    a_write_that_expects_a_record_loses_without_one(store, &names).await;
    a_forgotten_record_is_gone(store, &names).await;
    records_do_not_mix(store, &names).await;
    what_is_buried_stays_buried(store, &names, day).await;
    the_first_writer_of_a_key_wins(store, &names).await;
    many_records_come_back(store, &names).await;
}

/// Names of one run.
struct Names {
    seed: u64,
}

impl Names {
    fn bytes(&self, case: u8, number: u32) -> [u8; 16] {
        let mut bytes = [case; 16];
        bytes[..8].copy_from_slice(&self.seed.to_be_bytes());
        bytes[8..12].copy_from_slice(&number.to_be_bytes());
        bytes
    }

    fn session(&self, case: u8) -> Uuid16 {
        Uuid16(self.bytes(case, 0))
    }

    fn record(&self, case: u8, number: u32, value: &[u8]) -> Versioned {
        Versioned { etag: Etag(self.bytes(case, number)), value: Bytes::copy_from_slice(value) }
    }
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
    assert_eq!(store.is_buried(day, digest).await, Ok(false));
    for _ in 0..2 {
        store.bury(day, digest).await.expect("a token can be buried, and again");
        assert_ne!(
            store.buried(day, &digest),
            Buried::No,
            "buried is never denied by the gateway that buried"
        );
        assert_eq!(store.is_buried(day, digest).await, Ok(true));
    }
    store.tend();
    assert_eq!(store.is_buried(day, digest).await, Ok(true), "housekeeping leaves a living day alone");
    assert_eq!(store.is_buried(day, other).await, Ok(false));
    assert_eq!(store.is_buried(day - 1, digest).await, Ok(false));
}

async fn the_first_writer_of_a_key_wins(store: &dyn Store, names: &Names) {
    let fingerprint = (names.seed as u32).to_be_bytes();
    let first = StoredKey { fingerprint, secret: [1; 32], published_s: 1_800_000_000 };
    let second = StoredKey { fingerprint, secret: [2; 32], published_s: 1_800_000_001 };
    assert_eq!(store.put_key(first.clone()).await, Ok(first.clone()));
    assert_eq!(store.put_key(second).await, Ok(first.clone()));
    let keys = store.keys().await.expect("keys can be read");
    assert_eq!(keys.iter().filter(|key| key.fingerprint == fingerprint).collect::<Vec<_>>(), [&first]);
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
