//! Where a node stands that is to leave, as those see it who serve on or have to end. In which order it goes: `leave.rs`.
//!
//! One value that only grows. Whoever may outlive a phase keeps a receiver of it.

use regatta_policy::drain::reconnect_after;
use tokio::sync::watch;

/// Where the node stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// It serves, or will.
    Serving,
    /// It is not ready. All is served still, and each answer closes its connection, until who balances has heard of it.
    Notice,
    /// Standing streams end, and none begins. What ran before is waited for.
    Draining,
    /// Nobody can connect any more.
    Closed,
    /// What runs still is answered that nobody will know its outcome.
    LastWords,
    /// All that clients may ask for is in the store: only answers that are being read are left.
    Over,
}

/// A receiver of the phase.
pub(crate) type Phases = watch::Receiver<Phase>;

/// The phase of one node.
pub(crate) struct Drain(watch::Sender<Phase>);

impl Drain {
    pub(crate) fn new() -> Drain {
        Drain(watch::channel(Phase::Serving).0)
    }

    pub(crate) fn enter(&self, phase: Phase) {
        self.0.send_replace(phase);
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    pub(crate) fn phases(&self) -> Phases {
        self.0.subscribe()
    }
}

/// Returns when the node has come to `phase`.
pub(crate) async fn phase_reached(phases: &mut Phases, phase: Phase) {
    if phases.wait_for(|now| *now >= phase).await.is_err() {
        // There is no node any more, and no phase to come.
        std::future::pending::<()>().await;
    }
}

/// When a client comes back whose stream was ended, in milliseconds: not all at once.
pub(crate) fn come_back_ms() -> u64 {
    u64::try_from(reconnect_after(regatta_seal::random_u64()).as_millis()).unwrap_or(u64::MAX)
}
