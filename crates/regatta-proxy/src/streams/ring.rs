//! The last events of one stream, bounded in bytes: what a resume can be served from.
//!
//! Pure. Events carry rising sequence numbers from 1; number 0 is the priming event, which holds nothing.
//! Small events are written into pages, one allocation for several; a page is no larger than what is held already, nor
//! than `PAGE_MAX`, and lives until the last of its events is dropped.
//! When the bound bites the oldest events go first, and a resume from before them is told so, never served
//! with a gap (RELIABILITY V5).

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Bytes of a page. Beyond the bound at most two are held: the free end of the newest, and what is gone of the oldest.
const PAGE_MAX: usize = 4096;

/// Number of an event within its stream.
pub(crate) type Sequence = u64;

/// Bounded store of the newest events.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    events: VecDeque<Bytes>,
    /// Sequence number of the event at the front.
    first: Sequence,
    bytes: usize,
    /// What is free of the newest page.
    page: BytesMut,
}

/// What a reader that has seen everything before a sequence number gets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Look {
    /// The event.
    Event(Bytes),
    /// Not there yet.
    NotYet,
    /// Gone: the bound bit before it was read.
    Lost,
}

impl Ring {
    /// An empty ring; the first event will be number 1.
    pub fn new() -> Ring {
        Ring { events: VecDeque::new(), first: 1, bytes: 0, page: BytesMut::new() }
    }

    /// Adds the event that `write` appends, which should fit in `room`; see [`Ring::push`].
    pub fn write(&mut self, room: usize, bytes_max: usize, write: impl FnOnce(&mut BytesMut)) {
        if self.page.capacity() < room {
            self.page = BytesMut::with_capacity(room.max(self.bytes.min(PAGE_MAX)));
        }
        write(&mut self.page);
        let event = self.page.split().freeze();
        self.push(event, bytes_max);
    }

    /// An empty ring of a stream that goes on here: its next event will be number `next`.
    pub fn going_on(next: Sequence) -> Ring {
        Ring { first: next, ..Ring::new() }
    }

    /// Adds an event; drops the oldest ones until at most `bytes_max` are held, but never the new one.
    pub fn push(&mut self, event: Bytes, bytes_max: usize) {
        self.bytes += event.len();
        self.events.push_back(event);
        while self.bytes > bytes_max && self.events.len() > 1 {
            if let Some(oldest) = self.events.pop_front() {
                self.bytes -= oldest.len();
                self.first += 1;
            }
        }
    }

    /// The number that the next event will have.
    pub fn next(&self) -> Sequence {
        self.first + self.events.len() as u64
    }

    /// The number nearest to `at` whose event is here or the next to come.
    pub fn nearest(&self, at: Sequence) -> Sequence {
        at.clamp(self.first, self.next())
    }

    /// Bytes held, with what is free of the newest page.
    pub fn bytes(&self) -> usize {
        self.bytes + self.page.capacity()
    }

    /// Event number `at`.
    pub fn look(&self, at: Sequence) -> Look {
        let Some(index) = at.checked_sub(self.first) else { return Look::Lost };
        match usize::try_from(index).ok().and_then(|index| self.events.get(index)) {
            Some(event) => Look::Event(event.clone()),
            None => Look::NotYet,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serves_events_in_order_and_from_anywhere() {
        let mut ring = Ring::new();
        for text in ["one", "two", "three"] {
            ring.push(Bytes::from_static(text.as_bytes()), 100);
        }
        assert_eq!(ring.look(1), Look::Event(Bytes::from_static(b"one")));
        assert_eq!(ring.look(3), Look::Event(Bytes::from_static(b"three")));
        assert_eq!(ring.look(4), Look::NotYet);
        assert_eq!(ring.next(), 4);
    }

    #[test]
    fn says_lost_instead_of_leaving_a_gap() {
        let mut ring = Ring::new();
        for _ in 0..10 {
            ring.push(Bytes::from_static(b"12345"), 12);
        }
        assert_eq!(ring.bytes(), 10);
        assert_eq!(ring.look(8), Look::Lost);
        assert_eq!(ring.look(9), Look::Event(Bytes::from_static(b"12345")));
    }

    #[test]
    fn events_share_pages_that_never_outgrow_what_is_held() {
        let mut ring = Ring::new();
        for number in 1..=200u64 {
            ring.write(40, 10_000, |page| page.extend_from_slice(format!("{number:>32}").as_bytes()));
            assert!(ring.page.capacity() <= ring.bytes.min(PAGE_MAX), "{number}");
        }
        assert_eq!(ring.look(7), Look::Event(Bytes::from(format!("{:>32}", 7))));
        assert_eq!(ring.look(200), Look::Event(Bytes::from(format!("{:>32}", 200))));
        ring.write(4, 100, |page| page.extend_from_slice(&[b'x'; 5000]));
        assert_eq!(ring.look(201), Look::Event(Bytes::from(vec![b'x'; 5000])));
        assert_eq!(ring.look(200), Look::Lost);
    }

    #[test]
    fn keeps_an_event_larger_than_the_bound_until_the_next() {
        let mut ring = Ring::new();
        ring.push(Bytes::from_static(b"0123456789"), 4);
        assert_eq!(ring.look(1), Look::Event(Bytes::from_static(b"0123456789")));
        ring.push(Bytes::from_static(b"x"), 4);
        assert_eq!(ring.look(1), Look::Lost);
    }
}
