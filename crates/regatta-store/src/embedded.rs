//! The store of one process: everything in memory; records, tombstones and keys in the state directory too.
//!
//! Readers take no lock. Writers take one after the other, do their `write(2)` and return: a record outlives `kill -9`
//! of the process from then on (the page cache has it; no fsync, so the machine's sudden end may take the last
//! seconds). Without a directory it can write, it starts all the same and says so in `durability`.

pub(crate) mod budgets;
mod calls;
mod claims;
mod data;
mod entry;
mod expiring;
mod key_file;
mod log;
mod mail;
mod quotas;
mod registry;
mod results;
mod sessions;
mod spills;
mod state;
mod writer;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::mail::Mailboxes;
use crate::{
    BoxFuture, Durability, Keys, Link, LinkStats, MailboxBounds, NodeFields, RegistryBounds, Stats, Store,
    StoreError, StoredKey,
};
use entry::Entry;
use expiring::Expiring;
use key_file::{KEYS_MAX, KeyFile};
use log::Log;
pub use spills::SpillBounds;
use spills::SpillTable;
use state::State;
use writer::Writer;

/// What the store may hold. Each bound has a counter in [`Stats`].
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Records; one more is refused.
    pub records_max: usize,
    /// Bytes of one record.
    pub value_max: usize,
    /// Tombstones; one more is refused.
    pub tombstones_max: usize,
    /// Bytes of the log before it is compacted; half of it bounds what is live. It takes at most twice as much when
    /// compactions fail, and eight times when the disk is too slow for them; what comes then is not logged.
    pub log_bytes_max: u64,
    /// How long a record stays after its last use.
    pub record_ttl: Duration,
    /// How long a session lives: tombstones of days before that go.
    pub session_lifetime_max: Duration,
    /// Claims; one more is refused.
    pub claims_max: usize,
    /// Spilled streams.
    pub spills: SpillBounds,
    /// Letters on their way.
    pub mailbox: MailboxBounds,
    /// Nodes.
    pub registry: RegistryBounds,
}

impl Default for Bounds {
    fn default() -> Self {
        Bounds {
            records_max: 100_000,
            value_max: 64 << 10,
            tombstones_max: 500_000,
            log_bytes_max: 64 << 20,
            record_ttl: Duration::from_secs(24 * 3600),
            session_lifetime_max: Duration::from_secs(7 * 24 * 3600),
            claims_max: 100_000,
            spills: SpillBounds::default(),
            mailbox: MailboxBounds::default(),
            registry: RegistryBounds::default(),
        }
    }
}

/// Why a state directory cannot be used, and must not be passed over.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it: two would overwrite each other's sessions.
    #[error("the state directory {0} is in use by another gateway")]
    Held(PathBuf),
    /// It was written by a newer version.
    #[error("the state directory {0} was written by a newer version: {1}")]
    Newer(PathBuf, String),
}

/// Wall time in seconds since 1970.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The store of one process.
pub struct Embedded {
    state: Arc<State>,
    writer: Mutex<Writer>,
    keys: Mutex<KeyFile>,
    spills: SpillTable,
    mailboxes: Mailboxes,
    budgets: Mutex<Expiring<crate::BudgetName, budgets::Held>>,
    claims: Mutex<Expiring<[u8; 16], ()>>,
    shared: Mutex<results::Shared>,
    quotas: Mutex<quotas::Shared>,
    nodes: Mutex<Expiring<String, NodeFields>>,
    opened: Instant,
    spaces: Mutex<data::Spaces>,
    calls: Mutex<calls::Journal>,
    bounds: Bounds,
    clock: Clock,
    counters: Counters,
    /// Why there is no directory; a trouble that may pass is the writer's.
    without_dir: Option<String>,
    /// Held as long as the store lives. Declared last, so that it is let go after all writes.
    _lock: Option<File>,
}

#[derive(Default)]
struct Counters {
    refused_records: AtomicU64,
    refused_tombstones: AtomicU64,
    refused_values: AtomicU64,
    refused_keys: AtomicU64,
    refused_claims: AtomicU64,
    refused_nodes: AtomicU64,
    expired_records: AtomicU64,
    expired_tombstones: AtomicU64,
    cut_tails: AtomicU64,
    cut_bytes: AtomicU64,
}

