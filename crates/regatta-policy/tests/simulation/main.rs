//! The rules together, against simulated replicas, over many seeds.
//!
//! A failure prints `seed=…`; `REGATTA_SEED=… cargo test -p regatta-policy --test simulation` plays that one again.
//! Simulated time only: a run takes as long as its sums.

mod queue;
mod world;

use std::time::Duration;

use regatta_policy::Micros;
use regatta_policy::snapshot::Balance;
use world::{Dice, Fate, Plan, Report, Spell, World};

const RULES: [Balance; 4] =
    [Balance::RoundRobin, Balance::LeastConnections, Balance::LeastLoad, Balance::StickyIp];

/// The seeds of one scenario; the scenarios together play 2,000.
#[allow(clippy::disallowed_methods, reason = "a test may be told a seed")]
fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("REGATTA_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => vec![seed],
        None => (1..=count).collect(),
    }
}

fn at_ms(ms: u64) -> Micros {
    Micros(ms * 1000)
}

/// A quiet run of a minute: nothing happens to anybody.
fn calm(seed: u64, rule: Balance, replicas: usize) -> Plan {
    Plan {
        seed,
        rule,
        began: vec![None; replicas],
        spells: Vec::new(),
        requests_per_second: 20,
        bound_percent: 0,
        harmless_percent: 50,
        end: at_ms(60_000),
        tail: at_ms(40_000),
    }
}

/// What holds whatever happens.
fn check(seed: u64, report: &Report, seconds: u64) {
    let ends = report.served + report.failed + report.lost + report.refused;
    assert_eq!(ends, report.requests, "seed={seed}: every request has one end: {report:?}");
    let allowed = 3 + (report.requests / 10).max(3 * seconds) + report.requests / 10;
    assert!(report.repeats <= allowed, "seed={seed}: {report:?}");
}

/// Nobody is starved once all is well again.
fn check_recovered(seed: u64, report: &Report) {
    assert!(report.tail.iter().all(|&served| served > 0), "seed={seed}: starved: {report:?}");
    assert_eq!(report.tail.iter().sum::<u64>(), report.tail_requests, "seed={seed}: {report:?}");
}

/// A spell for `replica` that begins within the first twenty seconds and ends within thirty.
fn spell(dice: &mut Dice, replica: usize, fates: &[Fate]) -> Spell {
    let from = dice.between(1_000, 18_000);
    let to = from + dice.between(500, 10_000);
    Spell { replica, from: at_ms(from), to: at_ms(to), fate: fates[dice.roll() as usize % fates.len()] }
}

#[test]
fn equal_replicas_get_equal_shares() {
    for seed in seeds(200) {
        let replicas = 2 + seed as usize % 4;
        let rule = RULES[seed as usize % RULES.len()];
        let plan = Plan {
            requests_per_second: 600 * replicas as u64,
            end: at_ms(1_000),
            ..calm(seed, rule, replicas)
        };
        let report = World::run(plan);
        let (most, sum) = (*report.sent.iter().max().expect("two"), report.sent.iter().sum::<u64>());
        let share = most as f64 * replicas as f64 / sum as f64;
        assert!(share <= 1.2, "seed={seed}: {rule:?} {share:.2} {report:?}");
        check(seed, &report, 1);
    }
}

#[test]
fn a_slow_replica_gets_a_quarter_of_its_share_at_most() {
    for seed in seeds(200) {
        let replicas = 2 + seed as usize % 5;
        let slow = Spell { replica: 0, from: at_ms(0), to: at_ms(60_000), fate: Fate::Slow };
        let plan = Plan {
            spells: vec![slow],
            requests_per_second: 100,
            end: at_ms(10_000),
            ..calm(seed, Balance::LeastLoad, replicas)
        };
        let report = World::run(plan);
        let fair = report.requests as f64 / replicas as f64;
        assert!(report.sent[0] as f64 <= 0.25 * fair, "seed={seed}: {report:?}");
        assert_eq!(report.ejections, 0, "seed={seed}: slow is not broken: {report:?}");
        check(seed, &report, 10);
    }
}

#[test]
fn a_replica_that_only_fails_is_put_aside_and_seen_again_by_probes_alone() {
    for seed in seeds(50) {
        let failing = Spell { replica: 0, from: at_ms(0), to: at_ms(60_000), fate: Fate::Failing };
        let rule = RULES[seed as usize % RULES.len()];
        let report = World::run(Plan { spells: vec![failing], ..calm(seed, rule, 3) });
        // Five in a row, those that were on their way, and a probe after 3, 6, 9, 12, 15, 15 … seconds.
        assert!(report.failed <= 5 + 3 + 8, "seed={seed}: {rule:?} {report:?}");
        assert!(report.ejections >= 3, "seed={seed}: {rule:?} {report:?}");
        check(seed, &report, 60);
    }
}

