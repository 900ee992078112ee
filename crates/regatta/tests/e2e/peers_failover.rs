//! The store's master dies, is replaced while its connections stay, or stalls, under two gateways in use; a third one that
//! knows nothing but the store judges what is left (RELIABILITY F50 to F54). One store for all faults, one after another.

use std::time::{Duration, Instant};

use regatta_testkit::redis::{Cluster, Sentinels, sentinels};
use regatta_testkit::{Result, eventually};

use crate::failover_load::Load;
use crate::peers::SOON;

/// How long who stalls does so.
const STALL: Duration = Duration::from_secs(5);

/// Until the sentinels and the server itself agree that another one is master.
async fn replaced(store: &Sentinels, old: usize) -> usize {
    eventually("another master", SOON * 2, async || store.master().filter(|at| *at != old)).await
}

/// Until this server follows `master`, so that it can take its place.
async fn follows(store: &Sentinels, at: usize, master: usize) {
    let port = store.servers[master].port().to_string();
    eventually("it follows the master", SOON * 2, async || {
        let server = &store.servers[at];
        let follows = server.info("master_port") == Some(port.clone());
        (follows && server.info("master_link_status").as_deref() == Some("up")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_and_modern_calls_outlive_every_failover_of_their_sentinels_store() -> Result<()> {
    let mut store = Sentinels::start().await;
    let told = store.say_to_all(&["SENTINEL", "SET", sentinels::MASTER, "failover-timeout", "2000"]);
    assert_eq!(told, ["OK"; 3]);
    let mut load = Load::begin(&store.url()).await?;

    // The old master keeps its connections, and takes writes that nobody will see for some 11 s.
    let (fault, first) = (Instant::now(), store.master().expect("a master"));
    assert_eq!(store.say(&["SENTINEL", "FAILOVER", sentinels::MASTER]), "OK");
    let second = replaced(&store, first).await;
    load.judge("SENTINEL FAILOVER", fault).await?;

    // Behind the sentinels' back, and back again before they act on it.
    let third = 3 - first - second;
    follows(&store, third, second).await;
    for (from, to) in [(second, third), (third, second)] {
        let fault = Instant::now();
        let port = store.servers[to].port().to_string();
        assert_eq!(store.servers[from].say(&["FAILOVER", "TO", "127.0.0.1", &port]), "OK");
        eventually("it is master", SOON, async || {
            (store.servers[to].info("role").as_deref() == Some("master")).then_some(())
        })
        .await;
        load.judge("FAILOVER TO", fault).await?;
        follows(&store, from, to).await;
    }

    let fault = Instant::now();
    store.servers[second].process.stop();
    tokio::time::sleep(STALL).await;
    store.servers[second].process.go_on();
    let now = eventually("a master", SOON * 2, async || store.master()).await;
    load.judge("the master stalls", fault).await?;

    let fault = Instant::now();
    store.servers[now].process.kill();
    replaced(&store, now).await;
    load.judge("kill -9 of the master", fault).await?;

    let fault = Instant::now();
    store.stop();
    tokio::time::sleep(STALL).await;
    store.go_on();
    load.judge("the sentinels stall", fault).await?;
    load.end();
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_and_modern_calls_outlive_a_master_of_their_cluster() -> Result<()> {
    let mut store = Cluster::start().await;
    let mut load = Load::begin(&store.url()).await?;
    let (first, _, dead) = store.slots(0)[0];
    let asked = usize::from(dead == 0);
    let fault = Instant::now();
    store.members[dead].process.kill();
    eventually("its slots have another master", SOON * 2, async || {
        let owner = store.slots(asked).into_iter().find(|run| (run.0..=run.1).contains(&first))?.2;
        (owner != dead).then_some(())
    })
    .await;
    load.judge("kill -9 of a cluster's master", fault).await?;
    load.end();
    Ok(())
}
