//! The counters of the way to Redis.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::LinkStats;

#[derive(Default)]
pub(super) struct Counters {
    pub(super) operations: Count,
    pub(super) timeouts: Count,
    pub(super) refused_away: Count,
    pub(super) connections: Count,
    pub(super) breaker_opened: Count,
    pub(super) notices_lost: Count,
    pub(super) published_records: Count,
    pub(super) merged_records: Count,
    pub(super) restored_writes: Count,
    pub(super) lost_writes: Count,
    pub(super) refused_records: Count,
    pub(super) refused_values: Count,
    pub(super) refused_tombstones: Count,
    pub(super) refused_keys: Count,
    pub(super) refused_spills: Count,
    pub(super) refused_nodes: Count,
    pub(super) refused_letters: Count,
}

/// A number that only grows.
#[derive(Default)]
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn one(&self) {
        self.more(1);
    }

    pub(super) fn more(&self, number: u64) {
        self.0.fetch_add(number, Relaxed);
    }

    pub(super) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl Counters {
    pub(super) fn link(&self, unpublished_records: u64) -> LinkStats {
        LinkStats {
            operations: self.operations.get(),
            timeouts: self.timeouts.get(),
            refused_away: self.refused_away.get(),
            reconnects: self.connections.get().saturating_sub(1),
            breaker_opened: self.breaker_opened.get(),
            notices_lost: self.notices_lost.get(),
            unpublished_records,
            published_records: self.published_records.get(),
            merged_records: self.merged_records.get(),
            restored_writes: self.restored_writes.get(),
            lost_writes: self.lost_writes.get(),
        }
    }
}
