//! Many holders over one ledger, on simulated time with a seed: never more in use than the limit, and nobody starves.

use super::*;
use crate::embedded::budgets::Held;

const LIMIT: u32 = 12;
const TERM: Duration = Duration::from_secs(5);
/// One step of the simulation.
const STEP_MS: u64 = 20;

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn holding(name: u64, stranger: u32) -> Holding {
    let alone = Alone { stranger, most: 6 };
    Holding::new(BudgetName([1; 16]), BudgetHolder(u128::from(name).to_be_bytes()), TERM, alone)
}

#[test]
fn it_shrinks_before_it_asks_and_says_the_most_that_it_can_have_in_use() {
    let (now, mut one) = (Instant::now(), holding(1, 1));
    one.granted(BudgetShare { units: 8, holders: 1 }, now);
    assert_eq!(one.begin(3, now + ms(10)).at(now + ms(10)), 3);
    assert_eq!(one.ask(LIMIT, 1, 3).busy, 3, "two more may come before the answer does");
    one.granted(BudgetShare { units: 2, holders: 2 }, now + ms(10));
    one.begin(9, now + ms(20));
    let ask = one.ask(LIMIT, 3, 90);
    assert_eq!((ask.busy, ask.want, ask.turn), (3, LIMIT, 2), "one of the three is over its part");
}

#[test]
fn after_the_lease_nothing_is_taken_before_the_store_was_asked_in_vain() {
    let (now, mut one) = (Instant::now(), holding(1, 1));
    one.granted(BudgetShare { units: 8, holders: 3 }, now);
    let late = now + TERM;
    assert_eq!([one.allowance().at(late - ms(1)), one.allowance().at(late)], [8, 0]);
    let cut_off = one.refused(LIMIT);
    assert_eq!([cut_off.at(late - ms(1)), cut_off.at(late)], [8, 4], "the even part of three");
    one.begin(12, late);
    assert_eq!(one.ask(LIMIT, 0, 12).busy, 4);
}

#[test]
fn who_never_reached_the_store_has_its_fixed_part_and_never_nothing() {
    assert_eq!(holding(1, 5).refused(LIMIT), Allowance::always(5));
    assert_eq!(holding(1, 0).refused(LIMIT), Allowance::always(1));
    let mut many = holding(1, 5);
    many.granted(BudgetShare { units: 0, holders: 40 }, Instant::now());
    assert_eq!(many.refused(LIMIT).alone, 1);
    many.granted(BudgetShare { units: 0, holders: 1 }, Instant::now());
    assert_eq!(many.refused(LIMIT).alone, 6, "it was alone, and may take no more than it was told");
}

/// A holder with connections that last for some time.
struct Sim {
    holding: Holding,
    open: Vec<Connection>,
    waiting: u32,
    /// What was asked, when the store gets it, when the answer comes, and what it is.
    asking: Option<Asking>,
    next_ask: Instant,
    /// It does nothing until then; its connections stay open.
    stalled_until: Instant,
    /// How much it wants, out of ten.
    appetite: u64,
}

#[derive(Clone, Copy)]
struct Connection {
    ends: Instant,
    /// Its holder had no lease at some time since: it was stopped past it, or cut off from the store.
    outlived_lease: bool,
}

struct Asking {
    asked: Instant,
    arrives: Instant,
    answer: Option<(Instant, BudgetShare)>,
    ask: BudgetAsk,
}

/// Numbers without meaning (SplitMix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % bound
    }
}

impl Sim {
    fn new(name: u64, appetite: u64, now: Instant) -> Sim {
        let (open, holding) = (Vec::new(), holding(name, 1));
        Sim { holding, open, waiting: 0, asking: None, next_ask: now, stalled_until: now, appetite }
    }

    fn taken(&self) -> u32 {
        u32::try_from(self.open.len()).expect("few")
    }

    /// Connections end, and new ones begin as far as they may.
    fn work(&mut self, dice: &mut Dice, now: Instant) {
        let allowed = self.holding.allowance().at(now);
        self.open.retain(|connection| now < connection.ends);
        if dice.below(10) < self.appetite {
            self.waiting = (self.waiting + 1).min(2 * LIMIT);
        }
        while self.waiting > 0 && self.taken() < allowed {
            self.waiting -= 1;
            self.open.push(Connection { ends: now + ms(50 + dice.below(400)), outlived_lease: false });
        }
    }

    /// How many of its connections the ledger answers for.
    fn count(&mut self, now: Instant) -> u32 {
        let outlived_lease = !self.holding.allowance().is_leased(now);
        self.open.iter_mut().for_each(|connection| connection.outlived_lease |= outlived_lease);
        u32::try_from(self.open.iter().filter(|connection| !connection.outlived_lease).count()).expect("few")
    }

