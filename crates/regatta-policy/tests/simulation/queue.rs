//! A server with so many places and the line before it, in an overload: who is refused, after how long, and who is served.

use std::num::NonZeroU32;
use std::ops::Range;
use std::time::Duration;

use regatta_policy::Micros;
use regatta_policy::line::{Entry, Line, Rank, Room, Ticket, Who};

use crate::world::Dice;

/// What comes, and what is there for it.
#[derive(Clone, Debug)]
pub struct Plan {
    pub seed: u64,
    /// Places, each for a call of 40 to 60 ms.
    pub places: usize,
    /// Calls a second of each caller.
    pub rates: Vec<u64>,
    pub wait_max: Duration,
    /// Nothing is answered between these moments.
    pub stall: (Micros, Micros),
    /// Since when is counted.
    pub from: Micros,
}

/// What became of the calls that were counted, in microseconds of waiting.
#[derive(Debug)]
pub struct Report {
    counted: Range<Micros>,
    pub served: Vec<u64>,
    pub asked: Vec<u64>,
    /// Of who was served, by caller.
    pub waits: Vec<Vec<u64>>,
    pub refusals: Vec<u64>,
}

impl Report {
    /// The time that so many in a hundred did not wait longer than.
    pub fn percentile(waits: &[u64], percent: usize) -> Duration {
        let mut waits = waits.to_vec();
        waits.sort_unstable();
        let at = (waits.len() * percent / 100).min(waits.len().saturating_sub(1));
        Duration::from_micros(waits.get(at).copied().unwrap_or_default())
    }
}

/// One who waits.
#[derive(Clone, Copy, Debug)]
struct Caller {
    number: usize,
    since: Micros,
}

const END: Micros = Micros(12_000_000);
/// Until when is counted; who comes later may still wait at the end.
const COUNTED: Micros = Micros(11_000_000);
const ROOM: usize = 200;

/// Twelve seconds of it, in steps of a millisecond.
pub fn run(plan: &Plan) -> Report {
    let mut dice = Dice(plan.seed);
    let callers = plan.rates.len();
    let mut report = Report {
        counted: plan.from..COUNTED,
        served: vec![0; callers],
        asked: vec![0; callers],
        waits: vec![Vec::new(); callers],
        refusals: Vec::new(),
    };
    let mut line: Line<Caller> = Line::default();
    let mut tickets: Vec<(Ticket, Caller)> = Vec::new();
    // When each call that is under way ends.
    let mut ends: Vec<Micros> = Vec::new();
    for now in (0..END.0).step_by(1_000).map(Micros) {
        let is_stalled = plan.stall.0 <= now && now < plan.stall.1;
        if is_stalled {
            ends.iter_mut().for_each(|end| end.0 += 1_000);
        }
        // Whoever waits longer than the longest wait gives up by itself.
        tickets.retain(|(ticket, caller)| {
            let gives_up = plan.wait_max < now.since(caller.since);
            if gives_up && line.leave(*ticket, now).is_some() {
                report.refuse(*caller, now);
            }
            !gives_up
        });
        let before = ends.len();
        ends.retain(|end| now < *end);
        for _ in ends.len()..before {
            line.expired(plan.wait_max, now).into_iter().for_each(|caller| report.refuse(caller, now));
            if let Some(caller) = line.serve(now) {
                report.serve(caller, now);
                ends.push(begin(&mut dice, now));
            }
        }
        for at in 0..callers {
            let number = (at + now.0 as usize / 1_000) % callers;
            // A coin for each millisecond in parts of a thousand; several may come at once.
            let mut chance = plan.rates[number];
            while chance > 0 {
                let comes = dice.between(0, 1_000) < chance.min(500);
                chance = chance.saturating_sub(500);
                if comes {
                    let caller = Caller { number, since: now };
                    report.ask(caller);
                    if line.is_empty() && ends.len() < plan.places {
                        report.serve(caller, now);
                        ends.push(begin(&mut dice, now));
                        continue;
                    }
                    line.expired(plan.wait_max, now).into_iter().for_each(|gone| report.refuse(gone, now));
                    let account = [u8::try_from(number).expect("few"); 16];
                    let who = Who { account, weight: NonZeroU32::MIN, rank: Rank::Interactive };
                    match line.enter(who, caller, Room { max: ROOM, wait_max: plan.wait_max }, now) {
                        Entry::Waits(ticket) => tickets.push((ticket, caller)),
                        Entry::Displaced(ticket, gone) => {
                            report.refuse(gone, now);
                            tickets.push((ticket, caller));
                        }
                        Entry::Full(refused) => report.refuse(refused, now),
                    }
                }
            }
        }
    }
    report
}

fn begin(dice: &mut Dice, now: Micros) -> Micros {
    Micros(now.0 + dice.between(40_000, 60_000))
}

impl Report {
    fn ask(&mut self, caller: Caller) {
        self.asked[caller.number] += u64::from(self.counted.contains(&caller.since));
    }

    fn serve(&mut self, caller: Caller, now: Micros) {
        if self.counted.contains(&caller.since) {
            self.served[caller.number] += 1;
            self.waits[caller.number].push(now.since(caller.since).as_micros() as u64);
        }
    }

    fn refuse(&mut self, caller: Caller, now: Micros) {
        if self.counted.contains(&caller.since) {
            self.refusals.push(now.since(caller.since).as_micros() as u64);
        }
    }
}
