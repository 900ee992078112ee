//! Re-homings that only this gateway knows of, because the store was away when they were made (SESSIONS 4).
//!
//! One is taken out by the notice that its record changed: it was published, or another gateway's won. A notice can be
//! missed, so what is left when the store has had everything for a while is let go of.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use regatta_store::Uuid16;

/// Beyond it the news that a session moved once more is lost, not the session.
const KEPT_MAX: usize = 65_536;
/// Sweeps without anything to publish, after which no notice about a kept re-homing is on its way any more.
const QUIET_MAX: u32 = 5;

/// The etags of bindings that were made while the store was away, by session.
#[derive(Default)]
pub(crate) struct Kept {
    etags: Mutex<HashMap<Uuid16, [u8; 16]>>,
    /// Sweeps in a row that found everything published.
    quiet: AtomicU32,
}

impl Kept {
    /// Notes a re-homing that the store does not know of.
    pub fn keep(&self, session: Uuid16, etag: [u8; 16]) {
        self.quiet.store(0, Ordering::Release);
        let mut etags = self.lock();
        if etags.len() < KEPT_MAX {
            etags.insert(session, etag);
        }
    }

    /// The etag that was noted for `session`; noted no more.
    pub fn take(&self, session: Uuid16) -> Option<[u8; 16]> {
        self.lock().remove(&session)
    }

    /// Called at regular times with the number of records that the store still has to be told.
    pub fn sweep(&self, unpublished: u64) {
        if unpublished > 0 {
            return self.quiet.store(0, Ordering::Release);
        }
        if self.quiet.fetch_add(1, Ordering::AcqRel) + 1 >= QUIET_MAX {
            self.quiet.store(0, Ordering::Release);
            *self.lock() = HashMap::new();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Uuid16, [u8; 16]>> {
        self.etags.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SESSION: Uuid16 = Uuid16([1; 16]);

    #[test]
    fn lets_go_when_everything_was_published_for_a_while_and_not_before() {
        let kept = Kept::default();
        kept.keep(SESSION, [7; 16]);
        (0..100).for_each(|_| kept.sweep(1));
        (1..QUIET_MAX).for_each(|_| kept.sweep(0));
        assert_eq!(kept.take(SESSION), Some([7; 16]));
        assert_eq!(kept.take(SESSION), None, "taken once");
        kept.keep(SESSION, [8; 16]);
        (1..QUIET_MAX).for_each(|_| kept.sweep(0));
        kept.sweep(1);
        (1..QUIET_MAX).for_each(|_| kept.sweep(0));
        assert_eq!(kept.lock().len(), 1, "the store was not told everything meanwhile");
        kept.sweep(0);
        assert!(kept.lock().is_empty());
    }
}
