//! Several gateways over one ledger, with delays between them, over seeds: no window is ever exceeded, little is wasted,
//! and few questions are asked.

use super::*;
use crate::dice::below;
use crate::quota::gcra::Rate;
use proptest::prelude::*;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

const ONE: NonZeroU32 = NonZeroU32::MIN;

fn positive(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).expect("positive")
}

fn window(allow: u32, within: Duration) -> Quota {
    let algorithm = Algorithm::SlidingWindow(Allowance::new(positive(allow), within));
    Quota { algorithm, breach: Breach::Refused }
}

fn even(allow: u32, within: Duration, burst: u32) -> Quota {
    let algorithm = Algorithm::Gcra(Rate::new(positive(allow), within, positive(burst)));
    Quota { algorithm, breach: Breach::Refused }
}

/// How the gateways of a run come, in microseconds.
#[derive(Clone, Copy, Debug)]
struct World {
    seed: u64,
    gateways: usize,
    /// Mean time between two requests at one gateway.
    gap: u64,
    /// Longest way to the store and back; a gateway's requests wait for it one after the other.
    way: u64,
    /// One question in so many dies after the store has answered it; the gateway starts anew without its purse.
    deaths: u64,
    length: u64,
    /// Rules of each request; of several, one of the others refuses every third.
    rules: u32,
}

struct Outcome {
    /// Moments of use, by the true clock.
    uses: Vec<u64>,
    wanted: usize,
    questions: usize,
}

/// What happens, by the true clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Call,
    Arrives,
    Heard,
}

/// A question on its way, and its answer on the way back.
#[derive(Clone, Copy)]
struct Flight {
    ask: Ask,
    sent: Micros,
    grant: Grant,
}

struct Sim<'a> {
    world: World,
    quota: &'a Quota,
    ledger: Ledger,
    purses: Vec<Purse>,
    holders: Vec<u64>,
    flights: Vec<Option<Flight>>,
    /// Requests that wait for the question under way.
    waiting: Vec<usize>,
    events: BinaryHeap<Reverse<(u64, usize, Event)>>,
    rolls: u64,
    outcome: Outcome,
}

impl Sim<'_> {
    fn dice(&mut self, bound: u64) -> u64 {
        self.rolls += 1;
        below(self.world.seed ^ self.rolls, self.rolls, bound)
    }

    /// Each gateway's clock began at another time, and so did the store's.
    fn local(now: u64, at: usize) -> Micros {
        Micros(now + 1_000_000 * (at as u64 + 3))
    }

    fn call(&mut self, now: u64, at: usize) {
        let local = Self::local(now, at);
        match self.purses[at].look(self.quota, ONE, local) {
            Spend::Spent => {
                self.purses[at].spend(self.quota, ONE, local);
                self.outcome.uses.push(now);
            }
            Spend::Limited { .. } => {}
            Spend::Ask { .. } if self.flights[at].is_some() => self.waiting[at] += 1,
            Spend::Ask { extra, term } => {
                self.outcome.questions += 1;
                let want = if self.world.rules == 1 { Want::AtOnce(ONE) } else { Want::Held(ONE) };
                let ask = self.purses[at].question(Holder(self.holders[at]), want, (extra, term), local);
                let grant = Grant::Refused { retry_after: Micros(0) };
                self.flights[at] = Some(Flight { ask, sent: local, grant });
                let way = self.dice(self.world.way);
                self.events.push(Reverse((now + way, at, Event::Arrives)));
            }
        }
    }

    fn arrives(&mut self, now: u64, at: usize) {
        let Some(mut flight) = self.flights[at] else { return };
        flight.grant = self.ledger.ask(self.quota, &flight.ask, Micros(now + 77_000_000));
        self.flights[at] = Some(flight);
        let way = self.dice(self.world.way);
        self.events.push(Reverse((now + way, at, Event::Heard)));
        let held = matches!(flight.ask.want, Want::Held(_));
        if matches!(flight.grant, Grant::Granted { held: 0, .. }) || !held {
            self.outcome.uses.extend(matches!(flight.grant, Grant::Granted { .. }).then_some(now));
        }
    }

    fn heard(&mut self, now: u64, at: usize) {
        let Some(flight) = self.flights[at].take() else { return };
        let heard = self.purses[at].hear(&flight.ask, flight.grant, flight.sent, self.quota);
        if heard == Heard::InPurse && self.dice(3) > 0 {
            // Like any other request: the lease may be over by now.
            self.call(now, at);
        }
        if self.world.deaths > 0 && self.dice(self.world.deaths) == 0 {
            self.purses[at] = Purse::default();
            self.holders[at] += 1000;
        }
        for _ in 0..std::mem::take(&mut self.waiting[at]) {
            self.call(now, at);
        }
    }
}

