//! Questions of servers that wait for their client: which call asked, and which were answered already.
//!
//! An answer reaches its server at most once through this gateway (RELIABILITY I112), and the call that asked
//! leaves its parking place when it comes. Bounded by the calls that ask; answered ones by `ANSWERED_KEPT`.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;

/// Sealed ids remembered after their answer.
const ANSWERED_KEPT: usize = 8192;

/// All open questions of one gateway.
#[derive(Default)]
pub(crate) struct Pending {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    open: HashMap<String, Arc<Asking>>,
    answered: HashSet<String>,
    order: VecDeque<String>,
}

/// One call's open questions.
#[derive(Debug, Default)]
pub(crate) struct Asking {
    open: AtomicUsize,
    waker: Mutex<Option<Waker>>,
}

/// Whether an answer is the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    First,
    Repeated,
}

impl Pending {
    /// Notes that `asking` asked under the sealed id.
    pub fn ask(&self, sealed: &str, asking: &Arc<Asking>) {
        let mut inner = self.lock();
        if inner.open.insert(sealed.to_owned(), asking.clone()).is_none() {
            asking.open.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Whether a call of this gateway waits for the answer.
    pub fn is_asked_here(&self, sealed: &str) -> bool {
        self.lock().open.contains_key(sealed)
    }

    /// Notes an answer.
    pub fn answer(&self, sealed: &str) -> Answer {
        let mut inner = self.lock();
        if !inner.answered.insert(sealed.to_owned()) {
            return Answer::Repeated;
        }
        inner.order.push_back(sealed.to_owned());
        if inner.order.len() > ANSWERED_KEPT
            && let Some(oldest) = inner.order.pop_front()
        {
            inner.answered.remove(&oldest);
        }
        let asking = inner.open.remove(sealed);
        drop(inner);
        if let Some(asking) = asking {
            asking.answered();
        }
        Answer::First
    }

    /// Takes an answer back that could not be delivered, so that a repeat counts again.
    pub fn unanswer(&self, sealed: &str) {
        let mut inner = self.lock();
        inner.answered.remove(sealed);
        inner.order.retain(|answered| answered != sealed);
    }

    /// The server asks no longer.
    pub fn withdraw(&self, sealed: &str) {
        let asking = self.lock().open.remove(sealed);
        if let Some(asking) = asking {
            asking.answered();
        }
    }

    /// A call that was taken back waits for nobody.
    pub fn let_go(&self, asking: &Arc<Asking>) {
        for _ in self.forget(asking) {
            asking.answered();
        }
    }

    /// The call is over: its questions are void. Returns their sealed ids.
    pub fn forget(&self, asking: &Arc<Asking>) -> Vec<String> {
        if asking.open.load(Ordering::Relaxed) == 0 {
            return Vec::new();
        }
        let mut inner = self.lock();
        let mut void = Vec::new();
        inner.open.retain(|sealed, other| {
            let keep = !Arc::ptr_eq(other, asking);
            if !keep {
                void.push(sealed.clone());
            }
            keep
        });
        void
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Asking {
    /// Whether a question is open; if so, `waker` is woken when the last one is answered.
    pub fn waits(&self, waker: &Waker) -> bool {
        if self.open.load(Ordering::Acquire) == 0 {
            return false;
        }
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(waker.clone());
        self.open.load(Ordering::Acquire) > 0
    }

    fn answered(&self) {
        self.open.fetch_sub(1, Ordering::AcqRel);
        if let Some(waker) = self.waker.lock().unwrap_or_else(PoisonError::into_inner).take() {
            waker.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_waits_until_its_last_question_is_answered_or_withdrawn() {
        let (pending, asking) = (Pending::default(), Arc::default());
        pending.ask("a", &asking);
        pending.ask("b", &asking);
        pending.withdraw("a");
        pending.withdraw("a");
        assert!(asking.waits(Waker::noop()));
        assert_eq!(pending.answer("b"), Answer::First);
        assert_eq!(pending.answer("b"), Answer::Repeated);
        assert!(!asking.waits(Waker::noop()));
    }

    #[test]
    fn an_answer_that_was_not_delivered_counts_again() {
        let pending = Pending::default();
        assert_eq!(pending.answer("a"), Answer::First);
        pending.unanswer("a");
        assert_eq!(pending.answer("a"), Answer::First);
        assert_eq!(pending.answer("a"), Answer::Repeated);
    }
}
