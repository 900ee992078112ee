//! Budgets: a limit whose units several holders share under leases, such as the connections to one database.
//!
//! Units are divided so that the least served is served best (max-min fairness): a newcomer gets its part as the others
//! renew. A holder that dies gives back when its lease ends.

use std::time::Duration;

use crate::{BoxFuture, StoreError};

/// Names one budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BudgetName(pub [u8; 16]);

/// Names one holder: random, a process's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BudgetHolder(pub [u8; 16]);

/// What a holder asks for, each time it renews.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetAsk {
    /// Of which budget.
    pub budget: BudgetName,
    /// All its units, as all holders agree on.
    pub limit: u32,
    /// Who asks.
    pub holder: BudgetHolder,
    /// Units it has in use and cannot give back now; counts up to what it was given before.
    pub busy: u32,
    /// Units it has a use for.
    pub want: u32,
    /// How long its units are kept for it from now.
    pub term: Duration,
}

/// What a holder was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetShare {
    /// Its units until the end of the term. All holders' units together never exceed the limit.
    pub units: u32,
    /// Holders, itself included.
    pub holders: u32,
}

/// Holders of one budget at most; a further one is given nothing.
pub const BUDGET_HOLDERS_MAX: usize = 1024;

/// Shared budgets. What the store forgets (a restart, a wipe) is given again: for one term, until all have renewed, there
/// may be more units in use than the limit.
pub trait Budgets {
    /// Renews what a holder has, and changes it towards its fair part.
    fn hold_budget(&self, ask: BudgetAsk) -> BoxFuture<'_, Result<BudgetShare, StoreError>>;

    /// Gives back all that `holder` has of a budget.
    fn leave_budget(&self, budget: BudgetName, holder: BudgetHolder)
    -> BoxFuture<'_, Result<(), StoreError>>;
}
