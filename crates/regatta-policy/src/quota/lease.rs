//! One quota over several gateways: each takes units on lease, so that a busy key costs far less than a round trip a
//! request, and no window ever grants more than the rule.
//!
//! Pure, both sides: [`Ledger`] is what the store keeps under a key and does in one atomic step on its own clock,
//! [`Purse`] what a gateway holds of it, on the gateway's. docs/adr/2026-11-26-limits-by-leases.md has the proof.

use std::num::NonZeroU32;
use std::time::Duration;

use super::counter::{Algorithm, Breach, Quota, Standing};
use super::gcra;
use super::window::{Allowance, RUNS_MAX};
use crate::ids::Micros;

/// Gateways that may hold units of one key at once; a further one gets what it needs at the moment and no more.
pub const LEASES_MAX: usize = 64;

/// A lease lasts this part of the window.
const TERM_PART: u64 = 25;
/// Requests that should share one round trip.
const SHARED_BY: u64 = 12;
/// Rates are counted in units in so many microseconds, so that a slow one is not taken for none.
const RATE_TIME: u64 = 1_000_000_000;
/// A request of several rules holds what one of them grants for so long at least: the answers of all must be there.
const HOLD: Micros = Micros(500_000);

/// A purse, as the store tells it from others: a new one has a new name, because it knows nothing of what the old one
/// used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder(pub u64);

/// What the store keeps under one key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// What was used, oldest first: the moment of the last unit, and how many.
    runs: Vec<(Micros, u32)>,
    /// What is held and may still be used.
    leases: Vec<Lease>,
    /// GCRA instead of runs and leases.
    tat: Option<Micros>,
    blocked_until: Micros,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lease {
    holder: Holder,
    units: u32,
    from: Micros,
    until: Micros,
}

/// One question of a gateway to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Who asks.
    pub holder: Holder,
    /// What it used of its last lease.
    pub used: u32,
    /// How long before this question was sent it used the last of that.
    pub last_ago: Micros,
    /// What a waiting request takes.
    pub want: Want,
    /// What it would like to hold besides, for later requests.
    pub extra: u32,
    /// How long it may hold that, counted from the answer on.
    pub term: Micros,
}

/// What a request takes that waits for the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Want {
    /// There is none: the question only gives back.
    Nothing,
    /// So many units, used at once.
    AtOnce(NonZeroU32),
    /// So many, held with the extra ones, because another rule may yet refuse the request. An even rate counts them at
    /// once all the same: nothing of it can be given back.
    Held(NonZeroU32),
}

impl Want {
    /// Units.
    pub fn units(self) -> u32 {
        match self {
            Want::Nothing => 0,
            Want::AtOnce(units) | Want::Held(units) => units.get(),
        }
    }
}

/// The store's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grant {
    /// The request goes on.
    Granted {
        /// Units held until the term ends. With what the request takes if it wanted that held and there was a place
        /// for another lease; else the request's are counted as used.
        held: u32,
        /// Units that are left for all.
        remaining: u32,
        /// How long until all are there again.
        reset_after: Micros,
    },
    /// It does not.
    Refused {
        /// When it would be worth asking again.
        retry_after: Micros,
    },
}

impl Ledger {
    /// Takes back what `ask` did not use, and grants what fits, at `now` by the store's clock.
    pub fn ask(&mut self, quota: &Quota, ask: &Ask, now: Micros) -> Grant {
        if let Algorithm::SlidingWindow(allowance) = quota.algorithm {
            self.settle(allowance, ask, now);
        }
        if now < self.blocked_until {
            return Grant::Refused { retry_after: Micros(self.blocked_until.0 - now.0) };
        }
        let granted = match quota.algorithm {
            Algorithm::SlidingWindow(allowance) => self.grant_window(allowance, ask, now),
            Algorithm::Gcra(rate) => self.grant_gcra(rate, ask, now),
        };
        match (granted, quota.breach) {
            (Grant::Refused { .. }, Breach::Blocked(block)) => {
                self.blocked_until = now.after(block);
                Grant::Refused { retry_after: Micros(self.blocked_until.0 - now.0) }
            }
            (granted, Breach::Refused | Breach::Blocked(_)) => granted,
        }
    }

