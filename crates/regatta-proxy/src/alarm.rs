//! The one timer of a connection's task: for deadlines that are set with every request and hardly ever come.
//!
//! A timer of tokio's own is entered in the runtime's wheel, under its lock, and taken out again, for each request and
//! each wait. This one stays where it is while later deadlines are asked for, rings too early once in a while, and is then
//! moved: a wait costs a comparison. Only for waits of one task: it wakes whoever asked last.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::{Instant, Sleep, sleep_until};

/// See above; clones are the same timer.
#[derive(Clone, Default)]
pub struct Alarm(Arc<Mutex<Option<Pin<Box<Sleep>>>>>);

impl Alarm {
    /// Ready from `deadline` on; the task is woken then, or earlier.
    pub(crate) fn poll(&self, cx: &mut Context<'_>, deadline: Instant) -> Poll<()> {
        // Nothing panics while it is held, and nobody waits for it: it has one task.
        let mut sleep = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sleep = sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if sleep.deadline() > deadline {
            // Before it is moved, or two waits could move it to and fro.
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
        loop {
            ready!(sleep.as_mut().poll(cx));
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
            sleep.as_mut().reset(deadline);
        }
    }

    /// The future's output, or `None` after `patience`.
    pub(crate) async fn within<F: Future + Unpin>(
        &self,
        patience: Duration,
        future: &mut F,
    ) -> Option<F::Output> {
        let deadline = Instant::now() + patience;
        std::future::poll_fn(|cx| match Pin::new(&mut *future).poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => self.poll(cx, deadline).map(|()| None),
        })
        .await
    }
}

impl std::fmt::Debug for Alarm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Alarm")
    }
}

/// As hyper takes it, for the time that a request's head may take.
impl hyper::rt::Timer for Alarm {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        self.sleep_until(std::time::Instant::now() + duration)
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(Wait { alarm: self.clone(), deadline: deadline.into() })
    }

    fn now(&self) -> std::time::Instant {
        Instant::now().into()
    }
}

struct Wait {
    alarm: Alarm,
    deadline: Instant,
}

impl hyper::rt::Sleep for Wait {}

impl Future for Wait {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.alarm.poll(cx, self.deadline)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn rings(alarm: &Alarm, deadline: Instant) -> Instant {
        std::future::poll_fn(|cx| alarm.poll(cx, deadline)).await;
        Instant::now()
    }

    #[tokio::test]
    async fn rings_at_each_deadline_whatever_was_asked_for_before() {
        let alarm = Alarm::default();
        let at = |ms| Instant::now() + Duration::from_millis(ms);
        // Asked for and given up, as every answer in time does.
        for given_up in [3_600_000, 10, 5_000] {
            let polled = std::future::poll_fn(|cx| Poll::Ready(alarm.poll(cx, at(given_up)))).await;
            assert!(polled.is_pending());
        }
        for deadline in [at(30), at(20), at(0), at(60)] {
            assert!(rings(&alarm, deadline).await >= deadline);
        }
    }

    #[tokio::test]
    async fn two_waits_of_one_task_each_get_their_own() {
        let alarm = Alarm::default();
        let start = Instant::now();
        let wait = |ms| rings(&alarm, start + Duration::from_millis(ms));
        let (late, early) = tokio::join!(wait(40), wait(20));
        assert!(late - start >= Duration::from_millis(40) && early - start >= Duration::from_millis(20));
        assert!(early < late);
    }
}
