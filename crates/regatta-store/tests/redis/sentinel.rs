//! Failovers under sentinels (RELIABILITY F51, F52): what is lost, and for how long nothing can be written.

use std::sync::Once;
use std::time::{Duration, Instant};

use regatta_store::Store;
use regatta_testkit::eventually;
use regatta_testkit::redis::{Sentinels, sentinels};

use crate::kit::{SOON, connected, missing, options, write_until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f51_a_killed_master_is_followed_and_nothing_acknowledged_is_lost() {
    let mut servers = Sentinels::start().await;
    let (store, other) = (connected(options(&servers.url())).await, connected(options(&servers.url())).await);
    let began = Instant::now();
    let warm_up = write_until(&store, async || began.elapsed() > Duration::from_secs(1)).await;
    servers.servers[0].process.kill();
    let killed = Instant::now();
    let mut seen = write_until(&store, async || {
        killed.elapsed() > SOON
            || (killed.elapsed() > Duration::from_secs(5) && servers.master().is_some_and(|at| at != 0))
    })
    .await;
    seen.written.extend(warm_up.written);
    let lost = missing(&store, &other, &seen).await;
    let link = store.stats().link;
    println!("{} writes, {} kept, gap {:?}, lost {lost}, {link:?}", seen.written.len(), seen.kept, seen.gap);
    assert_eq!((lost, seen.errors), (0, vec![]));
    assert!(seen.kept > 0, "there was a gap");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f52_a_planned_failover_that_keeps_the_connection_loses_nothing() {
    let servers = Sentinels::start().await;
    let (store, other) = (connected(options(&servers.url())).await, connected(options(&servers.url())).await);
    let (began, failover) = (Instant::now(), Once::new());
    let seen = write_until(&store, async || {
        if began.elapsed() > Duration::from_secs(1) {
            failover
                .call_once(|| assert_eq!(servers.say(&["SENTINEL", "FAILOVER", sentinels::MASTER]), "OK"));
        }
        // A client that keeps to its connection writes to the old master for about 11 s.
        began.elapsed() > Duration::from_secs(14)
    })
    .await;
    let new =
        eventually("there is a new master", SOON, async || servers.master().filter(|at| *at != 0)).await;
    let lost = missing(&store, &other, &seen).await;
    let link = store.stats().link;
    println!(
        "{} writes in {:?}, {} kept, gap {:?}, master {new}, lost {lost}, written again {}, {link:?}",
        seen.written.len(),
        began.elapsed(),
        seen.kept,
        seen.gap,
        link.restored_writes
    );
    assert_eq!((lost, seen.errors), (0, vec![]));
    let per_second = seen.written.len() as u64 / 14;
    assert!(link.restored_writes < 5 * per_second, "the new master is followed long before 11 s are over");
}
