//! A server with a few workers and a queue of its own, behind the limit, over seeds.

use super::*;
use crate::dice::below;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

/// What a run comes to, after a warm-up of two seconds.
#[derive(Debug)]
struct Outcome {
    served: u64,
    /// Mean time at the server, microseconds.
    latency: u64,
    limit: usize,
}

struct Server {
    workers: usize,
    free: usize,
    queue: VecDeque<(u64, u64)>,
    /// Time of the end, arrival, tool.
    busy: BinaryHeap<Reverse<(u64, u64, u64)>>,
}

/// How the times of one tool differ.
#[derive(Clone, Copy, Debug)]
enum Spread {
    Fixed,
    /// From half to one and a half times the mean.
    Even,
    /// Most are short and some are long.
    Exponential,
}

impl Spread {
    /// A time of this `mean`, out of a number below a million.
    fn of(self, mean: u64, dice: u64) -> u64 {
        match self {
            Spread::Fixed => mean,
            Spread::Even => mean / 2 + mean * dice / 1_000_000,
            Spread::Exponential => (-(((dice + 1) as f64) / 1e6).ln() * mean as f64) as u64,
        }
    }
}

/// `demand` calls a second come to a server of `workers`; a tool's mean time at time `now` is `time(tool, now)`.
fn run(seed: u64, workers: usize, demand: u64, seconds: u64, time: impl Fn(u64, u64) -> u64) -> Outcome {
    run_spread(seed, workers, demand, seconds, Spread::Even, time)
}

fn run_spread(
    seed: u64,
    workers: usize,
    demand: u64,
    seconds: u64,
    spread: Spread,
    time: impl Fn(u64, u64) -> u64,
) -> Outcome {
    let mut adaptive = Adaptive::new(20, Micros(0));
    let mut server = Server { workers, free: workers, queue: VecDeque::new(), busy: BinaryHeap::new() };
    let (mut at_server, mut rolls, mut now) = (0usize, 0u64, 0u64);
    let (mut served, mut total) = (0, 0);
    let mut dice = |bound: u64| {
        rolls += 1;
        below(seed ^ rolls, rolls, bound)
    };
    let mut next = 0;
    while now < seconds * 1_000_000 {
        let ends = server.busy.peek().map_or(u64::MAX, |Reverse((end, ..))| *end);
        if ends <= next {
            now = ends;
            let Some(Reverse((_, arrived, tool))) = server.busy.pop() else { break };
            server.free += 1;
            if now > 2_000_000 {
                served += 1;
                total += now - arrived;
            }
            adaptive.answered(tool, now - arrived, at_server, 1_000, Micros(now));
            at_server -= 1;
        } else {
            now = next;
            next += 1 + dice(2_000_000 / demand);
            // More than the limit is refused; the line before it is another rule's.
            if at_server < adaptive.limit() {
                at_server += 1;
                server.queue.push_back((now, dice(2)));
            }
        }
        while server.free > 0 {
            let Some((arrived, tool)) = server.queue.pop_front() else { break };
            server.free -= 1;
            let took = spread.of(time(tool, now), dice(1_000_000));
            server.busy.push(Reverse((now + took, arrived, tool)));
        }
    }
    assert_eq!(server.free + server.busy.len(), server.workers);
    Outcome { served, latency: total / served.max(1), limit: adaptive.limit() }
}

#[test]
fn an_overloaded_server_works_on_all_it_can_and_few_wait_there() {
    for spread in [Spread::Fixed, Spread::Even] {
        for seed in 0..10 {
            for workers in [4, 8, 16, 64] {
                let capacity = workers as u64 * 20;
                let outcome = run_spread(seed, workers, capacity * 10, 22, spread, |_, _| 50_000);
                let what = format!("seed {seed}, {workers} workers, {spread:?}: {outcome:?}");
                assert!(outcome.served >= capacity * 20 * 9 / 10, "{what}");
                // The fewer there are, the more is one that waits.
                let waiting = 10_000 + 240_000 / workers as u64;
                assert!(outcome.latency <= 50_000 + waiting, "{what}");
                assert!(outcome.limit <= workers + workers / 2 + 4, "{what}");
            }
        }
    }
}