fn run(world: World, quota: &Quota) -> Outcome {
    let count = world.gateways;
    let mut sim = Sim {
        world,
        quota,
        ledger: Ledger::default(),
        purses: vec![Purse::default(); count],
        holders: (0..count as u64).collect(),
        flights: vec![None; count],
        waiting: vec![0; count],
        events: (0..count).map(|at| Reverse((1 + at as u64, at, Event::Call))).collect(),
        rolls: 0,
        outcome: Outcome { uses: Vec::new(), wanted: 0, questions: 0 },
    };
    while let Some(Reverse((now, at, event))) = sim.events.pop() {
        match event {
            Event::Call => {
                sim.outcome.wanted += 1;
                sim.purses[at].want(ONE);
                sim.call(now, at);
                let next = now + 1 + sim.dice(2 * world.gap);
                if next < world.length {
                    sim.events.push(Reverse((next, at, Event::Call)));
                }
            }
            Event::Arrives => sim.arrives(now, at),
            Event::Heard => sim.heard(now, at),
        }
    }
    sim.outcome.uses.sort_unstable();
    sim.outcome
}

/// The most units in any half-open window of `within`.
fn worst(uses: &[u64], within: u64) -> usize {
    let mut first = 0;
    let each = uses.iter().enumerate().map(|(last, at)| {
        while within <= at - uses[first] {
            first += 1;
        }
        last - first + 1
    });
    each.max().unwrap_or(0)
}

#[test]
fn three_gateways_at_ten_times_the_limit_share_it_out_almost_whole_with_few_questions() {
    let quota = window(100, Duration::from_secs(1));
    for seed in 0..6 {
        let world =
            World { seed, gateways: 3, gap: 3_000, way: 600, deaths: 0, length: 60_000_000, rules: 1 };
        let outcome = run(world, &quota);
        let (mean, worst) = (outcome.uses.len() as f64 / 60.0, worst(&outcome.uses, 1_000_000));
        let share = outcome.questions as f64 / outcome.wanted as f64;
        assert!(worst <= 100, "seed {seed}: {worst} in a window");
        assert!((98.0..=102.0).contains(&mean), "seed {seed}: {mean} a second");
        assert!(share <= 0.1, "seed {seed}: {share} questions a request");
    }
}

#[test]
fn an_even_rate_is_shared_out_too() {
    let quota = even(100, Duration::from_secs(1), 20);
    for seed in 0..4 {
        let world =
            World { seed, gateways: 3, gap: 3_000, way: 600, deaths: 0, length: 60_000_000, rules: 1 };
        let outcome = run(world, &quota);
        let mean = outcome.uses.len() as f64 / 60.0;
        assert!(worst(&outcome.uses, 1_000_000) <= 120, "seed {seed}");
        assert!((90.0..=101.0).contains(&mean), "seed {seed}: {mean} a second");
    }
}

#[test]
fn a_lone_gateway_with_a_slow_caller_gets_all_that_is_allowed() {
    let quota = window(60, Duration::from_secs(60));
    let mut ledger = Ledger::default();
    let mut purse = Purse::default();
    let mut granted = 0;
    for second in 0..120u64 {
        let now = Micros(second * 500_000);
        purse.want(ONE);
        match purse.look(&quota, ONE, now) {
            Spend::Spent => {
                purse.spend(&quota, ONE, now);
                granted += 1;
            }
            Spend::Limited { .. } => {}
            Spend::Ask { extra, term } => {
                let ask = purse.question(Holder(1), Want::AtOnce(ONE), (extra, term), now);
                let grant = ledger.ask(&quota, &ask, now);
                granted += u32::from(matches!(grant, Grant::Granted { .. }));
                purse.hear(&ask, grant, now, &quota);
            }
        }
    }
    assert_eq!(granted, 60, "a minute at twice the rate");
}

#[test]
fn what_a_question_told_of_is_not_spent_while_it_is_under_way() {
    let quota = window(100, Duration::from_secs(1));
    let (mut ledger, mut purse) = (Ledger::default(), Purse::default());
    let term = Micros(40_000);
    let first = purse.question(Holder(1), Want::AtOnce(ONE), (12, term), Micros(0));
    let grant = ledger.ask(&quota, &first, Micros(0));
    purse.hear(&first, grant, Micros(0), &quota);
    assert_eq!(purse.look(&quota, ONE, Micros(1)), Spend::Spent);
    purse.spend(&quota, ONE, Micros(1));
    // A request that is too large for what is held.
    let second = purse.question(Holder(1), Want::AtOnce(positive(20)), (0, term), Micros(2));
    assert_eq!(second.used, 1);
    assert!(matches!(purse.look(&quota, ONE, Micros(3)), Spend::Ask { .. }), "the store takes it back");
    // The question is lost, and the next one tells what it would have told.
    let third = purse.question(Holder(1), Want::AtOnce(ONE), (0, term), Micros(4));
    assert_eq!(third.used, 1);
    let grant = ledger.ask(&quota, &third, Micros(4));
    assert!(matches!(grant, Grant::Granted { remaining: 97, .. }), "three units are used: {grant:?}");
    purse.hear(&third, grant, Micros(4), &quota);
    assert_eq!(purse.question(Holder(1), Want::AtOnce(ONE), (0, term), Micros(5)).used, 0, "told once");
}

