//! Time-outs that cost nothing where nothing has to be waited for.
//!
//! tokio's arms its timer at the first wait. `within` looks once before it makes one, for what is mostly there
//! already; `Guarded` waits with arming until it is polled again, for what runs under an outer timer that will see
//! to that poll.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

use crate::alarm::Alarm;

/// The future's output, or `None` after `patience`.
pub(crate) async fn within<F: Future>(patience: Duration, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    if let Poll::Ready(output) = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
        return Some(output);
    }
    tokio::time::timeout(patience, future).await.ok()
}

/// When the timer of a [`Guarded`] future is armed.
#[derive(Clone, Debug)]
pub(crate) enum Arming {
    /// At the first wait.
    AtOnce,
    /// At the second: an outer timer, shorter than this one, polls it again in any case.
    WhenPolledAgain,
    /// It is not: this timer, of the task that polls it to its end, is there already.
    By(Alarm),
}

/// A future with a deadline.
pub(crate) struct Guarded<F> {
    future: F,
    deadline: Instant,
    sleep: Option<Pin<Box<Sleep>>>,
    arming: Arming,
}

impl<F: Future + Unpin> Guarded<F> {
    /// `future`, for at most `patience`.
    pub fn new(future: F, patience: Duration, arming: Arming) -> Guarded<F> {
        Guarded { future, deadline: Instant::now() + patience, sleep: None, arming }
    }
}

impl<F: Future + Unpin> Future for Guarded<F> {
    /// `None`: too late.
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        if let Poll::Ready(output) = Pin::new(&mut this.future).poll(cx) {
            return Poll::Ready(Some(output));
        }
        match &this.arming {
            Arming::By(alarm) => return alarm.poll(cx, this.deadline).map(|()| None),
            Arming::WhenPolledAgain => {
                this.arming = Arming::AtOnce;
                return Poll::Pending;
            }
            Arming::AtOnce => {}
        }
        let sleep = this.sleep.get_or_insert_with(|| Box::pin(sleep_until(this.deadline)));
        sleep.as_mut().poll(cx).map(|()| None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn ends_by_itself_once_it_was_polled_again() {
        let never = Box::pin(std::future::pending::<()>());
        let mut guarded = Guarded::new(never, Duration::from_millis(5), Arming::WhenPolledAgain);
        let outer = tokio::time::timeout(Duration::from_millis(1), &mut guarded).await;
        assert!(outer.is_err(), "the outer timer comes first");
        assert_eq!(guarded.await, None);
    }

    #[tokio::test]
    async fn gives_what_is_there_and_gives_up_on_what_is_not() {
        assert_eq!(within(Duration::ZERO, std::future::ready(1)).await, Some(1));
        assert_eq!(within(Duration::from_millis(1), std::future::pending::<()>()).await, None);
    }
}
