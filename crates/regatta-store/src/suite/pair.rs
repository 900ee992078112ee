//! Two processes on one state: what one writes the other sees, and no later than a notice takes.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::calls::{attempt, call};
use super::data::datum;
use super::mail::{gateway, letter, wait_live};
use super::quotas::{ask, hourly};
use super::registry::{fields, id, seen};
use super::{Names, eventually};
use crate::{
    Begun, Buried, Cas, Claim, Course, Etag, QuotaAsk, QuotaGrant, SpaceName, SpilledEvent, Store,
    StreamName, Versioned, Warm, Written,
};

const TTL: Duration = Duration::from_secs(60);

pub(super) async fn run(one: &dyn Store, other: &dyn Store, names: &Names, day: u32) {
    a_change_is_seen_elsewhere(one, other, names).await;
    one_of_two_writers_at_once_wins(one, other, names).await;
    a_grave_is_seen_elsewhere(one, other, names, day).await;
    letters_and_claims_and_streams_and_nodes_cross(one, other, names).await;
    a_quota_is_one_for_both(one, other, names).await;
    data_and_calls_cross(one, other, names).await;
}

fn record(names: &Names, number: u32) -> Versioned {
    Versioned { etag: Etag(names.bytes(40, number)), value: Bytes::from(number.to_string()) }
}

async fn a_change_is_seen_elsewhere(one: &dyn Store, other: &dyn Store, names: &Names) {
    let session = names.session(41);
    assert_eq!(other.read(&session).await, Ok(None), "a session has no record at first");
    let mut expected = None;
    for number in 1..=5 {
        let next = record(names, number);
        assert_eq!(one.compare_and_set(&session, expected, next.clone()).await, Ok(Cas::Done));
        let warm = Warm::Some(Arc::new(next.clone()));
        let what = "what one wrote is not taken for something else by the other for long";
        eventually(what, async || {
            let asked = matches!(other.warm(&session), Warm::Ask).then(|| other.read(&session));
            if let Some(read) = asked {
                assert_eq!(read.await.expect("a record can be read").as_deref(), Some(&next));
                return Some(());
            }
            (other.warm(&session) == warm).then_some(())
        })
        .await;
        expected = Some(next.etag);
    }
    one.forget(&session).await.expect("a record can be forgotten");
    let gone = async || match other.warm(&session) {
        Warm::None => Some(()),
        Warm::Some(_) => None,
        Warm::Ask => other.read(&session).await.expect("a record can be read").is_none().then_some(()),
    };
    eventually("a forgotten record is forgotten elsewhere", gone).await;
}

async fn one_of_two_writers_at_once_wins(one: &dyn Store, other: &dyn Store, names: &Names) {
    for round in 0..50 {
        let session = crate::Uuid16(names.bytes(42, round));
        let (ours, theirs) = (record(names, 1000 + 2 * round), record(names, 1001 + 2 * round));
        let (first, second) = tokio::join!(
            one.compare_and_set(&session, None, ours.clone()),
            other.compare_and_set(&session, None, theirs.clone()),
        );
        match (first.expect("it can be written"), second.expect("it can be written")) {
            (Cas::Done, Cas::Lost(winner)) => assert_eq!(winner.as_deref(), Some(&ours)),
            (Cas::Lost(winner), Cas::Done) => assert_eq!(winner.as_deref(), Some(&theirs)),
            both => panic!("exactly one of two writers wins, not {both:?}"),
        }
    }
}

async fn a_grave_is_seen_elsewhere(one: &dyn Store, other: &dyn Store, names: &Names, day: u32) {
    let digest = names.bytes(43, 1);
    assert_eq!(other.is_buried(day, digest).await, Ok(false));
    one.bury(day, digest).await.expect("a token can be buried");
    let seen = async || match other.buried(day, &digest) {
        Buried::Yes => Some(()),
        Buried::No => None,
        Buried::Ask => other.is_buried(day, digest).await.expect("it can be asked").then_some(()),
    };
    eventually("a token buried by one is buried for the other", seen).await;
}

