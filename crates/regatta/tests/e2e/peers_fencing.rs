//! A gateway that was stopped in the middle of moving sessions, past its lease, and wakes when another one has moved them
//! (RELIABILITY F8, V7; SESSIONS 4): what it writes then counts for nothing.
//!
//! `REGATTA_FENCING_ROUNDS=100 cargo test -p regatta --test e2e peers_fencing -- --nocapture` for more rounds than two.

use std::time::Duration;

use regatta_testkit::client::{Outcome, Session};
use regatta_testkit::gateway::Plan;
use regatta_testkit::redis::Server;
use regatta_testkit::{FaultProxy, Gateway, Mode, Result, eventually};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::REGATTA;
use crate::failover_load::linked;
use crate::forgetful::{Forgetful, forget, seat};
use crate::peers::{Pair, SOON, on_store};

const SESSIONS: usize = 8;
/// Longer than it takes to stop a gateway once it has begun all its handshakes.
const HANDSHAKE_MS: u64 = 1_000;

fn rounds() -> usize {
    let rounds = std::env::var("REGATTA_FENCING_ROUNDS").ok().and_then(|rounds| rounds.parse().ok());
    rounds.unwrap_or(2)
}

/// What a round came to.
#[derive(Debug, Default)]
struct Round {
    /// Sessions of which a write of the woken gateway took the place of the other's.
    stale: usize,
    /// Calls that it was in when it was stopped and that were executed at the sessions' homes.
    went_on: usize,
    /// Those that were refused, or whose outcome it did not know.
    told: usize,
}

/// The calls in which `one` is stopped: each is about to move its session.
async fn stopped_while_it_moves(
    pair: &Pair,
    server: &Forgetful,
    sessions: &[Session],
) -> Vec<JoinHandle<Result<Outcome>>> {
    server.handshakes_take(HANDSHAKE_MS);
    let begun = server.handshakes() + sessions.len();
    let calls = sessions.iter().enumerate().map(|(number, session)| {
        let (session, op) = (session.clone(), format!("{begun}-{number}"));
        tokio::spawn(async move { session.call("work", json!({"op": op})).await })
    });
    let calls: Vec<_> = calls.collect();
    eventually("it shakes hands for all", SOON, async || (server.handshakes() >= begun).then_some(())).await;
    pair.one.process.stop();
    server.handshakes_take(0);
    calls
}

/// The leases in the store: one a gateway, and one of everybody.
fn leases(pair: &Pair) -> Vec<String> {
    pair.redis.say(&["KEYS", "mcp:gateway:*"]).lines().map(str::to_owned).collect()
}

/// Moves the sessions at `two` when one of `leases` is over; gives where to.
async fn taken_over(pair: &Pair, sessions: &[Session], leases: &[String]) -> Result<Vec<String>> {
    eventually("the lease of the stopped one is over", SOON, async || {
        leases.iter().any(|lease| pair.redis.say(&["EXISTS", lease]) == "0").then_some(())
    })
    .await;
    assert_eq!(self::leases(pair).len(), leases.len() - 1, "nobody else's: {leases:?}");
    let mut seats = Vec::new();
    for session in sessions {
        let outcome = session.through(&pair.two.client()).call("work", json!({})).await?;
        seats.push(seat(&outcome).unwrap_or_else(|| panic!("no seat in {}", outcome.message)));
    }
    Ok(seats)
}

async fn round(pair: &Pair, server: &Forgetful) -> Result<(Round, Vec<(Session, String)>)> {
    let mut sessions = Vec::new();
    for _ in 0..SESSIONS {
        let session = pair.one.client().initialize().await?;
        forget(&session).await?;
        sessions.push(session);
    }
    let leases = leases(pair);
    let calls = stopped_while_it_moves(pair, server, &sessions).await;
    let seats = taken_over(pair, &sessions, &leases).await?;
    pair.one.process.go_on();

    let mut round = Round::default();
    for (call, seated) in calls.into_iter().zip(&seats) {
        let outcome = call.await.expect("the call's task")?;
        assert_ne!(outcome.status, 404, "{}", outcome.message);
        match seat(&outcome) {
            Some(at) => {
                round.went_on += 1;
                round.stale += usize::from(at != *seated);
            }
            None => round.told += 1,
        }
    }
    linked(&pair.one).await;
    eventually("it keeps nothing back", SOON, async || {
        (pair.one.metric("regatta_store_unpublished_records").await? == 0.0).then_some(())
    })
    .await;
    let seated: Vec<_> = sessions.into_iter().zip(seats).collect();
    for gateway in [&pair.one, &pair.two] {
        round.stale += elsewhere(gateway, &seated).await?;
    }
    Ok((round, seated))
}