    /// Turns the holder's lease into what was used of it, and forgets what has left the window.
    fn settle(&mut self, allowance: Allowance, ask: &Ask, now: Micros) {
        if let Some(at) = self.leases.iter().position(|lease| lease.holder == ask.holder) {
            let lease = self.leases.swap_remove(at);
            let used = ask.used.min(lease.units);
            // The question was sent before it came, so this is never earlier than the use itself.
            let last = Micros(now.0.saturating_sub(ask.last_ago.0)).clamp(lease.from, lease.until);
            if used > 0 {
                self.note(last, used);
            }
        }
        let within = allowance.within().0;
        self.runs.retain(|(last, _)| now.0 < last.0.saturating_add(within));
        self.leases.retain(|lease| now.0 < lease.until.0.saturating_add(within));
    }

    fn note(&mut self, last: Micros, units: u32) {
        let at = self.runs.partition_point(|(earlier, _)| *earlier <= last);
        self.runs.insert(at, (last, units));
        if self.runs.len() > RUNS_MAX as usize {
            // The two that are closest become one that counts as the later: too long for some, for none too short.
            let gap = |at: &usize| self.runs[at + 1].0.0 - self.runs[*at].0.0;
            let closest = (0..self.runs.len() - 1).min_by_key(gap).unwrap_or(0);
            let (_, units) = self.runs.remove(closest);
            self.runs[closest].1 = self.runs[closest].1.saturating_add(units);
        }
    }

    fn grant_window(&mut self, allowance: Allowance, ask: &Ask, now: Micros) -> Grant {
        let used: u64 = self.runs.iter().map(|(_, units)| u64::from(*units)).sum();
        let held: u64 = self.leases.iter().map(|lease| u64::from(lease.units)).sum();
        let room = u64::from(allowance.allow()).saturating_sub(used + held);
        let cost = u64::from(ask.want.units());
        if room < cost {
            return Grant::Refused { retry_after: self.wait(allowance, cost - room, now) };
        }
        // Half of what is left at most: another gateway may need the rest in this very moment.
        let left = room - cost;
        let may_hold = self.leases.len() < LEASES_MAX;
        let extra = if may_hold { u64::from(ask.extra).min(left.div_ceil(2)) } else { 0 };
        let held = match ask.want {
            Want::Held(_) if may_hold => cost + extra,
            Want::Nothing => extra,
            Want::AtOnce(units) | Want::Held(units) => {
                self.note(now, units.get());
                extra
            }
        };
        let held = u32::try_from(held).unwrap_or(u32::MAX);
        if held > 0 {
            let until = Micros(now.0.saturating_add(ask.term.0));
            self.leases.push(Lease { holder: ask.holder, units: held, from: now, until });
        }
        let remaining = u32::try_from(left - extra).unwrap_or(u32::MAX);
        Grant::Granted { held, remaining, reset_after: allowance.within() }
    }

    /// How long until `missing` units more have left the window, if every lease is used to its end.
    fn wait(&self, allowance: Allowance, missing: u64, now: Micros) -> Micros {
        let leases = self.leases.iter().map(|lease| (lease.until, lease.units));
        let mut ends: Vec<(Micros, u32)> = self.runs.iter().copied().chain(leases).collect();
        ends.sort_unstable();
        let mut freed = 0;
        for (last, units) in ends {
            freed += u64::from(units);
            if missing <= freed {
                return Micros((last.0.saturating_add(allowance.within().0)).saturating_sub(now.0));
            }
        }
        Micros(u64::MAX)
    }

    /// An even rate: what is held counts as used at the end of its term, so nothing is ever given back.
    fn grant_gcra(&mut self, rate: gcra::Rate, ask: &Ask, now: Micros) -> Grant {
        let mut held = 0;
        if let Want::AtOnce(cost) | Want::Held(cost) = ask.want {
            let tat = match gcra::judge(self.tat, rate, cost, now) {
                gcra::Verdict::Limited { retry_after } => return Grant::Refused { retry_after },
                gcra::Verdict::Granted { tat } => tat,
            };
            let held_from = tat.max(Micros(now.0.saturating_add(ask.term.0)));
            held = ask.extra.min(rate.room(Some(held_from), now) / 2);
            self.tat = Some(match held {
                0 => tat,
                held => Micros(held_from.0.saturating_add(rate.interval().0.saturating_mul(u64::from(held)))),
            });
        }
        let remaining = rate.room(self.tat, now);
        Grant::Granted { held, remaining, reset_after: Micros(gcra::ahead(self.tat, now)) }
    }
}

