//! The registry: nodes come, beat, change and leave; strings come back as they were written.

use std::time::Duration;

use super::{Names, eventually};
use crate::{Beat, NodeFields, Store};

const TTL: Duration = Duration::from_secs(60);

pub(super) async fn run(store: &dyn Store, names: &Names) {
    a_node_is_seen_as_it_registered(store, names).await;
    a_beat_sets_its_fields_and_leaves_the_others(store, names).await;
    a_node_that_is_not_registered_is_told_so(store, names).await;
    a_node_without_a_beat_is_gone(store, names).await;
    a_node_that_is_too_large_is_refused(store, names).await;
}

pub(super) fn id(names: &Names, number: u32) -> String {
    format!("node-{:x}-{number}", names.seed)
}

pub(super) fn fields(pairs: &[(&str, &str)]) -> NodeFields {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

pub(super) async fn seen(store: &dyn Store, id: &str) -> Option<NodeFields> {
    store.nodes().await.expect("nodes can be read").nodes.remove(id)
}

async fn a_node_is_seen_as_it_registered(store: &dyn Store, names: &Names) {
    let id = id(names, 1);
    let first = fields(&[("status", "running"), ("tools", "[\"a\"]"), ("name", "Zürich \u{1F6A3}")]);
    store.register(&id, first.clone(), TTL).await.expect("a node can register");
    assert_eq!(seen(store, &id).await, Some(first));
    let second = fields(&[("status", "stopping")]);
    store.register(&id, second.clone(), TTL).await.expect("and again");
    assert_eq!(seen(store, &id).await, Some(second), "a registration replaces all fields");
    store.leave(&id).await.expect("a node can leave");
    store.leave(&id).await.expect("and again");
    assert_eq!(seen(store, &id).await, None);
}

async fn a_beat_sets_its_fields_and_leaves_the_others(store: &dyn Store, names: &Names) {
    let id = id(names, 2);
    store.register(&id, fields(&[("load", "1"), ("url", "u")]), TTL).await.expect("a node can register");
    assert_eq!(store.beat(&id, fields(&[("load", "2"), ("more", "m")]), TTL).await, Ok(Beat::Kept));
    assert_eq!(seen(store, &id).await, Some(fields(&[("load", "2"), ("more", "m"), ("url", "u")])));
    assert_eq!(store.beat(&id, NodeFields::new(), TTL).await, Ok(Beat::Kept));
    store.leave(&id).await.expect("a node can leave");
}

async fn a_node_that_is_not_registered_is_told_so(store: &dyn Store, names: &Names) {
    let id = id(names, 3);
    assert_eq!(store.beat(&id, fields(&[("load", "2")]), TTL).await, Ok(Beat::Unknown));
    assert_eq!(seen(store, &id).await, None, "a beat registers nobody");
}

async fn a_node_without_a_beat_is_gone(store: &dyn Store, names: &Names) {
    let id = id(names, 4);
    store
        .register(&id, fields(&[("load", "1")]), Duration::from_millis(50))
        .await
        .expect("a node can register");
    eventually("a lease of 50 ms is over", async || seen(store, &id).await.is_none().then_some(())).await;
    assert_eq!(store.beat(&id, NodeFields::new(), TTL).await, Ok(Beat::Unknown));
}

async fn a_node_that_is_too_large_is_refused(store: &dyn Store, names: &Names) {
    let id = id(names, 5);
    let large = fields(&[("tools", &"t".repeat(1 << 20))]);
    assert!(store.register(&id, large, TTL).await.is_err(), "a node is bounded");
    assert!(store.register("", NodeFields::new(), TTL).await.is_err(), "a node has a name");
    assert_eq!(seen(store, &id).await, None);
}
