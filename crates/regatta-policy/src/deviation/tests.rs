//! Records come back as they were, change as the rules say, keep their bounds, and merge without losing an end.
//!
//! Random records and random damage stand in for what other versions and broken disks write.

use proptest::prelude::*;

use super::*;

const MAX: usize = 4;

fn at(replica: u8, session: &str) -> Binding {
    Binding { replica: ReplicaId([replica; 8]), upstream_session: Some(session.to_owned()) }
}

fn rehome(record: &mut Deviation, issued: &Binding, to: &Binding, etag: u8) -> Applied {
    record.apply(Change::Rehome { issued, to, etag: [etag; 16] }, MAX).unwrap()
}

#[test]
fn a_session_is_where_its_token_says_until_it_moves() {
    let (mut record, issued) = (Deviation::default(), at(1, "a"));
    assert_eq!(record.binding(&issued), (&issued, [0; 16]));
    assert_eq!(rehome(&mut record, &issued, &at(2, "b"), 1), Applied::Changed);
    assert_eq!(record.binding(&issued), (&at(2, "b"), [1; 16]));
    assert_eq!(rehome(&mut record, &issued, &at(3, "c"), 2), Applied::Changed);
    assert_eq!(record.binding(&issued), (&at(3, "c"), [2; 16]));
    assert_eq!(record.retired, [at(1, "a"), at(2, "b")]);
    assert_eq!(record.rebound.len(), 1);
    assert_eq!(rehome(&mut record, &issued, &at(3, "c"), 9), Applied::Same);
    let other = at(7, "other server");
    assert_eq!(record.binding(&other), (&other, [0; 16]), "another binding of the token is not concerned");
}

#[test]
fn an_upstream_session_that_is_deleted_or_lived_in_again_is_not_retired() {
    let (mut record, issued) = (Deviation::default(), at(1, "a"));
    rehome(&mut record, &issued, &at(2, "b"), 1);
    rehome(&mut record, &issued, &issued, 2);
    assert_eq!(record.retired, [at(2, "b")]);
    assert_eq!(record.apply(Change::Cleared(&at(2, "b")), MAX), Ok(Applied::Changed));
    assert_eq!(record.apply(Change::Cleared(&at(2, "b")), MAX), Ok(Applied::Same));
    assert!(record.retired.is_empty());
    let stateless = Binding { replica: ReplicaId([1; 8]), upstream_session: None };
    rehome(&mut record, &stateless, &at(2, "c"), 3);
    assert!(record.retired.iter().all(|retired| retired.upstream_session.is_some()));
}

#[test]
fn the_oldest_retired_session_is_forgotten_first() {
    let (mut record, issued) = (Deviation::default(), at(1, "0"));
    for number in 1..=RETIRED_MAX + 3 {
        rehome(&mut record, &issued, &at(2, &number.to_string()), 1);
    }
    assert_eq!(record.retired.len(), RETIRED_MAX);
    assert_eq!(record.retired[0], at(2, "3"));
}

#[test]
fn subscriptions_and_levels_change_once_and_are_bounded() {
    let mut record = Deviation::default();
    let mut apply = |change: Change<'_>| record.apply(change, 2);
    assert_eq!(apply(Change::Subscribe("a:1")), Ok(Applied::Changed));
    assert_eq!(apply(Change::Subscribe("a:1")), Ok(Applied::Same));
    assert_eq!(apply(Change::Subscribe(&"x".repeat(URI_MAX + 1))), Err(Refused::Uri));
    assert_eq!(apply(Change::Subscribe("a:2")), Ok(Applied::Changed));
    assert_eq!(apply(Change::Subscribe("a:3")), Err(Refused::Subscriptions));
    assert_eq!(apply(Change::Unsubscribe("a:1")), Ok(Applied::Changed));
    assert_eq!(apply(Change::Unsubscribe("a:1")), Ok(Applied::Same));
    assert_eq!(apply(Change::Subscribe("a:3")), Ok(Applied::Changed));
    assert_eq!(apply(Change::SetLogLevel(LogLevel::Error)), Ok(Applied::Changed));
    assert_eq!(apply(Change::SetLogLevel(LogLevel::Error)), Ok(Applied::Same));
    assert_eq!(apply(Change::SetLogLevel(LogLevel::Debug)), Ok(Applied::Changed));
}

fn settle(record: &mut Deviation, left: Option<&Binding>, to: &Binding, places: &[u8]) -> Applied {
    let places: Vec<ReplicaId> = places.iter().map(|place| ReplicaId([*place; 8])).collect();
    record.apply(Change::Settle { left, to, etag: [7; 16], places: &places }, MAX).unwrap()
}

