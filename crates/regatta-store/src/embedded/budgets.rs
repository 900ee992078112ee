//! Budgets in memory: all holders are in this process.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use super::{Embedded, ready};
use crate::budgets::BUDGET_HOLDERS_MAX;
use crate::{BoxFuture, BudgetAsk, BudgetHolder, BudgetName, BudgetShare, Budgets, StoreError};

/// Budgets at most.
pub(super) const BUDGETS_MAX: usize = 1024;

/// Who holds what of one budget.
#[derive(Default)]
pub(crate) struct Held(BTreeMap<BudgetHolder, Lease>);

struct Lease {
    /// What it may have in use: what it was given, or what it had before if that is more.
    occupied: u32,
    want: u32,
    turn: u64,
    until: Instant,
}

impl Held {
    pub(crate) fn hold(&mut self, ask: &BudgetAsk, now: Instant) -> BudgetShare {
        self.0.retain(|_, lease| now < lease.until);
        if self.0.get(&ask.holder).is_some_and(|lease| ask.turn < lease.turn) {
            return BudgetShare { units: 0, holders: count(self.0.len()) };
        }
        self.0.remove(&ask.holder);
        if self.0.len() >= BUDGET_HOLDERS_MAX {
            return BudgetShare { units: 0, holders: count(self.0.len()) };
        }
        let others = self.0.values().fold(0_u32, |sum, lease| sum.saturating_add(lease.occupied));
        let units = self.part(ask).min(ask.limit.saturating_sub(others));
        let (occupied, until) = (units.max(ask.busy), now + ask.term);
        self.0.insert(ask.holder, Lease { occupied, want: ask.want, turn: ask.turn, until });
        BudgetShare { units, holders: count(self.0.len()) }
    }

    pub(crate) fn leave(&mut self, holder: BudgetHolder) {
        self.0.remove(&holder);
    }

    /// The asker's part, once all have renewed: whoever wants less than an equal part leaves the rest to the others.
    fn part(&self, ask: &BudgetAsk) -> u32 {
        let mut wants: Vec<_> = self.0.iter().map(|(holder, lease)| (lease.want, *holder)).collect();
        wants.push((ask.want, ask.holder));
        wants.sort_unstable();
        let mut left = ask.limit;
        for (served, (want, holder)) in wants.iter().enumerate() {
            let part = (*want).min(left / count(wants.len() - served));
            if *holder == ask.holder {
                return part;
            }
            left -= part;
        }
        0
    }
}

fn count(holders: usize) -> u32 {
    u32::try_from(holders).unwrap_or(u32::MAX)
}

impl Embedded {
    fn share_out(&self, ask: &BudgetAsk) -> Result<BudgetShare, StoreError> {
        let now = Instant::now();
        let mut budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        if budgets.get(&ask.budget, now).is_none()
            && budgets.put(ask.budget, Held::default(), ask.term, now).is_err()
        {
            self.counters.refused_claims.fetch_add(1, Relaxed);
            return Err(StoreError::Full("budgets"));
        }
        let held = budgets.renew(&ask.budget, ask.term, now);
        held.map(|held| held.hold(ask, now)).ok_or(StoreError::Full("budgets"))
    }
}

impl Budgets for Embedded {
    fn hold_budget(&self, ask: BudgetAsk) -> BoxFuture<'_, Result<BudgetShare, StoreError>> {
        ready(self.share_out(&ask))
    }

    fn leave_budget(
        &self,
        budget: BudgetName,
        holder: BudgetHolder,
    ) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut budgets = self.budgets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(held) = budgets.get_mut(&budget) {
            held.leave(holder);
        }
        ready(Ok(()))
    }
}
