//! The buffer that answers are read into: one for each thread, lent for a single poll.
//!
//! A connection that has nothing to say holds no buffer, so an idle stream costs its socket and little else.

use std::cell::Cell;

/// Bytes of one read. A pipe full of events, and small enough for the nearer caches.
const SIZE: usize = 32 << 10;

thread_local! {
    static SPARE: Cell<Option<Box<[u8]>>> = const { Cell::new(None) };
}

/// The buffer, until dropped. What is in it is left from others, and never looked at.
pub(super) struct Scratch(Box<[u8]>);

impl Scratch {
    /// This thread's buffer, or a new one should it be lent out.
    pub(super) fn lend() -> Scratch {
        Scratch(SPARE.take().unwrap_or_else(|| vec![0; SIZE].into_boxed_slice()))
    }

    pub(super) fn bytes(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        SPARE.set(Some(std::mem::take(&mut self.0)));
    }
}
