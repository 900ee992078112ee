//! How the store is doing, for people and metrics. Nothing decides by this; a call's own answer does.

/// Whether the store can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// It can.
    Up,
    /// It cannot, or only in part.
    Degraded {
        /// Since when, seconds since 1970.
        since_s: u64,
        /// The reason, for a person; no secret is in it.
        why: String,
    },
}

/// Whether the state outlives the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Durability {
    /// It does: a killed process finds it again.
    Durable,
    /// Sessions, or what deviates from their tokens, end with this process.
    ProcessOnly {
        /// The reason, for a person.
        why: String,
    },
}

/// What happened on the way to the store since it was opened. All zeros where there is no way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkStats {
    /// Operations sent, in the fore- and background.
    pub operations: u64,
    /// Operations without an answer in time.
    pub timeouts: u64,
    /// Operations refused at once because the store was known to be away.
    pub refused_away: u64,
    /// Connections made after the first.
    pub reconnects: u64,
    /// Times that operations began to be refused at once.
    pub breaker_opened: u64,
    /// Times that notices stopped coming.
    pub notices_lost: u64,
    /// Records kept here only, now; bounded by `unpublished_max`.
    pub unpublished_records: u64,
    /// Records that were kept here and then published.
    pub published_records: u64,
    /// Records of these that another gateway had changed too, and that were merged.
    pub merged_records: u64,
    /// Acknowledged writes that a failover or a restart had lost and that were written again from here.
    pub restored_writes: u64,
    /// Acknowledged writes that a failover or a restart may have lost and that could not be looked after.
    pub lost_writes: u64,
}

/// Sizes now, and counters since the store was opened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Records now (of a shared store: known here); bounded by `records_max`.
    pub records: u64,
    /// Tombstones now (of a shared store: known here); bounded by `tombstones_max`.
    pub tombstones: u64,
    /// Bytes that records and tombstones take in a fresh log; bounded by half of `log_bytes_max`.
    pub live_bytes: u64,
    /// Bytes of the log now; compacted beyond `log_bytes_max`.
    pub log_bytes: u64,
    /// Writes refused because of `records_max` or of the bytes of all.
    pub refused_records: u64,
    /// Tombstones refused because of `tombstones_max` or of the bytes of all.
    pub refused_tombstones: u64,
    /// Records refused because of `value_max`.
    pub refused_values: u64,
    /// Keys refused because of `keys_max`.
    pub refused_keys: u64,
    /// Events of streams dropped or refused by a bound on spills.
    pub refused_spills: u64,
    /// Claims refused because of `claims_max`.
    pub refused_claims: u64,
    /// Nodes refused because of a bound of the registry.
    pub refused_nodes: u64,
    /// Letters dropped because a mailbox was full, or too large to send.
    pub letters_dropped: u64,
    /// Notices dropped because a mailbox was full; each is followed by `Missed`.
    pub notices_missed: u64,
    /// Records dropped after their time.
    pub expired_records: u64,
    /// Tombstones dropped with their day.
    pub expired_tombstones: u64,
    /// Torn or corrupt ends of logs that were cut off when it was opened.
    pub cut_tails: u64,
    /// Bytes in them.
    pub cut_bytes: u64,
    /// Writes to the log that failed.
    pub write_failures: u64,
    /// Logs written anew.
    pub compactions: u64,
    /// Logs that could not be written anew.
    pub compaction_failures: u64,
    /// The way to a shared store.
    pub link: LinkStats,
}
