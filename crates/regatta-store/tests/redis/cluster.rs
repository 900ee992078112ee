//! A cluster whose master dies, and one whose slots move (RELIABILITY F54, F55).

use std::time::{Duration, Instant};

use regatta_store::{Sessions, Store, Uuid16};
use regatta_testkit::eventually;
use regatta_testkit::redis::Cluster;

use crate::kit::{SOON, Seen, connected, missing, options, session, write_one};

fn key_of(session: &Uuid16) -> String {
    let hex: String = session.0.iter().map(|byte| format!("{byte:02x}")).collect();
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    format!("mcp:session:{{{}}}", parts.join("-"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f54_a_killed_master_is_its_own_slots_trouble_only() {
    let mut cluster = Cluster::start().await;
    let (store, other) = (connected(options(&cluster.url())).await, connected(options(&cluster.url())).await);
    let dead = cluster.master_of(&key_of(&session()), 0).expect("somebody has the slot");
    let asked = if dead == 0 { 1 } else { 0 };
    let mut sessions = Vec::new();
    while sessions.len() < 3000 {
        let session = session();
        let owner = cluster_owner(&cluster, asked, &session);
        sessions.push((session, owner == dead));
    }
    cluster.members[dead].process.kill();
    let (mut theirs, mut ours) = (Seen::default(), Seen::default());
    let (began, mut done_at) = (Instant::now(), Instant::now());
    let mut other_done = Instant::now();
    for (session, is_dead) in sessions {
        if began.elapsed() > Duration::from_secs(8) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
        match is_dead {
            true => write_one(&store, session, &mut theirs, &mut done_at).await,
            false => write_one(&store, session, &mut ours, &mut other_done).await,
        }
    }
    println!(
        "other slots: {} writes, {} kept, longest {:?}; dead slots: {} writes, {} kept, gap {:?}",
        ours.written.len(),
        ours.kept,
        ours.longest,
        theirs.written.len(),
        theirs.kept,
        theirs.gap
    );
    assert_eq!((ours.kept, ours.errors.len(), theirs.errors.len()), (0, 0, 0));
    assert!(theirs.kept > 0, "there was a gap in the slots of the dead master");
    assert_eq!(missing(&store, &other, &theirs).await, 0);
    assert_eq!(missing(&store, &other, &ours).await, 0);
}

/// The member that has a session's slot, by a map read once.
fn cluster_owner(cluster: &Cluster, asked: usize, session: &Uuid16) -> usize {
    use std::sync::OnceLock;
    static OWNERS: OnceLock<Vec<(u16, u16, usize)>> = OnceLock::new();
    let owners = OWNERS.get_or_init(|| cluster.slots(asked));
    let slot = regatta_store::redis::slot_of(&key_of(session));
    owners.iter().find(|(first, last, _)| (*first..=*last).contains(&slot)).map_or(usize::MAX, |run| run.2)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f56_a_cluster_that_lost_its_majority_is_refused_at_once_and_taken_back() {
    let mut cluster = Cluster::start().await;
    let (store, other) = (connected(options(&cluster.url())).await, connected(options(&cluster.url())).await);
    let left = cluster.slots(0)[0].2;
    let dead: Vec<usize> = (0..6).filter(|at| *at != left).collect();
    dead.iter().for_each(|at| cluster.members[*at].process.kill());
    let began = Instant::now();
    let (mut seen, mut done_at) = (Seen::default(), Instant::now());
    while began.elapsed() < Duration::from_secs(3) {
        tokio::time::sleep(Duration::from_millis(2)).await;
        write_one(&store, session(), &mut seen, &mut done_at).await;
    }
    assert!(seen.kept > 100 && seen.errors.is_empty(), "{} kept, {:?}", seen.kept, seen.errors);
    assert!(store.stats().link.refused_away > 100, "refused at once: {:?}", store.stats().link);
    for at in dead {
        cluster.members[at].restart().await;
    }
    let back = Instant::now();
    assert_eq!(missing(&store, &other, &seen).await, 0);
    println!(
        "{} kept, the longest call {:?}, all published {:?} after",
        seen.kept,
        seen.longest,
        back.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f55_slots_that_move_under_load_cost_no_error() {
    let cluster = Cluster::start().await;
    let store = connected(options(&cluster.url())).await;
    let moved = session();
    let key = key_of(&moved);
    let slot = regatta_store::redis::slot_of(&key);
    let from = cluster.master_of(&key, 0).expect("somebody has the slot");
    let to = cluster.slots(0).into_iter().map(|run| run.2).find(|at| *at != from).expect("there are others");
    let (mut seen, mut done_at) = (Seen::default(), Instant::now());
    write_one(&store, moved, &mut seen, &mut done_at).await;
    cluster.begin_to_move(slot, from, to);
    // Present at the old place; then asked for at the new one, which has it; then moved for good.
    assert!(store.read(&moved).await.is_ok_and(|read| read.is_some()));
    cluster.carry(slot, from, to);
    for _ in 0..50 {
        assert!(
            store.read(&moved).await.is_ok_and(|read| read.is_some()),
            "the key is asked for where it is"
        );
    }
    let mut present = store.read(&moved).await.expect("it can be read").expect("it is there").etag;
    for _ in 0..50 {
        let next = crate::kit::record("moved");
        assert_eq!(
            store.compare_and_set(&moved, Some(present), next.clone()).await,
            Ok(regatta_store::Cas::Done)
        );
        present = next.etag;
    }
    cluster.end_to_move(slot, from, to);
    for _ in 0..50 {
        let read = store.read(&moved).await.expect("the slot is followed").expect("it is there");
        assert_eq!(read.etag, present);
    }
    eventually("the map is read again", SOON, async || {
        (store.link() == regatta_store::Link::Up).then_some(())
    })
    .await;
    assert_eq!((seen.kept, seen.errors), (0, vec![]));
}
