//! The store's master dies, is replaced while its connections stay, or stalls, under two gateways in use; a third one that
//! knows nothing but the store judges what is left (RELIABILITY F50 to F54). A cluster's slots move, and its majority goes and comes
//! back (F55, F56). One store for all faults of a layout, one after another, where they leave it whole.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use regatta_testkit::redis::{Cluster, Sentinels, sentinels};
use regatta_testkit::{Gateway, Result, eventually};
use serde_json::json;

use crate::failover_load::{Judged, Load};
use crate::forgetful::{forget, seat};
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

/// A master, and slots of it that are in use: that of the day's ends, which every end writes, and others.
fn slots_in_use(store: &Cluster) -> (usize, BTreeSet<u16>) {
    const ENOUGH: usize = 40;
    let masters: BTreeSet<usize> = store.slots(0).into_iter().map(|run| run.2).collect();
    let keys_of = |at: usize, pattern: &str| store.members[at].say(&["KEYS", pattern]);
    let has_ends = |at: &usize| !keys_of(*at, "mcp:ended:*").is_empty();
    let from = masters.into_iter().find(has_ends).expect("sessions have ended");
    let keys = [keys_of(from, "mcp:ended:*"), keys_of(from, "mcp:*")].join("\n");
    let slots = keys.lines().filter_map(|key| store.slot_of(key, from)).take(ENOUGH).collect();
    (from, slots)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slots_that_move_under_load_fail_no_call_and_lose_no_session() -> Result<()> {
    let store = Cluster::start().await;
    let mut load = Load::begin(&store.url()).await?;
    let fault = Instant::now();
    let (first, slots) = slots_in_use(&store);
    let second = store.slots(0).into_iter().map(|run| run.2).find(|at| *at != first).expect("others");
    for (from, to) in [(first, second), (second, first)] {
        // What is there is found there, what is new is made at the new place.
        slots.iter().for_each(|slot| store.begin_to_move(*slot, from, to));
        load.goes_on().await;
        // All is at the new place, and the old one still has the slots.
        slots.iter().for_each(|slot| store.carry(*slot, from, to));
        load.goes_on().await;
        slots.iter().for_each(|slot| store.end_to_move(*slot, from, to));
        load.goes_on().await;
    }
    let [asks, moves, crossed] = ["ASK", "MOVED", "CROSSSLOT"].map(|name| store.errors(name));
    println!("{} slots there and back: {asks} times ASK, {moves} times MOVED", slots.len());
    assert_eq!(load.judge("slots move", fault).await?, Judged::default());
    assert!(asks > 0 && moves > 0, "the load was in the way of it");
    assert_eq!(crossed, 0);
    load.end();
    Ok(())
}

/// Until a gateway says that its store is away, and is ready all the same.
async fn degraded(gateway: &Gateway) {
    eventually("/ready says that the store is away", SOON, async || {
        let (status, text) = gateway.admin("/ready").await?;
        assert_eq!(status, 200, "a store that is away makes nobody leave: {text}");
        text.contains("the store is away").then_some(())
    })
    .await;
}

/// Two of the three masters, and their replicas.
fn majority(store: &Cluster) -> Vec<usize> {
    let left = store.slots(0)[0].2;
    let port = store.members[left].port().to_string();
    let is_left = |at: &usize| *at == left || store.members[*at].info("master_port") == Some(port.clone());
    (0..store.members.len()).filter(|at| !is_left(at)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_lost_its_majority_makes_only_ends_wait_and_is_taken_back() -> Result<()> {
    let mut store = Cluster::start_durable().await;
    let mut load = Load::begin(&store.url()).await?;
    let [one, two] = load.gateways.each_ref().map(Gateway::client);
    let known = one.initialize().await?;
    let home = seat(&known.call("work", json!({})).await?);

    let (fault, dead) = (Instant::now(), majority(&store));
    assert_eq!(dead.len(), 4);
    dead.iter().for_each(|at| store.members[*at].process.kill());
    let left = (0..6).find(|at| !dead.contains(at)).expect("a member");
    eventually("the rest refuses everything", SOON, async || {
        store.members[left].say(&["CLUSTER", "INFO"]).contains("cluster_state:fail").then_some(())
    })
    .await;
    for gateway in &load.gateways {
        degraded(gateway).await;
    }
    for client in [&one, &two] {
        client.modern().call("work", json!({})).await?.result()?;
        // By its token: the second one meets it only now.
        assert_eq!(seat(&known.through(client).call("work", json!({})).await?), home);
    }
    let fresh = two.initialize().await?;
    fresh.through(&one).call("work", json!({})).await?.result()?;
    assert_eq!(known.end().await?, 503, "an end that cannot be written down is not begun");
    assert_eq!(seat(&known.call("work", json!({})).await?), home, "and nothing was done");
    forget(&fresh).await?;
    let moved = fresh.call("work", json!({})).await?;
    assert!(crate::fleet::is_resumed(&moved), "a move is kept until it can be published: {}", moved.message);

    for at in dead {
        store.members[at].restart().await;
    }
    let judged = load.judge("a cluster's majority is away", fault).await?;
    assert!(judged.refused > 0, "ends had to wait: {judged:?}");
    assert_eq!(Judged { refused: 0, ..judged }, Judged::default());
    let there = fresh.through(&one).call("work", json!({})).await?;
    assert_eq!(seat(&there), seat(&moved), "the move was published");
    assert!(known.end().await?.is_success());
    eventually("its end is known everywhere", SOON, async || {
        let answer = known.through(&two).request("ping", json!({})).await.ok()?;
        (answer.status == 404).then_some(())
    })
    .await;
    load.end();
    Ok(())
}
