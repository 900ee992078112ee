//! Mail between gateways: who is alive, letters from one to another, and notices of what changed.
//!
//! At most once: a letter may be lost, and then nobody is told. What must not be lost is asked for again by whoever
//! waits for it. The store does not read letters; whoever writes them seals them, and checks the seal of what comes.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::{BoxFuture, StoreError, Uuid16};

/// The name of one run of a gateway: random, never used twice.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GatewayId(pub [u8; 8]);

impl fmt::Display for GatewayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for GatewayId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GatewayId({self})")
    }
}

/// What comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// A letter to this gateway.
    Letter(Bytes),
    /// Something changed.
    Notice(Notice),
}

/// What changed. A hint: what the store answers is the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Another gateway changed or removed this session's record, or a record kept here was merged with another one.
    RecordChanged(Uuid16),
    /// Another gateway buried this token.
    Buried {
        /// The day of its issue.
        day: u32,
        /// Its digest.
        digest: [u8; 16],
    },
    /// There are new sealing keys.
    KeysChanged,
    /// Notices do not come any more: whatever was worked out from the store may be old by now.
    LinkLost,
    /// Notices come again, perhaps from a store that lost something: publish again what must be in it.
    LinkRestored,
    /// Notices were lost because nobody fetched them: whatever was worked out from the store may be old.
    Missed,
}

/// Mail between gateways.
pub trait Mail {
    /// Announces a gateway: it is live while its mailbox is there, and for `ttl` after its process died. Returns at
    /// once; with the store away the lease follows when it is back.
    fn enlist(&self, gateway: GatewayId, ttl: Duration) -> Mailbox;

    /// Ends a gateway's lease now instead of after its `ttl`; what comes for it from now on is lost.
    fn resign(&self, gateway: GatewayId) -> BoxFuture<'_, Result<(), StoreError>>;

    /// Whether a gateway is live.
    fn is_live(&self, gateway: GatewayId) -> BoxFuture<'_, Result<bool, StoreError>>;

    /// Sends a letter. `Ok` says that it was sent, not that it arrived.
    fn post(&self, to: GatewayId, letter: Bytes) -> BoxFuture<'_, Result<(), StoreError>>;
}

/// What a mailbox may hold.
#[derive(Clone, Copy, Debug)]
pub struct MailboxBounds {
    /// Letters and notices not fetched yet; one letter more is dropped, for one notice more there is `Missed`.
    pub arrivals_max: usize,
    /// Bytes of letters not fetched yet.
    pub bytes_max: usize,
}

impl Default for MailboxBounds {
    fn default() -> Self {
        MailboxBounds { arrivals_max: 4096, bytes_max: 32 << 20 }
    }
}

/// Where a gateway's letters and all notices arrive. Dropped, it ends the gateway's lease.
#[derive(Debug)]
pub struct Mailbox {
    arrivals: mpsc::Receiver<Arrival>,
    fill: Arc<Fill>,
}

impl Mailbox {
    /// The next letter or notice; `None` once the gateway resigned and all was fetched. Cancel-safe.
    pub async fn next(&mut self) -> Option<Arrival> {
        if self.fill.missed.swap(false, Relaxed) {
            return Some(Arrival::Notice(Notice::Missed));
        }
        let arrival = self.arrivals.recv().await?;
        if let Arrival::Letter(letter) = &arrival {
            self.fill.bytes.fetch_sub(letter.len(), Relaxed);
        }
        Some(arrival)
    }
}

#[derive(Debug, Default)]
struct Fill {
    bytes: AtomicUsize,
    missed: AtomicBool,
}

/// All mailboxes of this process, as a backend fills them.
pub(crate) struct Mailboxes {
    slots: Mutex<HashMap<GatewayId, Slot>>,
    bounds: MailboxBounds,
    letters_dropped: AtomicU64,
    notices_missed: AtomicU64,
}

#[derive(Clone)]
struct Slot {
    sender: mpsc::Sender<Arrival>,
    fill: Arc<Fill>,
}

impl Mailboxes {
    pub(crate) fn new(bounds: MailboxBounds) -> Mailboxes {
        Mailboxes {
            slots: Mutex::default(),
            bounds,
            letters_dropped: AtomicU64::new(0),
            notices_missed: AtomicU64::new(0),
        }
    }

    fn slots(&self) -> std::sync::MutexGuard<'_, HashMap<GatewayId, Slot>> {
        // Nothing is left half done while it is held.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn open(&self, gateway: GatewayId) -> Mailbox {
        let (sender, arrivals) = mpsc::channel(self.bounds.arrivals_max);
        let fill = Arc::new(Fill::default());
        self.slots().insert(gateway, Slot { sender, fill: fill.clone() });
        Mailbox { arrivals, fill }
    }

    pub(crate) fn close(&self, gateway: GatewayId) {
        self.slots().remove(&gateway);
    }

    /// Whether this process has a mailbox for it that somebody still holds.
    pub(crate) fn is_open(&self, gateway: GatewayId) -> bool {
        self.slots().get(&gateway).is_some_and(|slot| !slot.sender.is_closed())
    }

    pub(crate) fn deliver(&self, gateway: GatewayId, letter: Bytes) {
        let Some(slot) = self.slots().get(&gateway).cloned() else { return };
        let length = letter.len();
        let before = slot.fill.bytes.fetch_add(length, Relaxed);
        let fits = before.saturating_add(length) <= self.bounds.bytes_max;
        if !fits || slot.sender.try_send(Arrival::Letter(letter)).is_err() {
            slot.fill.bytes.fetch_sub(length, Relaxed);
            self.letters_dropped.fetch_add(1, Relaxed);
        }
    }

    pub(crate) fn tell(&self, notice: Notice) {
        for slot in self.slots().values() {
            if let Err(mpsc::error::TrySendError::Full(_)) = slot.sender.try_send(Arrival::Notice(notice)) {
                slot.fill.missed.store(true, Relaxed);
                self.notices_missed.fetch_add(1, Relaxed);
            }
        }
    }

    pub(crate) fn letters_dropped(&self) -> u64 {
        self.letters_dropped.load(Relaxed)
    }

    pub(crate) fn notices_missed(&self) -> u64 {
        self.notices_missed.load(Relaxed)
    }
}