/// What a usable directory gave.
struct Opened {
    lock: File,
    log: Log,
    found: log::Found,
    keys: KeyFile,
}

/// Opens the store in `dir`, or in memory if there is none or it cannot be written.
pub fn open(dir: Option<&Path>, bounds: Bounds) -> Result<Embedded, OpenError> {
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    open_with_clock(dir, bounds, Arc::new(clock))
}

/// The same with another clock, for tests and simulation.
pub fn open_with_clock(dir: Option<&Path>, bounds: Bounds, clock: Clock) -> Result<Embedded, OpenError> {
    let opened = match dir {
        None => Err("no state directory is configured".to_owned()),
        Some(dir) => {
            open_dir(dir)?.map_err(|error| format!("the state directory {}: {error}", dir.display()))
        }
    };
    let state = Arc::new(State::default());
    let counters = Counters::default();
    let (log, keys, lock, without_dir) = match opened {
        Ok(Opened { lock, log, found, keys }) => {
            counters.cut_tails.store(found.cut_tails, Relaxed);
            counters.cut_bytes.store(found.cut_bytes, Relaxed);
            found.entries.into_iter().for_each(|entry| state.apply(entry));
            (Some(log), keys, Some(lock), None)
        }
        Err(why) => {
            tracing::warn!(why, "sessions end with this process");
            (None, KeyFile::in_memory(), None, Some(why))
        }
    };
    let writer = Mutex::new(Writer::new(log, state.clone(), bounds.log_bytes_max));
    let embedded = Embedded {
        state,
        writer,
        keys: Mutex::new(keys),
        spills: SpillTable::new(bounds.spills),
        mailboxes: Mailboxes::new(bounds.mailbox),
        budgets: Mutex::new(Expiring::new(budgets::BUDGETS_MAX)),
        claims: Mutex::new(Expiring::new(bounds.claims_max)),
        shared: Mutex::default(),
        quotas: Mutex::default(),
        nodes: Mutex::new(Expiring::new(bounds.registry.nodes_max)),
        opened: Instant::now(),
        spaces: Mutex::new(data::spaces()),
        calls: Mutex::new(calls::journal()),
        bounds,
        clock,
        counters,
        without_dir,
        _lock: lock,
    };
    embedded.tend();
    Ok(embedded)
}

/// `Ok(Err(_))` is a directory that cannot be used: the process goes on without.
fn open_dir(dir: &Path) -> Result<io::Result<Opened>, OpenError> {
    let lock = match lock_dir(dir) {
        Ok(Some(lock)) => lock,
        Ok(None) => return Err(OpenError::Held(dir.to_owned())),
        Err(error) => return Ok(Err(error)),
    };
    match (Log::open(dir), KeyFile::open(dir)) {
        (Ok((log, found)), Ok(keys)) => Ok(Ok(Opened { lock, log, found, keys })),
        (Err(error), _) if error.kind() == log::NEWER => {
            Err(OpenError::Newer(dir.to_owned(), error.to_string()))
        }
        (Err(error), _) | (_, Err(error)) => Ok(Err(error)),
    }
}

/// The lock of the directory; `None` if somebody else has it.
fn lock_dir(dir: &Path) -> io::Result<Option<File>> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)?;
    let lock = OpenOptions::new().write(true).create(true).truncate(false).open(dir.join("lock"))?;
    match lock.try_lock() {
        Ok(()) => Ok(Some(lock)),
        Err(TryLockError::WouldBlock) => Ok(None),
        // A file system without locks cannot tell us whether we are alone: better not to write there.
        Err(TryLockError::Error(error)) => Err(error),
    }
}

impl Embedded {
    fn writer(&self) -> MutexGuard<'_, Writer> {
        // A panic while it was held leaves at worst an entry in the log that is not in memory.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records last used before this are over.
    fn live_since(&self, now_s: u64) -> u64 {
        now_s.saturating_sub(self.bounds.record_ttl.as_secs())
    }