/// What one gateway holds under one key.
#[derive(Clone, Debug, Default)]
pub struct Purse {
    held: u32,
    until: Micros,
    used: u32,
    last_used: Micros,
    /// Not worth asking before, for so much or more.
    closed_until: Micros,
    closed_for: u32,
    /// Units that were wanted since the last question, and since when.
    wanted: u64,
    since: Micros,
    /// Units wanted in [`RATE_TIME`], as of the last question.
    rate: u64,
    /// What the store said last is left for all, and when all is there again.
    left: u32,
    reset_at: Micros,
}

/// What becomes of a request at its gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spend {
    /// It was within what is held.
    Spent,
    /// The store said that there is nothing, not long ago.
    Limited {
        /// When it is worth trying again; the largest number if never.
        retry_after: Micros,
    },
    /// The store has to be asked.
    Ask {
        /// What to ask for besides the request's own.
        extra: u32,
        /// How long to hold it.
        term: Micros,
    },
}

/// What an answer means for the request that waited for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// What it takes is counted.
    Counted,
    /// What it takes is in the purse.
    InPurse,
    /// It was refused.
    Refused,
}

impl Purse {
    /// A request wants `cost` units at `now`. It is spent by [`Purse::spend`] only when all rules of a request said that
    /// it fits.
    pub fn look(&self, quota: &Quota, cost: NonZeroU32, now: Micros) -> Spend {
        if now < self.until && cost.get() <= self.held {
            return Spend::Spent;
        }
        if quota.at_once() < cost.get() {
            return Spend::Limited { retry_after: Micros(u64::MAX) };
        }
        if now < self.closed_until && self.closed_for <= cost.get() {
            return Spend::Limited { retry_after: Micros(self.closed_until.0 - now.0) };
        }
        let (term, most) = match quota.algorithm {
            Algorithm::SlidingWindow(allowance) => (allowance.within().0 / TERM_PART, allowance.allow() / 8),
            // Held units count as used at the end of the term: only a burst far longer than that can bear it.
            Algorithm::Gcra(rate) => (rate.slack().0 / TERM_PART, rate.room(None, now) / 8),
        };
        let soon = self.rate.saturating_mul(term) / RATE_TIME;
        let extra = if self.is_busy() { soon.max(SHARED_BY) } else { soon };
        Spend::Ask { extra: u32::try_from(extra).unwrap_or(u32::MAX).min(most), term: Micros(term) }
    }

    /// Whether more is wanted in a second than should share one round trip.
    fn is_busy(&self) -> bool {
        SHARED_BY * RATE_TIME / 1_000_000 < self.rate
    }

    /// Counts that `cost` units were wanted, granted or not.
    pub fn want(&mut self, cost: NonZeroU32) {
        self.wanted += u64::from(cost.get());
    }

    /// Spends what `look` found.
    pub fn spend(&mut self, quota: &Quota, cost: NonZeroU32, now: Micros) {
        self.held -= cost.get().min(self.held);
        self.used += cost.get();
        self.last_used = now;
        if let Algorithm::SlidingWindow(allowance) = quota.algorithm {
            self.reset_at = Micros(now.0.saturating_add(allowance.within().0));
        }
    }

    /// The question for the store, sent at `now`. What was held is told as used or not, and so is spent no more: the store
    /// takes the rest back. What was used stays noted until the answer is heard, because the question may be lost.
    pub fn question(&mut self, holder: Holder, want: Want, (extra, term): (u32, Micros), now: Micros) -> Ask {
        if want != Want::Nothing {
            let passed = now.0.saturating_sub(self.since.0).max(1_000);
            // Half the new figure, half the old: a burst counts at once, and a pause does not make it forgotten.
            self.rate = (self.rate + self.wanted.saturating_mul(RATE_TIME) / passed) / 2;
            (self.wanted, self.since) = (0, now);
        }
        let term = if matches!(want, Want::Held(_)) { term.max(HOLD) } else { term };
        let last_ago = Micros(now.0.saturating_sub(self.last_used.0));
        self.held = 0;
        Ask { holder, used: self.used, last_ago, want, extra, term }
    }