#[test]
fn whatever_happens_the_bounds_hold_and_all_serve_again() {
    for seed in seeds(950) {
        let mut dice = Dice(seed);
        let replicas = 2 + seed as usize % 4;
        let fates = [Fate::Slow, Fate::Failing, Fate::Dead, Fate::Dark, Fate::Slandered];
        // One spell a replica at most: a fate has no second one beneath it.
        let struck = dice.between(1, replicas as u64 + 1) as usize;
        let spells = (0..struck).map(|replica| spell(&mut dice, replica, &fates)).collect();
        let rule = RULES[dice.roll() as usize % RULES.len()];
        let plan = Plan {
            spells,
            bound_percent: 40,
            end: at_ms(80_000),
            tail: at_ms(62_000),
            ..calm(seed, rule, replicas)
        };
        let report = World::run(plan);
        check(seed, &report, 80);
        check_recovered(seed, &report);
    }
}

#[test]
fn a_crash_loop_costs_less_than_one_request_in_two_hundred() {
    let (mut requests, mut served) = (0, 0);
    for seed in seeds(200) {
        let crash = |n: u64| Spell {
            replica: 0,
            from: at_ms(n * 1_000),
            to: at_ms(n * 1_000 + 600),
            fate: Fate::Dead,
        };
        let rule = RULES[seed as usize % RULES.len()];
        let plan = Plan { spells: (1..25).map(crash).collect(), ..calm(seed, rule, 3) };
        let report = World::run(plan);
        check(seed, &report, 60);
        check_recovered(seed, &report);
        assert_eq!(report.refused, 0, "seed={seed}: two others are well: {report:?}");
        (requests, served) = (requests + report.requests, served + report.served);
    }
    assert!(served as f64 >= 0.995 * requests as f64, "{served} of {requests}");
}

#[test]
fn a_fleet_that_is_gone_for_a_while_is_used_again_at_once() {
    for seed in seeds(150) {
        let replicas = 1 + seed as usize % 4;
        let fate = if seed % 2 == 0 { Fate::Dead } else { Fate::Dark };
        let all = |replica| Spell { replica, from: at_ms(2_000), to: at_ms(8_000), fate };
        let rule = RULES[seed as usize % RULES.len()];
        let plan = Plan {
            spells: (0..replicas).map(all).collect(),
            bound_percent: 30,
            end: at_ms(60_000),
            tail: at_ms(40_000),
            ..calm(seed, rule, replicas)
        };
        let report = World::run(plan);
        check(seed, &report, 60);
        check_recovered(seed, &report);
    }
}

#[test]
fn probes_that_slander_most_of_the_fleet_do_no_harm() {
    for seed in seeds(50) {
        let slander = |replica| Spell { replica, from: at_ms(0), to: at_ms(60_000), fate: Fate::Slandered };
        let rule = RULES[seed as usize % RULES.len()];
        let plan = Plan { spells: (0..3).map(slander).collect(), ..calm(seed, rule, 4) };
        let report = World::run(plan);
        assert_eq!(report.served, report.requests, "seed={seed}: {report:?}");
        assert!(
            report.sent.iter().all(|&sent| sent * 8 > report.requests),
            "seed={seed}: panic spreads: {report:?}"
        );
    }
}

#[test]
fn a_retry_storm_adds_a_tenth_at_most() {
    for seed in seeds(100) {
        // Every replica dies every 40 ms: most calls are cut, and all of them may be repeated.
        let death = |n: u64| Spell {
            replica: n as usize % 3,
            from: at_ms(n * 15),
            to: at_ms(n * 15 + 1),
            fate: Fate::Dead,
        };
        let plan = Plan {
            spells: (1..200).map(death).collect(),
            requests_per_second: 200,
            harmless_percent: 100,
            end: at_ms(3_000),
            ..calm(seed, Balance::RoundRobin, 3)
        };
        let report = World::run(plan);
        // The floor of the first second comes on top, once.
        let most = report.requests as f64 * 1.1 + 3.0;
        assert!(report.written as f64 <= most, "seed={seed}: {report:?}");
        assert!(report.repeats > 0, "seed={seed}: there was a storm: {report:?}");
    }
}

#[test]
fn a_new_replica_warms_up_before_it_has_its_share() {
    for seed in seeds(100) {
        let rule = RULES[seed as usize % RULES.len()];
        let replicas = 3 + seed as usize % 3;
        let mut began = vec![None; replicas];
        began[0] = Some(at_ms(0));
        let first = Plan {
            began: began.clone(),
            requests_per_second: 400,
            end: at_ms(1_500),
            ..calm(seed, rule, replicas)
        };
        let cold = World::run(first);
        let fair = cold.requests as f64 / replicas as f64;
        assert!(cold.sent[0] as f64 <= 0.5 * fair, "seed={seed}: {rule:?} {cold:?}");
        let tail = at_ms(12_000);
        let then =
            Plan { began, requests_per_second: 100, end: at_ms(20_000), tail, ..calm(seed, rule, replicas) };
        let warm = World::run(then);
        let fair = warm.tail_requests as f64 / replicas as f64;
        assert!(warm.tail[0] as f64 >= 0.5 * fair, "seed={seed}: {rule:?} {warm:?}");
    }
}

