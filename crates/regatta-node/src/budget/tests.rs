//! Budgets on a store in memory: what is refused, who gets what, who gives back.

use regatta_store::{Bounds, embedded};

use super::*;

const SOON: Duration = Duration::from_secs(20);

fn store() -> Arc<dyn Store> {
    Arc::new(embedded::open(None, Bounds::default()).expect("a store in memory"))
}

#[test]
fn a_budget_that_leaves_a_node_with_nothing_is_refused() {
    assert_eq!(Budget::new(100).over(8).map(|budget| budget.pool_size()), Ok(12));
    assert!(Budget::new(100).over(0).is_err());
    let why = Budget::new(3).over(4).expect_err("three for four").to_string();
    assert!(why.contains("budget of 3") && why.contains("4 nodes"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_share_what_there_is_and_never_use_more() {
    let (store, budget) = (store(), Budget::new(6).over(3).expect("two each"));
    let (one, other) =
        (budget.share_on(store.clone(), "database"), budget.share_on(store.clone(), "database"));
    let mut held = Vec::new();
    for _ in 0..6 {
        held.push(one.acquire(SOON).await.expect("alone in its use, a node gets all there is"));
    }
    let refused = other.acquire(Duration::from_millis(300)).await.err().expect("nothing is left");
    assert_eq!((refused.units, &*refused.name), (0, "database"));
    held.truncate(3);
    for _ in 0..3 {
        held.push(other.acquire(SOON).await.expect("what one gave back the other gets"));
    }
    assert!(one.acquire(Duration::from_millis(300)).await.is_err());
    assert_eq!((one.units(), other.units()), (3, 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_leaves_gives_back_at_once() {
    let (store, budget) = (store(), Budget::new(2).over(2).expect("one each"));
    let leaver = budget.share_on(store.clone(), "api");
    let units = [leaver.acquire(SOON).await, leaver.acquire(SOON).await];
    assert!(units.iter().all(Result::is_ok));
    drop(units);
    leaver.leave().await;
    let heir = budget.share_on(store, "api");
    let _first = heir.acquire(SOON).await.expect("one");
    let _second = heir.acquire(SOON).await.expect("and the other, before any lease is over");
}
