//! Claims: one is the first, until it is over or given up.

use std::time::Duration;

use super::{Names, eventually};
use crate::{Claim, Store};

const TTL: Duration = Duration::from_secs(60);

pub(super) async fn run(store: &dyn Store, names: &Names) {
    one_of_several_is_the_first(store, names).await;
    a_claim_given_up_is_free(store, names).await;
    a_claim_ends_by_itself(store, names).await;
}

async fn claim(store: &dyn Store, digest: [u8; 16], ttl: Duration) -> Claim {
    store.claim(digest, ttl).await.expect("a claim can be made")
}

async fn one_of_several_is_the_first(store: &dyn Store, names: &Names) {
    assert_eq!(claim(store, names.bytes(30, 1), TTL).await, Claim::First);
    assert_eq!(claim(store, names.bytes(30, 1), TTL).await, Claim::Repeated);
    assert_eq!(claim(store, names.bytes(30, 2), TTL).await, Claim::First);
}

async fn a_claim_given_up_is_free(store: &dyn Store, names: &Names) {
    let digest = names.bytes(31, 1);
    assert_eq!(claim(store, digest, TTL).await, Claim::First);
    store.release(digest).await.expect("a claim can be given up");
    store.release(digest).await.expect("and again");
    assert_eq!(claim(store, digest, TTL).await, Claim::First);
}

async fn a_claim_ends_by_itself(store: &dyn Store, names: &Names) {
    let digest = names.bytes(32, 1);
    assert_eq!(claim(store, digest, Duration::from_millis(50)).await, Claim::First);
    let free = async || (claim(store, digest, Duration::from_millis(50)).await == Claim::First).then_some(());
    eventually("a claim of 50 ms is over", free).await;
}
