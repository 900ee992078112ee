//! Shared results: values that pass away, claims of fetches, purges by number.

use std::time::Duration;

use bytes::Bytes;

use super::{Names, eventually};
use crate::results::PURGED_THINGS_MAX;
use crate::{Fetch, Fetcher, Heed, Purged, ResultKey, ShelfName, Store};

const LONG: Duration = Duration::from_secs(60);
const ONE: Fetcher = Fetcher([1; 16]);
const OTHER: Fetcher = Fetcher([2; 16]);

pub(super) async fn run(store: &dyn Store, names: &Names) {
    a_value_is_found_with_its_age_until_its_life_is_over(store, names).await;
    one_fetches_until_it_shares_gives_up_or_dies(store, names).await;
    purges_are_numbered_and_told_apart(store, names).await;
    who_heeds_purges_is_known_until_its_word_is_over(store, names).await;
    beyond_the_bound_only_the_number_is_left(store, names).await;
}

fn key(names: &Names, number: u32) -> ResultKey {
    let mut key = [0; 32];
    key[..16].copy_from_slice(&names.bytes(60, number));
    ResultKey(key)
}

async fn a_value_is_found_with_its_age_until_its_life_is_over(store: &dyn Store, names: &Names) {
    let key = key(names, 1);
    assert_eq!(store.shared_result(&key).await, Ok(None));
    let value = Bytes::from_static(b"\x00\xffvalue");
    store.share_result(&key, ONE, value.clone(), LONG).await.expect("a result can be shared");
    let found = store.shared_result(&key).await.expect("it can be looked for").expect("it is there");
    assert_eq!(found.bytes, value);
    assert!(found.age < LONG / 2, "{:?}", found.age);
    let older = async || {
        let found = store.shared_result(&key).await.ok()??;
        (found.age >= Duration::from_millis(20)).then_some(())
    };
    eventually("a result grows older", older).await;
    store.share_result(&key, ONE, value, Duration::from_millis(50)).await.expect("and shared again");
    let gone = async || store.shared_result(&key).await.ok()?.is_none().then_some(());
    eventually("a result of 50 ms is over", gone).await;
}

async fn one_fetches_until_it_shares_gives_up_or_dies(store: &dyn Store, names: &Names) {
    let claim = async |number: u32, by: Fetcher, lease: Duration| {
        store.claim_fetch(&key(names, number), by, lease).await.expect("a fetch can be claimed")
    };
    assert_eq!(claim(2, ONE, LONG).await, Fetch::Yours);
    assert_eq!(claim(2, ONE, LONG).await, Fetch::Yours, "a claim is renewed by whoever has it");
    assert_eq!(claim(2, OTHER, LONG).await, Fetch::Others);
    store.give_up_fetch(&key(names, 2), OTHER).await.expect("nothing to give up");
    assert_eq!(claim(2, OTHER, LONG).await, Fetch::Others);
    store.give_up_fetch(&key(names, 2), ONE).await.expect("a claim can be given up");
    assert_eq!(claim(2, OTHER, LONG).await, Fetch::Yours);

    assert_eq!(claim(3, ONE, LONG).await, Fetch::Yours);
    let value = Bytes::from_static(b"value");
    store.share_result(&key(names, 3), ONE, value, LONG).await.expect("a result can be shared");
    assert_eq!(claim(3, OTHER, LONG).await, Fetch::Yours);

    assert_eq!(claim(4, ONE, Duration::from_millis(50)).await, Fetch::Yours);
    let free = async || (claim(4, OTHER, LONG).await == Fetch::Yours).then_some(());
    eventually("the claim of one who died is over", free).await;
}

async fn purged(store: &dyn Store, shelf: &ShelfName, epoch: u64, newest: u64) -> Option<Purged> {
    store.purged(shelf, epoch, newest, None).await.expect("purges can be asked for")
}

