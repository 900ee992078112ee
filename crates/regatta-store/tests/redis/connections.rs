//! Connections that are cut, users that are shut out, and a full server (RELIABILITY F57 to F61).

use std::time::{Duration, Instant};

use bytes::Bytes;
use regatta_store::redis::{Credentials, Options, open};
use regatta_store::{
    Arrival, Cas, GatewayId, Keys, Link, Mail, Mailbox, Notice, Sessions, Store, StoreError, StoredKey, Warm,
};
use regatta_testkit::redis::Server;
use regatta_testkit::{FaultProxy, Mode, eventually};

use crate::kit::{SOON, connected, missing, options, record, session, wait_certain, write_until};

/// Waits for a notice; others are passed over.
pub async fn wait_notice(mailbox: &mut Mailbox, wanted: Notice) {
    let wait = async {
        loop {
            match mailbox.next().await.expect("the mailbox is open") {
                Arrival::Notice(notice) if notice == wanted => return,
                Arrival::Notice(_) | Arrival::Letter(_) => {}
            }
        }
    };
    tokio::time::timeout(SOON, wait).await.unwrap_or_else(|_| panic!("no {wanted:?} within {SOON:?}"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f57_a_full_server_is_read_on_and_says_that_it_is_full() {
    let server = Server::start(&["--maxmemory-policy", "noeviction"]).await;
    let store = connected(options(&server.url())).await;
    let (known, first) = (session(), record("first"));
    assert_eq!(store.compare_and_set(&known, None, first.clone()).await, Ok(Cas::Done));
    assert_eq!(server.say(&["CONFIG", "SET", "maxmemory", "1"]), "OK");
    for _ in 0..100 {
        let full = store.compare_and_set(&session(), None, record("more")).await;
        assert_eq!(full, Err(StoreError::Full("redis is out of memory")));
        assert_eq!(store.read(&known).await.expect("it can be read").as_deref(), Some(&first));
    }
    assert_eq!(store.link(), Link::Up);
    assert_eq!(server.say(&["CONFIG", "SET", "maxmemory", "0"]), "OK");
    assert_eq!(store.compare_and_set(&session(), None, record("more")).await, Ok(Cas::Done));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_is_not_permitted_is_kept_and_said() {
    let server = Server::start(&[]).await;
    assert_eq!(server.say(&["ACL", "SETUSER", "default", "-hset"]), "OK");
    let store = connected(options(&server.url())).await;
    let session = session();
    assert_eq!(store.compare_and_set(&session, None, record("kept")).await, Ok(Cas::KeptHere));
    assert!(matches!(store.link(), Link::Degraded { .. }), "{:?}", store.link());
    assert_eq!(server.say(&["ACL", "SETUSER", "default", "+hset"]), "OK");
    eventually("it is published and all is well", SOON, async || {
        (store.stats().link.published_records == 1 && store.link() == Link::Up).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f58_a_server_that_evicts_is_warned_of() {
    let server = Server::start(&["--maxmemory-policy", "allkeys-lru"]).await;
    let store = connected(options(&server.url())).await;
    assert!(store.policy_warning().is_some_and(|warning| warning.contains("allkeys-lru")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f59_connections_killed_each_second_cost_no_visible_error() {
    let server = Server::start(&[]).await;
    let (store, other) = (connected(options(&server.url())).await, connected(options(&server.url())).await);
    let (began, mut next) = (Instant::now(), Duration::ZERO);
    let kills = std::sync::Mutex::new((&mut next, 0));
    let seen = write_until(&store, async || {
        let mut kills = kills.lock().expect("nobody panics with it");
        if began.elapsed() > *kills.0 {
            *kills.0 += Duration::from_secs(1);
            kills.1 += server.say(&["CLIENT", "KILL", "TYPE", "normal"]).parse::<usize>().unwrap_or(0);
        }
        began.elapsed() > Duration::from_secs(6)
    })
    .await;
    let killed = kills.into_inner().expect("nobody panics with it").1;
    println!(
        "{} writes, {killed} connections killed, {} kept, {:?}",
        seen.written.len(),
        seen.kept,
        seen.errors
    );
    assert!(killed >= 5, "connections were killed");
    assert_eq!(seen.errors, []);
    assert!(seen.kept * 1000 <= seen.written.len(), "{} of {} were kept", seen.kept, seen.written.len());
    assert_eq!(missing(&store, &other, &seen).await, 0);
    assert!(server.clients() <= 4, "connections are not left behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f60_a_cut_notice_link_is_noticed_and_nothing_old_passes_for_certain() {
    let server = Server::start(&[]).await;
    let (store, other) = (connected(options(&server.url())).await, connected(options(&server.url())).await);
    let mut mailbox = store.enlist(GatewayId([1; 8]), SOON);
    let (session, mut present) = (session(), None);
    for round in 0..20 {
        assert!(
            server.say(&["CLIENT", "KILL", "TYPE", "pubsub"]).parse::<usize>().is_ok_and(|killed| killed > 0)
        );
        let next = record(&round.to_string());
        let written = other.compare_and_set(&session, present, next.clone()).await;
        assert_eq!(written, Ok(Cas::Done));
        wait_notice(&mut mailbox, Notice::LinkLost).await;
        match store.warm(&session) {
            Warm::Ask => {}
            warm => assert_eq!(warm, Warm::Some(next.clone().into()), "what is certain is not old"),
        }
        let read = store.read(&session).await.expect("commands have their own connection");
        assert_eq!(read.as_deref(), Some(&next));
        wait_notice(&mut mailbox, Notice::LinkRestored).await;
        wait_certain(&store).await;
        wait_certain(&other).await;
        present = Some(next.etag);
    }
    assert!(store.stats().link.notices_lost >= 20);
}

/// A proxy in front of a server, and options that lead through it.
async fn behind_a_proxy(server: &Server) -> (FaultProxy, Options) {
    let proxy = FaultProxy::start(([127, 0, 0, 1], server.port()).into()).await;
    let options = options(&format!("redis://{}", proxy.address()));
    (proxy, options)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_silent_without_an_end_is_distrusted() {
    let server = Server::start(&[]).await;
    let (proxy, mut through) = behind_a_proxy(&server).await;
    through.timing.trust_for = Duration::from_secs(1);
    through.timing.prove_every = Duration::from_millis(200);
    let (store, other) = (connected(through).await, connected(options(&server.url())).await);
    let (session, old, new) = (session(), record("old"), record("new"));
    assert_eq!(store.compare_and_set(&session, None, old.clone()).await, Ok(Cas::Done));
    proxy.set(Mode::Blackhole);
    let written = other.compare_and_set(&session, Some(old.etag), new.clone()).await;
    assert_eq!(written, Ok(Cas::Done));
    eventually("what it knows is not certain any more", SOON, async || {
        (store.warm(&session) == Warm::Ask).then_some(())
    })
    .await;
    assert_eq!(store.last_known(&session), Warm::Some(old.clone().into()));
    let kept = store.compare_and_set(&session, Some(old.etag), record("cut off")).await;
    assert_eq!(kept, Ok(Cas::KeptHere));
    proxy.set(Mode::Refuse);
    proxy.set(Mode::Pass);
    eventually("both sides are merged", SOON, async || {
        let read = other.read(&session).await.ok()??;
        (read.value == "cut off+new").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_whose_answer_was_lost_is_written_once() {
    let server = Server::start(&[]).await;
    let (proxy, through) = behind_a_proxy(&server).await;
    let (store, other) = (connected(through).await, connected(options(&server.url())).await);
    let mut present = None;
    let session = session();
    for round in 0..10 {
        proxy.set(Mode::DropReply);
        let next = record(&round.to_string());
        let written = store.compare_and_set(&session, present, next.clone()).await;
        proxy.set(Mode::Pass);
        assert!(matches!(written, Ok(Cas::Done | Cas::KeptHere)), "{written:?}");
        wait_certain(&store).await;
        eventually("it is there, and not as a conflict with itself", SOON, async || {
            let read = other.read(&session).await.ok()??;
            (*read == next && store.stats().link.unpublished_records == 0).then_some(())
        })
        .await;
        present = Some(next.etag);
    }
    assert_eq!(store.stats().link.merged_records, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f61_a_user_shut_out_is_told_and_comes_back_with_a_new_password() {
    let server = Server::start(&[]).await;
    let rule = ["ACL", "SETUSER", "gate", "on", ">first-secret", "~*", "&*", "+@all"];
    assert_eq!(server.say(&rule), "OK");
    let who = |password: &str| Credentials {
        username: Some("gate".to_owned()),
        password: Some(password.to_owned()),
    };
    let store = connected(Options { credentials: who("first-secret"), ..options(&server.url()) }).await;
    let rotated = ["ACL", "SETUSER", "gate", "resetpass", ">second-secret"];
    assert_eq!(server.say(&rotated), "OK");
    assert_eq!(server.say(&["CLIENT", "KILL", "USER", "gate"]).parse::<usize>().map_err(|_| ()), Ok(2));
    let why = eventually("it is shut out", SOON, async || {
        let _ = store.read(&session()).await;
        match store.link() {
            Link::Degraded { why, .. } => Some(why),
            Link::Up => None,
        }
    })
    .await;
    assert!(why.contains("refused") && !why.contains("secret"), "{why}");
    let shut_out = session();
    assert_eq!(store.compare_and_set(&shut_out, None, record("kept")).await, Ok(Cas::KeptHere));
    store.renew_credentials(who("second-secret"));
    wait_certain(&store).await;
    eventually("what was kept is published", SOON, async || {
        (server.say(&["EXISTS", &key_of(&shut_out)]) == "1").then_some(())
    })
    .await;
}

fn key_of(session: &regatta_store::Uuid16) -> String {
    let hex: String = session.0.iter().map(|byte| format!("{byte:02x}")).collect();
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    format!("mcp:session:{{{}}}", parts.join("-"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_anybody_is_refused_at_once_and_found_when_it_comes() {
    let mut server = Server::start(&[]).await;
    server.process.kill();
    let store = open(options(&server.url()));
    let mut mailbox = store.enlist(GatewayId([2; 8]), SOON);
    let session = session();
    assert!(store.read(&session).await.is_err());
    eventually("it is known to be away", SOON, async || (store.link() != Link::Up).then_some(())).await;
    for _ in 0..1000 {
        assert!(matches!(store.read(&session).await, Err(StoreError::Away(_))));
    }
    assert!(store.stats().link.refused_away >= 1000);
    assert_eq!(store.compare_and_set(&session, None, record("kept")).await, Ok(Cas::KeptHere));
    let key = StoredKey { fingerprint: [1; 4], secret: [1; 32], published_s: 1 };
    assert!(matches!(store.put_key(key).await, Err(StoreError::Away(_))));
    server.restart().await;
    wait_certain(&store).await;
    eventually("the gateway is live", SOON, async || {
        (store.is_live(GatewayId([2; 8])).await == Ok(true)).then_some(())
    })
    .await;
    store.post(GatewayId([2; 8]), "hello".into()).await.expect("a letter can be sent");
    let letter = async { while mailbox.next().await != Some(Arrival::Letter("hello".into())) {} };
    tokio::time::timeout(SOON, letter).await.expect("the letter arrives");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mailbox_that_is_opened_while_the_link_is_made_hears_all_that_its_lease_promises() {
    let server = Server::start(&[]).await;
    let other = connected(options(&server.url())).await;
    let (proxy, far) = behind_a_proxy(&server).await;
    proxy.set(Mode::Delay { by: Duration::from_millis(10), jitter: Duration::ZERO });
    let mut opened = Vec::new();
    for turn in 0..20_u8 {
        let (store, gateway) = (open(far.clone()), GatewayId([turn + 1; 8]));
        // Each a little later: some of them between what the link subscribes to and its first message.
        tokio::time::sleep(Duration::from_millis(6 * u64::from(turn))).await;
        let mut mailbox = store.enlist(gateway, SOON);
        eventually("it has a lease", SOON, async || (other.is_live(gateway).await == Ok(true)).then_some(()))
            .await;
        other.post(gateway, Bytes::from(vec![turn])).await.expect("it can be posted");
        let heard = async {
            loop {
                if let Arrival::Letter(letter) = mailbox.next().await.expect("the mailbox is open") {
                    return letter;
                }
            }
        };
        let letter = tokio::time::timeout(Duration::from_secs(5), heard).await;
        assert_eq!(letter.expect("the letter comes"), vec![turn], "turn {turn}");
        opened.push(store);
    }
}
