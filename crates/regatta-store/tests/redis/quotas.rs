//! Quotas while Redis is killed, wiped, full, or loses its connections (RELIABILITY F49, F57, F59, F63): never more than the
//! terms from one state, an error at once when there is none, and no key without an end.

use std::time::{Duration, Instant};

use regatta_store::{GatewayId, QuotaAsk, QuotaGrant, QuotaKey, QuotaTerms, QuotaWant, Quotas, StoreError};
use regatta_testkit::eventually;
use regatta_testkit::redis::{Cluster, Server};

use crate::kit::{SOON, connected, options, unique};

fn hourly(allow: u32) -> QuotaAsk {
    let mut key = [0x77; 24];
    key[..8].copy_from_slice(&unique().to_be_bytes());
    QuotaAsk {
        key: QuotaKey(key),
        terms: QuotaTerms::Window { allow, within_us: 3_600_000_000 },
        block_us: 0,
        holder: 1,
        used: 0,
        last_ago_us: 0,
        want: QuotaWant::AtOnce(1),
        extra: 0,
        term_us: 1_000_000,
    }
}

async fn ask(store: &dyn Quotas, ask: QuotaAsk) -> Result<QuotaGrant, StoreError> {
    store.ask_quotas(vec![ask]).await.pop().expect("one answer")
}

fn is_granted(answer: &Result<QuotaGrant, StoreError>) -> bool {
    matches!(answer, Ok(QuotaGrant::Granted { .. }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_server_is_said_to_be_away_at_once_and_one_that_comes_back_empty_begins_anew() {
    let mut server = Server::start(&[]).await;
    let store = connected(options(&server.url())).await;
    let one = hourly(1);
    assert!(is_granted(&ask(&store, one).await));
    assert!(!is_granted(&ask(&store, one).await));
    server.process.kill();
    let began = Instant::now();
    for _ in 0..100 {
        assert!(matches!(ask(&store, one).await, Err(StoreError::Away(_))));
        assert!(matches!(store.attend(GatewayId([1; 8]), SOON).await, Err(StoreError::Away(_))));
    }
    assert!(began.elapsed() < SOON, "refused at once but for the first: {:?}", began.elapsed());
    server.restart().await;
    // The server knows neither the script nor what was used.
    let back = async || is_granted(&ask(&store, one).await).then_some(());
    eventually("the key begins anew", SOON, back).await;
    assert!(!is_granted(&ask(&store, one).await), "and is counted as before");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_forgot_the_script_is_told_it_again() {
    let server = Server::start(&[]).await;
    let store = connected(options(&server.url())).await;
    let asks: Vec<QuotaAsk> = (0..5).map(|_| hourly(2)).collect();
    assert!(store.ask_quotas(asks.clone()).await.iter().all(is_granted));
    assert_eq!(server.say(&["SCRIPT", "FLUSH"]), "OK");
    assert!(store.ask_quotas(asks.clone()).await.iter().all(is_granted));
    assert!(!store.ask_quotas(asks).await.iter().any(is_granted), "nothing was counted less");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f57_a_full_server_grants_nothing_and_says_why() {
    let server = Server::start(&["--maxmemory-policy", "noeviction"]).await;
    let store = connected(options(&server.url())).await;
    assert_eq!(server.say(&["CONFIG", "SET", "maxmemory", "1"]), "OK");
    assert_eq!(ask(&store, hourly(5)).await, Err(StoreError::Full("redis is out of memory")));
    assert_eq!(server.say(&["CONFIG", "SET", "maxmemory", "0"]), "OK");
    assert!(is_granted(&ask(&store, hourly(5)).await));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f59_with_connections_killed_all_the_time_no_more_than_allowed_is_granted() {
    let server = Server::start(&[]).await;
    let store = connected(options(&server.url())).await;
    let one = hourly(200);
    let (began, mut granted) = (Instant::now(), 0);
    for round in 0..600 {
        if round % 50 == 0 {
            server.say(&["CLIENT", "KILL", "TYPE", "normal"]);
        }
        granted += usize::from(is_granted(&ask(&store, one).await));
    }
    // A question whose answer was lost was asked again and counted twice: less is granted, never more.
    assert!((180..=200).contains(&granted), "{granted} in {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f63_every_key_has_an_end() {
    let server = Server::start(&[]).await;
    let store = connected(options(&server.url())).await;
    let even = QuotaTerms::Even { interval_us: 1_000_000, slack_us: 5_000_000 };
    let base = hourly(5);
    let block_us = 60_000_000;
    let asks = vec![
        base,
        QuotaAsk { terms: even, ..hourly(5) },
        QuotaAsk { want: QuotaWant::Held(2), extra: 2, ..hourly(9) },
        QuotaAsk { want: QuotaWant::AtOnce(9), block_us, ..hourly(5) },
        QuotaAsk { want: QuotaWant::Nothing, ..hourly(5) },
    ];
    store.ask_quotas(asks).await.into_iter().for_each(|answer| _ = answer.expect("it is there"));
    assert_eq!(store.attend(GatewayId([1; 8]), Duration::from_secs(5)).await, Ok(1));
    let keys = server.say(&["--scan"]);
    // One question of these leaves nothing to be kept.
    assert_eq!(keys.lines().filter(|key| key.starts_with("mcp:rl:{")).count(), 4, "{keys}");
    assert!(keys.contains("mcp:gateways"), "{keys}");
    for key in keys.lines() {
        assert_ne!(server.say(&["PTTL", key]), "-1", "{key} never ends");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_one_masters_death_is_its_own_keys_trouble_only() {
    let mut cluster = Cluster::start().await;
    let store = connected(options(&cluster.url())).await;
    let asks: Vec<QuotaAsk> = (0..60).map(|_| hourly(1000)).collect();
    assert!(store.ask_quotas(asks.clone()).await.iter().all(is_granted));
    let dead = cluster.slots(0)[0].2;
    cluster.members[dead].process.kill();
    let answers = store.ask_quotas(asks.clone()).await;
    let granted = answers.iter().filter(|answer| is_granted(answer)).count();
    assert!((1..60).contains(&granted), "{granted} of 60 are on other members");
    eventually("a replica took over", SOON, async || {
        store.ask_quotas(asks.clone()).await.iter().all(is_granted).then_some(())
    })
    .await;
}