async fn purges_are_numbered_and_told_apart(store: &dyn Store, names: &Names) {
    let (shelf, other) = (ShelfName(names.bytes(61, 1)), ShelfName(names.bytes(61, 2)));
    let purge = async |thing: &'static [u8], by: Fetcher| {
        store.purge(&shelf, Bytes::from_static(thing), by).await.expect("a purge can be numbered")
    };
    let (epoch, first) = purge(b"a", ONE).await;
    assert_eq!(purge(b"b\x00", OTHER).await, (epoch, first + 1));
    assert_eq!(purge(b"a", OTHER).await, (epoch, first + 2));
    let mut told = purged(store, &shelf, 0, 0).await.expect("something new");
    told.things.sort();
    let things =
        vec![(Bytes::from_static(b"a"), first + 2, OTHER), (Bytes::from_static(b"b\x00"), first + 1, OTHER)];
    assert_eq!(told, Purged { epoch, newest: first + 2, things });
    assert_eq!(purged(store, &shelf, epoch, first + 2).await, None, "nothing new");
    let untouched = purged(store, &other, 0, 0).await;
    assert!(untouched.is_none_or(|purged| purged.newest == 0 && purged.things.is_empty()));
}

async fn who_heeds_purges_is_known_until_its_word_is_over(store: &dyn Store, names: &Names) {
    let shelf = ShelfName(names.bytes(61, 4));
    let purge = async || {
        let thing = Bytes::from_static(b"a");
        store.purge(&shelf, thing, ONE).await.expect("a purge can be numbered")
    };
    let heed = async |(epoch, newest): (u64, u64), by: Fetcher, life: Duration| {
        store.purged(&shelf, epoch, newest, Some(Heed { by, life })).await.expect("purges can be asked for")
    };
    let unheeded = async |number: u64, by: Fetcher| {
        store.unheeded(&shelf, number, by).await.expect("it can be asked who heeds them")
    };
    let first = purge().await;
    assert_eq!(unheeded(first.1, ONE).await, 0, "nobody gave a word");
    assert_eq!(heed(first, ONE, LONG).await, None);
    assert_eq!(heed(first, OTHER, LONG).await, None);
    assert_eq!(unheeded(first.1, ONE).await, 0);
    let second = purge().await;
    assert_eq!((unheeded(second.1, ONE).await, unheeded(second.1, OTHER).await), (1, 1));
    assert!(heed(first, OTHER, LONG).await.is_some(), "who does not know it gives no word");
    assert_eq!(unheeded(second.1, ONE).await, 1);
    assert_eq!(heed(second, OTHER, LONG).await, None);
    assert_eq!((unheeded(second.1, ONE).await, unheeded(second.1, OTHER).await), (0, 1));
    assert_eq!(heed(second, ONE, Duration::from_millis(50)).await, None);
    let third = purge().await;
    let over = async || (unheeded(third.1, OTHER).await == 0).then_some(());
    eventually("a word of 50 ms is over", over).await;
    assert_eq!(unheeded(third.1, ONE).await, 1);
}

async fn beyond_the_bound_only_the_number_is_left(store: &dyn Store, names: &Names) {
    let shelf = ShelfName(names.bytes(61, 3));
    let mut last = (0, 0);
    for number in 0..=PURGED_THINGS_MAX {
        last = store.purge(&shelf, Bytes::from(number.to_string()), ONE).await.expect("a purge is numbered");
    }
    let told = purged(store, &shelf, 0, 0).await.expect("something new");
    assert_eq!((told.epoch, told.newest), last);
    assert!(told.things.len() <= PURGED_THINGS_MAX);
    let after = store.purge(&shelf, Bytes::from_static(b"after"), OTHER).await.expect("and the next one");
    let told = purged(store, &shelf, 0, 0).await.expect("something new");
    let mut things = told.things;
    things.sort();
    let (all, next) =
        ((Bytes::new(), last.1, Fetcher([0; 16])), (Bytes::from_static(b"after"), after.1, OTHER));
    assert_eq!(things, [all, next], "what stands for all the others is not lost with the next");
}
