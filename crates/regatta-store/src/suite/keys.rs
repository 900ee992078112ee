//! Sealing keys: the first writer wins, until the key is dropped.

use super::Names;
use crate::{Store, StoredKey};

pub(super) async fn run(store: &dyn Store, names: &Names) {
    the_first_writer_of_a_key_wins(store, names).await;
    keys_come_in_the_order_of_their_publication(store, names).await;
    a_dropped_key_is_gone_and_its_name_is_free(store, names).await;
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

async fn keys_come_in_the_order_of_their_publication(store: &dyn Store, names: &Names) {
    let key = |number: u8| StoredKey {
        fingerprint: [names.seed as u8, (names.seed >> 8) as u8, 200, number],
        secret: [number; 32],
        published_s: 1_800_000_100 + u64::from(number),
    };
    for number in [1, 2, 3] {
        store.put_key(key(number)).await.expect("a key can be published");
    }
    let kept = store.keys().await.expect("keys can be read");
    let ours: Vec<_> = kept.into_iter().filter(|kept| [1, 2, 3].map(key).contains(kept)).collect();
    assert_eq!(ours, [1, 2, 3].map(key));
}

async fn a_dropped_key_is_gone_and_its_name_is_free(store: &dyn Store, names: &Names) {
    let fingerprint = [names.seed as u8, (names.seed >> 8) as u8, 201, 1];
    let key = |secret| StoredKey { fingerprint, secret: [secret; 32], published_s: 1_800_000_200 };
    store.put_key(key(1)).await.expect("a key can be published");
    assert_eq!(store.drop_key(fingerprint).await, Ok(()));
    assert_eq!(store.drop_key(fingerprint).await, Ok(()), "there is none of that name");
    let kept = store.keys().await.expect("keys can be read");
    assert!(kept.iter().all(|kept| kept.fingerprint != fingerprint));
    assert_eq!(store.put_key(key(2)).await, Ok(key(2)));
    assert_eq!(store.drop_key(fingerprint).await, Ok(()));
}
