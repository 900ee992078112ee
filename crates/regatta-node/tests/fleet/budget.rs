//! A budget over a real Redis, which is killed meanwhile.

use std::time::Duration;

use regatta_node::{Budget, Settings, Share};
use regatta_testkit::redis::Server;

const SOON: Duration = Duration::from_secs(30);
const AT_ONCE: Duration = Duration::from_millis(300);

fn share(redis: &Server) -> Share {
    let settings = Settings { store_url: redis.url(), ..Settings::default() };
    Budget::new(4).over(2).expect("two each").share("database", &settings).expect("a good address")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_budget_is_shared_over_redis_and_goes_on_without_it() {
    let mut redis = Server::start(&[]).await;
    let (one, other) = (share(&redis), share(&redis));
    let mut held = Vec::new();
    for _ in 0..4 {
        held.push(one.acquire(SOON).await.expect("what nobody else wants"));
    }
    assert!(other.acquire(AT_ONCE).await.is_err(), "all four are in use");
    held.truncate(2);
    let others = [other.acquire(SOON).await.expect("one"), other.acquire(SOON).await.expect("and one")];
    assert!(one.acquire(AT_ONCE).await.is_err());

    redis.process.kill();
    held.clear();
    let alone = [one.acquire(SOON).await, one.acquire(SOON).await];
    assert!(alone.iter().all(Result::is_ok), "its fixed part needs no store");
    // Its leases are over by then.
    tokio::time::sleep(Duration::from_secs(7)).await;
    assert!(one.acquire(AT_ONCE).await.is_err(), "and is no more than that");

    redis.restart().await;
    drop(alone);
    drop(others);
    for _ in 0..4 {
        held.push(one.acquire(SOON).await.expect("all of it again"));
    }
}