#[test]
fn a_session_has_one_later_binding_for_all_places_that_would_do() {
    let mut record = Deviation::default();
    assert_eq!(settle(&mut record, None, &at(2, "b"), &[2, 3]), Applied::Changed);
    assert_eq!(settle(&mut record, None, &at(3, "c"), &[2, 3]), Applied::Same, "who was first stays");
    assert_eq!(record.later_at(&[ReplicaId([3; 8]), ReplicaId([2; 8])]).unwrap().to, at(2, "b"));
    assert_eq!(settle(&mut record, None, &at(4, "d"), &[4]), Applied::Changed);
    assert_eq!(record.later.len(), 2);
}

#[test]
fn a_lost_later_binding_is_replaced_once_and_retired() {
    let mut record = Deviation::default();
    settle(&mut record, None, &at(2, "b"), &[2, 3]);
    assert_eq!(settle(&mut record, Some(&at(2, "b")), &at(3, "c"), &[3]), Applied::Changed);
    assert_eq!(
        settle(&mut record, Some(&at(2, "b")), &at(3, "x"), &[3]),
        Applied::Same,
        "somebody did already"
    );
    assert_eq!(record.later.iter().map(|later| &later.to).collect::<Vec<_>>(), [&at(3, "c")]);
    assert_eq!(record.retired, [at(2, "b")]);
}

#[test]
fn the_oldest_later_binding_gives_way() {
    let mut record = Deviation::default();
    for n in 0..=LATER_MAX as u8 {
        settle(&mut record, None, &at(n, &n.to_string()), &[n]);
    }
    assert_eq!((record.later.len(), &record.retired[..]), (LATER_MAX, &[at(0, "0")][..]));
}

/// Replicas that keep sessions outside their processes know one session under one name.
#[test]
fn a_session_that_keeps_its_upstream_session_leaves_nothing_to_end() {
    let mut record = Deviation::default();
    rehome(&mut record, &at(1, "a"), &at(2, "a"), 1);
    rehome(&mut record, &at(1, "a"), &at(3, "a"), 2);
    settle(&mut record, None, &at(4, "a"), &[4]);
    settle(&mut record, Some(&at(4, "a")), &at(5, "b"), &[5]);
    assert_eq!(record.retired, []);
    let mut ours = Deviation { rebound: vec![], ..record.clone() };
    rehome(&mut ours, &at(1, "a"), &at(6, "a"), 3);
    assert_eq!(ours.merge(&record, 9).retired, []);
    rehome(&mut record, &at(1, "a"), &at(2, "c"), 4);
    assert_eq!(record.retired, [at(3, "a")], "only what nobody lives in any more");
    rehome(&mut record, &at(1, "a"), &at(1, "a"), 5);
    assert_eq!(record.retired, [at(2, "c")]);
}

#[test]
fn a_record_of_before_there_were_later_bindings_is_read() {
    let mut record = Deviation::default();
    record.apply(Change::Subscribe("a:1"), MAX).unwrap();
    let mut bytes = record.to_bytes();
    assert_eq!(bytes.pop(), Some(0), "the empty list is the last byte");
    assert_eq!(Deviation::from_bytes(&bytes), Ok(record));
}

#[test]
fn an_end_is_final() {
    let mut record = Deviation::default();
    assert_eq!(record.apply(Change::End, MAX), Ok(Applied::Changed));
    assert_eq!(record.apply(Change::End, MAX), Ok(Applied::Same));
    assert_eq!(record.apply(Change::Subscribe("a:1"), MAX), Err(Refused::Ended));
}

#[test]
fn levels_are_ordered_and_named_as_in_the_specification() {
    assert!(LogLevel::Warning.admits(LogLevel::Warning) && LogLevel::Warning.admits(LogLevel::Alert));
    assert!(!LogLevel::Warning.admits(LogLevel::Notice));
    assert!(LogLevel::ALL.into_iter().all(|level| LogLevel::named(level.as_str()) == Some(level)));
    assert_eq!(LogLevel::named("WARNING"), None);
}

