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
pub(super) struct Held(BTreeMap<BudgetHolder, Lease>);

struct Lease {
    units: u32,
    want: u32,
    until: Instant,
}

impl Held {
    fn hold(&mut self, ask: &BudgetAsk, now: Instant) -> BudgetShare {
        self.0.retain(|_, lease| now < lease.until);
        let before = self.0.remove(&ask.holder).map_or(0, |lease| lease.units);
        if self.0.len() >= BUDGET_HOLDERS_MAX {
            return BudgetShare { units: 0, holders: count(self.0.len()) };
        }
        let others: u32 = self.0.values().map(|lease| lease.units).sum();
        let units = self.part(ask).max(ask.busy.min(before)).min(ask.limit.saturating_sub(others));
        self.0.insert(ask.holder, Lease { units, want: ask.want, until: now + ask.term });
        BudgetShare { units, holders: count(self.0.len()) }
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
            held.0.remove(&holder);
        }
        ready(Ok(()))
    }
}
