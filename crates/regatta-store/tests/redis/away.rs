//! Redis killed, stalled, demoted (RELIABILITY F49, F50, F53): what is kept, what is refused, what comes back.

use std::process::Command;
use std::time::{Duration, Instant};

use regatta_store::{Cas, Keys, Link, Mail, Notice, Sessions, Store, StoreError, StoredKey, Warm};
use regatta_testkit::redis::Server;
use regatta_testkit::{Process, eventually};

use crate::connections::wait_notice;
use crate::kit::{SOON, connected, missing, options, record, session, today, wait_certain, write_until};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f49_a_server_that_comes_back_empty_gets_everything_again() {
    let mut server = Server::start(&[]).await;
    let (store, other) = (connected(options(&server.url())).await, connected(options(&server.url())).await);
    let mut mailbox = store.enlist(regatta_store::GatewayId([1; 8]), SOON);
    let key = StoredKey { fingerprint: [1; 4], secret: [2; 32], published_s: 3 };
    store.put_key(key.clone()).await.expect("a key can be published");
    let (before, first, buried) = (session(), record("before"), ([9; 16], today()));
    assert_eq!(store.compare_and_set(&before, None, first.clone()).await, Ok(Cas::Done));
    store.bury(buried.1, buried.0).await.expect("a token can be buried");

    server.process.kill();
    let (during, second) = (session(), record("during"));
    assert_eq!(store.compare_and_set(&during, None, second.clone()).await, Ok(Cas::KeptHere));
    let changed = record("changed");
    let answer = store.compare_and_set(&before, Some(first.etag), changed.clone()).await;
    assert_eq!(answer, Ok(Cas::KeptHere), "a known record changes while the store is away");
    let stale = store.compare_and_set(&during, None, record("other")).await;
    assert_eq!(stale, Ok(Cas::Lost(Some(second.clone().into()))), "by compare-and-set");
    assert_eq!(store.last_known(&during), Warm::Some(second.clone().into()));
    assert!(matches!(store.bury(today(), [8; 16]).await, Err(StoreError::Away(_))));
    assert_ne!(store.link(), Link::Up);
    wait_notice(&mut mailbox, Notice::LinkLost).await;

    server.restart().await;
    wait_notice(&mut mailbox, Notice::LinkRestored).await;
    wait_certain(&other).await;
    for (session, written) in [(during, second), (before, changed)] {
        eventually("what was written is there again", SOON, async || {
            let read = other.read(&session).await.ok()?;
            (read.as_deref() == Some(&written)).then_some(())
        })
        .await;
    }
    eventually("so is the grave", SOON, async || {
        (other.is_buried(buried.1, buried.0).await == Ok(true)).then_some(())
    })
    .await;
    assert_eq!(other.keys().await, Ok(vec![]));
    assert_eq!(store.put_key(key.clone()).await, Ok(key.clone()));
    assert_eq!(other.keys().await, Ok(vec![key]));
    assert!(store.stats().link.restored_writes >= 1, "{:?}", store.stats().link);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_wiped_server_lost_is_given_back_by_whoever_still_knows_it() {
    let mut server = Server::start(&[]).await;
    // A write is history at once here, as it is after half a minute by default.
    let forgetful = || {
        let mut options = options(&server.url());
        options.timing.remember_for = Duration::ZERO;
        options
    };
    let (store, other) = (connected(forgetful()).await, connected(forgetful()).await);
    let (session, written) = (session(), record("long ago"));
    assert_eq!(store.compare_and_set(&session, None, written.clone()).await, Ok(Cas::Done));
    server.restart().await;
    wait_certain(&store).await;
    wait_certain(&other).await;
    assert_eq!(other.read(&session).await, Ok(None), "nobody else knows it");
    eventually("it is given back", SOON, async || {
        let read = store.read(&session).await.ok()?;
        (read.as_deref() == Some(&written)).then_some(())
    })
    .await;
    assert_eq!(other.read(&session).await.expect("it can be read").as_deref(), Some(&written));
    assert!(store.stats().link.restored_writes >= 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_sides_of_a_conflict_are_merged_and_the_gateway_is_told() {
    let mut server = Server::start(&[]).await;
    let (store, other) = (connected(options(&server.url())).await, connected(options(&server.url())).await);
    let mut mailbox = store.enlist(regatta_store::GatewayId([1; 8]), SOON);
    let session = session();
    server.process.kill();
    let (ours, theirs) = (record("ours"), record("theirs"));
    assert_eq!(store.compare_and_set(&session, None, ours.clone()).await, Ok(Cas::KeptHere));
    assert_eq!(other.compare_and_set(&session, None, theirs.clone()).await, Ok(Cas::KeptHere));
    server.restart().await;
    wait_certain(&store).await;
    wait_certain(&other).await;
    let both = eventually("both are in", SOON, async || {
        let (one, two) = (store.read(&session).await.ok()??, other.read(&session).await.ok()??);
        (one == two && one.value.contains(&b'+')).then_some(one)
    })
    .await;
    assert!([&b"ours+theirs"[..], b"theirs+ours"].contains(&&both.value[..]), "{both:?}");
    assert!(both.etag != ours.etag && both.etag != theirs.etag);
    wait_notice(&mut mailbox, Notice::RecordChanged(session)).await;
    assert_eq!(store.stats().link.unpublished_records + other.stats().link.unpublished_records, 0);
}

/// Calls of all kinds while `stall` holds the server; every one is answered before the stall is over.
async fn is_answered_through_a_stall(server: &Server, stall: Duration, begin: impl FnOnce()) {
    let (store, other) = (connected(options(&server.url())).await, connected(options(&server.url())).await);
    let (known, first) = (session(), record("known"));
    assert_eq!(store.compare_and_set(&known, None, first.clone()).await, Ok(Cas::Done));
    begin();
    let began = Instant::now();
    let seen = write_until(&store, async || began.elapsed() > stall / 2).await;
    let reads = store.read(&known).await;
    assert!(matches!(reads, Err(StoreError::Away(_))), "{reads:?}");
    assert_eq!(store.last_known(&known), Warm::Some(first.into()));
    assert!(began.elapsed() < stall, "no call waited for the end of the stall");
    println!("{} writes kept, the longest call {:?}", seen.kept, seen.longest);
    assert!(seen.kept > 10 && seen.errors.is_empty(), "{:?}", seen.errors);
    let stats = store.stats().link;
    assert!(stats.timeouts <= 2, "only the first call waits for its time: {stats:?}");
    tokio::time::sleep(stall.saturating_sub(began.elapsed())).await;
    let over = Instant::now();
    wait_certain(&store).await;
    println!("back after {:?}", over.elapsed());
    assert_eq!(missing(&store, &other, &seen).await, 0);
    assert!(server.clients() <= 6, "connections are bounded: {}", server.say(&["CLIENT", "LIST"]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f50_a_paused_server_costs_one_operations_time_once() {
    let server = Server::start(&[]).await;
    let stall = Duration::from_secs(5);
    is_answered_through_a_stall(&server, stall, || {
        assert_eq!(server.say(&["CLIENT", "PAUSE", "5000", "ALL"]), "OK");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f50_a_stopped_server_costs_one_operations_time_once() {
    let server = Server::start(&[]).await;
    let stall = Duration::from_secs(5);
    let wake = format!("sleep 5; kill -CONT {}", server.process.pid());
    let mut waker = None;
    is_answered_through_a_stall(&server, stall, || {
        server.process.stop();
        // Goes on by itself, whatever the test does meanwhile.
        waker = Some(Process::spawn(Command::new("sh").args(["-c", &wake])));
    })
    .await;
    drop(waker);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f53_a_demoted_server_leads_to_its_new_master() {
    let master = Server::start(&["--repl-diskless-sync-delay", "0"]).await;
    let port = master.port().to_string();
    let replica = Server::start(&["--replicaof", "127.0.0.1", &port]).await;
    eventually("the replica follows", SOON, async || {
        (replica.info("master_link_status").as_deref() == Some("up")).then_some(())
    })
    .await;
    let store = connected(options(&master.url())).await;
    let other = connected(options(&replica.url())).await;
    let began = Instant::now();
    let failover = std::sync::Once::new();
    let seen = write_until(&store, async || {
        if began.elapsed() > Duration::from_millis(500) {
            failover.call_once(|| {
                assert_eq!(master.say(&["FAILOVER", "TO", "127.0.0.1", &replica.port().to_string()]), "OK");
            });
        }
        began.elapsed() > Duration::from_secs(4)
    })
    .await;
    assert_eq!(replica.info("role").as_deref(), Some("master"));
    println!("{} writes, {} kept, gap {:?}", seen.written.len(), seen.kept, seen.gap);
    assert_eq!(seen.errors, []);
    assert_eq!(missing(&store, &other, &seen).await, 0);
}