#[test]
fn a_block_is_the_same_for_every_gateway() {
    let quota =
        Quota { breach: Breach::Blocked(Duration::from_secs(60)), ..window(1, Duration::from_secs(1)) };
    let mut ledger = Ledger::default();
    let ask = |holder| Ask {
        holder: Holder(holder),
        used: 0,
        last_ago: Micros(0),
        want: Want::AtOnce(ONE),
        extra: 0,
        term: Micros(0),
    };
    assert!(matches!(ledger.ask(&quota, &ask(1), Micros(0)), Grant::Granted { .. }));
    let blocked = |seconds: u64| Grant::Refused { retry_after: Micros(seconds * 1_000_000) };
    assert_eq!(ledger.ask(&quota, &ask(2), Micros(0)), blocked(60));
    assert_eq!(ledger.ask(&quota, &ask(1), Micros(20_000_000)), blocked(40), "it does not grow");
    assert!(matches!(ledger.ask(&quota, &ask(1), Micros(60_000_000)), Grant::Granted { .. }));
}

#[test]
fn what_was_not_used_comes_back_and_what_a_dead_gateway_held_counts_to_its_end() {
    let quota = window(10, Duration::from_secs(1));
    let ask = |holder, used, extra| Ask {
        holder: Holder(holder),
        used,
        last_ago: Micros(0),
        want: Want::AtOnce(ONE),
        extra,
        term: Micros(40_000),
    };
    let mut ledger = Ledger::default();
    let Grant::Granted { held, remaining, .. } = ledger.ask(&quota, &ask(1, 0, 4), Micros(0)) else {
        panic!("fits")
    };
    assert_eq!((held, remaining), (4, 5));
    let Grant::Granted { held, remaining, .. } = ledger.ask(&quota, &ask(1, 1, 0), Micros(30_000)) else {
        panic!("fits")
    };
    assert_eq!((held, remaining), (0, 7), "three of four came back");
    ledger.ask(&quota, &ask(2, 0, 3), Micros(30_000));
    // The second gateway is never heard of again.
    let remaining = |ledger: &mut Ledger, at| match ledger.ask(&quota, &ask(1, 0, 0), Micros(at)) {
        Grant::Granted { remaining, .. } => remaining,
        Grant::Refused { .. } => panic!("refused"),
    };
    assert_eq!(
        remaining(&mut ledger, 1_029_999),
        10 - 3 - 3 - 1,
        "what it held may have been used until 70 ms"
    );
    assert_eq!(remaining(&mut ledger, 1_070_000), 10 - 1 - 1);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    /// Whatever the load, the delays and the deaths.
    #[test]
    fn no_window_is_ever_exceeded(
        seed: u64, gateways in 1usize..6, gap in 200u64..60_000, way in 1u64..30_000, deaths in 0u64..6, rules in 1u32..3,
        allow in 1u32..300, within_ms in 20u64..2_000,
    ) {
        let within = Duration::from_millis(within_ms);
        let world = World { seed, gateways, gap, way, deaths, length: 5_000_000, rules };
        let outcome = run(world, &window(allow, within));
        prop_assert!(worst(&outcome.uses, within_ms * 1_000) <= allow as usize);
    }

    #[test]
    fn no_even_rate_is_ever_exceeded(
        seed: u64, gateways in 1usize..6, gap in 200u64..20_000, way in 1u64..30_000, deaths in 0u64..6, rules in 1u32..3,
        allow in 1u32..300, burst in 1u32..100,
    ) {
        let world = World { seed, gateways, gap, way, deaths, length: 5_000_000, rules };
        let outcome = run(world, &even(allow, Duration::from_secs(1), burst));
        let interval = 1_000_000u64.div_ceil(u64::from(allow));
        for within in [interval * 3, 100_000, 1_000_000] {
            let most = u64::from(burst) + within / interval + 1;
            prop_assert!(worst(&outcome.uses, within) as u64 <= most, "in {within} us");
        }
    }
}
