//! How long a call may take: its deadline stands still while a person is asked, and ends where its node leaves.
//!
//! A call that waits for its client's answer is *parked*: its time does not run, up to a bound of its own.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::drain::{Phase, Phases, phase_reached};

/// How often a parked call looks whether it may wait on.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The time of one call.
#[derive(Debug)]
pub(crate) struct Clock {
    deadline: Instant,
    /// The longest wait for one answer.
    patience: Duration,
    /// Of the node that runs it.
    phases: Phases,
    pauses: Mutex<Pauses>,
}

/// Why a call may not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Over {
    /// It took too long.
    Time,
    /// Its node leaves.
    Leaving,
}

impl Over {
    /// For a person.
    pub(crate) fn why(self) -> &'static str {
        match self {
            Over::Time => "the call took longer than it may",
            Over::Leaving => "the node that ran this call had to leave",
        }
    }
}

#[derive(Debug, Default)]
struct Pauses {
    /// Questions that wait.
    open: u32,
    since: Option<Instant>,
    has_been: bool,
    /// All pauses that are over.
    total: Duration,
}

/// One question that waits; the time goes on when it is dropped.
#[derive(Debug)]
pub(crate) struct Pause(Arc<Clock>);

impl Clock {
    pub(crate) fn new(deadline: Instant, patience: Duration, phases: Phases) -> Clock {
        Clock { deadline, patience, phases, pauses: Mutex::default() }
    }

    /// Stops the time.
    pub(crate) fn pause(self: &Arc<Self>) -> Pause {
        let mut pauses = self.pauses();
        pauses.open += 1;
        pauses.has_been = true;
        pauses.since.get_or_insert_with(Instant::now);
        Pause(self.clone())
    }

    /// Whether it ever stood still: the call asked its client something.
    pub(crate) fn has_paused(&self) -> bool {
        self.pauses().has_been
    }

    /// When to look again; `None`: the time is over.
    fn next_look(&self, now: Instant) -> Option<Instant> {
        let pauses = self.pauses();
        match pauses.since {
            Some(since) if now >= since + self.patience => None,
            Some(_) => Some(now + LOOK_EVERY),
            None => Some(self.deadline + pauses.total).filter(|end| now < *end),
        }
    }

    /// Whether the time is over.
    pub(crate) fn is_over(&self) -> bool {
        self.next_look(Instant::now()).is_none() || *self.phases.borrow() >= Phase::LastWords
    }

    /// Returns when the time is over, or the node leaves.
    pub(crate) async fn over(self: Arc<Self>) -> Over {
        let mut phases = self.phases.clone();
        let time = async {
            while let Some(look) = self.next_look(Instant::now()) {
                tokio::time::sleep_until(look).await;
            }
        };
        tokio::select! {
            () = time => Over::Time,
            () = phase_reached(&mut phases, Phase::LastWords) => Over::Leaving,
        }
    }

    fn pauses(&self) -> MutexGuard<'_, Pauses> {
        // Nothing is left half done while it is held.
        self.pauses.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        let mut pauses = self.0.pauses();
        pauses.open -= 1;
        if pauses.open == 0
            && let Some(since) = pauses.since.take()
        {
            pauses.total += since.elapsed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::drain::Drain;

    #[tokio::test(start_paused = true)]
    async fn a_question_stops_the_time_and_has_a_bound_of_its_own() {
        let begun = Instant::now();
        let drain = Drain::new();
        let of = |patience| {
            Arc::new(Clock::new(Instant::now() + Duration::from_secs(5), patience, drain.phases()))
        };
        let asks = of(Duration::from_secs(60));
        assert!(!asks.has_paused());
        let pause = asks.pause();
        let waits = tokio::spawn(asks.clone().over());
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert!(asks.has_paused());
        drop(pause);
        assert_eq!(waits.await.unwrap(), Over::Time);
        assert_eq!(begun.elapsed().as_secs(), 35);

        let forgotten = of(Duration::from_secs(10));
        let begun = Instant::now();
        let _pause = forgotten.pause();
        forgotten.clone().over().await;
        assert_eq!(begun.elapsed().as_secs(), 10);

        // Whoever waits for a person waits no longer than the node is there.
        let asks = of(Duration::from_secs(60));
        let _pause = asks.pause();
        assert!(!asks.is_over());
        drain.enter(Phase::LastWords);
        assert!(asks.is_over());
        assert_eq!(asks.over().await, Over::Leaving);
    }
}
