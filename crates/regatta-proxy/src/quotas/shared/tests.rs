//! Several gateways over one store in this process, asked at once.

use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use regatta_policy::quota::counter::Breach;
use regatta_policy::quota::window::Allowance;
use regatta_policy::quota::{Asked, Decision};
use regatta_store::{Bounds, Embedded, embedded};

use super::*;
use crate::quotas::ready::Reach;

fn positive(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).expect("positive")
}

fn hourly(allow: u32, breach: Breach) -> Quota {
    let allowance = Allowance::new(positive(allow), Duration::from_secs(3600));
    Quota { algorithm: Algorithm::SlidingWindow(allowance), breach }
}

fn charge(quota: &Quota, rule: u64, cost: u32) -> Charge<'_> {
    Charge { key: (rule, [7; 16]), asked: Asked { quota, cost: positive(cost) }, reach: Reach::Fleet }
}

fn store() -> Embedded {
    embedded::open(None, Bounds::default()).expect("memory is there")
}

/// One clock for all, a second old.
fn clock() -> Clock {
    static START: std::sync::LazyLock<Instant> =
        std::sync::LazyLock::new(|| Instant::now() - Duration::from_secs(1));
    Clock::start(*START)
}

async fn ask(shared: &Arc<Shared>, store: &Embedded, charges: &[Charge<'_>]) -> (Decision, Vec<u32>) {
    let clock = clock();
    let (decision, standings) = match shared.take(charges, clock.now()) {
        Ok(decided) => decided,
        Err(undecided) => shared.settle((store, &clock), charges, undecided).await,
    };
    (decision, standings.iter().map(|standing| standing.remaining).collect())
}

#[tokio::test]
async fn two_gateways_grant_together_what_is_allowed_and_no_more() {
    let (store, quota) = (store(), hourly(20, Breach::Refused));
    let gateways = [Shared::new(1000), Shared::new(1000)];
    let mut granted = 0;
    // A busy key is left alone for some milliseconds when the store gives less than was asked for.
    let end = Instant::now() + Duration::from_secs(20);
    for round in 0.. {
        let (decision, _) = ask(&gateways[round % 2], &store, &[charge(&quota, 1, 1)]).await;
        granted += usize::from(decision == Decision::Granted);
        if (granted >= 20 && round > 100) || end < Instant::now() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(granted, 20);
}

#[tokio::test]
async fn a_request_that_never_fits_keeps_nobody_else_out() {
    let (store, quota) = (store(), hourly(5, Breach::Refused));
    let shared = Shared::new(1000);
    let never = Decision::Limited { by: 0, retry_after: Micros(u64::MAX) };
    assert_eq!(ask(&shared, &store, &[charge(&quota, 1, 6)]).await.0, never);
    assert_eq!(ask(&shared, &store, &[charge(&quota, 1, 3)]).await, (Decision::Granted, vec![2]));
    assert!(matches!(ask(&shared, &store, &[charge(&quota, 1, 3)]).await.0, Decision::Limited { .. }));
    assert_eq!(ask(&shared, &store, &[charge(&quota, 1, 2)]).await, (Decision::Granted, vec![0]));
}

#[tokio::test]
async fn a_bound_of_the_gateways_own_asks_nobody() {
    let (store, quota) = (store(), hourly(2, Breach::Refused));
    let shared = Shared::new(1000);
    let own = || [Charge { reach: Reach::Gateway, ..charge(&quota, 1, 1) }];
    assert_eq!(ask(&shared, &store, &own()).await.0, Decision::Granted);
    assert_eq!(ask(&shared, &store, &own()).await.0, Decision::Granted);
    assert!(matches!(ask(&shared, &store, &own()).await.0, Decision::Limited { .. }));
    assert_eq!(shared.counts().0, 0);
}

#[tokio::test]
async fn who_goes_away_in_the_middle_of_a_question_holds_up_nobody() {
    let (store, quota) = (store(), hourly(5, Breach::Refused));
    let shared = Shared::new(1000);
    let now = Micros(1_000_000);
    let Err(question) = shared.take(&[charge(&quota, 1, 1)], now) else { panic!("nothing is held yet") };
    let Err(waits) = shared.take(&[charge(&quota, 1, 1)], now) else { panic!("nor for the second") };
    assert!(matches!(waits.next, Next::Wait(_)), "one question at a time");
    drop(question);
    let clock = clock();
    let charges = [charge(&quota, 1, 1)];
    let (decision, _) = shared.settle((&store, &clock), &charges, waits).await;
    assert_eq!((decision, shared.counts().0), (Decision::Granted, 1), "it asked itself");
}

#[test]
fn while_the_store_is_away_a_gateway_grants_its_share_less_what_it_granted_before() {
    let (quota, shared) = (hourly(12, Breach::Refused), Shared::new(1000));
    shared.count(3);
    let (charges, now) = ([charge(&quota, 1, 1)], Micros(1_000_000));
    let key = charges[0].key;
    drop(shared.take(&charges, now));
    shared.table.with(&key, &quota, |till| till.miss(now)).expect("it is there");
    let granted = |now| matches!(shared.take(&charges, now), Ok((Decision::Granted, _)));
    assert_eq!((0..20).filter(|_| granted(now)).count(), 4);
    assert_eq!(shared.counts(), (0, 4, 3));
    let later = now.after(Duration::from_secs(1));
    assert!(shared.take(&charges, later).is_err(), "the store is asked again");
}
