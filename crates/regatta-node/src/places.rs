//! Places for requests: so many run, so many wait, and one more is refused or waits on its connection.
//!
//! Stands between the connection and everything that costs. A place is held until the last byte of the answer, and no longer
//! than its request may take. Whoever waits or has a place is work that a drain waits for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::settings::WhenFull;
use crate::work::{Work, Works};

/// All places of a node.
#[derive(Debug)]
pub(crate) struct Places {
    free: Arc<Semaphore>,
    number: usize,
    waiting: AtomicUsize,
    queue_max: usize,
    when_full: WhenFull,
    refused: AtomicU64,
    pub(crate) works: Arc<Works>,
}

/// A place; given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    _permit: OwnedSemaphorePermit,
    pub(crate) work: Work,
}

/// Why there is no place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPlace {
    /// The queue is full too.
    QueueFull,
    /// It was waited for as long as is worth it: a request that begins with its last moments fails, and so does the next.
    NoneInTime,
}

/// Counts a waiting request for as long as it waits, also if it gives up.
struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Places {
    pub(crate) fn new(number: usize, queue_max: usize, when_full: WhenFull) -> Places {
        let free = Arc::new(Semaphore::new(number));
        Places {
            free,
            number,
            waiting: AtomicUsize::new(0),
            queue_max,
            when_full,
            refused: AtomicU64::new(0),
            works: Arc::default(),
        }
    }

    /// A place at once, unless others wait for one.
    pub(crate) fn try_take(&self) -> Option<Place> {
        let permit = self.free.clone().try_acquire_owned().ok()?;
        Some(Place { _permit: permit, work: self.works.begin() })
    }

    /// A place, after a wait of at most `patience`.
    pub(crate) async fn take_within(&self, patience: Duration) -> Result<Place, NoPlace> {
        // The usual case makes no timer.
        if let Some(place) = self.try_take() {
            return Ok(place);
        }
        match tokio::time::timeout(patience, self.take()).await {
            Ok(place) => place.ok_or(NoPlace::QueueFull),
            Err(_) => {
                self.refused.fetch_add(1, Relaxed);
                Err(NoPlace::NoneInTime)
            }
        }
    }

    /// A place, after a wait in the order of arrival; `None`: everything is full.
    async fn take(&self) -> Option<Place> {
        if let Some(place) = self.try_take() {
            return Some(place);
        }
        let work = self.works.begin();
        let before = self.waiting.fetch_add(1, Relaxed);
        let _waiting = Waiting(&self.waiting);
        if before >= self.queue_max && self.when_full == WhenFull::Refuse {
            self.refused.fetch_add(1, Relaxed);
            return None;
        }
        let permit = self.free.clone().acquire_owned().await.ok()?;
        Some(Place { _permit: permit, work })
    }

    /// Requests that run.
    pub(crate) fn in_flight(&self) -> usize {
        self.number - self.free.available_permits().min(self.number)
    }

    /// Requests that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// Requests refused so far.
    pub(crate) fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// How many there are.
    pub(crate) fn number(&self) -> usize {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn refuses_what_finds_the_queue_full_and_serves_the_rest_in_turn() {
        let places = Arc::new(Places::new(1, 1, WhenFull::Refuse));
        let first = places.take().await.unwrap();
        let mut second = Box::pin(places.take());
        assert!(futures_util::poll!(&mut second).is_pending());
        assert_eq!((places.in_flight(), places.waiting(), places.works.number()), (1, 1, 2));
        assert!(places.take().await.is_none());
        assert_eq!(places.refused(), 1);
        drop(first);
        assert!(second.await.is_some());
        assert_eq!((places.in_flight(), places.waiting(), places.works.number()), (0, 0, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_too_long_is_refused_and_leaves_the_queue() {
        let places = Places::new(1, 1, WhenFull::Refuse);
        let _first = places.try_take().unwrap();
        let patience = Duration::from_secs(2);
        let begun = tokio::time::Instant::now();
        assert_eq!(places.take_within(patience).await.err(), Some(NoPlace::NoneInTime));
        assert_eq!(begun.elapsed(), patience);
        assert_eq!((places.waiting(), places.refused()), (0, 1));
    }

    #[tokio::test]
    async fn waits_on_the_connection_where_the_caller_bears_the_load() {
        let places = Places::new(1, 0, WhenFull::CallerRuns);
        let first = places.take().await.unwrap();
        let mut second = Box::pin(places.take());
        assert!(futures_util::poll!(&mut second).is_pending());
        drop(first);
        assert!(second.await.is_some());
        assert_eq!(places.refused(), 0);
    }
}