/// Sessions that a gateway does not find where they were taken to.
async fn elsewhere(gateway: &Gateway, seated: &[(Session, String)]) -> Result<usize> {
    let mut elsewhere = 0;
    for (session, at) in seated {
        let outcome = session.through(&gateway.client()).call("work", json!({})).await?;
        elsewhere += usize::from(seat(&outcome).as_ref() != Some(at));
    }
    Ok(elsewhere)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_stopped_past_its_lease_while_it_moves_sessions_changes_none_when_it_wakes() -> Result<()> {
    let server = Forgetful::start().await;
    let plan = Plan::over([server.stub.url()]).on_gateway("initialize_per_minute_max = 1000000");
    let pair = Pair::start(plan.clone()).await;
    let (mut all, mut seated) = (Round::default(), Vec::new());
    for _ in 0..rounds() {
        let (round, sessions) = round(&pair, &server).await?;
        all.stale += round.stale;
        all.went_on += round.went_on;
        all.told += round.told;
        seated.extend(sessions);
    }
    // What the store holds in the end is seen by who knows nothing else.
    let fresh = Gateway::start(REGATTA, on_store(plan, &pair.redis.url())).await;
    linked(&fresh).await;
    all.stale += elsewhere(&fresh, &seated).await?;
    println!("{} rounds of {SESSIONS} sessions: {all:?}", rounds());
    assert_eq!(all.stale, 0, "{all:?}");
    // The others carry no op, so the journal knows them by the numbers of their requests.
    let twice: Vec<_> = server.stub.journal().repeated().into_iter().filter(|op| op.contains('-')).collect();
    assert_eq!(twice, Vec::<String>::new());
    Ok(())
}

/// How long a store is away that nobody waits for any more, and for how long that is taken for true (SESSIONS 3); and some.
const LONG_AWAY: Duration = Duration::from_millis(3500);

#[tokio::test]
async fn a_gateway_without_its_store_that_was_stopped_asks_again_before_it_moves_a_session() -> Result<()> {
    let server = Forgetful::start().await;
    let redis = Server::start(&[]).await;
    let way = FaultProxy::start(redis.address().parse().expect("an address")).await;
    let plan = |url: &str| on_store(Plan::over([server.stub.url()]), url);
    let one = Gateway::start(REGATTA, plan(&format!("redis://{}", way.address()))).await;
    let two = Gateway::start(REGATTA, plan(&redis.url())).await;
    for gateway in [&one, &two] {
        linked(gateway).await;
    }
    let session = one.client().initialize().await?;
    session.call("work", json!({})).await?.result()?;
    way.set(Mode::Refuse);
    eventually("its store is away", SOON, async || {
        one.admin("/ready").await?.1.contains("the store is away").then_some(())
    })
    .await;
    // The state that is tried is one that only time brings about, here and below.
    tokio::time::sleep(LONG_AWAY).await;
    one.process.stop();
    tokio::time::sleep(LONG_AWAY).await;
    let there = session.through(&two.client());
    forget(&there).await?;
    let seated = seat(&there.call("work", json!({})).await?);
    assert!(seated.is_some());
    // It wakes with a request to answer, and a way to the store that takes its time.
    way.set(Mode::Delay { by: Duration::from_millis(20), jitter: Duration::ZERO });
    let late = tokio::spawn(async move { session.call("work", json!({})).await });
    one.process.go_on();
    let late = late.await.expect("the call's task")?;
    assert_eq!(seat(&late), seated, "{}", late.message);
    assert_eq!(seat(&there.call("work", json!({})).await?), seated, "it stays there");
    Ok(())
}
