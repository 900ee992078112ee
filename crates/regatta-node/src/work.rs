//! What runs, as a drain counts it: from a request's arrival until nothing of it is left to do or to write down.
//!
//! It outlives the request's place, which is free as soon as its handler is done. What arrives while the node drains is told
//! apart from what was there before: under load there is always some.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

/// How often a drain looks whether all is done.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// All work of a node.
#[derive(Debug, Default)]
pub(crate) struct Works {
    all: AtomicUsize,
    late: AtomicUsize,
    is_draining: AtomicBool,
}

/// One piece of it, or a part of one; done when it is dropped.
#[derive(Debug)]
pub(crate) struct Work {
    works: Arc<Works>,
    is_late: bool,
}

impl Works {
    /// Something begins.
    pub(crate) fn begin(self: &Arc<Self>) -> Work {
        self.count(self.is_draining.load(SeqCst))
    }

    /// What begins from now on is late.
    pub(crate) fn drain(&self) {
        self.is_draining.store(true, SeqCst);
    }

    /// Pieces that are not done.
    pub(crate) fn number(&self) -> usize {
        self.all.load(SeqCst)
    }

    /// Returns when everything is done that was begun in time.
    pub(crate) async fn old_done(&self) {
        // A late piece that is counted in one number and not yet in the other makes this wait a little longer, no more.
        while self.all.load(SeqCst) > self.late.load(SeqCst) {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// Returns when everything is done.
    pub(crate) async fn all_done(&self) {
        while self.number() > 0 {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn count(self: &Arc<Self>, is_late: bool) -> Work {
        self.all.fetch_add(1, SeqCst);
        if is_late {
            self.late.fetch_add(1, SeqCst);
        }
        Work { works: self.clone(), is_late }
    }
}

impl Clone for Work {
    fn clone(&self) -> Work {
        self.works.count(self.is_late)
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        if self.is_late {
            self.works.late.fetch_sub(1, SeqCst);
        }
        self.works.all.fetch_sub(1, SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use futures_util::poll;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_came_late_is_not_waited_for_until_all_is_to_end() {
        let works = Arc::new(Works::default());
        let old = works.begin();
        works.drain();
        let late = works.begin();
        let mut old_done = Box::pin(works.old_done());
        assert!(poll!(&mut old_done).is_pending());
        // Its place is free; its result is on its way to the store.
        let rest = old.clone();
        drop(old);
        tokio::time::sleep(LOOK_EVERY).await;
        assert!(poll!(&mut old_done).is_pending());
        drop(rest);
        old_done.await;
        let mut all_done = Box::pin(works.all_done());
        assert!(poll!(&mut all_done).is_pending());
        drop((late.clone(), late));
        all_done.await;
        assert_eq!(works.number(), 0);
    }
}