#[test]
fn where_most_calls_are_short_and_some_long_it_is_kept_busy_all_the_same() {
    for workers in [8, 16, 32] {
        let capacity = workers as u64 * 20;
        let outcomes: Vec<Outcome> = (0..10)
            .map(|seed| run_spread(seed, workers, capacity * 10, 22, Spread::Exponential, |_, _| 50_000))
            .collect();
        // Each for itself learns from too few calls for a promise.
        let served: u64 = outcomes.iter().map(|outcome| outcome.served).sum();
        assert!(served >= capacity * 200 * 9 / 10, "{workers} workers: {outcomes:?}");
        assert!(outcomes.iter().all(|outcome| outcome.latency <= 110_000), "{workers} workers: {outcomes:?}");
    }
}

#[test]
fn a_server_that_was_overloaded_from_the_first_call_on_is_seen_through() {
    for seed in 0..10 {
        // Twenty at once are five times what it works on, so that no first answer shows how fast it is.
        let outcome = run_spread(seed, 4, 800, 22, Spread::Fixed, |_, _| 50_000);
        assert!(outcome.limit <= 8, "seed {seed}: {outcome:?}");
    }
}

#[test]
fn a_server_that_becomes_faster_is_used_as_it_is() {
    for seed in 0..10 {
        let faster = |_, now: u64| if now < 10_000_000 { 200_000 } else { 50_000 };
        let outcome = run_spread(seed, 16, 3_200, 40, Spread::Even, faster);
        assert!(outcome.served >= 80 * 8 + 320 * 30 * 9 / 10, "seed {seed}: {outcome:?}");
        assert!((14..=28).contains(&outcome.limit), "seed {seed}: {outcome:?}");
    }
}

#[test]
fn a_slow_tool_beside_a_fast_one_does_not_look_like_a_slow_server() {
    for seed in 0..20 {
        let time = |tool, _| if tool == 0 { 5_000 } else { 95_000 };
        let outcome = run(seed, 16, 3_200, 12, time);
        assert!(outcome.served >= 320 * 10 * 85 / 100, "seed {seed}: {outcome:?}");
        assert!(outcome.limit >= 12, "seed {seed}: {outcome:?}");
    }
}

#[test]
fn a_server_that_becomes_slow_gets_less_and_gets_more_again_when_it_recovers() {
    for seed in 0..20 {
        let slow = |_, now: u64| if (5_000_000..10_000_000).contains(&now) { 500_000 } else { 50_000 };
        let before = run(seed, 8, 1_600, 5, slow);
        let during = run(seed, 8, 1_600, 10, slow);
        let after = run(seed, 8, 1_600, 25, slow);
        assert!(during.limit < before.limit, "seed {seed}: {before:?} {during:?}");
        assert!(after.limit >= 8, "seed {seed}: {after:?}");
    }
}

#[test]
fn a_server_with_time_to_spare_is_not_held_back() {
    for seed in 0..20 {
        let outcome = run(seed, 64, 400, 12, |_, _| 50_000);
        assert!(outcome.served >= 400 * 10 * 95 / 100, "seed {seed}: {outcome:?}");
    }
}

#[test]
fn timeouts_shrink_it_once_a_look_and_never_below_the_least() {
    let mut adaptive = Adaptive::new(100, Micros(0));
    assert_eq!(adaptive.timed_out(), Some(90));
    assert_eq!(adaptive.timed_out(), None);
    for round in 1..100u64 {
        (0..SAMPLES).for_each(|_| _ = adaptive.answered(1, 1_000, 1, 100, Micros(round * 10_000)));
        adaptive.timed_out();
    }
    assert_eq!(adaptive.limit(), LIMIT_MIN);
}