async fn data_and_calls_cross(one: &dyn Store, other: &dyn Store, names: &Names) {
    let space = SpaceName(names.bytes(45, 1));
    for number in 1..=20 {
        let next = datum(names, 1000 + number, b"value");
        let expected =
            other.datum(&space, "cart", TTL).await.expect("it can be read").map(|held| held.version);
        let written = one.write_datum(&space, "cart", expected, Some(next.clone()), TTL).await;
        assert_eq!(written, Ok(Written::Done), "the other reads what one wrote, at once");
        assert_eq!(other.datum(&space, "cart", TTL).await, Ok(Some(next)));
    }
    one.end_space(&space, TTL).await.expect("a space can be ended");
    let late = other.write_datum(&space, "cart", None, Some(datum(names, 1100, b"late")), TTL).await;
    assert_eq!(late, Ok(Written::Ended));

    for number in 1000..1020 {
        let call = call(names, number);
        let (ours, theirs) = (attempt(names, 2 * number), attempt(names, 2 * number + 1));
        let (first, second) =
            tokio::join!(one.begin_call(&call, ours, TTL, TTL), other.begin_call(&call, theirs, TTL, TTL),);
        let begun = [first.expect("it can be begun"), second.expect("it can be begun")];
        assert_eq!(begun.iter().filter(|begun| **begun == Begun::Yours).count(), 1, "one runs a call");
        assert!(begun.contains(&Begun::Running), "and the other is told so: {begun:?}");
        let (store, run) = if begun[0] == Begun::Yours { (one, ours) } else { (other, theirs) };
        store.end_call(&call, run, Bytes::from_static(b"done"), TTL).await.expect("a result is kept");
        let told = other.begin_call(&call, attempt(names, 9000), TTL, TTL).await;
        assert_eq!(told, Ok(Begun::Done(Bytes::from_static(b"done"))));
    }
}

async fn letters_and_claims_and_streams_and_nodes_cross(one: &dyn Store, other: &dyn Store, names: &Names) {
    let there = gateway(names, 44);
    let mut mailbox = other.enlist(there, TTL);
    wait_live(one, there, true).await;
    one.post(there, Bytes::from_static(b"hello")).await.expect("a letter can be sent");
    assert_eq!(letter(&mut mailbox).await, Bytes::from_static(b"hello"));

    let digest = names.bytes(44, 1);
    assert_eq!(one.claim(digest, TTL).await, Ok(Claim::First));
    assert_eq!(other.claim(digest, TTL).await, Ok(Claim::Repeated));

    let stream = StreamName { session: names.session(44), number: 5 };
    let event = SpilledEvent { sequence: 3, bytes: Bytes::from_static(b"event") };
    one.spill(stream, vec![event.clone()], Course::Ended).await.expect("events can be spilled");
    let recalled = other.recall(stream, 0, 10).await.expect("it can be recalled").expect("it is known");
    assert_eq!((recalled.events, recalled.course), (vec![event], Course::Ended));

    let (node, load) = (id(names, 44), fields(&[("load", "4")]));
    one.register(&node, load.clone(), TTL).await.expect("a node can register");
    assert_eq!(seen(other, &node).await, Some(load));
    other.leave(&node).await.expect("a node can be taken off");
    assert_eq!(seen(one, &node).await, None);
}

async fn a_quota_is_one_for_both(one: &dyn Store, other: &dyn Store, names: &Names) {
    let mut granted = 0;
    for round in 0..40 {
        let (store, holder) = if round % 2 == 0 { (one, 1) } else { (other, 2) };
        let grant = ask(store, QuotaAsk { holder, ..hourly(names, 50, 25) }).await;
        granted += u32::from(matches!(grant, QuotaGrant::Granted { .. }));
    }
    assert_eq!(granted, 25);
}