#[test]
fn the_same_seed_plays_the_same_run() {
    let run = || {
        let dead = Spell { replica: 1, from: at_ms(500), to: at_ms(2_000), fate: Fate::Dead };
        let plan = Plan {
            spells: vec![dead],
            bound_percent: 50,
            end: at_ms(5_000),
            ..calm(7, Balance::LeastLoad, 3)
        };
        format!("{:?}", World::run(plan))
    };
    assert_eq!(run(), run());
}

/// One server that answers 320 calls a second, a longest wait of half a second.
fn overload(seed: u64, rates: Vec<u64>) -> queue::Plan {
    let stall = (at_ms(0), at_ms(0));
    queue::Plan { seed, places: 16, rates, wait_max: Duration::from_millis(500), stall, from: at_ms(2_000) }
}

#[test]
fn in_a_lasting_overload_refusals_come_at_once_and_every_place_is_used() {
    for seed in seeds(8) {
        for times in [2, 5, 10] {
            let report = queue::run(&overload(seed, vec![320 * times]));
            let late = queue::Report::percentile(&report.refusals, 99);
            assert!(late <= Duration::from_millis(20), "seed={seed}, {times} times: refused after {late:?}");
            let wait = queue::Report::percentile(&report.waits[0], 99);
            assert!(wait <= Duration::from_millis(100), "seed={seed}, {times} times: served after {wait:?}");
            assert!(report.served[0] >= 2_740, "seed={seed}, {times} times: {:?} of 2,880", report.served);
        }
    }
}

/// Nine callers who ask for a twentieth of what the server can do, and one for ten times that.
fn beside_a_greedy_one(seed: u64) -> queue::Plan {
    let mut rates = vec![16; 9];
    rates.push(3_200);
    overload(seed, rates)
}

#[test]
fn a_greedy_caller_is_refused_and_the_others_are_served() {
    for seed in seeds(8) {
        let report = queue::run(&beside_a_greedy_one(seed));
        for modest in 0..9 {
            let (served, asked) = (report.served[modest], report.asked[modest]);
            assert!(served * 100 >= asked * 99, "seed={seed}: {served} of {asked}");
            let wait = queue::Report::percentile(&report.waits[modest], 99);
            assert!(wait <= Duration::from_millis(25), "seed={seed}: {wait:?} behind a greedy caller");
        }
        let late = queue::Report::percentile(&report.refusals, 99);
        assert!(late <= Duration::from_millis(20), "seed={seed}: refused after {late:?}");
        assert!(report.served.iter().sum::<u64>() >= 2_740, "seed={seed}: {report:?}");
    }
}

#[test]
fn a_stall_costs_the_greedy_caller_and_nobody_else() {
    for seed in seeds(8) {
        // From the first moment on, when the greedy one fills the line.
        for ms in [0, 100, 200, 300] {
            let stall = (at_ms(5_000), at_ms(5_000 + ms));
            let report = queue::run(&queue::Plan { stall, from: at_ms(0), ..beside_a_greedy_one(seed) });
            let sum = |counts: &[u64]| counts[..9].iter().sum::<u64>();
            let (served, asked) = (sum(&report.served), sum(&report.asked));
            assert!(served * 1_000 >= asked * 995, "seed={seed}, {ms} ms: {served} of {asked}");
        }
    }
}

#[test]
fn ten_equal_callers_have_equal_parts_of_an_overload() {
    for seed in seeds(8) {
        let report = queue::run(&overload(seed, vec![96; 10]));
        let (mut sum, mut squares) = (0.0, 0.0);
        report
            .served
            .iter()
            .for_each(|&served| (sum, squares) = (sum + served as f64, squares + (served * served) as f64));
        // Jain's index.
        assert!(sum * sum / (10.0 * squares) >= 0.998, "seed={seed}: {:?}", report.served);
        let late = queue::Report::percentile(&report.refusals, 99);
        assert!(late <= Duration::from_millis(50), "seed={seed}: refused after {late:?}");
    }
}

#[test]
fn below_capacity_nobody_is_refused_and_a_short_stall_is_waited_out() {
    for seed in seeds(8) {
        let stall = (at_ms(5_000), at_ms(5_200));
        let report = queue::run(&queue::Plan { stall, ..overload(seed, vec![160]) });
        assert_eq!(report.refusals.len(), 0, "seed={seed}");
    }
}

#[test]
fn a_server_that_hangs_and_comes_back_is_used_at_once() {
    for seed in seeds(8) {
        let stall = (at_ms(4_000), at_ms(8_000));
        let report = queue::run(&queue::Plan { stall, ..overload(seed, vec![640]) });
        // Five of nine seconds.
        assert!(report.served[0] >= 1_500, "seed={seed}: {:?}", report.served);
        let late = queue::Report::percentile(&report.refusals, 95);
        assert!(late <= Duration::from_millis(100), "seed={seed}: refused after {late:?}");
    }
}
