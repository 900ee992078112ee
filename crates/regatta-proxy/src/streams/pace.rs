//! The times of one stream on a single timer: silence of the server, silence towards the client, the end.
//!
//! An event only writes down when it came; the timer is moved when it fires, not with every event, so a busy
//! stream costs no timer work at all.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

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
    /// While a person is asked, the server's clocks stand still (DESIGN 5.5).
    paused: Option<Instant>,
    sleep: Pin<Box<Sleep>>,
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
            paused: None,
            sleep: Box::pin(tokio::time::sleep_until(now)),
        };
        let next = pacemaker.next();
        pacemaker.sleep.as_mut().reset(next);
        pacemaker
    }

    /// The server said something.
    pub fn heard(&mut self) {
        self.heard = Instant::now();
    }

    /// The client was sent something.
    pub fn sent(&mut self) {
        self.sent = Instant::now();
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
            let next = self.next();
            self.sleep.as_mut().reset(next);
        }
    }

    /// Ready when something is due. The clock decides and the timer only wakes: a server that talks without a pause uses
    /// up the task's budget, and for a task without budget a timer that ran out stays pending.
    pub fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<Due> {
        loop {
            let now = Instant::now();
            if self.sleep.deadline() <= now {
                if let Some(due) = self.due(now) {
                    return Poll::Ready(due);
                }
                let next = self.next();
                self.sleep.as_mut().reset(next);
            }
            if self.sleep.as_mut().poll(cx).is_pending() {
                return Poll::Pending;
            }
        }
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
            let next = self.next();
            self.sleep.as_mut().reset(next);
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
