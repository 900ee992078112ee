//! Acknowledged writes of the last seconds: what a failover may lose, and is then written again from here.
//!
//! Redis copies to its replicas behind the writer's back (RELIABILITY 1.2): a new master may lack what the old one had
//! acknowledged. Bounded in time and number; what had to be let go before its time is counted.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::{Etag, Uuid16, Versioned};

/// A write that the store acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Write {
    Record { session: Uuid16, base: Option<Etag>, record: Arc<Versioned> },
    Grave { day: u32, digest: [u8; 16] },
}

pub(super) struct Remembered {
    inner: Mutex<Inner>,
    keep_for: Duration,
    len_max: usize,
}

#[derive(Default)]
struct Inner {
    writes: VecDeque<(Instant, Write)>,
    /// How many of them are of a session, so that those of others are passed over quickly.
    sessions: HashMap<Uuid16, usize>,
    /// When the last one was let go before its time.
    let_go_at: Option<Instant>,
    let_go: u64,
}

impl Inner {
    fn drop_first(&mut self) {
        let Some((_, Write::Record { session, .. })) = self.writes.pop_front() else { return };
        if let Some(number) = self.sessions.get_mut(&session) {
            *number -= 1;
            if *number == 0 {
                self.sessions.remove(&session);
            }
        }
    }
}

impl Remembered {
    pub(super) fn new(keep_for: Duration, len_max: usize) -> Remembered {
        Remembered { inner: Mutex::default(), keep_for, len_max }
    }

    fn inner(&self, now: Instant) -> MutexGuard<'_, Inner> {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        while inner.writes.front().is_some_and(|(at, _)| *at + self.keep_for <= now) {
            inner.drop_first();
        }
        if inner.let_go_at.is_some_and(|at| at + self.keep_for <= now) {
            (inner.let_go_at, inner.let_go) = (None, 0);
        }
        inner
    }

    pub(super) fn add(&self, write: Write, now: Instant) {
        let mut inner = self.inner(now);
        if inner.writes.len() >= self.len_max {
            inner.drop_first();
            inner.let_go += 1;
            inner.let_go_at = Some(now);
        }
        if let Write::Record { session, .. } = &write {
            *inner.sessions.entry(*session).or_default() += 1;
        }
        inner.writes.push_back((now, write));
    }

    /// Another process, or a removal, made what we wrote for a session history.
    pub(super) fn forget(&self, session: &Uuid16) {
        let mut inner = self.inner(Instant::now());
        inner
            .writes
            .retain(|(_, write)| !matches!(write, Write::Record { session: of, .. } if of == session));
    }

    /// All writes that may be lost now, the oldest first, and how many more there were.
    pub(super) fn all(&self, now: Instant) -> (Vec<Write>, u64) {
        let inner = self.inner(now);
        (inner.writes.iter().map(|(_, write)| write.clone()).collect(), inner.let_go)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grave(number: u8) -> Write {
        Write::Grave { day: 1, digest: [number; 16] }
    }

    #[test]
    fn a_session_that_is_history_is_forgotten_and_others_are_not() {
        let (remembered, now) = (Remembered::new(Duration::from_secs(30), 10), Instant::now());
        let record = Arc::new(Versioned { etag: Etag([1; 16]), value: bytes::Bytes::new() });
        let of =
            |number: u8| Write::Record { session: Uuid16([number; 16]), base: None, record: record.clone() };
        for write in [of(1), grave(1), of(2), of(1)] {
            remembered.add(write, now);
        }
        remembered.forget(&Uuid16([1; 16]));
        remembered.forget(&Uuid16([3; 16]));
        assert_eq!(remembered.all(now), (vec![grave(1), of(2)], 0));
        assert_eq!(remembered.all(now + Duration::from_secs(30)), (vec![], 0));
        remembered.forget(&Uuid16([2; 16]));
        remembered.add(of(2), now + Duration::from_secs(31));
        assert_eq!(remembered.all(now + Duration::from_secs(31)), (vec![of(2)], 0));
    }

    #[test]
    fn writes_pass_out_of_mind_with_time_and_by_the_bound() {
        let (remembered, now) = (Remembered::new(Duration::from_secs(30), 2), Instant::now());
        let later = |seconds| now + Duration::from_secs(seconds);
        remembered.add(grave(1), now);
        remembered.add(grave(2), later(10));
        assert_eq!(remembered.all(later(10)), (vec![grave(1), grave(2)], 0));
        remembered.add(grave(3), later(11));
        assert_eq!(remembered.all(later(11)), (vec![grave(2), grave(3)], 1));
        assert_eq!(remembered.all(later(40)), (vec![grave(3)], 1));
        assert_eq!(remembered.all(later(41)), (vec![], 0));
    }
}