    fn publish(&self, key: StoredKey) -> Result<StoredKey, StoreError> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(kept) = keys.find(key.fingerprint) {
            return Ok(kept.clone());
        }
        if keys.all().len() >= KEYS_MAX {
            self.counters.refused_keys.fetch_add(1, Relaxed);
            return Err(StoreError::Full("sealing keys"));
        }
        keys.add(key.clone()).map_err(|error| StoreError::Away(error.to_string()))?;
        Ok(key)
    }

    /// Drops what is over of all that is in memory only.
    fn tend_passing(&self) {
        let now = Instant::now();
        self.spills.tend();
        self.budgets.lock().unwrap_or_else(PoisonError::into_inner).expire(now);
        self.claims.lock().unwrap_or_else(PoisonError::into_inner).expire(now);
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner).expire(now);
        self.spaces.lock().unwrap_or_else(PoisonError::into_inner).expire(now);
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).expire(now);
    }

    /// Waits until a compaction that runs is over.
    pub fn settle(&self) {
        let compaction = self.writer().compaction();
        if let Some(compaction) = compaction {
            // A compaction that panicked changed nothing.
            let _ = compaction.join();
        }
        self.writer().collect();
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        // The directory's lock must not go before the last file is written.
        self.settle();
    }
}

fn ready<'a, T: Send + 'a>(value: T) -> BoxFuture<'a, T> {
    Box::pin(std::future::ready(value))
}

impl Keys for Embedded {
    fn keys(&self) -> BoxFuture<'_, Result<Vec<StoredKey>, StoreError>> {
        let keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        ready(Ok(keys.all().to_vec()))
    }

    fn put_key(&self, key: StoredKey) -> BoxFuture<'_, Result<StoredKey, StoreError>> {
        ready(self.publish(key))
    }

    fn drop_key(&self, fingerprint: [u8; 4]) -> BoxFuture<'_, Result<(), StoreError>> {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        ready(keys.remove(fingerprint).map_err(|error| StoreError::Away(error.to_string())))
    }
}

impl Store for Embedded {
    fn link(&self) -> Link {
        Link::Up
    }

    fn is_long_away(&self) -> bool {
        false
    }

    fn durability(&self) -> Durability {
        match self.without_dir.clone().or_else(|| self.writer().trouble()) {
            None => Durability::Durable,
            Some(why) => Durability::ProcessOnly { why },
        }
    }

    fn tend(&self) {
        let now_s = (self.clock)();
        let mut writer = self.writer();
        let over = self.state.expire_records(self.live_since(now_s));
        self.counters.expired_records.fetch_add(over.len() as u64, Relaxed);
        writer.note(over.into_iter().map(|session| Entry::Remove { session }));
        // A day of grace and one for clocks that differ: `regatta_policy::lifetime` judges the session itself.
        let kept_s = self.bounds.session_lifetime_max.as_secs().saturating_add(2 * 24 * 3600);
        let first_day = u32::try_from(now_s.saturating_sub(kept_s) / (24 * 3600)).unwrap_or(u32::MAX);
        let over = self.state.expire_tombstones(first_day);
        self.counters.expired_tombstones.fetch_add(over, Relaxed);
        writer.mend();
        drop(writer);
        self.tend_passing();
    }

    fn stats(&self) -> Stats {
        let mut writer = self.writer();
        writer.collect();
        let count = |counter: &AtomicU64| counter.load(Relaxed);
        let counters = &self.counters;
        Stats {
            records: self.state.records() as u64,
            tombstones: self.state.tombstones() as u64,
            live_bytes: self.state.live_bytes(),
            log_bytes: writer.log_bytes(),
            refused_records: count(&counters.refused_records),
            refused_tombstones: count(&counters.refused_tombstones),
            refused_values: count(&counters.refused_values),
            refused_keys: count(&counters.refused_keys),
            refused_spills: self.spills.refused(),
            refused_claims: count(&counters.refused_claims),
            refused_nodes: count(&counters.refused_nodes),
            letters_dropped: self.mailboxes.letters_dropped(),
            notices_missed: self.mailboxes.notices_missed(),
            expired_records: count(&counters.expired_records),
            expired_tombstones: count(&counters.expired_tombstones),
            cut_tails: count(&counters.cut_tails),
            cut_bytes: count(&counters.cut_bytes),
            write_failures: writer.write_failures,
            compactions: writer.compactions(),
            compaction_failures: writer.compaction_failures(),
            link: LinkStats::default(),
        }
    }
}

#[cfg(test)]
mod tests;
