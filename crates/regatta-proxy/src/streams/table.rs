//! Every legacy stream of this gateway that can still be resumed, by number.
//!
//! Live streams are bounded by the permits and places that they hold; those that rest (ended, or paused and not asked
//! for again) by `ring_total_max` bytes and by `resume_window`, whichever comes first, oldest first.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use regatta_policy::Micros;
use regatta_store::Uuid16;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::stream::Stream;

/// A stream's own memory beside its events, as it is counted against `ring_total_max`.
const OVERHEAD: usize = 512;
/// How long a session's other messages wait for its standing stream. Some servers send no head before they have something
/// to say.
const OPENED_WITHIN: Duration = Duration::from_millis(250);

/// The streams by number.
#[derive(Default)]
pub(crate) struct StreamTable {
    inner: Mutex<Inner>,
    /// How many sessions are in `opening`, for who does not want to take the lock.
    openings: AtomicUsize,
}

#[derive(Default)]
struct Inner {
    by_number: HashMap<u64, Arc<Stream>>,
    /// Standing stream of each session that has one.
    standing: HashMap<Uuid16, u64>,
    /// Sessions whose standing stream is being opened.
    opening: HashMap<Uuid16, Opening>,
    resting: VecDeque<(Weak<Stream>, Resting)>,
    resting_bytes: usize,
}

/// A stream that came to rest.
pub(crate) struct Resting {
    /// Which of its rests; if it moved on since, this one says nothing any more.
    pub rest: u64,
    pub at: Micros,
    pub bytes: usize,
}

/// An opening under way: who waits for it is woken when `over` is dropped.
struct Opening {
    since: Instant,
    over: watch::Sender<()>,
}

/// A standing stream is being opened: of several requests at once, one opens it.
pub(crate) struct OpeningStanding<'a> {
    table: &'a StreamTable,
    session: Uuid16,
}

impl Drop for OpeningStanding<'_> {
    fn drop(&mut self) {
        // Who waits is woken when the table is free again.
        let _opening = {
            let mut inner = self.table.lock();
            self.table.openings.fetch_sub(1, Ordering::Relaxed);
            inner.opening.remove(&self.session)
        };
    }
}

/// A standing stream that somebody else opens.
pub(crate) struct BeingOpened {
    since: Instant,
    over: watch::Receiver<()>,
}

impl BeingOpened {
    /// Returns when its server has answered, whatever it said, or [`OPENED_WITHIN`] after it was asked.
    pub async fn wait(mut self) {
        let _ = timeout_at(self.since + OPENED_WITHIN, self.over.changed()).await;
    }
}

impl StreamTable {
    /// Makes a stream findable.
    pub fn insert(&self, stream: &Arc<Stream>) {
        let mut inner = self.lock();
        inner.by_number.insert(stream.number, stream.clone());
        if stream.is_standing() {
            inner.standing.insert(stream.session, stream.number);
        }
    }

    /// The stream with `number`, if it is of `session`.
    pub fn find(&self, number: u64, session: Uuid16) -> Option<Arc<Stream>> {
        self.lock().by_number.get(&number).filter(|stream| stream.session == session).cloned()
    }

    /// The standing stream of `session`.
    pub fn standing(&self, session: Uuid16) -> Option<Arc<Stream>> {
        let inner = self.lock();
        let number = inner.standing.get(&session)?;
        inner.by_number.get(number).cloned()
    }

    /// The right to open the standing stream of `session`, for as long as the guard lives; `None` while another
    /// request has it.
    pub fn open_standing(&self, session: Uuid16) -> Option<OpeningStanding<'_>> {
        match self.lock().opening.entry(session) {
            Entry::Occupied(_) => return None,
            Entry::Vacant(free) => {
                self.openings.fetch_add(1, Ordering::Relaxed);
                free.insert(Opening { since: Instant::now(), over: watch::Sender::new(()) });
            }
        }
        Some(OpeningStanding { table: self, session })
    }

    /// Whether any standing stream is being opened.
    pub fn opens_any(&self) -> bool {
        self.openings.load(Ordering::Relaxed) > 0
    }

    /// The standing stream of `session`, if it is being opened. One load while none is.
    pub fn being_opened(&self, session: Uuid16) -> Option<BeingOpened> {
        if !self.opens_any() {
            return None;
        }
        let inner = self.lock();
        let opening = inner.opening.get(&session)?;
        Some(BeingOpened { since: opening.since, over: opening.over.subscribe() })
    }

    /// Notes that a stream came to rest: from now on it can be displaced.
    pub fn rests(&self, stream: &Stream, resting: Resting, total_max: usize) {
        let mut inner = self.lock();
        if stream.is_standing() {
            // The rest of a standing stream is worth nothing without its upstream.
            inner.forget(stream);
            return;
        }
        // What is not here need not be displaced.
        let Some(held) = inner.held(stream).map(Arc::downgrade) else { return };
        let resting = Resting { bytes: resting.bytes + OVERHEAD, ..resting };
        inner.resting_bytes += resting.bytes;
        inner.resting.push_back((held, resting));
        while inner.resting_bytes > total_max && inner.displace_oldest() {}
    }

    /// Drops streams that came to rest longer than `window` ago.
    pub fn sweep(&self, now: Micros, window: Duration) {
        let mut inner = self.lock();
        while inner.resting.front().is_some_and(|(_, resting)| now.since(resting.at) > window) {
            inner.displace_oldest();
        }
    }

    /// Forgets a stream that nothing is lost with; another one that has its number by now stays.
    pub fn remove(&self, stream: &Stream) {
        self.lock().forget(stream);
    }

    /// Every stream of `session`, for its end.
    pub fn of_session(&self, session: Uuid16) -> Vec<Arc<Stream>> {
        self.lock().by_number.values().filter(|stream| stream.session == session).cloned().collect()
    }

    /// Every stream, for a drain.
    pub fn all(&self) -> Vec<Arc<Stream>> {
        self.lock().by_number.values().cloned().collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        // Every change is a single step that leaves the table whole, so a panic elsewhere spoils nothing.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn displace_oldest(&mut self) -> bool {
        let Some((stream, resting)) = self.resting.pop_front() else { return false };
        self.resting_bytes -= resting.bytes;
        if let Some(stream) = stream.upgrade()
            && stream.rest() == Some(resting.rest)
        {
            self.forget(&stream);
        }
        true
    }

    /// `stream` itself, not one that goes on under its number.
    fn held(&self, stream: &Stream) -> Option<&Arc<Stream>> {
        self.by_number.get(&stream.number).filter(|held| std::ptr::eq(Arc::as_ptr(held), stream))
    }

    fn forget(&mut self, stream: &Stream) {
        if self.held(stream).is_none() {
            return;
        }
        self.by_number.remove(&stream.number);
        if self.standing.get(&stream.session) == Some(&stream.number) {
            self.standing.remove(&stream.session);
        }
    }
}