#[test]
fn a_record_kept_apart_gives_way_in_bindings_and_loses_nothing_else() {
    let issued = at(1, "a");
    let (mut ours, mut theirs) = (Deviation::default(), Deviation::default());
    rehome(&mut ours, &issued, &at(2, "ours"), 1);
    rehome(&mut theirs, &issued, &at(3, "theirs"), 2);
    ours.apply(Change::Subscribe("a:1"), MAX).unwrap();
    theirs.apply(Change::Subscribe("a:2"), MAX).unwrap();
    theirs.apply(Change::SetLogLevel(LogLevel::Info), MAX).unwrap();
    let merged = ours.merge(&theirs, MAX);
    assert_eq!(merged.binding(&issued), (&at(3, "theirs"), [2; 16]));
    assert_eq!(merged.retired, [at(1, "a"), at(2, "ours")]);
    assert_eq!(merged.subscriptions.len(), 2);
    assert_eq!(merged.log_level, Some(LogLevel::Info));

    ours.apply(Change::SetLogLevel(LogLevel::Error), MAX).unwrap();
    ours.apply(Change::End, MAX).unwrap();
    let merged = ours.merge(&theirs, 1);
    assert!(merged.ended && ours.merge(&merged, MAX).ended && Deviation::default().merge(&merged, MAX).ended);
    assert_eq!(merged.log_level, Some(LogLevel::Error));
    assert_eq!(merged.subscriptions, theirs.subscriptions, "no room for one more");
    assert_eq!(ours.merge(&Deviation::default(), MAX), ours, "against nothing, everything of ours stands");
}

#[test]
fn fields_of_a_newer_gateway_are_skipped_and_another_layout_is_told_apart() {
    let mut record = Deviation::default();
    rehome(&mut record, &at(1, "a"), &at(2, "b"), 1);
    let mut bytes = record.to_bytes();
    bytes.extend_from_slice(b"later");
    assert_eq!(Deviation::from_bytes(&bytes), Ok(record));
    bytes[0] = 9;
    assert_eq!(Deviation::from_bytes(&bytes), Err(UnknownRecord));
    assert_eq!(Deviation::from_bytes(&[1, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f]), Err(UnknownRecord));
}

fn bindings() -> impl Strategy<Value = Binding> {
    (any::<u8>(), proptest::option::of(".{0,40}")).prop_map(|(replica, upstream_session)| Binding {
        replica: ReplicaId([replica; 8]),
        upstream_session,
    })
}

prop_compose! {
    fn records()(
        ended: bool,
        level in proptest::option::of(0..8usize),
        rebound in proptest::collection::btree_map(any::<u8>(), (bindings(), any::<[u8; 16]>()), 0..4),
        retired in proptest::collection::vec(bindings(), 0..4),
        subscriptions in proptest::collection::btree_set("[a-z]{1,8}:.{0,30}", 0..4),
        later in proptest::collection::btree_map(any::<u8>(), (".{0,40}", any::<[u8; 16]>()), 0..LATER_MAX),
    ) -> Deviation {
        let log_level = level.map(|at| LogLevel::ALL[at]);
        let rebound = rebound
            .into_iter()
            .map(|(issued, (to, etag))| Rebound { issued: ReplicaId([issued; 8]), to, etag })
            .collect();
        let later = later.into_iter().map(|(replica, (session, etag))| Later { to: at(replica, &session), etag });
        Deviation { ended, log_level, rebound, retired, subscriptions, later: later.collect() }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(10_000))]

    #[test]
    fn any_record_comes_back(record in records()) {
        prop_assert_eq!(Deviation::from_bytes(&record.to_bytes()), Ok(record));
    }

    #[test]
    fn no_bytes_make_it_panic(record in records(), at: usize, byte: u8, cut: usize) {
        let mut bytes = record.to_bytes();
        let length = bytes.len();
        bytes[at % length] = byte;
        bytes.truncate(length - cut % length);
        if let Ok(read) = Deviation::from_bytes(&bytes) {
            prop_assert_eq!(Deviation::from_bytes(&read.to_bytes()), Ok(read));
        }
    }

    #[test]
    fn a_merge_keeps_every_bound_and_every_binding_of_the_store(ours in records(), theirs in records()) {
        let merged = ours.merge(&theirs, MAX);
        prop_assert!(merged.subscriptions.len() <= MAX.max(theirs.subscriptions.len()));
        prop_assert!(merged.retired.len() <= RETIRED_MAX);
        for rebound in &merged.rebound {
            prop_assert!(!merged.retired.contains(&rebound.to), "what lives is not deleted");
        }
        for rebound in &theirs.rebound {
            prop_assert!(merged.rebound.contains(rebound));
        }
        prop_assert!(merged.later.len() <= LATER_MAX);
        for later in &merged.later {
            prop_assert!(!merged.retired.contains(&later.to), "what lives is not deleted");
            let there = merged.later.iter().filter(|other| other.to.replica == later.to.replica).count();
            prop_assert_eq!(there, 1, "two bindings at one place");
        }
        for later in &theirs.later {
            prop_assert!(merged.later.contains(later));
        }
        prop_assert_eq!(ours.merge(&merged, MAX).rebound, merged.rebound);
    }
}
