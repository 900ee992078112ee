//! How much each caller has used of the operator's rules, and the one place that charges for it.
//!
//! `ready.rs` holds the rules as a request meets them, `table.rs` what was used, `shard.rs` a part of it under one lock.
//! The sums are `regatta_policy::quota`'s. Everything is this process's own: docs/adr/2026-11-26-limits-by-leases.md says
//! how gateways will share it behind [`Quotas::take`].

pub(crate) mod ready;
mod shard;
mod table;

use regatta_policy::Micros;
use regatta_policy::quota::{Asked, Decision, Standing};

use table::Table;

/// What one caller uses of one rule: the rule's digest, and whoever it is counted for.
pub(crate) type Key = (u64, [u8; 16]);

/// What was used, of all rules and by all callers.
#[derive(Debug)]
pub(crate) struct Quotas {
    table: Table,
}

/// What a request wants of one rule.
pub(crate) struct Charge<'a> {
    pub key: Key,
    pub asked: Asked<'a>,
}

impl Quotas {
    /// Nothing used, and room for `keys_max` keys.
    pub fn new(keys_max: usize) -> Quotas {
        Quotas { table: Table::new(keys_max) }
    }

    /// Charges all or none of `charges`, whose keys differ, and says how each key stands afterwards.
    pub fn take(&self, charges: &[Charge<'_>], now: Micros) -> (Decision, Vec<Standing>) {
        self.table.take(charges, now)
    }

    /// Room for another number of keys; what is counted stays.
    pub fn rebound(&self, keys_max: usize) {
        self.table.rebound(keys_max);
    }

    /// Drops what says nothing any more, a part of it each time. To be called each second.
    pub fn sweep(&self, now: Micros) {
        self.table.sweep(now);
    }

    /// Keys that are counted under, for metrics.
    pub fn keys(&self) -> usize {
        self.table.keys()
    }

    /// Keys that were forgotten before their time because there was no room, for metrics.
    pub fn displaced(&self) -> u64 {
        self.table.displaced()
    }
}
