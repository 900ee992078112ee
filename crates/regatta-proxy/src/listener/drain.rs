//! The word to drain, told once to all connections: a flag, a deadline and a bell.
//!
//! A connection looks at the flag on every wake (one load) and waits at the bell only once, so that no lock shared by
//! all connections is touched while requests flow.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

/// The side that gives the word.
#[derive(Clone, Debug)]
pub struct Drainer {
    shared: Arc<Shared>,
}

/// The side that obeys it.
#[derive(Clone, Debug)]
pub struct DrainSignal {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    deadline: OnceLock<Instant>,
    bell: Notify,
}

/// A pair: whoever holds the first drains whoever holds the second.
pub fn drain_signal() -> (Drainer, DrainSignal) {
    let shared = Arc::new(Shared { deadline: OnceLock::new(), bell: Notify::new() });
    (Drainer { shared: Arc::clone(&shared) }, DrainSignal { shared })
}

impl Drainer {
    /// No new connections from now on; what still runs after `patience` is cut. A second call changes nothing.
    pub fn drain(&self, patience: Duration) {
        let _ = self.shared.deadline.set(Instant::now() + patience);
        self.shared.bell.notify_waiters();
    }
}

impl DrainSignal {
    /// When the drain ends, if it has begun.
    pub fn deadline(&self) -> Option<Instant> {
        self.shared.deadline.get().copied()
    }

    /// Whether the drain has begun.
    pub fn begun(&self) -> bool {
        self.shared.deadline.get().is_some()
    }

    /// Rings when the drain begins; a drain that began before the first poll is seen by `deadline` only.
    pub(super) fn bell(&self) -> Notified<'_> {
        self.shared.bell.notified()
    }

    /// Waits until the drain begins.
    pub async fn wait(&self) -> Instant {
        loop {
            // Registered before the look at the flag: a word given in between is not lost.
            let bell = self.bell();
            match self.deadline() {
                Some(deadline) => return deadline,
                None => bell.await,
            }
        }
    }
}
