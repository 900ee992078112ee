//! Busy polling: after a request a thread asks the kernel again and again for a while, rather than to sleep at once.
//!
//! A thread that sleeps has to be woken by another core, and where cores are virtual that takes longer than the gateway's
//! own work on a request, twice a call. Polling trades a core for it, so it is off unless asked for. It is a task that does
//! nothing but give way: the reactor looks at its sockets each time, and whatever is ready goes first.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio::task::yield_now;

use crate::gateway::Gateway;

/// Whether the poller sleeps, and what wakes it.
#[derive(Debug, Default)]
pub(crate) struct Poller {
    asleep: AtomicBool,
    bell: Notify,
}

impl Poller {
    /// A request came. One load where nothing polls, or polls already.
    pub(crate) fn stir(&self) {
        // Relaxed: whoever misses a ring meets the next request's.
        if self.asleep.load(Ordering::Relaxed) && self.asleep.swap(false, Ordering::Relaxed) {
            self.bell.notify_one();
        }
    }

    async fn sleep(&self) {
        self.asleep.store(true, Ordering::Relaxed);
        self.bell.notified().await;
    }
}

/// Keeps one data thread awake until no request has come for `quiet`, again and again; never if that is zero.
pub async fn busy_poll(gateway: Arc<Gateway>, quiet: Duration) {
    while !quiet.is_zero() {
        gateway.poller.sleep().await;
        stay_awake(|| gateway.metrics.requests.get(), quiet).await;
    }
}

/// Returns once `count` has not changed for `quiet`.
async fn stay_awake(count: impl Fn() -> u64, quiet: Duration) {
    let mut seen = (count(), Instant::now());
    while seen.1.elapsed() < quiet {
        yield_now().await;
        let now = count();
        if now != seen.0 {
            seen = (now, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    #[tokio::test]
    async fn it_stays_awake_while_requests_come_and_sleeps_when_none_does() {
        let asked = Cell::new(0_u64);
        // Each of the first thousand looks finds a new request.
        let count = || {
            asked.set(asked.get() + 1);
            asked.get().min(1_000)
        };
        stay_awake(count, Duration::from_millis(5)).await;
        assert!(asked.get() > 1_000, "it slept while requests came: {}", asked.get());
    }

    #[test]
    fn a_request_wakes_it_and_what_came_before_does_not() {
        let poller = Poller::default();
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..2 {
            poller.stir();
            let mut sleeping = pin!(poller.sleep());
            assert!(sleeping.as_mut().poll(&mut cx).is_pending(), "what came before it slept does not count");
            poller.stir();
            poller.stir();
            assert!(sleeping.poll(&mut cx).is_ready());
        }
    }
}
