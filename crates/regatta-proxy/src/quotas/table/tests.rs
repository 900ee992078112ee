//! The table under callers that come all at once, and under more of them than it has room for.

use std::num::NonZeroU32;
use std::sync::Barrier;
use std::time::Duration;

use regatta_policy::quota::counter::{Algorithm, Breach};
use regatta_policy::quota::window::Allowance;

use super::*;
use crate::quotas::ready::Reach;

fn quota(allow: u32, breach: Breach) -> Quota {
    let allow = NonZeroU32::new(allow).expect("positive");
    Quota { algorithm: Algorithm::SlidingWindow(Allowance::new(allow, Duration::from_secs(60))), breach }
}

fn charge(quota: &Quota, rule: u64, who: u128) -> Charge<'_> {
    Charge {
        key: (rule, who.to_be_bytes()),
        asked: Asked { quota, cost: NonZeroU32::MIN },
        reach: Reach::Gateway,
    }
}

fn granted(table: &Table<Counter>, charges: &[Charge<'_>], seconds: u64) -> bool {
    table.take(charges, Micros(seconds * 1_000_000)).0 == Decision::Granted
}

#[test]
fn threads_that_come_at_once_get_together_what_is_allowed() {
    let (wide, narrow) = (quota(300, Breach::Refused), quota(100, Breach::Refused));
    let table = Table::new(1000);
    let (start, threads) = (Barrier::new(4), 4);
    let total: usize = std::thread::scope(|scope| {
        let work = |turned: bool| {
            let (start, table, wide, narrow) = (&start, &table, &wide, &narrow);
            move || {
                // Two orders of the same keys: without one order of the locks this would hang.
                let mut charges = [charge(wide, 1, 7), charge(narrow, 2, 8)];
                if turned {
                    charges.reverse();
                }
                start.wait();
                (0..200).filter(|_| granted(table, &charges, 1)).count()
            }
        };
        let running: Vec<_> = (0..threads).map(|at| scope.spawn(work(at % 2 == 0))).collect();
        running.into_iter().map(|thread| thread.join().expect("no panic")).sum()
    });
    assert_eq!(total, 100);
    let (_, standings) = table.take(&[charge(&wide, 1, 7)], Micros(1_000_000));
    assert_eq!(standings[0].remaining, 199, "what the narrow rule refused was not charged to the wide one");
}

#[test]
fn keys_are_bounded_and_a_blocked_one_stays() {
    let quota = quota(1, Breach::Blocked(Duration::from_secs(600)));
    let table = Table::new(160);
    assert!(granted(&table, &[charge(&quota, 1, 0)], 0));
    assert!(!granted(&table, &[charge(&quota, 1, 0)], 0), "blocked now");
    for who in 1..10_000 {
        assert!(granted(&table, &[charge(&quota, 1, who)], 1));
        assert!(table.keys() <= 160);
    }
    assert!(!granted(&table, &[charge(&quota, 1, 0)], 2), "newcomers must not wash a block away");
    assert!(table.displaced() > 9_000);
}

#[test]
fn what_says_nothing_any_more_is_swept() {
    let quota = quota(1, Breach::Refused);
    let table = Table::new(1000);
    for who in 0..500 {
        assert!(granted(&table, &[charge(&quota, 1, who)], 1));
    }
    (0..SHARDS).for_each(|_| table.sweep(Micros(30_000_000)));
    assert_eq!(table.keys(), 500);
    assert!(granted(&table, &[charge(&quota, 1, 1000)], 60));
    (0..SHARDS).for_each(|_| table.sweep(Micros(61_000_000)));
    assert_eq!(table.keys(), 1);
    assert!(!granted(&table, &[charge(&quota, 1, 1000)], 61), "what was moved by the sweep is still found");
}