    /// The answer to a question that was sent at `sent`: its term is counted from then, because the store's began later.
    pub fn hear(&mut self, ask: &Ask, grant: Grant, sent: Micros, quota: &Quota) -> Heard {
        (self.held, self.used) = (0, self.used.saturating_sub(ask.used));
        match grant {
            Grant::Granted { held, remaining, reset_after } => {
                (self.held, self.until) = (held, Micros(sent.0.saturating_add(ask.term.0)));
                (self.left, self.reset_at) = (remaining, Micros(sent.0.saturating_add(reset_after.0)));
                let (heard, extra) = match ask.want {
                    Want::Held(cost) if cost.get() <= held => (Heard::InPurse, held - cost.get()),
                    Want::Nothing | Want::AtOnce(_) | Want::Held(_) => (Heard::Counted, held),
                };
                if extra < ask.extra && self.is_busy() {
                    (self.closed_until, self.closed_for) = (Micros(sent.0 + self.pause(quota)), 1);
                }
                heard
            }
            Grant::Refused { retry_after } => {
                let pause = if self.is_busy() { self.pause(quota) } else { 0 };
                self.closed_until = Micros(sent.0.saturating_add(retry_after.0.max(pause)));
                self.closed_for = match quota.breach {
                    Breach::Refused => ask.want.units(),
                    Breach::Blocked(_) => 1,
                };
                self.left = 0;
                Heard::Refused
            }
        }
    }

    /// How long a busy key that is scarce is not asked for again: so long that a dozen requests share the next question.
    fn pause(&self, quota: &Quota) -> u64 {
        let longest = match quota.algorithm {
            Algorithm::SlidingWindow(allowance) => allowance.within().0 / TERM_PART,
            // Units of an even rate are lost only where the whole burst is there.
            Algorithm::Gcra(rate) => rate.interval().0.max(rate.slack().0 / 2),
        };
        (SHARED_BY * RATE_TIME / self.rate.max(1)).min(longest)
    }

    /// Whether the store should be told what became of a lease that is over: until then it counts as used to its end.
    pub fn is_owed(&self, quota: &Quota, now: Micros) -> bool {
        // Of an even rate nothing is ever given back.
        matches!(quota.algorithm, Algorithm::SlidingWindow(_))
            && self.until <= now
            && (self.held > 0 || self.used > 0)
    }

    /// How the key stands, as far as is known here.
    pub fn standing(&self, cost: NonZeroU32, now: Micros) -> Standing {
        let held = if now < self.until { self.held } else { 0 };
        let is_closed = held == 0 && now < self.closed_until && self.closed_for <= cost.get();
        let (remaining, reset_at) = match is_closed {
            true => (0, self.reset_at.max(self.closed_until)),
            false => (held.saturating_add(self.left), self.reset_at),
        };
        Standing { remaining, reset_after: Micros(reset_at.0.saturating_sub(now.0)) }
    }

    /// From when on it says nothing that a new one does not.
    pub fn empty_at(&self) -> Micros {
        self.until.max(self.closed_until).max(self.reset_at)
    }
}

/// What a gateway may grant by itself while the store is away: its share, at least one unit.
pub fn share(quota: &Quota, gateways: NonZeroU32) -> Quota {
    let part = |units: u32| NonZeroU32::new(units / gateways).unwrap_or(NonZeroU32::MIN);
    let algorithm = match quota.algorithm {
        Algorithm::SlidingWindow(allowance) => {
            let within = Duration::from_micros(allowance.within().0);
            Algorithm::SlidingWindow(Allowance::new(part(allowance.allow()), within))
        }
        Algorithm::Gcra(rate) => {
            let interval = rate.interval().0.saturating_mul(u64::from(gateways.get()));
            let burst = part(rate.room(None, Micros(0)));
            Algorithm::Gcra(gcra::Rate::new(NonZeroU32::MIN, Duration::from_micros(interval), burst))
        }
    };
    Quota { algorithm, ..*quota }
}

#[cfg(test)]
mod tests;
