//! Budgets: a limit whose units several holders share under leases, such as the connections to one database.
//!
//! Units are divided so that the least served is served best (max-min fairness): a newcomer gets its part as the others
//! renew and let go. A holder that dies gives back when its lease ends. How a holder keeps its word is in `holding.rs`.

mod holding;

use std::time::Duration;

pub use holding::{Allowance, Alone, Holding};

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
    /// The most units that it can have in use until it hears the answer.
    pub busy: u32,
    /// Units it has a use for.
    pub want: u32,
    /// Counts up with each ask of this holder. One that arrives after a later one changes nothing.
    pub turn: u64,
    /// How long its units are kept for it from now.
    pub term: Duration,
}

/// What a holder was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BudgetShare {
    /// Units it may have in use until the end of the term; fewer than it has, if others are to get their part. What it has
    /// beyond them counts as its own until it says that it has let go: so all holders together never exceed the limit.
    pub units: u32,
    /// Holders, itself included.
    pub holders: u32,
}

/// Holders of one budget at most; a further one is given nothing.
pub const BUDGET_HOLDERS_MAX: usize = 1024;

/// Shared budgets. What the store forgets (a restart, a wipe) is given again: for one term, until all have renewed, there
/// may be more units in use than the limit.
pub trait Budgets {
    /// Renews what a holder has, and says what it may have from now on: its fair part, as far as that is free.
    fn hold_budget(&self, ask: BudgetAsk) -> BoxFuture<'_, Result<BudgetShare, StoreError>>;

    /// Gives back all that `holder` has of a budget.
    fn leave_budget(&self, budget: BudgetName, holder: BudgetHolder)
    -> BoxFuture<'_, Result<(), StoreError>>;
}