    fn ask(&mut self, dice: &mut Dice, now: Instant) {
        let want = (self.taken() + self.waiting + 1 + self.taken() / 4).min(LIMIT);
        self.holding.begin(want, now);
        let ask = self.holding.ask(LIMIT, self.taken(), want);
        let arrives = now + ms(dice.below(60));
        self.asking = Some(Asking { asked: now, arrives, answer: None, ask });
        self.next_ask = now + ms(if self.waiting > 0 { 100 } else { 1_000 });
    }

    fn hear(&mut self, now: Instant) {
        let Some(asking) = &self.asking else { return };
        match asking.answer {
            Some((comes, share)) if comes <= now => {
                self.holding.granted(share, asking.asked);
                self.asking = None;
            }
            None if asking.asked + ms(500) < now => {
                self.holding.refused(LIMIT);
                self.asking = None;
            }
            Some(_) | None => {}
        }
    }
}

/// What the store does with what has arrived, where some is lost or late.
fn serve(
    ledger: &mut Held,
    sims: &mut [Sim],
    late: &mut Vec<Asking>,
    dice: &mut Dice,
    troubled: Trouble,
    now: Instant,
) {
    for sim in sims.iter_mut() {
        let Some(asking) = &mut sim.asking else { continue };
        if asking.answer.is_some() || now < asking.arrives {
            continue;
        }
        match troubled.dice(20, dice) {
            // Asked, and the answer is lost.
            0 => _ = ledger.hold(&asking.ask, now),
            // Held up on its way, until others were asked.
            1 => {
                let Asking { asked, ask, .. } = *asking;
                late.push(Asking { asked, arrives: now + ms(dice.below(3_000)), answer: None, ask });
            }
            _ => asking.answer = Some((now + ms(dice.below(60)), ledger.hold(&asking.ask, now))),
        }
        if asking.answer.is_none() {
            asking.arrives = now + TERM;
        }
    }
    late.retain(|one| {
        if one.arrives <= now {
            ledger.hold(&one.ask, now);
        }
        now < one.arrives
    });
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Trouble {
    None,
    Much,
}

impl Trouble {
    /// Zero or one is trouble.
    fn dice(self, bound: u64, dice: &mut Dice) -> u64 {
        match self {
            Trouble::None => bound,
            Trouble::Much => dice.below(bound),
        }
    }
}

/// A minute of five holders; what each had in use, summed up.
fn minute(seed: u64, appetites: [u64; 5], trouble: Trouble) -> [u32; 5] {
    let (start, mut dice) = (Instant::now(), Dice(seed));
    let (mut ledger, mut late, mut had) = (Held::default(), Vec::new(), [0; 5]);
    let mut sims: Vec<Sim> =
        (1..).zip(appetites).map(|(name, appetite)| Sim::new(name, appetite, start)).collect();
    for step in 0..3_000 {
        let now = start + ms(step * STEP_MS);
        if trouble.dice(150, &mut dice) == 0 {
            let at = usize::try_from(dice.below(5)).expect("small");
            let heir = Sim::new(10 + step, appetites[at], now);
            match dice.below(3) {
                // It dies, its connections with it, and another takes its place.
                0 => sims[at] = heir,
                // It leaves in order.
                1 if sims[at].open.is_empty() => {
                    ledger.leave(sims[at].holding.holder);
                    sims[at] = heir;
                }
                // It is stopped, for a short or a long while.
                _ => sims[at].stalled_until = now + ms(dice.below(9_000)),
            }
        }
        serve(&mut ledger, &mut sims, &mut late, &mut dice, trouble, now);
        for sim in sims.iter_mut().filter(|sim| sim.stalled_until <= now) {
            sim.hear(now);
            sim.work(&mut dice, now);
            if sim.asking.is_none() && sim.next_ask <= now {
                sim.ask(&mut dice, now);
            }
        }
        let open: u32 = sims.iter_mut().map(|sim| sim.count(now)).sum();
        assert!(open <= LIMIT, "seed {seed}, step {step}: {open}");
        for (sum, sim) in had.iter_mut().zip(&sims) {
            *sum += sim.taken();
        }
    }
    had
}

#[test]
fn whatever_is_lost_late_or_stopped_there_are_never_more_than_the_limit() {
    for seed in 0..150 {
        minute(seed, [9, 9, 5, 2, 9], Trouble::Much);
    }
}

#[test]
fn holders_that_are_always_busy_make_room_for_who_comes() {
    for seed in 0..50 {
        let had = minute(seed, [10, 10, 10, 10, 10], Trouble::None);
        let (least, most) = (had.iter().min().copied(), had.iter().max().copied());
        let fair = |had: Option<u32>| f64::from(had.unwrap_or_default()) / 3_000.0;
        assert!(fair(least) > 1.5 && fair(most) < 3.5, "seed {seed}: {had:?} in 3000 steps");
    }
}
