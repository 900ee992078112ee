//! One holder's side of a budget: what it may have in use, what it tells the store, and what silence of the store means.
//!
//! Pure: facts and `now` in. All holders together stay within the limit because of one rule: what a holder tells the store
//! is the most that it can have in use until it hears the answer. So it shrinks to what it wants *before* it asks
//! (`begin`), and takes nothing of its own accord meanwhile. When its lease is over it takes nothing new, unless the store
//! was asked in vain: then it has a part of its own.

use std::time::{Duration, Instant};

use super::{BudgetAsk, BudgetHolder, BudgetName, BudgetShare};

/// What a holder may have in use, and until when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowance {
    /// Units under the lease.
    leased: u32,
    /// The end of the lease.
    until: Option<Instant>,
    /// Units without a lease.
    alone: u32,
}

/// What a holder takes when its lease is over and the store was asked in vain, at least one unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Alone {
    /// If it never reached the store, and does not know how many others there are.
    pub stranger: u32,
    /// Of its even part among the holders that there were last.
    pub most: u32,
}

/// One holder's side.
#[derive(Debug)]
pub struct Holding {
    budget: BudgetName,
    holder: BudgetHolder,
    term: Duration,
    alone: Alone,
    /// Holders there were last.
    holders: Option<u32>,
    allowance: Allowance,
    turn: u64,
}

impl Allowance {
    /// No unit.
    pub const NOTHING: Allowance = Allowance { leased: 0, until: None, alone: 0 };

    /// So many, whatever the time: nobody else has any.
    pub fn always(units: u32) -> Allowance {
        Allowance { alone: units, ..Allowance::NOTHING }
    }

    /// Units at `now`.
    pub fn at(&self, now: Instant) -> u32 {
        if self.is_leased(now) { self.leased } else { self.alone }
    }

    /// Whether there is a lease at `now`.
    pub fn is_leased(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// As it is until an answer comes, if no more than `want` are wanted; what it was at any time since counts as before.
    fn shrunk(&self, want: u32, now: Instant) -> Allowance {
        match self.is_leased(now) {
            // If the lease ends before the answer comes, nothing is allowed: the store was not asked in vain yet.
            true => Allowance { leased: self.leased.min(want), alone: 0, ..*self },
            false => Allowance::always(self.alone.min(want)),
        }
    }
}

impl Holding {
    /// Nothing yet.
    pub fn new(budget: BudgetName, holder: BudgetHolder, term: Duration, alone: Alone) -> Holding {
        let (holders, allowance) = (None, Allowance::NOTHING);
        Holding { budget, holder, term, alone, holders, allowance, turn: 0 }
    }

    /// What may be in use.
    pub fn allowance(&self) -> Allowance {
        self.allowance
    }

    /// The first half of an ask, by a holder that has a use for `want` units: what it may have in use from now on, until
    /// the answer comes. It has to heed that before it looks how many are in use.
    pub fn begin(&mut self, want: u32, now: Instant) -> Allowance {
        self.allowance = self.allowance.shrunk(want, now);
        self.allowance
    }

    /// The second half: what to ask the store for, with so many `in_use`.
    pub fn ask(&mut self, limit: u32, in_use: u32, want: u32) -> BudgetAsk {
        self.turn += 1;
        let Holding { budget, holder, term, turn, .. } = *self;
        let busy = in_use.max(self.allowance.leased).max(self.allowance.alone);
        BudgetAsk { budget, limit, holder, busy, want: want.min(limit), turn, term }
    }

    /// The answer to what was asked at `asked`, by the clock of `now`: what may be in use from now on. An answer that took
    /// longer than the term says nothing any more.
    pub fn granted(&mut self, share: BudgetShare, asked: Instant) -> Allowance {
        self.holders = Some(share.holders.max(1));
        self.allowance = Allowance { leased: share.units, until: Some(asked + self.term), alone: 0 };
        self.allowance
    }

    /// The store gave no answer: at the end of the lease it is [`Alone`].
    pub fn refused(&mut self, limit: u32) -> Allowance {
        let Alone { stranger, most } = self.alone;
        let part = self.holders.map_or(stranger, |holders| most.min(limit / holders));
        self.allowance.alone = part.clamp(1, limit.max(1));
        self.allowance
    }
}

#[cfg(test)]
mod tests;
