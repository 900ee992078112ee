//! The one who writes: log first, then memory, and a compaction when the log has grown.
//!
//! When the disk fails, memory goes on alone and the store says so; since the log then lacks what came meanwhile, only
//! the whole state written anew (`mend`) makes it durable again.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use super::entry::Entry;
use super::log::Log;
use super::state::State;

/// How many times `log_bytes_max` the log may take while a compaction runs,
const LAGGING_TIMES: u64 = 8;
/// and when the last one failed.
const FAILING_TIMES: u64 = 2;

pub(super) struct Writer {
    log: Option<Log>,
    state: Arc<State>,
    log_bytes_max: u64,
    /// The log grew to this: compact.
    compact_at: u64,
    /// Why the log lacks something.
    trouble: Option<String>,
    /// A write failed after the compaction that runs took its copy: it will not heal the log.
    failed_since_copy: bool,
    /// The last compaction failed.
    last_failed: bool,
    pub(super) write_failures: u64,
    compaction: Option<JoinHandle<()>>,
    outcome: Arc<Outcome>,
    buffer: Vec<u8>,
    /// A disk that fails, for tests: no real one does when asked, least of all for root.
    #[cfg(test)]
    failing: bool,
}

/// What compactions report from their threads.
#[derive(Default)]
struct Outcome {
    running: AtomicBool,
    done: AtomicU64,
    failed: AtomicU64,
    /// The last result not yet looked at.
    last: Mutex<Option<io::Result<u64>>>,
}

impl Writer {
    pub(super) fn new(log: Option<Log>, state: Arc<State>, log_bytes_max: u64) -> Writer {
        Writer {
            log,
            state,
            log_bytes_max,
            compact_at: log_bytes_max,
            trouble: None,
            failed_since_copy: false,
            last_failed: false,
            write_failures: 0,
            compaction: None,
            outcome: Arc::default(),
            buffer: Vec::new(),
            #[cfg(test)]
            failing: false,
        }
    }

    /// Makes a change, in memory even when the log fails.
    pub(super) fn change(&mut self, entry: Entry) {
        // The trouble is noted and shows in `durability`.
        let _ = self.append(std::slice::from_ref(&entry));
        self.state.apply(entry);
        self.compact_if_grown();
    }

    /// Makes a change only if the log takes it. Without a log, memory is all there is, and all that is asked.
    pub(super) fn change_or_fail(&mut self, entry: Entry) -> Result<(), String> {
        self.append(std::slice::from_ref(&entry))?;
        self.state.apply(entry);
        self.compact_if_grown();
        Ok(())
    }

    /// Writes down changes that memory has seen already.
    pub(super) fn note(&mut self, entries: impl Iterator<Item = Entry>) {
        let entries: Vec<Entry> = entries.collect();
        if !entries.is_empty() {
            let _ = self.append(&entries);
            self.compact_if_grown();
        }
    }

    /// Why the log lacks something.
    pub(super) fn trouble(&self) -> Option<String> {
        self.trouble.clone()
    }

    pub(super) fn log_bytes(&self) -> u64 {
        self.log.as_ref().map_or(0, Log::bytes)
    }

    pub(super) fn compactions(&self) -> u64 {
        self.outcome.done.load(Relaxed)
    }

    pub(super) fn compaction_failures(&self) -> u64 {
        self.outcome.failed.load(Relaxed)
    }

    /// The compaction that was started last, to be waited for without the lock.
    pub(super) fn compaction(&mut self) -> Option<JoinHandle<()>> {
        self.compaction.take()
    }

    /// Looks at what compactions reported; in trouble, tries again to write everything.
    pub(super) fn mend(&mut self) {
        self.collect();
        match self.trouble.is_some() {
            true => self.compact(),
            false => self.compact_if_grown(),
        }
    }

    #[cfg(test)]
    pub(super) fn fail_writes(&mut self, failing: bool) {
        self.failing = failing;
    }

    fn append(&mut self, entries: &[Entry]) -> Result<(), String> {
        self.collect();
        let Some(log) = &mut self.log else { return Ok(()) };
        self.buffer.clear();
        entries.iter().for_each(|entry| entry.write(&mut self.buffer));
        // Compaction keeps up unless it fails, or the disk is very slow; the log must not fill the disk for it.
        let times = if self.last_failed { FAILING_TIMES } else { LAGGING_TIMES };
        let result = match log.bytes() > self.log_bytes_max.saturating_mul(times) {
            true => Err(io::Error::other("the log is full and could not be compacted yet")),
            false => log.append(&self.buffer),
        };
        #[cfg(test)]
        let result = if self.failing { Err(io::Error::other("failing for a test")) } else { result };
        if let Err(error) = &result {
            self.write_failures += 1;
            self.note_trouble(error);
        }
        result.map_err(|error| error.to_string())
    }

    fn note_trouble(&mut self, error: &io::Error) {
        if self.trouble.is_none() {
            tracing::error!(%error, "the state directory cannot be written; changes end with this process");
        }
        self.failed_since_copy = true;
        self.trouble = Some(format!("the state directory cannot be written: {error}"));
    }

    /// Only after memory has seen what the log has: the copy is taken from memory.
    fn compact_if_grown(&mut self) {
        if self.log_bytes() > self.compact_at {
            self.compact();
        }
    }

    /// Starts a compaction unless one runs.
    fn compact(&mut self) {
        if self.outcome.running.load(Relaxed) {
            return;
        }
        self.collect();
        let Some(log) = &mut self.log else { return };
        let rewrite = match log.split() {
            Ok(rewrite) => rewrite,
            Err(error) => {
                self.outcome.failed.fetch_add(1, Relaxed);
                self.compact_at = log.bytes() + self.log_bytes_max / 4;
                return self.note_trouble(&error);
            }
        };
        self.failed_since_copy = false;
        let (entries, outcome) = (self.state.entries(), self.outcome.clone());
        outcome.running.store(true, Relaxed);
        let compaction = thread::Builder::new().name("store-compaction".to_owned()).spawn(move || {
            let result = rewrite.run(&entries);
            *outcome.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
            outcome.running.store(false, Relaxed);
        });
        match compaction {
            Ok(compaction) => self.compaction = Some(compaction),
            Err(error) => {
                self.outcome.running.store(false, Relaxed);
                self.outcome.failed.fetch_add(1, Relaxed);
                self.note_trouble(&error);
            }
        }
    }

    /// Takes note of a compaction that is over.
    pub(super) fn collect(&mut self) {
        let last = self.outcome.last.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(log) = &mut self.log else { return };
        match last {
            None => {}
            Some(Ok(bytes)) => {
                self.last_failed = false;
                log.rewritten(bytes);
                self.outcome.done.fetch_add(1, Relaxed);
                self.compact_at = self.log_bytes_max;
                if !self.failed_since_copy {
                    self.trouble = None;
                }
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "the log cannot be compacted");
                self.last_failed = true;
                self.outcome.failed.fetch_add(1, Relaxed);
                self.compact_at = log.bytes() + self.log_bytes_max / 4;
            }
        }
    }
}
