//! One fetch for many askers: the first leads, the others wait for what it brings.
//!
//! A leader that is dropped without a result lets its waiters go, and the first of them leads. A waiter waits as long as
//! it would have waited for the server itself: a leader that still hears from its server is worth waiting for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::kept::Kept;

/// What a flight brought.
#[derive(Clone, Debug)]
pub enum Landing {
    /// A result that all waiters may have.
    Kept(Arc<Kept>),
    /// The server could not answer; this is what is left of an older result.
    Spare(Arc<Kept>),
    /// A result that is for its caller alone: the others ask for themselves.
    Passed,
    /// Nothing: the leader is gone, somebody else should lead.
    Lost,
}

/// How long a waiter waits.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For a sign that the leader's server is alive.
    pub silence: Duration,
    /// In all.
    pub whole: Duration,
}

/// One fetch under way.
#[derive(Debug)]
pub(crate) struct Flight {
    /// The newest purge when it began.
    pub since: u64,
    began: Instant,
    /// When the leader last heard from its server, in milliseconds since `began`.
    heard: AtomicU64,
    landing: watch::Sender<Option<Landing>>,
}

/// Waits for a flight.
#[derive(Debug)]
pub struct Waiter {
    flight: Arc<Flight>,
    landing: watch::Receiver<Option<Landing>>,
}

impl Flight {
    pub(crate) fn new(since: u64) -> Flight {
        Flight { since, began: Instant::now(), heard: AtomicU64::new(0), landing: watch::Sender::new(None) }
    }

    pub(crate) fn land(&self, landing: Landing) {
        self.landing.send_replace(Some(landing));
    }

    pub(crate) fn heard(&self) {
        let millis = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard.fetch_max(millis, Ordering::Relaxed);
    }

    /// Whether anybody waits for it.
    pub(crate) fn is_awaited(&self) -> bool {
        self.landing.receiver_count() > 0
    }

    pub(crate) fn wait(self: &Arc<Self>) -> Waiter {
        Waiter { flight: self.clone(), landing: self.landing.subscribe() }
    }

    fn heard_at(&self) -> Instant {
        self.began + Duration::from_millis(self.heard.load(Ordering::Relaxed))
    }
}

impl Waiter {
    /// What the flight brings; none if the patience of a waiter who came at `since` is over first.
    pub async fn landing(mut self, since: Instant, patience: Patience) -> Option<Landing> {
        loop {
            let silence = self.flight.heard_at().max(since) + patience.silence;
            let until = silence.min(since + patience.whole);
            if until <= Instant::now() {
                return None;
            }
            match timeout_at(until, self.landing.wait_for(Option::is_some)).await {
                // The sender lives in the flight, which this waiter holds.
                Ok(Err(_)) => return Some(Landing::Lost),
                Ok(Ok(landing)) => return landing.clone(),
                // The leader may have heard something meanwhile.
                Err(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: Patience = Patience { silence: Duration::from_secs(30), whole: Duration::from_secs(600) };

    #[tokio::test(start_paused = true)]
    async fn a_waiter_waits_as_long_as_the_server_is_heard() {
        let flight = Arc::new(Flight::new(0));
        let start = Instant::now();
        let waiting = tokio::spawn(flight.wait().landing(start, PATIENCE));
        for _ in 0..5 {
            tokio::time::sleep(Duration::from_secs(20)).await;
            flight.heard();
        }
        assert!(!waiting.is_finished());
        assert!(waiting.await.expect("no panic").is_none());
        let waited = start.elapsed();
        assert!(waited >= Duration::from_secs(130) && waited < Duration::from_secs(131), "{waited:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn even_a_talkative_flight_has_an_end() {
        let flight = Arc::new(Flight::new(0));
        let start = Instant::now();
        let waiting = tokio::spawn(flight.wait().landing(start, PATIENCE));
        while start.elapsed() < Duration::from_secs(650) {
            tokio::time::sleep(Duration::from_secs(20)).await;
            flight.heard();
        }
        assert!(waiting.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn a_landing_reaches_who_came_before_and_after_it() {
        let flight = Arc::new(Flight::new(0));
        assert!(!flight.is_awaited());
        let early = flight.wait();
        assert!(flight.is_awaited());
        flight.land(Landing::Passed);
        let late = flight.wait();
        for waiter in [early, late] {
            let landing = waiter.landing(Instant::now(), PATIENCE).await;
            assert!(matches!(landing, Some(Landing::Passed)));
        }
        assert!(!flight.is_awaited());
    }
}
