//! The times of one stream on a single timer: silence of the server, silence towards the client, the end.
//!
//! An event only leaves a mark: the clock is read once, when the stream begins to wait, and the timer is moved when it
//! fires. So an event costs one look at the clock, and a busy stream no timer work at all.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep};

/// When what is due.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Longest silence of the server; every event of it starts it again.
    pub silence_max: Option<Duration>,
    /// The end, whatever happens.
    pub whole_max: Option<Duration>,
    /// Silence towards the client after which a comment keeps the way open.
    pub keep_alive: Option<Duration>,
}

/// What is due now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// A comment to the client.
    KeepAlive,
    /// The server was silent too long.
    Silence,
    /// The whole took too long.
    End,
}

/// The clockwork of one stream.
pub(crate) struct Pacemaker {
    pace: Pace,
    started: Instant,
    heard: Instant,
    sent: Instant,
    /// Since the clock was last read.
    heard_since: bool,
    sent_since: bool,
    /// While a person is asked, the server's clocks stand still (DESIGN 5.5).
    paused: Option<Instant>,
    sleep: Pin<Box<Sleep>>,
    /// Whom the timer wakes, as it is set now.
    armed_for: Option<Waker>,
}

impl Pacemaker {
    /// Starts all clocks now.
    pub fn start(pace: Pace) -> Pacemaker {
        let now = Instant::now();
        let mut pacemaker = Pacemaker {
            pace,
            started: now,
            heard: now,
            sent: now,
            heard_since: false,
            sent_since: false,
            paused: None,
            sleep: Box::pin(tokio::time::sleep_until(now)),
            armed_for: None,
        };
        pacemaker.set();
        pacemaker
    }

    /// The server said something.
    pub fn heard(&mut self) {
        self.heard_since = true;
    }

    /// The client was sent something.
    pub fn sent(&mut self) {
        self.sent_since = true;
    }

    /// Stops the server's clocks.
    pub fn pause(&mut self) {
        self.paused.get_or_insert_with(Instant::now);
    }

    /// Lets the server's clocks run on where they stopped.
    pub fn resume(&mut self) {
        if let Some(since) = self.paused.take() {
            let stood = since.elapsed();
            self.heard += stood;
            self.started += stood;
            // While they stood the timer was moved behind them.
            self.set();
        }
    }

    /// Ready when something is due. The clock decides and the timer only wakes: a server that talks without a pause uses
    /// up the task's budget, and for a task without budget a timer that ran out stays pending.
    pub fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<Due> {
        let now = Instant::now();
        self.settle(now);
        loop {
            if self.sleep.deadline() <= now {
                if let Some(due) = self.due(now) {
                    return Poll::Ready(due);
                }
                self.set();
            }
            let is_armed = self.armed_for.as_ref().is_some_and(|waker| waker.will_wake(cx.waker()));
            if is_armed && !self.sleep.is_elapsed() {
                return Poll::Pending;
            }
            self.armed_for = None;
            // Unconstrained: a pending for want of tokio's budget would leave the timer without a waker.
            if Pin::new(&mut unconstrained(self.sleep.as_mut())).poll(cx).is_pending() {
                self.armed_for = Some(cx.waker().clone());
                return Poll::Pending;
            }
            // It rang, so the clock has come there, though it was read a moment before.
            if self.sleep.deadline() > now {
                self.set();
            }
        }
    }

    /// Writes down when that was what left a mark.
    fn settle(&mut self, now: Instant) {
        if std::mem::take(&mut self.heard_since) {
            self.heard = now;
        }
        if std::mem::take(&mut self.sent_since) {
            self.sent = now;
        }
    }

    /// Moves the timer to what is due next.
    fn set(&mut self) {
        let next = self.next();
        self.sleep.as_mut().reset(next);
        self.armed_for = None;
    }

    fn due(&mut self, now: Instant) -> Option<Due> {
        let server_clocks_run = self.paused.is_none();
        let past = |since: Instant, max: Option<Duration>| max.is_some_and(|max| now >= since + max);
        if server_clocks_run && past(self.started, self.pace.whole_max) {
            return Some(Due::End);
        }
        if server_clocks_run && past(self.heard, self.pace.silence_max) {
            return Some(Due::Silence);
        }
        if past(self.sent, self.pace.keep_alive) {
            self.sent = now;
            self.set();
            return Some(Due::KeepAlive);
        }
        None
    }

    fn next(&self) -> Instant {
        let far = Instant::now() + Duration::from_secs(3600);
        let at = |since: Instant, max: Option<Duration>| max.map_or(far, |max| since + max);
        let keep_alive = at(self.sent, self.pace.keep_alive);
        if self.paused.is_some() {
            return keep_alive;
        }
        keep_alive.min(at(self.heard, self.pace.silence_max)).min(at(self.started, self.pace.whole_max))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_servers_clocks_run_on_after_a_pause_that_outlived_them() {
        let silence = Duration::from_millis(20);
        let pace = Pace { silence_max: Some(silence), whole_max: None, keep_alive: None };
        let mut pacemaker = Pacemaker::start(pace);
        pacemaker.pause();
        let standing = std::future::poll_fn(|cx| pacemaker.poll_due(cx));
        assert!(tokio::time::timeout(silence * 2, standing).await.is_err(), "a person may take their time");
        pacemaker.resume();
        let due = std::future::poll_fn(|cx| pacemaker.poll_due(cx));
        assert_eq!(tokio::time::timeout(Duration::from_secs(5), due).await, Ok(Due::Silence));
    }
}
