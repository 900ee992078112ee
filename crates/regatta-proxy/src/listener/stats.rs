//! What the listener counts. Atomics only, read by the metrics page whenever it likes; nothing here is reset.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Counters of one `serve`; `open` is a gauge, all others only rise.
#[derive(Debug, Default)]
pub struct ListenerStats {
    /// Connections that are open now.
    pub open: AtomicUsize,
    /// Connections taken from the kernel, refused ones included.
    pub accepted: AtomicU64,
    /// Connections closed at once because `connections_max` was reached.
    pub refused: AtomicU64,
    /// Times that accepting failed for want of file descriptors or memory.
    pub accept_errors: AtomicU64,
    /// TLS handshakes that failed or took too long.
    pub handshake_errors: AtomicU64,
    /// Connections closed because the client did not read for the write time-out.
    pub stalled: AtomicU64,
    /// Handlers that panicked; each costs its own connection and nothing else.
    pub panics: AtomicU64,
    /// Connections cut at the drain deadline.
    pub aborted: AtomicU64,
}

impl ListenerStats {
    /// Adds one to `counter`.
    pub(super) fn count(counter: &AtomicU64) {
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Connections that are open now.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }
}
