//! How much each caller has used of the operator's rules, and the one place that charges for it.
//!
//! `ready.rs` holds the rules as a request meets them. A gateway alone counts for itself (`table.rs`; `shard.rs` is a part
//! of it under one lock). Gateways on one store count together: `till.rs` is what one keeps under a key, `shared.rs` asks
//! the store, `attend.rs` counts the gateways. The sums are `regatta_policy::quota`'s.

pub(crate) mod attend;
pub(crate) mod ready;
mod shard;
mod shared;
mod table;
mod till;

use std::sync::Arc;

use regatta_policy::Micros;
use regatta_policy::quota::{Asked, Counter, Decision, Standing};
use regatta_store::Store;

use crate::clock::Clock;
use crate::peers::Company;
use ready::Reach;
pub(crate) use shared::{Shared, Undecided};
use table::Table;

/// What one caller uses of one rule: the rule's digest, and whoever it is counted for.
pub(crate) type Key = (u64, [u8; 16]);

/// What was used, of all rules and by all callers.
#[derive(Debug)]
pub(crate) struct Quotas {
    kept: Kept,
}

/// Where it is kept.
#[derive(Debug)]
enum Kept {
    /// Here: nobody else counts.
    Alone(Box<Table<Counter>>),
    /// In the store, for all gateways.
    Shared(Arc<Shared>),
}

/// What a request wants of one rule.
pub(crate) struct Charge<'a> {
    pub key: Key,
    pub asked: Asked<'a>,
    pub reach: Reach,
}

/// What becomes of a request.
pub(crate) enum Taken {
    /// It is decided, and charged to all rules or none. How each key stands afterwards.
    Decided(Decision, Vec<Standing>),
    /// The store has to be asked: [`Quotas::settle`].
    Undecided(Undecided),
}

impl Quotas {
    /// Nothing used, and room for `keys_max` keys.
    pub fn new(company: Company, keys_max: usize) -> Quotas {
        let kept = match company {
            Company::Alone => Kept::Alone(Box::new(Table::new(keys_max))),
            Company::Many => Kept::Shared(Shared::new(keys_max)),
        };
        Quotas { kept }
    }

    /// What is shared with other gateways, if there may be any.
    fn shared(&self) -> Option<&Arc<Shared>> {
        match &self.kept {
            Kept::Alone(_) => None,
            Kept::Shared(shared) => Some(shared),
        }
    }

    /// Charges all or none of `charges`, whose keys differ, by what is known here.
    pub fn take(&self, charges: &[Charge<'_>], now: Micros) -> Taken {
        let taken = match &self.kept {
            Kept::Alone(table) => Ok(table.take(charges, now)),
            Kept::Shared(shared) => shared.take(charges, now),
        };
        match taken {
            Ok((decision, standings)) => Taken::Decided(decision, standings),
            Err(undecided) => Taken::Undecided(undecided),
        }
    }

    /// Decides what [`Quotas::take`] could not; `charges` are the same.
    pub async fn settle(
        &self,
        with: (&dyn Store, &Clock),
        charges: &[Charge<'_>],
        undecided: Undecided,
    ) -> (Decision, Vec<Standing>) {
        match &self.kept {
            // It never leaves anything undecided.
            Kept::Alone(table) => table.take(charges, with.1.now()),
            Kept::Shared(shared) => shared.settle(with, charges, undecided).await,
        }
    }

    /// Room for another number of keys; what is counted stays.
    pub fn rebound(&self, keys_max: usize) {
        match &self.kept {
            Kept::Alone(table) => table.rebound(keys_max),
            Kept::Shared(shared) => shared.rebound(keys_max),
        }
    }

    /// Drops what says nothing any more, a part of it each time. To be called each second.
    pub fn sweep(&self, now: Micros) {
        match &self.kept {
            Kept::Alone(table) => table.sweep(now),
            Kept::Shared(shared) => shared.sweep(now),
        }
    }

    /// Keys that are counted under, for metrics.
    pub fn keys(&self) -> usize {
        match &self.kept {
            Kept::Alone(table) => table.keys(),
            Kept::Shared(shared) => shared.keys(),
        }
    }

    /// Keys that were forgotten before their time because there was no room, for metrics.
    pub fn displaced(&self) -> u64 {
        match &self.kept {
            Kept::Alone(table) => table.displaced(),
            Kept::Shared(shared) => shared.displaced(),
        }
    }

    /// Questions to the store, requests granted without it while it was away, and gateways on it, for metrics.
    pub fn counts(&self) -> (u64, u64, u32) {
        match &self.kept {
            Kept::Alone(_) => (0, 0, 1),
            Kept::Shared(shared) => shared.counts(),
        }
    }
}
